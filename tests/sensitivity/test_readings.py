from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from jptq.results import SensitivityTable
from jptq.sensitivity import compare, probe, readings
from jptq.sensitivity.readings import Elements, LogOdds, _End, _gains, choose
from tests.graphs import Graph
from tests.sensitivity.networks import Case, case

Outputs = dict[str, np.ndarray]


def odds_of(
    outputs: Mapping[str, np.ndarray], axes: Mapping[str, int | None], most: int
) -> LogOdds:
    """Return the readings of samples ``[S, *shape]``."""
    ends = {n: _End(shape=y.shape[1:], axis=axes[n], behind=()) for n, y in outputs.items()}
    found = LogOdds(ends, most)
    for s in range(len(next(iter(outputs.values())))):
        found.add({n: y[s] for n, y in outputs.items()})
    return found


def log_odds(p: np.ndarray) -> np.ndarray:
    """Return the log-odds of each class against the less probable ones; most probable first."""
    p = np.sort(p)[::-1]
    return np.log(p[:-1]) - np.log(np.cumsum(p[::-1])[::-1][1:])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 3, 5]), st.sampled_from([0.01, 1.0, 20.0]))
def test_all_decisions_together_tell_the_change_of_a_softmax(
    seed: int, classes: int, size: float
) -> None:
    rng = np.random.default_rng(seed)
    logits = np.sort(rng.normal(size=classes) * 3)[::-1]
    p, moved = (special.softmax(z) for z in (logits, logits + rng.normal(size=classes) * size))
    left = np.cumsum(p[::-1])[::-1]
    now = np.cumsum(moved[::-1])[::-1]
    # In the order of the float outputs, whatever the order afterwards.
    change = np.log(moved[:-1] / now[1:]) - np.log(p[:-1] / left[1:])
    read = odds_of({"y": p[None]}, {"y": 0}, classes)
    assert read.count == classes - 1
    by_gain = [k for _, k in read._chosen[0]]
    found = read.effects(change[by_gain].reshape(1, -1, 1, 1))
    np.testing.assert_allclose(found.squares.item(), ((moved - p) ** 2).sum(), rtol=1e-6)
    np.testing.assert_allclose(found.along.item(), (p * (moved - p)).sum(), rtol=1e-6, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0, 1, 2]))
def test_vectors_are_the_derivatives_of_the_log_odds(seed: int, axis: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(2, 3, 4)) * 2
    p = special.softmax(logits, axis)
    count = p.size // p.shape[axis] * (p.shape[axis] - 1)
    read = odds_of({"y": p[None]}, {"y": axis}, count)
    (vectors,) = read.vectors(0, range(count)).values()
    along = p * vectors
    pulled = along - p * along.sum(axis + 1, keepdims=True)  # the Jacobian of a softmax
    rows = np.moveaxis(logits, axis, -1).reshape(-1, p.shape[axis])
    table = np.moveaxis(p, axis, -1).reshape(rows.shape)
    for found, (place, k) in zip(pulled, read._chosen[0], strict=True):
        order = np.argsort(-table[place.index])
        want = np.zeros_like(rows)
        rest = table[place.index][order[k + 1 :]]
        want[place.index, order[k]] = 1.0
        want[place.index, order[k + 1 :]] = -rest / rest.sum()
        got = np.moveaxis(found, axis, -1).reshape(rows.shape)
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_sigmoid_is_read_by_its_logits() -> None:
    logits = np.asarray([[-3.0, 0.5, 9.0]])
    read = odds_of({"y": special.expit(logits)}, {"y": None}, 8)
    assert [place.index for place, _ in read._chosen[0]] == [1, 0, 2]
    (vectors,) = read.vectors(0, range(3)).values()
    slopes = special.expit(logits[0]) * special.expit(-logits[0])
    np.testing.assert_allclose(vectors @ slopes, np.ones(3), rtol=1e-5)
    change = np.asarray([4.0, -2.0, -12.0])
    moved = special.expit(logits[0, [1, 0, 2]] + change) - special.expit(logits[0, [1, 0, 2]])
    found = read.effects(change.reshape(1, 3, 1, 1))
    np.testing.assert_allclose(found.squares.item(), (moved**2).sum(), rtol=1e-6)


def test_the_gain_of_two_classes_is_the_whole_jacobian() -> None:
    table = special.softmax(np.random.default_rng(0).normal(size=(6, 2)) * 4, -1)
    np.testing.assert_allclose(*_gains(table), rtol=1e-9)
    wide = special.softmax(np.random.default_rng(0).normal(size=(6, 5)) * 4, -1)
    whole = [((np.diag(p) - np.outer(p, p)) ** 2).sum() for p in wide]
    np.testing.assert_allclose(_gains(wide)[1], whole, rtol=1e-9)


def test_open_decisions_come_first_and_certain_ones_never() -> None:
    logits = np.asarray([[[200.0, 0.0], [1.0, 0.0], [9.0, 0.0]]])
    read = odds_of({"y": special.softmax(logits, -1)}, {"y": 1}, 3)
    assert [place.index for place, _ in read._chosen[0]] == [1, 2]
    assert not read.vectors(0, range(2, 4))["y"].any()  # past the last


