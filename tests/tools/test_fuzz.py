"""Random graphs: what is made, what is seen, and that nothing is wrong with 100 of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from jptq.engine import trace
from jptq.ir import from_bytes
from jptq.ops import Kind, registry
from tests.graphs import Graph
from tests.oracles import run_onnx
from tools.fuzz import corpus, graphs, minimize, oracle, reasons, report
from tools.fuzz.catalogue import OPERATORS
from tools.fuzz.compare import misplaced, unequal
from tools.fuzz.judge import Finding, judge

SEED, PARTS, PART = 0, 2, 50
"""The first of the 500 graphs that `.ci/run` judges."""

_LATER = {"BitCast", "CumProd", "SwiGLU", "Swish", "TensorScatter"}
"""Came after the last opset that graphs are made of."""

_WITHOUT_FLOATS: set[str] = set()
"""Are never quantized, for all that their traits say."""


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_wrong_with_random_graphs(part: int) -> None:
    *_, done = report.run(SEED, part * PART, PART)
    assert done.cases == PART
    assert not done.unexplained, "\n".join(map(str, done.unexplained))


@pytest.mark.slow
def test_nothing_is_wrong_with_graphs_that_showed_a_fault_once() -> None:
    cases = corpus.load()
    assert cases
    unexplained = [f for f in judge(cases, everything=True).findings if not f.explained]
    assert not unexplained, "\n".join(map(str, unexplained))


def test_a_seed_is_a_graph() -> None:
    one, again, other = (graphs.case_of(3, i) for i in (5, 5, 6))
    assert one.content == again.content
    assert one.content != other.content
    for name, array in one.samples[0].items():
        np.testing.assert_array_equal(array, again.samples[0][name])


def test_a_network_has_thirty_nodes_or_more() -> None:
    case = graphs.network(0, 0)
    nodes = [node for node in case.model.graph.node if node.op_type != "Constant"]
    assert 30 <= len(nodes) <= 70  # an operator may be written in several
    assert case.long
    assert len({node.op_type for node in nodes}) > 10
    assert all(np.isfinite(a).all() for a in case.expected[0].values() if a.dtype.kind == "f")


def test_every_operator_that_a_target_quantizes_is_drawn() -> None:
    drawn = {op for entry in OPERATORS.values() for op in entry.ops}
    kinds = (Kind.COMPUTE, Kind.VIEW, Kind.FUSABLE)
    known = {e.name for e in registry.registered() if not e.domain and e.traits.kind in kinds}
    assert known - drawn - _LATER <= _WITHOUT_FLOATS


def _singular(op: str) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Return a graph that shows a reason, and its feeds."""
    if op == "MaxPool":
        g = Graph(13)
        x = g.input("x", (1, 1, 6, 6))
        given: dict[str, Any] = {"kernel_shape": [2, 2], "dilations": [2, 2]}
        g.output(g.add(op, x, auto_pad="SAME_UPPER", **given))
        return g.proto(), {"x": np.arange(36, dtype=np.float32).reshape(1, 1, 6, 6)}
    if op == "AffineGrid":
        g = Graph(20)
        x = g.input("x", (1, 2, 3))
        g.output(g.add(op, x, g.constant([1, 1, 3, 1]), align_corners=1))
        return g.proto(), {"x": np.float32([[[1, 2, 3], [4, 5, 6]]])}
    g = Graph(13)
    g.output(g.add("MeanVarianceNormalization", g.input("x", (1, 2, 2, 3)), axes=[2, 3]))
    return g.proto(), {"x": np.full((1, 2, 2, 3), 1.0, np.float32)}


# Results by hand. The pool: the far tap of a window that begins one place before. The grid: from -1
# along the axis of one place. The normalisation: 0.
_ROWS = [[7, 8, 9, 10, 11, 10], [13, 14, 15, 16, 17, 16], [19, 20, 21, 22, 23, 22]]
_ROWS += [[25, 26, 27, 28, 29, 28], [31, 32, 33, 34, 35, 34], [25, 26, 27, 28, 29, 28]]
_RIGHT: Mapping[str, np.ndarray] = {
    "MaxPool": np.asarray(_ROWS, np.float32).reshape(1, 1, 6, 6),
    "AffineGrid": np.float32([[[[0, -3]], [[2, 2]], [[4, 7]]]]),
    "MeanVarianceNormalization": np.zeros((1, 2, 2, 3), np.float32),
}


@pytest.mark.parametrize("reason", reasons.DIFFERENCES, ids=lambda reason: reason.name)
def test_onnxruntime_leaves_the_specification_where_a_reason_says(reason: reasons.Reason) -> None:
    proto, feeds = _singular(reason.op)
    assert reasons.of_model(proto) is reason
    name = proto.graph.output[0].name
    right = _RIGHT[reason.op]
    ours = trace(from_bytes(proto.SerializeToString()), feeds)(feeds)[name]
    np.testing.assert_allclose(ours, right, atol=1e-6)
    theirs = run_onnx(proto, feeds)[name]
    assert theirs.shape != right.shape or not np.allclose(theirs, right)


def _six_nodes() -> graphs.Case:
    g = Graph(13)
    x = g.input("x", (2, 3))
    g.output(g.add("Relu", g.add("Neg", g.add("Tanh", g.add("Mul", g.add("Abs", x), x)))))
    proto = onnx.shape_inference.infer_shapes(g.proto())
    samples = [
        {"x": np.random.default_rng(i).normal(size=(2, 3)).astype(np.float32)} for i in range(2)
    ]
    expected = oracle.onnxruntime(proto.SerializeToString(), samples)
    return graphs.Case(name="six", model=proto, samples=samples, expected=expected)


