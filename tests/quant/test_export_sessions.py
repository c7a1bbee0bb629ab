"""The export in onnxruntime's default session: it opens, and it agrees.

Nothing is set there that a user would have to set.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from jptq import ops
from jptq.engine import Batching, Runner
from jptq.ir import Model, to_bytes
from jptq.ir.versions import ir_version
from jptq.ops import Kind
from jptq.quant.assign import accepted, promote, table, uniform
from jptq.quant.calibrated import (
    assignment_of,
    plan_of,
    thresholds_of,
    with_assignment,
    with_thresholds,
)
from jptq.quant.compensate import compensate
from jptq.quant.export import to_qdq
from jptq.quant.placement import place
from jptq.quant.plan import Plan
from tests.agreements import max_thresholds
from tests.graphs import Graph, feeds_for
from tests.oracles import run_onnx
from tests.quant import grid
from tests.quant.networks import TARGET, float_model, floats_of, placed

NOISE = 1e-5
"""What another order of additions moves, as a share of the largest value."""

STEPS = 2 / 127
"""What a value on a rounding boundary moves: a step before and a step behind an operator."""

SHARE = 0.05
"""Of the elements that may lie on such a boundary, or behind one; 0.7 % measured."""


@functools.cache
def calibrated(neighbour: str, opset: int) -> tuple[Model, Plan, dict[str, np.ndarray]]:
    """Return the branches with quantizers, and a sample; without a neighbour, operators alone."""
    graph = grid.network(neighbour, opset) if neighbour else grid.alone(opset)
    model = placed(graph)
    plan = plan_of(model, TARGET)
    feeds = feeds_for(graph.proto())
    return with_thresholds(model, max_thresholds(model, plan, [feeds])), plan, feeds


@functools.cache
def known(opset: int) -> bool:
    """Tell whether the installed onnxruntime reads an opset; its minor versions add some."""
    g = Graph(opset)
    g.output(g.add("Neg", g.input("x", (1,))))
    proto = g.proto()
    proto.ir_version = ir_version(opset)
    try:
        run_onnx(proto, feeds_for(proto))
    except Exception:  # its errors have no common class
        return False
    return True


def int8(model: Model, plan: Plan) -> Model:
    return with_assignment(model, uniform(plan, "int8"))


def int16(model: Model, plan: Plan) -> Model:
    return with_assignment(model, uniform(plan, "int16"))


def dual(model: Model, plan: Plan) -> Model:
    nodes = {s.node: "dual-int16" for s in plan.slots if s.op in TARGET.operands.dual_ops}
    return with_assignment(model, promote(uniform(plan, "int16"), plan, nodes))


def lopsided(model: Model, plan: Plan) -> Model:
    thresholds = thresholds_of(model)
    features = [c.name for c in plan.calibrations if c.kind == "feature"]
    ranges = {name: np.float32([-0.7, 1.0]) * thresholds[name] for name in features}
    return int8(with_thresholds(model, ranges, asymmetric=features), plan)


def mixed(model: Model, plan: Plan) -> Model:
    """Every quantizer of another type than its neighbours, float ones among them."""
    kinds = ("int8", "int16", "float16", "float32")
    drawn = np.random.default_rng(0).choice(kinds, len(plan.calibrations))
    found = {c.name: accepted(c, str(k)) for c, k in zip(plan.calibrations, drawn, strict=True)}
    return with_assignment(model, found)


KINDS: Mapping[str, Callable[[Model, Plan], Model]] = {
    "int8": int8,
    "int16": int16,
    "dual-int16": dual,
    "lopsided": lopsided,
    "mixed": mixed,
}


def assert_agrees(
    exported: Model, feeds: Mapping[str, np.ndarray], names: Mapping[str, object]
) -> None:
    """Assert that the default session computes what onnxruntime does operator by operator."""
    content = to_bytes(exported)
    plain, fused = (run_onnx(content, feeds, optimized=optimized) for optimized in (False, True))
    for name, tensor in zip(names, plain, strict=True):
        assert_close(fused[tensor], plain[tensor], name)


def assert_close(found: np.ndarray, want: np.ndarray, name: str) -> None:
    """Assert that two outputs are equal, but for few values on a rounding boundary."""
    assert np.isfinite(want).all(), name
    apart = np.abs(found - want) / (np.abs(want).max() or 1.0)
    assert apart.max(initial=0) <= STEPS, name
    assert (apart > NOISE).mean() <= SHARE, name


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("neighbour", grid.NEIGHBOURS)
def test_every_operator_agrees_between_every_neighbour(neighbour: str, kind: str) -> None:
    for opset, branches in grid.OPERATORS.items():
        if not known(opset):
            continue
        model, plan, feeds = calibrated(neighbour, opset)
        assert_agrees(to_qdq(KINDS[kind](model, plan)), feeds, branches)


@pytest.mark.parametrize("kind", KINDS)
def test_operators_of_later_opsets_agree(kind: str) -> None:
    """Where int8 was refused: onnxruntime's optimizer moves the pairs around Transpose."""
    for opset in filter(known, grid.OPERATORS.keys() - {17}):
        model, plan, feeds = calibrated("Transpose", opset)
        assert_agrees(to_qdq(KINDS[kind](model, plan)), feeds, grid.OPERATORS[opset])


