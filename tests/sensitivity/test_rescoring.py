from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jptq.sensitivity import rescore, rows_of
from jptq.sensitivity.rescoring import _verdict
from tests.quant.networks import branches
from tests.sensitivity.networks import Case, shared

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network() -> Case:
    return shared(branches)


def test_rows_can_be_taken_apart(network: Case) -> None:
    rows = network.rows()
    taken = rows.take([2, 0])
    assert taken.names == (rows.names[2], rows.names[0])
    assert taken.members == (rows.members[2], rows.members[0])
    assert taken.reached == (rows.reached[2], rows.reached[0])


def test_the_worst_rows_become_exact_and_the_others_stay(
    network: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jptq.sensitivity.rescoring.SHARE", 0.4)
    monkeypatch.setattr("jptq.sensitivity.rescoring.HEAD", 2)
    rows = rows_of(network.model, network.plan, "node")
    exact = network.exact(rows)
    column = exact.metrics.index("mse")
    truth = exact.score[:, :, column : column + 1]
    # An estimate ten times too high everywhere.
    estimate = dataclasses.replace(
        exact, metrics=("mse",), score=10 * truth, stderr=truth, method="probe"
    )
    mended = rescore(
        estimate, network.runner, network.thresholds, network.int8, rows, network.samples
    )
    exactly = mended.stderr[:, 0, 0] == 0
    assert 1 <= exactly.sum() == mended.cost["exact rows"] <= 0.4 * len(rows.names)
    np.testing.assert_allclose(mended.score[exactly], truth[exactly], rtol=1e-6)
    np.testing.assert_array_equal(mended.score[~exactly], 10 * truth[~exactly])
    assert "not linear" in mended.notes[-1]


def test_an_estimate_that_holds_is_called_so() -> None:
    truth = np.array([4.0, 3.0, 2.0, 1.0])
    assert "holds" in _verdict(truth * 1.1, truth, "mse")
    assert "not linear" in _verdict(truth * 5, truth, "mse")
    assert "not linear" in _verdict(truth[::-1] * 1.1, truth, "mse")


def test_a_few_estimates_that_are_far_off_are_told() -> None:
    truth = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    estimate = truth * [1, 1, 1, 1, 1 / 4000]
    said = _verdict(estimate, truth, "mse")
    assert "1 off by more than 10 times" in said
    assert "The estimate holds." not in said


def test_nothing_is_scored_where_the_share_is_less_than_a_row(
    network: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jptq.sensitivity.rescoring.SHARE", 0.0)
    rows = network.rows()
    table = dataclasses.replace(network.exact(rows), method="probe")
    assert (
        rescore(table, network.runner, network.thresholds, network.int8, rows, network.samples)
        is table
    )


def test_a_row_without_an_estimate_is_scored_exactly_however_small_the_share(
    network: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jptq.sensitivity.rescoring.SHARE", 0.0)
    rows = rows_of(network.model, network.plan, "node")
    exact = network.exact(rows)
    column = exact.metrics.index("mse")
    truth = exact.score[:, :, column : column + 1]
    score = truth.copy()
    score[3] = np.nan
    estimate = dataclasses.replace(
        exact, metrics=("mse",), score=score, stderr=truth, method="probe"
    )
    mended = rescore(
        estimate, network.runner, network.thresholds, network.int8, rows, network.samples
    )
    np.testing.assert_allclose(mended.score, truth, rtol=1e-6)
    assert mended.cost["exact rows"] == 1
