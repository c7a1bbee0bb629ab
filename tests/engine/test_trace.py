from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from jptq.engine import trace
from jptq.errors import ConfigError, ShapeError, StaticInputError
from jptq.ir import to_proto
from jptq.quant.calibrated import with_assignment, with_thresholds
from jptq.quant.export import to_qdq
from tests.engine.programs import normal
from tests.engine.quantized import chain, network, samples
from tests.graphs import Graph
from tests.oracles import relative_error, run_onnx
from tests.quant.networks import float_model, placed

INT64 = onnx.TensorProto.INT64


def _net() -> Graph:
    g = Graph()
    x = g.add("Tanh", g.conv(g.input("x", (1, 3, 4, 4)), 3, 5))
    g.output(g.add("ReduceMean", x, axes=[2, 3], keepdims=0), x)
    return g


def test_a_traced_graph_is_a_function_of_feeds() -> None:
    g, feeds = _net(), {"x": normal(1, 3, 4, 4)}
    found = trace(float_model(g), feeds)(feeds)
    expected = run_onnx(g.proto(), feeds)
    assert list(found) == list(expected)
    for name, want in expected.items():
        assert relative_error(np.asarray(found[name]), want) < 2e-6


def test_it_is_differentiable_by_feeds_and_weights() -> None:
    feeds = {"x": normal(1, 3, 4, 4)}
    forward = trace(float_model(_net()), feeds)
    name = next(iter(forward(feeds)))

    def loss(weights: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return jnp.sum(forward.apply(weights, {"x": x})[name] ** 2)

    by_weights, by_x = jax.jit(jax.grad(loss, (0, 1)))(forward.weights, feeds["x"])
    assert set(by_weights) == set(forward.weights)
    step = 1e-2 * normal(1, 3, 4, 4, seed=1)
    value = jax.jit(loss)
    slope = float(value(forward.weights, feeds["x"] + step)) - float(
        value(forward.weights, feeds["x"] - step)
    )
    assert slope / 2 == pytest.approx(float(jnp.vdot(by_x, step)), rel=1e-2)


def test_inputs_that_shapes_depend_on_are_bound_and_listed() -> None:
    g = Graph()
    x, shape = g.input("x", (2, 6)), g.input("shape", (2,), INT64)
    g.output(g.add("Reshape", x, shape))
    forward = trace(float_model(g), {"x": normal(2, 6), "shape": np.array([3, 4])})
    assert forward.static_inputs == ("shape",)
    (found,) = forward({"x": normal(2, 6)}).values()
    assert found.shape == (3, 4)


def test_integers_of_64_bits_stay_so() -> None:
    g = Graph()
    x = g.input("x", (3,), INT64)
    g.output(g.add("Add", x, g.constant([1, 1, 1])), dtype=INT64)
    feeds = {"x": np.array([2**40, -(2**50), 7])}
    (found,) = trace(float_model(g), feeds)(feeds).values()
    assert found.dtype == np.int64
    np.testing.assert_array_equal(np.asarray(found), feeds["x"] + 1)


def test_integers_of_64_bits_stay_so_between_narrow_inputs_and_outputs() -> None:
    g = Graph()
    best = g.add("ArgMax", g.input("x", (2, 3)), axis=1, keepdims=0)
    far = g.add("Mul", best, g.constant(np.int64(10**10)))
    g.output(g.add("Cast", far, to=onnx.TensorProto.FLOAT))
    feeds = {"x": np.array([[0, 1, 0], [0, 1, 2]], np.float32)}
    (found,) = trace(float_model(g), feeds)(feeds).values()
    np.testing.assert_array_equal(found, run_onnx(g.proto(), feeds)[g.outputs[0].name])


def test_a_limit_beyond_32_bits_stays_one_in_a_program_of_the_caller() -> None:
    g = Graph()
    whole = g.add("Cast", g.input("x", (3,)), to=INT64)
    bounded = g.add("Clip", whole, g.constant(np.int64(0)), g.constant(np.int64(2**63 - 1)))
    g.output(g.add("Cast", bounded, to=onnx.TensorProto.FLOAT))
    forward = trace(float_model(g), {"x": np.zeros(3, np.float32)})
    x = np.array([-2, 3, 8], np.float32)
    (found,) = jax.jit(forward.apply)(forward.weights, {"x": x}).values()
    np.testing.assert_array_equal(found, [0, 3, 8])


def test_doubles_stay_so() -> None:
    g = Graph()
    x = g.input("x", (3,), onnx.TensorProto.DOUBLE)
    g.output(g.add("Exp", x), dtype=onnx.TensorProto.DOUBLE)
    feeds = {"x": np.array([0.1, 1.0, -3.0])}
    (found,) = trace(float_model(g), feeds)(feeds).values()
    assert relative_error(np.asarray(found), np.exp(feeds["x"])) < 1e-15


def test_feeds_of_another_shape_are_refused() -> None:
    feeds = {"x": normal(1, 3, 4, 4)}
    forward = trace(float_model(_net()), feeds)
    with pytest.raises(ShapeError, match="'x'"):
        forward({"x": normal(2, 3, 4, 4)})


def test_feeds_of_another_dtype_are_refused() -> None:
    forward = trace(float_model(_net()), {"x": normal(1, 3, 4, 4)})
    with pytest.raises(ShapeError, match="'x' has dtype int32") as caught:
        forward({"x": np.ones((1, 3, 4, 4), np.int32)})
    assert "float32" in caught.value.why


def test_a_missing_feed_is_named() -> None:
    forward = trace(float_model(_net()), {"x": normal(1, 3, 4, 4)})
    with pytest.raises(ShapeError, match="'x'"):
        forward({"y": normal(1, 3, 4, 4)})


def test_a_length_that_shapes_are_computed_from_binds_no_input() -> None:
    g = Graph()
    x = g.add("Relu", g.input("x", ("n", 2, 3)))
    rows = g.add("Gather", g.add("Shape", "x"), g.constant([0]))
    g.output(g.add("Reshape", x, g.add("Concat", rows, g.constant([-1]), axis=0)))
    forward = trace(float_model(g), {"x": normal(4, 2, 3)})
    assert forward.static_inputs == ()
    other = {"x": normal(4, 2, 3, seed=1)}
    (found,), (want,) = forward(other).values(), run_onnx(g.proto(), other).values()
    np.testing.assert_array_equal(found, want)


def test_another_value_of_a_bound_input_is_refused() -> None:
    g = Graph()
    g.output(g.add("Reshape", g.input("x", (2, 6)), g.input("shape", (2,), INT64)))
    forward = trace(float_model(g), {"x": normal(2, 6), "shape": np.array([3, 4])})
    forward({"x": normal(2, 6), "shape": np.array([3, 4])})
    with pytest.raises(StaticInputError, match="'shape' differs"):
        forward({"x": normal(2, 6), "shape": np.array([4, 3])})


def test_a_calibrated_graph_computes_with_its_own_quantizers() -> None:
    sample = samples(1, 1, 3, 6, 6)[0]
    net = network(chain(), sample)
    held = {
        c.name: net.thresholds[c.name][: None if c.constant else 1] for c in net.plan.calibrations
    }
    model = with_assignment(with_thresholds(net.model, held), {"x_HzCalibration": "int16"})
    forward = trace(model, sample)
    (found,) = forward(sample).values()
    (want,) = run_onnx(to_proto(to_qdq(model)), sample).values()
    (exact,) = run_onnx(chain().proto(), sample).values()
    assert relative_error(np.asarray(found), want) < 1e-5
    assert relative_error(np.asarray(found), exact) > 1e-3
    (name,) = model.output_names
    total = lambda x: jnp.sum(forward.apply(forward.weights, {"x": x})[name])  # noqa: E731
    slope = np.asarray(jax.jit(jax.grad(total))(sample["x"]))
    assert np.abs(slope).max() > 0


def test_a_graph_whose_quantizers_have_no_thresholds_is_refused() -> None:
    with pytest.raises(ConfigError, match="no thresholds") as caught:
        trace(placed(chain()), samples(1, 1, 3, 6, 6)[0])
    assert "jptq calibrate" in caught.value.hint