@pytest.mark.slow
def test_a_wrong_operator_is_seen_and_cut_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not judge([_six_nodes()]).findings
    entry = registry.find("", "Tanh", 13)
    assert entry is not None
    wrong = dataclasses.replace(entry, function=lambda input: jnp.tanh(input) * (1 + 1e-4))
    monkeypatch.setitem(registry._OPS["", "Tanh"], 13, wrong)
    found = [f for f in judge([_six_nodes()]).findings if f.kind == "float"]
    assert found
    small = minimize.minimized(found[0])
    assert [node.op_type for node in small.case.model.graph.node] == ["Tanh"]
    assert len(small.case.samples) == 1


def test_arrays_differ_by_shape_number_and_what_is_not_finite() -> None:
    a = np.float32([1, np.nan, np.inf, -np.inf])
    assert unequal(a, a, lambda: 0.0) is None
    assert unequal(a[:3], a, lambda: 9.0) is not None
    for wrong in (
        [1, 0, np.inf, -np.inf],
        [1, np.nan, -np.inf, -np.inf],
        [1, np.nan, 3e38, -np.inf],
    ):
        assert unequal(np.float32(wrong), a, lambda: 0.0) is not None
    assert unequal(np.float32([1 + 1e-6]), np.float32([1]), lambda: 0.0) is None
    assert unequal(np.float32([1 + 1e-5]), np.float32([1]), lambda: 0.0) is not None
    assert unequal(np.float32([1 + 1e-5]), np.float32([1]), lambda: 2e-5) is None
    assert unequal(np.int32([1, 2]), np.int64([1, 3]), lambda: 9.0) is not None


def test_quantizers_part_at_ties_alone() -> None:
    step = np.float64([[0.5]])
    x = np.float32([[0.25, 0.3, np.inf, -np.inf, np.nan]])
    one = np.float32([[0.0, 0.5, 63.5, -64.0, 0.0]])
    assert not misplaced(one, one, x, step).any()
    for i, value, differs in (
        (0, 0.5, False),  # 0.25 lies between two steps
        (0, 1.0, True),
        (1, 0.0, True),
        (2, 63.0, True),
        (3, np.nan, True),
        (4, np.nan, True),
    ):
        other = one.copy()
        other[0, i] = value
        assert misplaced(other, one, x, step)[0, i] == differs
    half = np.float32([1, 65504, np.inf, -np.inf, np.nan])
    assert not misplaced(half, half, half, None).any()
    other = np.float32([1 + 2**-10, 65504, 65504, np.inf, 0])
    assert misplaced(other, half, half, None).tolist() == [False, False, True, True, True]


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    case = _six_nodes()
    path = corpus.store(tmp_path, Finding(kind="float", case=case, tensor="y", what="wrong"))
    (again,) = corpus.load(tmp_path)
    assert path.suffix == ".onnx"
    assert [n.op_type for n in again.model.graph.node] == [n.op_type for n in case.model.graph.node]
    for kept, rows in ((again.samples, case.samples), (again.expected, case.expected)):
        for mine, row in zip(kept, rows, strict=True):
            assert mine.keys() == row.keys()
            assert all(np.array_equal(mine[name], array) for name, array in row.items())


@pytest.mark.slow
def test_a_quantizer_without_a_number_is_explained() -> None:
    g = Graph(13)
    x = g.input("x", (2, 3))
    g.output(g.add("Relu", g.add("Div", x, g.add("Relu", x))))  # 0 / 0 where INT8 has no step
    proto = onnx.shape_inference.infer_shapes(g.proto())
    samples = [{"x": np.float32([[1e-3, 10, 5], [1, 2, 1e-3]])}] * 2
    expected = oracle.onnxruntime(proto.SerializeToString(), samples)
    case = graphs.Case(name="none", model=proto, samples=samples, expected=expected)
    found = judge([case], everything=True).findings
    assert found
    assert {one.explained for one in found} == {reasons.NO_NUMBER}
    assert all("nan" in one.what for one in found)


def _judged(g: Graph, *samples: Any) -> list[Finding]:
    proto = onnx.shape_inference.infer_shapes(g.proto())
    (name,) = (one.name for one in proto.graph.input)
    feeds = [{name: np.float32(sample)} for sample in samples]
    expected = oracle.onnxruntime(proto.SerializeToString(), feeds)
    case = graphs.Case(name="one", model=proto, samples=feeds, expected=expected)
    return judge([case]).findings


@pytest.mark.slow
def test_each_sample_agrees_with_one_of_the_oracles() -> None:
    g = Graph(13)
    x = g.input("x", (1, 1, 2, 2))
    g.output(g.add("MeanVarianceNormalization", x, axes=[0, 1, 2]))
    # Nearly equal numbers, where ONNX's evaluator rounds; equal ones, where onnxruntime has NaN.
    near, equal = [[[[-2.084163, -2.7], [-2.1780262, 2.7]]]], [[[[-0.055, 0], [0, 0]]]]
    found = _judged(g, near, equal)
    assert found
    assert all(one.explained for one in found)


def test_the_one_of_an_exponential_hides_what_is_smaller() -> None:
    g = Graph(13)
    g.output(g.add("Selu", g.input("x", (1, 1))))
    assert not _judged(g, [[-2e-18]], [[-3e-9]])
