from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from jptq.engine import TableQuantizer
from jptq.quant.assign import Table
from tests.engine.integers import (
    FEATURE_STEP,
    WEIGHT_STEPS,
    Products,
    kept,
    products,
    target,
)
from tests.graphs import Graph

BITS = 14
X = np.random.default_rng(0).integers(-127, 128, (1, 4, 5, 5)).astype(np.float32)
ROWS = np.random.default_rng(1).integers(-127, 128, (1, 6, 8)).astype(np.float32)
BIAS = np.array([3.0, -40.0, 0.01, 900.0])
"""In the network's unit; two of them leave 14 bits."""


def integers(*shape: int) -> np.ndarray:
    """Return a weight whose sums partly fit 14 bits."""
    return np.random.default_rng(sum(shape)).integers(-30, 31, shape).astype(np.float32)


def convolutions(g: Graph) -> None:
    x = g.input("x", X.shape)
    zero = np.zeros(4, np.float32)

    def conv(name: str, *weight: int, op: str = "Conv", **attributes: object) -> None:
        g.output(
            g.add(
                op,
                x,
                g.constant(integers(*weight), f"{name}_w"),
                g.constant(zero, f"{name}_b"),
                name=name,
                **attributes,
            )
        )

    conv("dense", 4, 4, 3, 3, pads=[1] * 4)
    conv("pointwise", 4, 4, 1, 1)
    conv("grouped", 4, 2, 3, 3, group=2)
    conv("depthwise", 4, 1, 3, 3, group=4)
    conv("transposed", 4, 2, 2, 2, op="ConvTranspose", group=2, strides=[2, 2])


def matrices(g: Graph) -> None:
    x = g.input("x", ROWS.shape)
    product = g.add("MatMul", x, g.constant(integers(8, 4), "matmul_w"), name="matmul")
    g.output(g.add("Add", product, g.constant(np.zeros(4, np.float32), "matmul_b"), name="added"))


NAMES = {
    convolutions: ("dense", "pointwise", "grouped", "depthwise", "transposed"),
    matrices: ("matmul",),
}


def network(build, beyond: str, **options: bool) -> Products:  # type: ignore[no-untyped-def]
    feeds = {"x": X if build is convolutions else ROWS}
    biases = {f"{name}_b": BIAS for name in NAMES[build]}
    on = target(
        beyond=beyond,
        bias_bits=BITS,
        int8_bits=BITS,
        bias_int16_bits=40,
        int16_int8_bits=BITS + 6,
        int16_bits=40,
    )
    return products(build, feeds, on, biases=biases, **options)


def units(name: str, axis: int, rank: int) -> np.ndarray:
    # Two groups of a transposed convolution share the scales of their two channels.
    steps = np.tile(WEIGHT_STEPS[:2], 2) if name == "transposed" else WEIGHT_STEPS
    shape = [1] * rank
    shape[axis] = -1
    return (FEATURE_STEP * steps).reshape(shape)


@pytest.mark.parametrize(
    ("build", "beyond"),
    [
        pytest.param(convolutions, "saturates", marks=pytest.mark.slow),
        (matrices, "saturates"),
        (matrices, "wraps"),
    ],
)
def test_strict_sums_are_those_of_integers_of_the_targets_width(build, beyond: str) -> None:  # type: ignore[no-untyped-def]
    found = network(build, beyond)
    feeds = {"x": X if build is convolutions else ROWS}
    axis = 1 if build is convolutions else -1
    ours = found.runner.forward(found.table("int8"))({"x": feeds["x"] * np.float32(FEATURE_STEP)})
    for (output, sums), name in zip(found.sums(feeds).items(), NAMES[build], strict=True):
        unit = units(name, axis, sums.ndim)
        shape = [1] * sums.ndim
        shape[axis] = -1
        bias = kept(np.rint(BIAS.reshape(shape) / unit).astype(np.int64), BITS, "saturates")
        whole = kept(sums, BITS, beyond) + bias
        outside = np.abs(whole) > 1 << (BITS - 1)
        assert outside.any(), name
        assert not outside.all(), name
        expected = kept(whole, BITS, beyond) * unit
        np.testing.assert_array_equal(ours[output], expected.astype(np.float32), err_msg=name)


def test_int16_features_are_added_in_the_width_of_their_types() -> None:
    found = network(matrices, "saturates")
    x = ROWS * np.float32(FEATURE_STEP)
    step = np.float32(127 * FEATURE_STEP) / np.float32(32767)
    sums = np.rint(x / step).astype(np.int64) @ found.graph.constants["matmul_w"].astype(np.int64)
    unit = float(step) * WEIGHT_STEPS
    bias = kept(np.rint(BIAS / unit).astype(np.int64), BITS, "saturates")
    expected = kept(kept(sums, BITS + 6, "saturates") + bias, BITS + 6, "saturates") * unit
    assert (np.abs(sums) > 1 << (BITS + 5)).any()
    (ours,) = found.runner.forward(found.table("int16"))({"x": x}).values()
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_a_product_with_a_float_operand_stays_exact() -> None:
    found = network(matrices, "saturates")
    loose = network(matrices, "saturates", strict=False)
    features = next(c.name for c in found.plan.calibrations if c.kind == "feature")
    for kind in ("float32", "float16"):
        table = found.table("int8", **{features: kind})
        feeds = {"x": ROWS * np.float32(FEATURE_STEP)}
        (strict,), (exact,) = (one.runner.forward(table)(feeds).values() for one in (found, loose))
        np.testing.assert_array_equal(strict, exact)


