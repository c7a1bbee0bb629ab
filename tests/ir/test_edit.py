"""Edits of a frozen model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jptq.errors import ModelError
from jptq.ir import Model, Node, extract, insert_on_tensors, prune, rename, replace_node, to_bytes
from jptq.ir import with_nodes as rebuilt
from tests.graphs import Graph, conv_net, feeds_for
from tests.ir.agreement import loaded
from tests.ir.test_save import branching_model
from tests.oracles import run_onnx


def negation(tensor: str) -> Node:
    return Node(name=f"{tensor}_negated", op="Neg", inputs=(tensor,), outputs=(f"{tensor}_n",))


def diamond() -> Model:
    """Return ``out = relu(-x) + w``, with relu(-x) and the sum as outputs."""
    g = Graph()
    g.input("x", (4,))
    relu = g.add("Relu", g.add("Neg", "x", name="neg"), name="relu")
    g.constant(np.arange(4, dtype=np.float32), "w")
    g.output(relu, g.add("Add", relu, "w", name="add"))
    return loaded(g.proto())


X = np.array([-2, -1, 0.5, 1], np.float32)


def run(model: Model) -> list[list[float]]:
    return [array.tolist() for array in run_onnx(to_bytes(model), {"x": X}).values()]


def test_nodes_that_are_in_order_stay_where_they_are() -> None:
    model = loaded(conv_net())
    assert rebuilt(model, model.nodes).nodes == model.nodes


def test_nodes_in_any_order_are_sorted() -> None:
    model = loaded(conv_net())
    assert to_bytes(rebuilt(model, model.nodes[::-1])) != b""
    assert run_sorted(rebuilt(model, model.nodes[::-1]))


def run_sorted(model: Model) -> bool:
    known = {*model.input_names, *model.initializers}
    for node in model.nodes:
        if not known.issuperset(node.reads):
            return False
        known.update(node.outputs)
    return True


def test_dangling_doubled_and_circular_tensors_are_named() -> None:
    model = diamond()
    with pytest.raises(ModelError, match="'neg:0' is read but never written"):
        rebuilt(model, model.nodes[1:])
    with pytest.raises(ModelError, match="'neg:0' is written twice"):
        rebuilt(model, (*model.nodes, dataclasses.replace(model.nodes[0], name="again")))
    with pytest.raises(ModelError, match="graph output 'add:0' is not written"):
        rebuilt(model, model.nodes[:-1])
    circle = dataclasses.replace(model.nodes[0], inputs=("relu:0",))
    with pytest.raises(ModelError, match="cycle"):
        rebuilt(model, (circle, *model.nodes[1:]))


def test_an_insertion_reaches_every_reader_but_not_the_graph_output() -> None:
    model = insert_on_tensors(diamond(), {"relu:0": [negation("relu:0")]})
    assert [node.name for node in model.nodes] == ["neg", "relu", "relu:0_negated", "add"]
    assert run(model) == [[2, 1, 0, 0], [-2, 0, 2, 3]]


def test_an_insertion_may_reach_the_graph_output_too() -> None:
    model = insert_on_tensors(diamond(), {"relu:0": [negation("relu:0")]}, graph_outputs=True)
    assert model.output_names == ("relu:0", "add:0")
    assert run(model) == [[-2, -1, 0, 0], [-2, 0, 2, 3]]


def test_insertions_on_inputs_and_constants_and_chains() -> None:
    scale = Node(name="s", op="Mul", inputs=("w_n", "two"), outputs=("w_s",))
    model = insert_on_tensors(
        diamond(),
        {"x": [negation("x")], "w": [negation("w"), scale]},
        initializers={"two": np.array(2, np.float32)},
    )
    assert run(model) == [[0, 0, 0.5, 1], [0, -2, -3.5, -5]]


def test_an_insertion_is_seen_inside_subgraphs() -> None:
    model = insert_on_tensors(loaded(branching_model()), {"x": [negation("x")]})
    found = run(model)
    expected = run_onnx(branching_model(), {"x": -X})
    assert found == [array.tolist() for array in expected.values()]


def test_a_node_is_replaced_in_its_place() -> None:
    model = diamond()
    new = (
        Node(name="double", op="Add", inputs=("neg:0", "neg:0"), outputs=("d",)),
        Node(name="abs", op="Abs", inputs=("d",), outputs=("relu:0",)),
    )
    changed = replace_node(model, "relu", new)
    assert [node.name for node in changed.nodes] == ["neg", "double", "abs", "add"]
    assert run(changed)[0] == [4, 2, 1, 2]
    assert run(model)[0] == [2, 1, 0, 0]


def test_a_renamed_tensor_is_renamed_everywhere() -> None:
    model = rename(diamond(), {"relu:0": "r", "w": "weight", "x": "in", "add:0": "sum"})
    assert model.input_names == ("in",)
    assert model.output_names == ("r", "sum")
    assert list(model.initializers) == ["weight"]
    assert list(run_onnx(to_bytes(model), {"in": X})) == ["r", "sum"]


def test_renaming_reaches_into_subgraphs() -> None:
    model = rename(loaded(branching_model()), {"x": "in", "y": "out"})
    expected = run_onnx(branching_model(), {"x": X})
    found = run_onnx(to_bytes(model), {"in": X})
    for a, b in zip(found.values(), expected.values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_extraction_gives_a_tensor_out_and_drops_the_rest() -> None:
    proto = conv_net()
    tensor = "/block/residual:0"
    part = extract(loaded(proto), [tensor])
    assert part.output_names == (tensor,)
    assert part.nodes[-1].name == "/block/residual"
    assert part.initializers.keys() < loaded(proto).initializers.keys()
    feeds = feeds_for(proto)
    assert run_onnx(to_bytes(part), feeds)[tensor].shape == (1, 8, 8, 8)


def test_extraction_of_what_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match="no tensor 'nowhere'"):
        extract(diamond(), ["nowhere"])


def test_pruning_keeps_inputs_and_what_outputs_need() -> None:
    model = diamond()
    cut = prune(dataclasses.replace(model, outputs=model.outputs[:1]))
    assert [node.name for node in cut.nodes] == ["neg", "relu"]
    assert cut.initializers == {}
    assert cut.input_names == ("x",)