@pytest.mark.slow
@pytest.mark.parametrize("opset", [17, 22, 24])
def test_the_default_session_computes_what_our_forward_does(opset: int) -> None:
    """Types are data: one program of all branches serves every kind."""
    if not known(opset):
        pytest.skip(f"onnxruntime does not read opset {opset}")
    model, plan, feeds = calibrated("", opset)
    runner = Runner(model, feeds, plan=plan, batching=Batching(samples=1))
    for kind in (int8, int16, mixed, dual):
        typed = kind(model, plan)
        packed = runner.pack(table(plan, thresholds_of(typed), assignment_of(typed)))
        mine = runner.run(packed, {name: array[None] for name, array in feeds.items()})
        theirs = run_onnx(to_bytes(to_qdq(typed)), feeds, optimized=True)
        for name, tensor in zip(grid.OPERATORS[opset], theirs, strict=True):
            assert_close(np.asarray(mine[tensor])[0], theirs[tensor], name)


def test_the_grid_has_every_operator_that_can_be_quantized() -> None:
    kinds = (Kind.COMPUTE, Kind.FUSABLE, Kind.VIEW)
    every = {
        entry.name for entry in ops.registered() if entry.traits.kind in kinds and not entry.domain
    }
    built = {node.op_type for o in grid.OPERATORS for node in grid.network("Conv", o).nodes}
    assert every - built == grid.ABSENT.keys()


COMPENSATED: Mapping[str, int] = {
    "Conv": 1,
    "depthwise Conv": 1,
    "ConvTranspose": 1,
    "turned Gemm": 1,
    "MatMul": 1,
    "MatMul by many": 1,
    "GridSample": 0,
    "linear Resize": 0,
    "nearest Resize": 0,
}
"""``{branch: index of the input that is split in two}``."""


@pytest.mark.parametrize("neighbour", grid.NEIGHBOURS)
def test_split_operands_agree(neighbour: str) -> None:
    graph, asked = grid.split(neighbour, COMPENSATED)
    proto = graph.proto()
    floating = compensate(float_model(graph), asked, TARGET)
    floats = (
        floats_of(proto)
        | {name for node in floating.nodes for name in node.outputs}
        | {name for name, array in floating.initializers.items() if array.dtype == np.float32}
    )
    model = place(floating, TARGET, floats=floats)
    feeds, plan = feeds_for(proto), plan_of(model, TARGET)
    model = with_thresholds(model, max_thresholds(model, plan, [feeds]))
    assert sum(node.name.endswith("_split_low") for node in model.nodes) == len(COMPENSATED)
    for kind in (int8, int16):
        assert_agrees(to_qdq(kind(model, plan)), feeds, COMPENSATED)


def test_features_with_a_scale_per_channel_agree() -> None:
    g = Graph()
    x = g.input("x", (1, 4, 8, 8))
    ends = {
        "Conv": g.conv(x, 4, 4),
        "Relu": g.conv(g.add("Relu", g.conv(x, 4, 4)), 4, 4, 1),
        "MaxPool": g.conv(g.add("MaxPool", g.conv(x, 4, 4), kernel_shape=[2, 2]), 4, 4),
        "Transpose": g.conv(g.add("Transpose", g.conv(x, 4, 4), perm=[0, 1, 3, 2]), 4, 4),
        "depthwise": g.conv(g.add("Tanh", x), 4, 4, group=4),
    }
    g.output(*ends.values())
    model = placed(g)
    feeds, plan = feeds_for(g.proto()), plan_of(model, TARGET)
    thresholds = max_thresholds(model, plan, [feeds])
    features = [c.name for c in plan.calibrations if c.kind == "feature"]
    uneven = {n: thresholds[n] * np.float32([0.5, 1, 0.8, 0.6]) for n in features}
    model = with_thresholds(model, {**thresholds, **uneven}, axes=dict.fromkeys(features, 1))
    for kind in (int8, int16):
        assert_agrees(to_qdq(kind(model, plan_of(model, TARGET))), feeds, ends)


def _bias_beyond_int32(g: Graph) -> str:
    w = g.constant(np.full((2, 4, 1, 1), 1e-7, np.float32))
    first = g.add("Conv", g.input("x", (1, 4, 8, 8)), w, g.constant(np.float32([5, -4.5])))
    return g.conv(g.add("Relu", first), 2, 2, 1)


def _product_of_what_stays_float(g: Graph) -> str:
    first = g.add("MatMul", g.input("x", (4, 32)), g.random(32, 64))
    return g.add("MatMul", g.add("Split", first, axis=1, n_outputs=2), g.random(32, 32))


REWRITTEN: Mapping[str, Callable[[Graph], str]] = {
    "a bias beyond int32": _bias_beyond_int32,
    "a product whose left side stays float": _product_of_what_stays_float,
}
"""What onnxruntime computes otherwise where nothing guards a pair (measured: 1 and 6e-3)."""


@pytest.mark.parametrize("kind", ["int8", "int16", "mixed"])
@pytest.mark.parametrize("name", REWRITTEN)
def test_what_integer_kernels_get_wrong_agrees(name: str, kind: str) -> None:
    g = Graph()
    g.output(REWRITTEN[name](g))
    model = placed(g)
    feeds, plan = feeds_for(g.proto()), plan_of(model, TARGET)
    model = with_thresholds(model, max_thresholds(model, plan, [feeds]))
    assert_agrees(to_qdq(KINDS[kind](model, plan)), feeds, {name: None})
