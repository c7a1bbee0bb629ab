from __future__ import annotations

import numpy as np
import onnx
import pytest

from jptq.engine import Batching, Runner
from jptq.errors import DataError, ModelError, ShapeError, StaticInputError
from tests.engine.quantized import Network, chain, network, samples
from tests.graphs import Graph
from tests.oracles import relative_error, run_onnx
from tests.quant.networks import branches, float_model

SHAPE = (1, 3, 6, 6)


@pytest.fixture(scope="module")
def net() -> Network:
    return network(chain(), samples(1, *SHAPE)[0])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_forward_takes_any_number_of_samples(net: Network, count: int) -> None:
    given = samples(count, *SHAPE)
    joined = {"x": np.concatenate([s["x"] for s in given])}
    (name,) = net.model.output_names
    found = net.runner.forward(None)(joined)[name]
    proto = chain().proto()
    want = np.concatenate([run_onnx(proto, s)[name] for s in given])
    assert relative_error(found, want) < 2e-6


def test_a_quantized_forward_does_not_depend_on_how_samples_are_batched(net: Network) -> None:
    given = samples(7, *SHAPE)
    forward = net.runner.forward(net.table("int8"))
    together = forward({"x": np.concatenate([s["x"] for s in given])})
    apart = [forward(s) for s in given]
    for name, value in together.items():
        one_by_one = np.concatenate([out[name] for out in apart])
        assert relative_error(value, one_by_one) < 1e-6
        assert isinstance(value, np.ndarray)


def test_int16_is_much_nearer_to_float_than_int8(net: Network) -> None:
    sample = samples(1, *SHAPE)[0]
    exact = net.runner.forward(None)(sample)
    errors = []
    for kind in ("int8", "int16"):
        found = net.runner.forward(net.table(kind))(sample)
        errors.append(max(relative_error(found[n], exact[n]) for n in exact))
    assert 0 < errors[1] < errors[0] < 0.1


def test_all_types_run_the_programs_that_are_compiled(net: Network) -> None:
    sample = samples(1, *SHAPE)[0]
    net.runner.forward(net.table("int8"))(sample)
    before = net.runner.compilations.total
    for kind in ("int16", "float32", "int8"):
        net.runner.forward(net.table(kind))(sample)
    assert net.runner.compilations.total == before


def test_a_table_of_floats_is_the_float_model_to_the_bit(net: Network) -> None:
    sample = samples(1, *SHAPE)[0]
    off = net.runner.forward(net.table("float32"))(sample)
    plain = net.runner.forward(None)(sample)
    for name, value in plain.items():
        assert relative_error(off[name], value) < 1e-6


def test_several_outputs_come_in_the_graphs_order() -> None:
    g = branches()
    g.output("a_first")
    g.nodes.append(onnx.helper.make_node("Relu", [g.outputs[0].name], ["a_first"], name="last"))
    runner = Runner(float_model(g), samples(1, 1, 4, 8, 8)[0])
    found = runner.forward(None)(samples(1, 1, 4, 8, 8)[0])
    assert tuple(found) == runner.model.output_names
    assert tuple(found) != tuple(sorted(found))


def test_a_sample_may_itself_be_a_batch() -> None:
    g = Graph()
    g.output(g.add("MatMul", g.input("x", (2, 3)), g.random(3, 4)))
    runner = Runner(
        float_model(g), {"x": np.zeros((2, 3), np.float32)}, batching=Batching(samples=2)
    )
    forward = runner.forward(None)
    x = samples(1, 10, 3)[0]["x"]
    (found,) = forward({"x": x}).values()
    assert found.shape == (10, 4)
    with pytest.raises(ShapeError, match=r"shape \(9, 3\)"):
        forward({"x": x[:9]})


def test_outputs_without_axes_are_listed_per_sample() -> None:
    g = Graph()
    g.output(g.add("ReduceSum", g.input("x", (1, 3)), keepdims=0))
    runner = Runner(float_model(g), samples(1, 1, 3)[0], batching=Batching(samples=2))
    x = samples(1, 5, 3)[0]["x"]
    (found,) = runner.forward(None)({"x": x}).values()
    np.testing.assert_allclose(found, x.sum(1), rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 6, 6), (1, 3, 6, 5), (0, 3, 6, 6), (1, 1, 3, 6, 6)])
def test_a_wrong_shape_is_refused_with_the_right_one(net: Network, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="input 'x' has shape") as caught:
        net.runner.forward(None)({"x": np.zeros(shape, np.float32)})
    assert "(1, 3, 6, 6)" in caught.value.why


def test_a_wrong_dtype_is_refused_and_not_converted(net: Network) -> None:
    with pytest.raises(ShapeError, match="dtype float64") as caught:
        net.runner.forward(None)({"x": np.zeros(SHAPE)})
    assert "float32" in caught.value.why


def test_a_missing_input_is_named(net: Network) -> None:
    with pytest.raises(ShapeError, match="'x'") as caught:
        net.runner.forward(None)({"image": np.zeros(SHAPE, np.float32)})
    assert "image" in caught.value.where


