from __future__ import annotations

import numpy as np
import pytest

from jptq.errors import ConfigError, UnknownNameError
from jptq.ir import extract
from jptq.quant.assign import table as quantizers
from jptq.quant.plan import FEATURE, WEIGHT, Calibration
from jptq.sensitivity import CURRENT, rows_of
from jptq.sensitivity.rows import Rows, assemble, member_type, reachable_outputs
from tests.graphs import Graph
from tests.quant.networks import float_model
from tests.sensitivity.networks import Case, case, smooth


@pytest.fixture(scope="module")
def net() -> Case:
    return case(smooth(), samples=1)


def _calibration(*allowed: str, dual: bool = False) -> Calibration:
    return Calibration(name="c", tensor="t", output="o", kind=FEATURE, allowed=allowed, dual=dual)


BOTH = _calibration("int8", "int16")
NARROW = _calibration("int8")
SECOND = _calibration("int8", dual=True)


@pytest.mark.parametrize("kind", ["node", "group"])
def test_the_current_type_is_what_is_held_and_int8_if_that_is_off(kind: str) -> None:
    assert member_type(BOTH, CURRENT, kind, {"c": "int16"}) == "int16"
    assert member_type(BOTH, CURRENT, kind, {"c": "float32"}) == "int8"


@pytest.mark.parametrize(
    ("calibration", "candidate", "kind", "want"),
    [
        (BOTH, "int8", "node", "int8"),
        (BOTH, "int16", "node", "int16"),
        (NARROW, "int16", "node", "int8"),
        (SECOND, "int16", "node", "int8"),
        (SECOND, "int16", "group", "int16"),
        (NARROW, "int16", "group", "int8"),
        (BOTH, "dual-int16", "node", "int16"),
        (SECOND, "dual-int16", "node", "int16"),
        (NARROW, "dual-int16", "node", "int8"),
    ],
)
def test_a_candidate_means_what_the_target_takes(
    calibration: Calibration, candidate: str, kind: str, want: str
) -> None:
    assert member_type(calibration, candidate, kind, {"c": "int8"}) == want


def test_a_row_per_node_switches_its_features_and_weights(net: Case) -> None:
    rows = net.rows()
    assert rows.names == tuple(s.node for s in net.plan.slots if s.calibrations)
    for name, members in zip(rows.names, rows.members, strict=True):
        assert members == net.plan.of_node(name).calibrations
    kinds = {net.plan.calibration(m).kind for m in rows.members[rows.names.index("stem")]}
    assert kinds == {FEATURE, WEIGHT}


@pytest.mark.parametrize(("kind", "wanted"), [("weight", WEIGHT), ("activation", FEATURE)])
def test_a_row_per_calibration_switches_only_it(net: Case, kind: str, wanted: str) -> None:
    rows = net.rows(kind)
    assert rows.names == tuple(c.name for c in net.plan.calibrations if c.kind == wanted)
    assert rows.members == tuple((name,) for name in rows.names)


def test_rows_of_groups_hold_every_calibration_once(net: Case) -> None:
    rows = net.rows("group")
    members = [name for row in rows.members for name in row]
    assert sorted(members) == sorted(c.name for c in net.plan.calibrations)


def test_a_group_that_cannot_be_int16_does_not_accept_it(net: Case) -> None:
    rows = rows_of(net.model, net.plan, "group", candidates=("int8", "int16"))
    assert rows.accepted[:, 0].all()
    for i, members in enumerate(rows.members):
        found = [net.plan.calibration(m) for m in members]
        assert rows.accepted[i, 1] == any("int16" in c.allowed or c.dual for c in found)
    assert len(rows.pairs) == rows.accepted.sum()


def test_chosen_nodes_are_scored_alone_or_jointly(net: Case) -> None:
    rows = rows_of(net.model, net.plan, only=[["stem"], ["stem", "classes"]])
    assert rows.names == ("stem", "stem+classes")
    first, second = (net.plan.of_node(n).calibrations for n in ("stem", "classes"))
    assert rows.members == (first, (*first, *second))


def test_nodes_that_share_a_quantizer_switch_it_once_jointly(net: Case) -> None:
    rows = rows_of(net.model, net.plan, only=[["stem", "stem"]])
    assert rows.members == (net.plan.of_node("stem").calibrations,)


