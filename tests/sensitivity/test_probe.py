from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jptq.engine import Batching, Runner
from jptq.engine.memory import MIB
from jptq.errors import UnknownNameError
from jptq.results import SensitivityTable
from jptq.sensitivity import compare, probe, rows_of
from jptq.sensitivity.rows import Rows
from tests.graphs import Graph
from tests.sensitivity.networks import Case, case, shared, smooth, tiny


@pytest.fixture(scope="module")
def net() -> Case:
    return shared(smooth)


@pytest.fixture(scope="module")
def small() -> Case:
    return shared(tiny)


def ranked(net: Case, rows: Rows, **options: object) -> SensitivityTable:
    return probe.rank(
        net.runner,
        net.thresholds,
        net.int8,
        rows,
        net.samples,
        **{"metrics": ("mse",), **options},  # type: ignore[arg-type]
    )


@pytest.mark.slow
def test_estimates_are_near_the_exact_scores_of_a_smooth_network(net: Case) -> None:
    rows = net.rows()
    exact = net.exact(rows)
    found = ranked(net, rows, metrics=("mse", "cosine-similarity"), probes=32)
    assert compare(found, exact).ratio == pytest.approx(1.0, abs=0.4)
    lost = [1 - t.column("cosine-similarity") for t in (found, exact)]
    np.testing.assert_allclose(np.median(lost[0] / lost[1]), 1.0, atol=0.4)
    assert (found.column("cosine-similarity") <= 1.0).all()
    assert found.cost["probes"] <= 32
    assert found.method == "probe"


@pytest.mark.slow
def test_vectors_are_pulled_back_one_by_one_where_memory_is_short(small: Case) -> None:
    rows = small.rows()
    short = Runner(
        small.model, small.samples[0], plan=small.plan, batching=Batching(samples=1, memory=MIB)
    )
    found = [
        probe.rank(
            runner,
            small.thresholds,
            small.int8,
            rows,
            small.samples,
            metrics=("mse", "cosine-similarity"),
            probes=8,
        )
        for runner in (small.runner, short)
    ]
    assert not short.fits(1)
    np.testing.assert_allclose(found[1].score, found[0].score, rtol=1e-4)


@pytest.mark.slow
def test_what_only_the_cosine_needs_is_not_pulled_back_without_it(
    small: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled: list[set[str]] = []
    scores = probe._scores

    def seen(found: Any, *args: Any) -> Any:
        pulled.append(set(found[0]))
        return scores(found, *args)

    monkeypatch.setattr(probe, "_scores", seen)
    ranked(small, small.rows(), probes=4)
    ranked(small, small.rows(), probes=4, metrics=("mse", "cosine-similarity"))
    assert pulled == [{"mse"}, {"mse", "cosine-similarity", "aligned"}]


@pytest.mark.slow
def test_the_seed_decides_every_bit(small: Case) -> None:
    rows = rows_of(small.model, small.plan, "group", candidates=("int8", "int16"))
    first, again, other = (ranked(small, rows, probes=4, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.score, again.score)
    assert not np.array_equal(first.score, other.score)
    np.testing.assert_array_equal(np.isnan(first.score[..., 0]), ~rows.accepted)


@pytest.mark.slow
def test_a_single_row_can_be_ranked(small: Case) -> None:
    rows = rows_of(small.model, small.plan, only=[["stem"]])
    assert ranked(small, rows, probes=16).score.shape == (1, 1, 1)


def test_a_metric_that_probes_cannot_estimate_is_refused(net: Case) -> None:
    with pytest.raises(UnknownNameError, match="--method=probe"):
        ranked(net, net.rows(), metrics=("chebyshev",))


def test_a_mask_of_infinities_has_finite_scores() -> None:
    g = Graph()
    x = g.input("x", (1, 4, 8))
    mask = g.constant(np.where(np.arange(8) > 5, -np.inf, 0.0).astype(np.float32))
    scores = g.add("Add", g.add("MatMul", x, g.random(8, 8)), mask)
    g.output(g.add("MatMul", g.add("Softmax", scores), g.random(8, 8)))
    net = case(g)
    found = ranked(net, net.rows(), probes=4)
    assert np.isfinite(found.score).all()
    assert (found.score > 0).any()