def test_inputs_with_different_numbers_of_samples_are_refused() -> None:
    g = Graph()
    g.output(g.add("Add", g.input("x", (1, 3)), g.input("y", (1, 3))))
    zero = np.zeros((1, 3), np.float32)
    forward = Runner(float_model(g), {"x": zero, "y": zero}).forward(None)
    with pytest.raises(ShapeError, match="different numbers of samples"):
        forward({"x": np.zeros((4, 3), np.float32), "y": np.zeros((2, 3), np.float32)})


def test_more_feeds_than_inputs_are_fine(net: Network) -> None:
    sample = samples(1, *SHAPE)[0]
    net.runner.forward(None)({**sample, "label": np.zeros(3)})


def test_the_last_batch_is_filled_up_and_counted(net: Network) -> None:
    sizes = [
        (feeds["x"].shape[0], count) for feeds, count in net.runner.batches(samples(7, *SHAPE))
    ]
    assert sizes == [(3, 3), (3, 3), (3, 1)]


def test_few_samples_make_a_small_batch(net: Network) -> None:
    sizes = [
        (feeds["x"].shape[0], count) for feeds, count in net.runner.batches(samples(2, *SHAPE))
    ]
    assert sizes == [(2, 2)]


def test_no_samples_make_no_batch(net: Network) -> None:
    assert list(net.runner.batches([])) == []


def test_samples_are_read_when_their_batch_is_run(net: Network) -> None:
    read = []

    class Lazy:
        def __len__(self) -> int:
            return 7

        def __getitem__(self, index: int) -> dict[str, np.ndarray]:
            read.append(index)
            return samples(1, *SHAPE, seed=index)[0]

    batches = net.runner.batches(Lazy())
    next(batches)
    assert read == [0, 1, 2]


def test_inputs_that_are_bound_need_not_be_fed() -> None:
    g = Graph()
    x, shape = g.input("x", (2, 6)), g.input("shape", (2,), onnx.TensorProto.INT64)
    g.output(g.add("Relu", g.add("Reshape", x, shape)))
    feeds = {"x": samples(1, 2, 6)[0]["x"], "shape": np.array([3, 4])}
    runner = Runner(float_model(g), feeds)
    (found,) = runner.forward(None)({"x": feeds["x"]}).values()
    assert found.shape == (3, 4)


def _top(count: int) -> tuple[Runner, dict[str, np.ndarray]]:
    """Return the sum of the ``count`` largest values of ``x``; the number is an input."""
    g = Graph()
    x, k = g.input("x", (1, 6)), g.input("k", (1,), onnx.TensorProto.INT64)
    g.output(g.add("ReduceSum", g.add("TopK", x, k, n_outputs=2), keepdims=1))
    feeds = {"x": np.arange(6, dtype=np.float32)[None], "k": np.array([count])}
    return Runner(float_model(g), feeds), feeds


def test_another_value_of_an_input_that_is_part_of_the_program_is_refused() -> None:
    runner, feeds = _top(1)
    forward = runner.forward(None)
    two = {"x": np.concatenate([feeds["x"], feeds["x"] + 1]), "k": np.array([1, 1])}
    (found,) = forward(two).values()
    np.testing.assert_array_equal(found, [[5], [6]])
    for other in ([5], [1, 5]):
        with pytest.raises(StaticInputError, match="'k' differs"):
            forward({"x": two["x"][: len(other)], "k": np.array(other)})


def test_a_sample_with_another_value_of_such_an_input_is_named() -> None:
    runner, feeds = _top(1)
    assert [count for _, count in runner.batches([feeds, feeds])] == [2]
    with pytest.raises(StaticInputError, match="'k' differs") as caught:
        list(runner.batches([feeds, {**feeds, "k": np.array([5])}]))
    assert caught.value.where == "sample 1"
    with pytest.raises(StaticInputError):
        runner.fitting([feeds, {**feeds, "k": np.array([5])}])[1]


@pytest.mark.parametrize("channels", [1, 2])
def test_another_bias_counts_however_few_channels_there_are(channels: int) -> None:
    g = Graph()
    bias = g.constant(np.zeros(channels, np.float32))
    g.output(g.add("Conv", g.input("x", (1, 3, 6, 6)), g.random(channels, 3, 3, 3), bias))
    runner, sample = Runner(float_model(g), samples(1, *SHAPE)[0]), samples(1, *SHAPE)[0]
    (before,) = runner.forward(None)(sample).values()
    changed = {bias: np.full(channels, 100, np.float32)}
    packed = runner.pack(None, changed)
    shared = runner.sharing(runner.model, changed=changed)
    original = shared.sharing(runner.model, floats={bias: np.zeros(channels, np.float32)})
    compiled = runner.compilations.total
    for forward, shift in (
        (runner.forward(packed), 100),
        (shared.forward(None), 100),
        (original.forward(None), 0),
    ):
        (after,) = forward(sample).values()
        np.testing.assert_allclose(after - before, shift, atol=1e-4)
    assert runner.compilations.total == compiled


