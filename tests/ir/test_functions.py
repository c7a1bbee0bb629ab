"""Functions of a file: what they stand for is counted before it is written out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
from onnx import helper

from jptq.errors import ModelError
from jptq.ir import functions, load
from tests.graphs import Graph


def saved(path: Path, bodies: Sequence[Sequence[str]], *, inside: bool = False) -> Path:
    """Write a model that calls function f0; the k-th is a chain of these calls."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    g = Graph()
    g.output(g.add("f0", g.input("x", (1, 4)), domain="own"))
    proto = g.proto()
    proto.opset_import.append(imports[1])
    for k, ops in enumerate(bodies):
        nodes = [
            helper.make_node(op, [f"t{i}"], [f"t{i + 1}"], domain="own" if op[0] == "f" else "")
            for i, op in enumerate(ops)
        ]
        if inside:
            result = helper.make_tensor_value_info(nodes[-1].output[0], 1, None)
            branch = helper.make_graph(nodes, "branch", [], [result])
            nodes = [
                helper.make_node("Cast", ["t0"], ["flag"], to=9),
                helper.make_node("If", ["flag"], ["r"], then_branch=branch, else_branch=branch),
            ]
        last = nodes[-1].output[0]
        proto.functions.append(helper.make_function("own", f"f{k}", ["t0"], [last], nodes, imports))
    onnx.save(proto, path)
    return path


def test_calls_are_written_out(tmp_path: Path) -> None:
    model = load(saved(tmp_path / "m.onnx", [["f1", "Relu", "f1"], ["Neg", "Neg"]]))
    assert [node.op for node in model.nodes] == ["Neg", "Neg", "Relu", "Neg", "Neg"]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    ("bodies", "chain"),
    [([["Neg", "f0"]], "f0 -> f0"), ([["f1"], ["Relu", "f2"], ["f1"]], "f1 -> f2 -> f1")],
)
def test_functions_that_call_themselves_are_named(
    tmp_path: Path, bodies: list[list[str]], chain: str, inside: bool
) -> None:
    with pytest.raises(ModelError, match=f"calls itself\\n.*{chain} in .*m.onnx"):
        load(saved(tmp_path / "m.onnx", bodies, inside=inside))


def test_calls_that_stand_for_too_many_nodes_are_counted_not_made(tmp_path: Path) -> None:
    doubling = [[f"f{k + 1}", f"f{k + 1}"] for k in range(31)]
    with pytest.raises(ModelError, match=f"stand for {2**31} nodes"):
        load(saved(tmp_path / "m.onnx", [*doubling, ["Neg"]]))


def test_a_chain_of_many_functions_is_no_recursion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "m.onnx", [*([f"f{k + 1}"] for k in range(3000)), ["Neg"]])
    functions.check_calls(onnx.load(path), path)
    monkeypatch.setattr(functions, "MOST_NODES", 0)
    with pytest.raises(ModelError, match="stand for 1 nodes"):
        functions.check_calls(onnx.load(path), path)