def test_unknown_nodes_and_kinds_are_refused_with_near_names(net: Case) -> None:
    with pytest.raises(UnknownNameError, match="'stemm'") as caught:
        rows_of(net.model, net.plan, only=[["stemm"]])
    assert "'stem'" in caught.value.hint
    with pytest.raises(UnknownNameError, match="kind of row"):
        rows_of(net.model, net.plan, "nodes")


def test_rows_that_reach_no_output_are_dropped() -> None:
    g = Graph()
    left = g.conv(g.input("x", (1, 2, 4, 4)), 2, 2, name="left")
    right = g.conv(g.input("y", (1, 2, 4, 4)), 2, 2, name="right")
    g.output(left, right)
    c = case(g, samples=1)
    rows = rows_of(extract(c.model, [right]), c.plan)
    assert rows.names == ("right",)
    assert rows.outputs == (right,)
    with pytest.raises(ConfigError, match="reaches the outputs"):
        rows_of(extract(c.model, [right]), c.plan, only=[["left"]])


def test_an_input_reaches_every_output_that_depends_on_it() -> None:
    g = Graph()
    x, y = g.input("x", (1, 2)), g.input("y", (1, 2))
    both, one = g.add("Add", x, y), g.add("Relu", x)
    g.output(both, one)
    reach = reachable_outputs(float_model(g))
    assert reach["x"] == {both, one}
    assert reach["y"] == {both}


def test_scores_are_means_over_samples_and_then_over_reached_outputs() -> None:
    rows = Rows(
        names=("both", "one"),
        kind="node",
        members=(("a",), ("b",)),
        candidates=("int8", "int16"),
        accepted=np.array([[True, True], [True, False]]),
        reached=(frozenset(("p", "q")), frozenset(("p",))),
        outputs=("p", "q"),
    )

    table = assemble(
        rows,
        {
            (0, 0): {"p": np.array([2.0]), "q": np.array([2.0])},
            (0, 1): {"p": np.array([0.0]), "q": np.array([0.2])},
            (1, 0): {"p": np.array([5.0])},
        },
        ("mse",),
        method="metric",
        samples=2,
        seconds=0.0,
        cost={},
    )
    np.testing.assert_array_equal(table.score[..., 0], [[2.0, 0.1], [5.0, np.nan]])
    assert table.rows == rows.names


def two_heads() -> Graph:
    """A stem that both outputs hang on, and two convolutions in front of one of them."""
    g = Graph(seed=5)
    stem = g.add("Relu", g.conv(g.input("x", (1, 3, 6, 6)), 3, 4, name="stem"), name="relu")
    g.output(g.conv(g.conv(stem, 4, 4, name="middle"), 4, 2, name="near"))
    g.output(g.add("Sigmoid", stem, name="far"))
    return g


@pytest.mark.parametrize("kind", ["node", "group"])
def test_errors_of_groups_are_means_over_all_outputs_those_of_nodes_over_reached_ones(
    kind: str,
) -> None:
    net = case(two_heads(), samples=2)
    rows = net.rows(kind)
    table = net.exact(rows)
    alone = {
        n: i for i, (n, r) in enumerate(zip(rows.names, rows.reached, strict=True)) if len(r) == 1
    }
    assert 0 < len(alone) < len(rows.names)
    runner = net.runner
    floats = [runner.forward(None)(feeds) for feeds in net.samples]
    for row in alone.values():
        held = {c: "int8" if c in rows.members[row] else "float32" for c in net.int8}
        run = runner.forward(quantizers(net.plan, net.thresholds, held))
        errors = [
            [np.mean((run(feeds)[n] - y[n]) ** 2) for n in rows.outputs]
            for feeds, y in zip(net.samples, floats, strict=True)
        ]
        total = np.mean(errors, axis=0).sum()
        of = len(rows.outputs) if kind == "group" else 1
        assert table.column("mse")[row] == pytest.approx(total / of, rel=1e-4)


def test_rows_without_a_finite_derivative_have_no_score_and_are_named(net: Case) -> None:
    rows = net.rows()
    score = np.ones((len(rows.names), len(rows.candidates), 2))
    assert rows.derivable(score, "probe")[1] == ()
    score[1, 0, 1], score[2] = np.nan, np.inf
    kept, (note,) = rows.derivable(score, "probe")
    assert np.isnan(kept[1:3]).all()
    assert np.isfinite(kept[3:]).all()
    assert f"2 of {len(rows.names)}" in note
    assert f"{rows.names[1]!r}, {rows.names[2]!r}" in note