def test_a_constant_that_is_part_of_the_program_cannot_be_replaced() -> None:
    g = Graph()
    folded, given = g.constant(np.ones((1, 3), np.float32)), g.random(3, 3)
    doubled = g.add("Mul", folded, g.constant(2.0))
    g.output(g.add("Add", g.add("MatMul", g.input("x", (1, 3)), given), doubled))
    runner = Runner(float_model(g), samples(1, 1, 3)[0])
    new = np.zeros((1, 3), np.float32)
    with pytest.raises(ModelError, match=f"{folded!r} cannot be replaced"):
        runner.pack(None, {folded: new})
    with pytest.raises(ModelError):
        runner.sharing(runner.model, changed={folded: new})
    with pytest.raises(ModelError):
        Runner(runner.model, samples(1, 1, 3)[0], floats={folded: new})
    runner.pack(None, {given: np.zeros((3, 3), np.float32)})


def _counted(op: str, *constants: int) -> Graph:
    """Return an operator on an int64 input and constants, given out as float32."""
    g = Graph()
    i = g.input("i", (4,), onnx.TensorProto.INT64)
    y = g.add(op, i, *(g.constant(np.int64(value)) for value in constants), name="count")
    g.output(g.add("Cast", y, to=onnx.TensorProto.FLOAT))
    return g


@pytest.mark.parametrize("limits", [(0, 2**63 - 1), (-(2**63), 5)])
def test_a_limit_beyond_32_bits_stays_one(
    limits: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    g, feeds = _counted("Clip", *limits), {"i": np.array([-3, 0, 5, 7])}
    (found,) = Runner(float_model(g), feeds).forward(None)(feeds).values()
    (want,) = run_onnx(g.proto(), feeds).values()
    np.testing.assert_array_equal(found, want)
    assert not caplog.records


def test_a_constant_that_32_bits_cannot_hold_is_named(caplog: pytest.LogCaptureFixture) -> None:
    Runner(float_model(_counted("Mul", 10**10)), {"i": np.arange(4)})
    assert "'count' computes with 10000000000" in caplog.text


def test_feeds_that_32_bits_cannot_hold_are_refused() -> None:
    feeds = {"i": np.array([0, 5, 2**33, 1])}
    runner = Runner(float_model(_counted("Add", 1)), {"i": np.arange(4)})
    with pytest.raises(DataError, match=r"'i' holds 8589934592"):
        runner.forward(None)(feeds)
    with pytest.raises(DataError, match="'i'") as caught:
        list(runner.batches([{"i": np.arange(4)}, feeds]))
    assert caught.value.where == "sample 1"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_outputs_without_elements_keep_their_shape(count: int) -> None:
    g = Graph()
    x = g.input("x", (1, 3))
    g.output(g.add("Relu", x))
    g.output(g.add("Slice", x, *(g.constant([value]) for value in (0, 0, 1))))
    runner = Runner(float_model(g), samples(1, 1, 3)[0], batching=Batching(samples=2))
    found = runner.forward(None)({"x": np.ones((count, 3), np.float32)})
    assert [value.shape for value in found.values()] == [(count, 3), (count, 0)]


def test_a_network_without_inputs_gives_its_one_answer() -> None:
    g = Graph()
    weight = g.random(2, 3)
    g.output(g.add("Relu", weight))
    runner = Runner(float_model(g), {})
    for outputs in (runner.forward(None)({}), next(runner.outputs(runner.pack(None), [{}]))[1]):
        (found,) = (np.asarray(value).reshape(2, 3) for value in outputs.values())
        np.testing.assert_array_equal(found, np.maximum(g.constants[weight], 0))


def test_a_network_whose_only_input_is_part_of_the_program_runs() -> None:
    g = Graph()
    g.output(g.add("Expand", g.random(1, 3), g.input("shape", (2,), onnx.TensorProto.INT64)))
    feeds = {"shape": np.array([2, 3])}
    (found,) = Runner(float_model(g), feeds).forward(None)(feeds).values()
    assert found.shape == (2, 3)


def test_constant_outputs_keep_64_bits() -> None:
    g = Graph()
    g.output(g.add("Relu", g.input("x", (1, 3))))
    g.output(g.constant([2**40, -1]), dtype=onnx.TensorProto.INT64)
    found = Runner(float_model(g), samples(1, 1, 3)[0]).forward(None)(samples(1, 1, 3)[0])
    np.testing.assert_array_equal(found[g.outputs[1].name], [2**40, -1])


def test_integer_outputs_are_exact() -> None:
    g = Graph()
    x = g.conv(g.input("x", SHAPE), 3, 6)
    g.output(g.add("ArgMax", x, axis=1, keepdims=0), dtype=onnx.TensorProto.INT64)
    sample = samples(1, *SHAPE)[0]
    (found,) = Runner(float_model(g), sample).forward(None)(sample).values()
    (want,) = run_onnx(g.proto(), sample).values()
    np.testing.assert_array_equal(found, want)