def test_strictness_costs_nothing_where_it_is_off() -> None:
    found = network(matrices, "saturates", strict=False)
    table: Table = jax.tree.map(jnp.asarray, found.table("int8"))
    program = found.runner.program
    packed = found.runner.pack(table).weights

    def traced(plan) -> str:  # type: ignore[no-untyped-def]
        run = lambda p, t, v: program.run(p, TableQuantizer(plan, t), v)  # noqa: E731
        return str(jax.make_jaxpr(run)(packed, table, {"x": jnp.asarray(ROWS)}))

    assert traced(found.plan) == traced(dataclasses.replace(found.plan, sums=()))


def test_another_configuration_compiles_nothing_where_it_is_on() -> None:
    found = network(matrices, "saturates")
    feeds = {"x": ROWS}
    found.runner.forward(found.table("int8"))(feeds)
    before = found.runner.compilations.total
    for kind in ("int16", "float32", "int8"):
        found.runner.forward(found.table(kind))(feeds)
    assert found.runner.compilations.total == before


def test_scales_whose_product_is_no_float32_give_numbers() -> None:
    found = network(matrices, "saturates")
    table = found.table("int8")
    tiny = dataclasses.replace(table, scale=np.full_like(table.scale, 1e-30))
    (ours,) = found.runner.forward(tiny)({"x": ROWS}).values()
    assert np.isfinite(ours).all()


# --- what onnxruntime's integer kernels do: they wrap -------------------------------------------


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """Return a session as users open one."""
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def onnx_model(nodes, inputs, outputs, constants: dict[str, np.ndarray]) -> onnx.ModelProto:  # type: ignore[no-untyped-def]
    arrays = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    graph = helper.make_graph(nodes, "integers", inputs, outputs, arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_bias_near_the_end_of_int32_adds_up_as_in_qlinearconv() -> None:
    on = target(beyond="wraps")
    weight = integers(4, 4, 3, 3)

    def build(g: Graph) -> None:
        zero = g.constant(np.zeros(4, np.float32), "b")
        g.output(g.add("Conv", g.input("x", X.shape), g.constant(weight, "w"), zero, name="conv"))

    unit = FEATURE_STEP * WEIGHT_STEPS
    near = np.array([2.0**31 - 2**10, -(2.0**31) + 2**10, 2.0**40, 12345.0])
    found = products(build, {"x": X}, on, biases={"b": near * unit})
    (ours,) = found.runner.forward(found.table("int8"))(
        {"x": X * np.float32(FEATURE_STEP)}
    ).values()

    step = np.float32(2.0**13)  # of the result: its range is that of int32 in the first channel
    constants = {
        "w": weight.astype(np.int8),
        "b": np.clip(near, -(2**31), 2**31 - 1).astype(np.int32),
        "sx": np.float32(FEATURE_STEP),
        "sw": WEIGHT_STEPS.astype(np.float32),
        "sy": step,
        "z": np.int8(0),
        "zw": np.zeros(4, np.int8),
    }
    node = helper.make_node("QLinearConv", ["x", "sx", "z", "w", "sw", "zw", "sy", "z", "b"], ["y"])
    shape = [1, 4, 3, 3]
    model = onnx_model(
        [node],
        [helper.make_tensor_value_info("x", onnx.TensorProto.INT8, X.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT8, shape)],
        constants,
    )
    (theirs,) = session(model).run(None, {"x": X.astype(np.int8)})
    steps = np.clip(np.rint(ours / step), -128, 127)
    assert (np.sign(steps[0, 0]) < 0).any()  # a positive bias wrapped
    np.testing.assert_array_equal(steps, theirs)


def test_a_long_sum_wraps_as_in_matmulinteger() -> None:
    count = 150_000
    x = np.full((1, 1, count), -127, np.float32)
    on = target(beyond="wraps")

    def build(g: Graph) -> None:
        weight = np.stack([np.full(count, v) for v in (-127, 127, 100, 1)], axis=1)
        g.output(g.add("MatMul", g.input("x", x.shape), g.constant(weight.astype(np.float32), "w")))

    found = products(build, {"x": x}, on, biases={})
    (ours,) = found.runner.forward(found.table("int8"))(
        {"x": x * np.float32(FEATURE_STEP)}
    ).values()
    model = onnx_model(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        [helper.make_tensor_value_info("x", onnx.TensorProto.INT8, x.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT32, [1, 1, 4])],
        {"w": found.graph.constants["w"].astype(np.int8)},
    )
    (theirs,) = session(model).run(None, {"x": x.astype(np.int8)})
    assert theirs[0, 0, 0] < 0 < theirs[0, 0, 1]  # both wrapped
    # Float32 loses 0.2 % of so long a sum.
    np.testing.assert_allclose(ours / (FEATURE_STEP * WEIGHT_STEPS), theirs, atol=2.0**31 * 1e-2)
