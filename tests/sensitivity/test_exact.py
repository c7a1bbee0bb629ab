from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from jptq.ir import extract
from jptq.quant.calibrated import with_assignment
from jptq.quant.export import to_qdq
from jptq.sensitivity import rows_of
from tests.agreements import ORACLES, run
from tests.graphs import Graph
from tests.quant.networks import branches
from tests.sensitivity.networks import METRICS, Case, case, shared, smooth


@pytest.fixture(scope="module")
def branched() -> Case:
    return shared(branches)


def by_onnxruntime(c: Case, members: tuple[str, ...], outputs: list[str]) -> np.ndarray:
    """Return ``float64[M]``: metrics of an export in which only some quantizers are left."""
    off = {calibration.name: "float32" for calibration in c.plan.calibrations}
    float_model, quantized = (
        to_qdq(with_assignment(c.model, {**off, **dict.fromkeys(on, "int8")}))
        for on in ((), members)
    )
    pairs = zip(run(float_model, c.samples), run(quantized, c.samples), strict=True)
    return np.mean(
        [
            [np.mean([metric(f[name], q[name]) for name in outputs]) for metric in ORACLES.values()]
            for f, q in pairs
        ],
        axis=0,
    )


@pytest.mark.slow
@pytest.mark.parametrize("segments", [1, 5])
def test_the_sweep_equals_one_full_forward_per_node(branched: Case, segments: int) -> None:
    rows = branched.rows()
    fast, slow = branched.exact(rows, segments=segments), branched.naive(rows)
    np.testing.assert_allclose(fast.score, slow.score, rtol=1e-4)
    assert (fast.column("mse") > 0).all()
    assert fast.rows == slow.rows
    assert (fast.stderr == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("network", [branches, smooth])
def test_scores_are_those_of_an_export_with_one_nodes_quantizers(
    network: Callable[[], Graph],
) -> None:
    c = shared(network)
    rows = c.rows()
    table = c.exact(rows)
    assert tuple(ORACLES) == METRICS
    for i, members in enumerate(rows.members):
        want = by_onnxruntime(c, members, sorted(rows.reached[i]))
        np.testing.assert_allclose(table.score[i, 0], want, rtol=2e-3, err_msg=rows.names[i])


@pytest.mark.slow
def test_a_node_whose_inputs_depend_on_each_other_is_perturbed_at_both() -> None:
    g = Graph()
    first = g.add("Sigmoid", g.input("x", (1, 4, 6)), name="first")
    second = g.add("Tanh", first, name="second")
    g.output(g.add("Softmax", g.add("Mul", first, second, name="both"), axis=-1, name="end"))
    c = case(g)
    rows = c.rows()
    both = rows.names.index("both")
    assert len(rows.members[both]) == 2
    table = c.exact(rows, segments=4)
    np.testing.assert_allclose(table.score, c.naive(rows).score, rtol=1e-4)
    want = by_onnxruntime(c, rows.members[both], list(c.model.output_names))
    np.testing.assert_allclose(table.score[both, 0], want, rtol=2e-3)
    alone = c.exact(c.rows("activation"))
    parts = [alone.column("mse")[alone.rows.index(name)] for name in rows.members[both]]
    assert table.column("mse")[both] not in parts


def test_nodes_that_share_their_quantizer_have_equal_scores_to_the_last_bit() -> None:
    g = Graph()
    stem = g.add("Sigmoid", g.input("x", (1, 4, 6)), name="stem")
    left, right = g.add("Tanh", stem, name="left"), g.add("Exp", stem, name="right")
    g.output(g.add("Add", left, right, name="sum"))
    c = case(g)
    rows = c.rows()
    left_row, right_row = (rows.names.index(name) for name in ("left", "right"))
    assert rows.members[left_row] == rows.members[right_row]
    for table in (c.exact(rows), c.naive(rows)):
        np.testing.assert_array_equal(table.score[left_row], table.score[right_row])


def test_outputs_that_a_node_cannot_reach_are_not_scored() -> None:
    c = shared(smooth)
    classes, probability = c.model.output_names
    rows = c.rows()
    bend = rows.names.index("bend")
    assert rows.reached[bend] == {classes}
    want = by_onnxruntime(c, rows.members[bend], [classes])
    np.testing.assert_allclose(c.exact(rows).score[bend, 0], want, rtol=2e-3)
    # Of a part of the network only the nodes that lead to its outputs are scored.
    part = rows_of(extract(c.model, [probability]), c.plan)
    assert part.outputs == (probability,)
    assert "bend" not in part.names
    assert "stem" in part.names


@pytest.mark.slow
def test_the_batch_and_lanes_do_not_change_the_scores(branched: Case) -> None:
    rows = branched.rows()
    other = case(branches(), batch=1)
    np.testing.assert_allclose(other.exact(rows).score, branched.exact(rows).score, rtol=1e-4)