def test_samples_with_fewer_open_decisions_read_nothing_for_the_rest() -> None:
    logits = np.asarray([[[1.0, 0.0], [2.0, 0.0]], [[1.0, 0.0], [300.0, 0.0]]])
    read = odds_of({"y": special.softmax(logits, -1)}, {"y": 1}, 4)
    assert read.count == 2
    found = read.effects(np.ones((2, 2, 1, 1)))
    one = special.softmax(logits[1, 0])
    step = special.expit(2.0) - one[0]
    np.testing.assert_allclose(found.squares[1].item(), 2 * step**2, rtol=1e-6)


def test_elements_are_read_one_by_one() -> None:
    outputs = {"a": np.ones((2, 1, 2)), "b": np.full((2, 3), 2.0)}
    read = Elements(outputs)
    vectors = read.vectors(0, range(4, 8))
    assert vectors["a"].shape == (4, 1, 2)
    assert not vectors["a"].any()
    np.testing.assert_array_equal(vectors["b"], [[0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    found = read.effects(np.arange(10.0).reshape(2, 5, 1, 1))
    np.testing.assert_array_equal(found.squares[0, :, 0, 0], [1, 4 + 9 + 16])
    np.testing.assert_array_equal(found.along[0, :, 0, 0], [1, 2 * (2 + 3 + 4)])


def headed(
    head: Callable[[Graph, str], str],
    *,
    positions: int = 6,
    classes: int = 12,
    certain: float = 2.0,
) -> Case:
    """Return a network of three layers and a head; the larger `certain`, the more it saturates."""
    g = Graph()
    x = g.input("x", (1, positions, 8))
    hidden = g.add("Tanh", g.add("MatMul", x, g.random(8, 16, scale=0.7), name="first"))
    deep = g.add("Tanh", g.add("MatMul", hidden, g.random(16, 16, scale=0.7), name="second"))
    g.output(head(g, g.add("MatMul", deep, g.random(16, classes, scale=certain), name="last")))
    return case(g, samples=4)


def ranked(net: Case, **options: Any) -> SensitivityTable:
    return probe.rank(
        net.runner, net.thresholds, net.int8, net.rows(), net.samples, metrics=("mse",), **options
    )


def chosen(net: Case) -> readings.Readings | None:
    outputs = list(net.runner.program.outputs)
    floats = probe._floats(net.runner, net.samples, outputs)
    return choose(net.runner.program, outputs, floats, 16, 16)


HEADS: dict[str, Callable[[Graph, str], str]] = {
    "Softmax": lambda g, z: g.add("Softmax", z, axis=-1),
    "Softmax over positions": lambda g, z: g.add("Softmax", z, axis=1),
    "Tanh": lambda g, z: g.add("Tanh", z),
}


@pytest.mark.parametrize(
    ("head", "kind"), [("Softmax", LogOdds), ("Softmax over positions", LogOdds), ("Tanh", None)]
)
def test_the_graph_decides_what_is_read(head: str, kind: type | None) -> None:
    found = chosen(headed(HEADS[head]))
    assert type(found) is (kind or type(None))


def test_outputs_of_few_elements_are_read_one_by_one() -> None:
    net = headed(HEADS["Tanh"], positions=1, classes=5)
    assert isinstance(chosen(net), Elements)
    assert ranked(net).stderr.max() == 0


def test_a_map_of_many_open_decisions_is_left_to_signs() -> None:
    net = headed(lambda g, z: g.add("Sigmoid", z), positions=40, classes=12)
    assert chosen(net) is None
    assert ranked(net, probes=4).stderr.max() > 0


def test_the_quantizer_of_the_output_itself_is_exact() -> None:
    net = headed(HEADS["Softmax"])
    plan = net.plan
    last = plan.calibrations[-1]
    assert last.output == net.runner.program.outputs[0]
    rows = net.rows("activation")
    found = probe.rank(
        net.runner, net.thresholds, net.int8, rows, net.samples, metrics=probe.METRICS
    )
    exact = net.exact(rows)
    at = rows.names.index(last.name)
    np.testing.assert_allclose(found.column("mse")[at], exact.column("mse")[at], rtol=1e-5)
    lost = [1 - t.column("cosine-similarity")[at] for t in (found, exact)]
    np.testing.assert_allclose(lost[0], lost[1], rtol=0.05)  # second order in the error


def test_readings_beat_signs_where_outputs_saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    net = headed(HEADS["Softmax"], certain=20.0)
    exact = net.exact(net.rows())
    read = compare(ranked(net), exact)
    monkeypatch.setattr(readings, "choose", lambda *args, **options: None)
    drawn = compare(ranked(net), exact)
    assert read.ratio is not None
    assert drawn.ratio is not None
    assert abs(np.log(read.ratio)) < abs(np.log(drawn.ratio))
