"""Sequences and optionals through whole graphs, against onnxruntime and ONNX's evaluator."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import onnx
import pytest
from onnx import helper

from jptq.engine import Runner, trace
from jptq.errors import ModelError, ShapeError, StaticInputError, UnsupportedOpError
from jptq.ir import Model, load
from jptq.ir.load import from_bytes
from tests.engine.programs import normal
from tests.graphs import Graph
from tests.oracles import run_onnx
from tests.quant.networks import float_model

FLOAT, INT64, TEXT = (getattr(onnx.TensorProto, t) for t in ("FLOAT", "INT64", "STRING"))
TENSOR = helper.make_tensor_type_proto(FLOAT, None)
SEQUENCE = helper.make_sequence_type_proto(TENSOR)


def _sequences() -> Graph:
    """Part a tensor, change the middle part, and join the parts in another order."""
    g = Graph()
    parts = g.add("SplitToSequence", g.input("x", (2, 6)), g.constant([1, 3, 2]), axis=1)
    middle = g.add("Relu", g.add("SequenceAt", parts, g.constant(np.int64(-2))))
    fewer = g.add("SequenceErase", parts, g.constant(np.int64(1)))
    more = g.add("SequenceInsert", fewer, middle, g.constant(np.int64(0)))
    g.output(g.add("ConcatFromSequence", more, axis=1))
    g.output(g.add("SequenceLength", more), dtype=INT64)
    return g


def _through(kind: onnx.TypeProto, op: str = "Identity") -> Model:
    """Return a graph of one operator whose input and output are of a type."""
    ends = [helper.make_value_info(name, kind) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], name="n")], "g", *zip(ends))
    opset = [helper.make_opsetid("", 18)]
    return from_bytes(helper.make_model(graph, opset_imports=opset).SerializeToString())


def test_sequences_of_known_length_compute_what_onnxruntime_computes() -> None:
    g, feeds = _sequences(), {"x": normal(2, 6)}
    found = trace(float_model(g), feeds)(feeds)
    for name, want in run_onnx(g.proto(), feeds).items():
        np.testing.assert_array_equal(np.asarray(found[name]), want)


def test_gradients_and_samples_pass_through_them() -> None:
    feeds = {"x": normal(2, 6)}
    forward = trace(float_model(_sequences()), feeds)
    name = next(iter(forward(feeds)))

    def total(x: jax.Array) -> jax.Array:
        return forward.apply(forward.weights, {"x": x})[name].sum()

    kept = np.ones((2, 6))
    kept[:, 1:4] = feeds["x"][:, 1:4] > 0
    np.testing.assert_array_equal(np.asarray(jax.grad(total)(feeds["x"])), kept)
    stacked = np.stack([feeds["x"], -feeds["x"]])
    together = jax.vmap(lambda x: forward.apply(forward.weights, {"x": x})[name])(stacked)
    np.testing.assert_array_equal(
        np.asarray(together)[1], np.asarray(forward({"x": -feeds["x"]})[name])
    )


def test_a_loop_that_collects_a_sequence_is_written_out() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["on_"]),
            helper.make_node("Cast", ["i"], ["f"], to=FLOAT),
            helper.make_node("Mul", ["x", "f"], ["scaled"]),
            helper.make_node("SequenceInsert", ["held", "scaled"], ["held_"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", INT64, ()),
            helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, ()),
            helper.make_value_info("held", SEQUENCE),
        ],
        [
            helper.make_tensor_value_info("on_", onnx.TensorProto.BOOL, ()),
            helper.make_value_info("held_", SEQUENCE),
        ],
    )
    g, feeds = Graph(), {"x": normal(1, 3)}
    g.input("x", (1, 3))
    start = g.add("SequenceEmpty")
    trips, on = g.constant(np.int64(20)), g.constant(np.asarray(True))
    g.output(g.add("ConcatFromSequence", g.add("Loop", trips, on, start, body=body), axis=0))
    (found,) = trace(float_model(g), feeds)(feeds).values()
    np.testing.assert_allclose(np.asarray(found), feeds["x"] * np.arange(20)[:, None], rtol=1e-6)


@pytest.mark.parametrize("lengths", [(), (2, 2), (2, 5, 1)])
def test_sequences_go_in_and_out_as_tuples(lengths: tuple[int, ...]) -> None:
    given = [normal(n) for n in lengths]
    (y,) = trace(_through(SEQUENCE), {"x": given})({"x": given}).values()  # type: ignore[dict-item]
    assert isinstance(y, tuple)
    for stacked in (np.asarray, np.shape):
        with pytest.raises(ShapeError, match="a sequence of"):
            stacked(y)
    assert [np.asarray(part).tolist() for part in y] == [part.tolist() for part in given]


@pytest.mark.parametrize("inner", [TENSOR, SEQUENCE])
def test_an_optional_is_there_or_not_while_tracing(inner: onnx.TypeProto) -> None:
    model = _through(helper.make_optional_type_proto(inner))
    there: Any = normal(3) if inner is TENSOR else (normal(3),)
    for value in (None, there):
        (y,) = trace(model, {"x": value})({"x": value}).values()
        assert type(y) is type(None) or isinstance(y, tuple) == isinstance(value, tuple)
        np.testing.assert_array_equal(jax.tree.leaves(y), jax.tree.leaves(value))


@pytest.mark.parametrize("other", [[], [normal(2)] * 3, normal(2, 2)])
def test_another_structure_than_the_examples_is_refused(other: Any) -> None:
    forward = trace(_through(SEQUENCE), {"x": [normal(2)] * 2})  # type: ignore[dict-item]
    with pytest.raises(ShapeError, match="'x' is a"):
        forward({"x": other})


def test_a_position_that_is_computed_is_bound_or_refused() -> None:
    g = Graph()
    parts = g.add("SplitToSequence", g.input("x", (2, 3)), axis=1)
    g.output(g.add("SequenceAt", parts, g.input("which", (), INT64), name="at"))
    feeds = {"x": normal(2, 3), "which": np.int64(2)}
    forward = trace(float_model(g), feeds)
    assert forward.static_inputs == ("which",)
    with pytest.raises(StaticInputError, match="which") as caught:
        forward({**feeds, "which": np.int64(1)})
    assert "'at'" in caught.value.why
    assert "position" in caught.value.why


def test_positions_beyond_the_sequence_name_the_node() -> None:
    g = Graph()
    parts = g.add("SplitToSequence", g.input("x", (2, 3)), axis=1)
    g.output(g.add("SequenceAt", parts, g.constant(np.int64(3)), name="/head/At"))
    with pytest.raises(ShapeError, match="position 3 in a sequence of 3") as caught:
        trace(float_model(g), {"x": normal(2, 3)})
    assert "/head/At" in caught.value.where


def test_samples_are_tensors_so_sequences_at_the_ends_are_refused() -> None:
    with pytest.raises(ModelError, match="sequences") as caught:
        Runner(_through(SEQUENCE), {"x": [normal(2)] * 2})  # type: ignore[dict-item]
    assert "'x', 'y'" in caught.value.where


def test_a_sequence_inside_is_none_of_a_runners_business() -> None:
    feeds = {"x": normal(2, 6)}
    runner = Runner(float_model(_sequences()), feeds)
    found = runner.run(runner.float_weights, {"x": feeds["x"][None]})
    want = run_onnx(_sequences().proto(), feeds)
    assert {n: np.asarray(y)[0].tolist() for n, y in found.items()} == {
        n: y.tolist() for n, y in want.items()
    }
    parts = _sequences().proto().graph.node[0].output[0]
    assert runner.program.shapes[parts] == (12,)


def test_text_is_refused_for_what_it_is() -> None:
    g = Graph(opset=19)  # before, Equal takes none
    a, b = g.input("a", (2,), TEXT), g.input("b", (2,), TEXT)
    g.output(g.add("Equal", a, b, name="same"), dtype=onnx.TensorProto.BOOL)
    words = np.array(["one", "two"], object)
    with pytest.raises(UnsupportedOpError, match="Equal of text") as caught:
        trace(float_model(g), {"a": words, "b": words})
    assert "'a', 'b'" in caught.value.where


def test_the_type_of_an_optional_survives_saving(tmp_path: Any) -> None:
    node = helper.make_node("Optional", [], ["y"], name="n", type=SEQUENCE)
    kind = helper.make_optional_type_proto(SEQUENCE)
    graph = helper.make_graph([node], "g", [], [helper.make_value_info("y", kind)])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    onnx.save(proto, tmp_path / "m.onnx")
    from jptq.ir import save

    save(load(tmp_path / "m.onnx"), tmp_path / "again.onnx")
    (again,) = onnx.load(tmp_path / "again.onnx").graph.node
    assert again.attribute[0].tp == SEQUENCE
