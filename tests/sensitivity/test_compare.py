from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jptq.errors import UnknownNameError
from jptq.results import SensitivityTable
from jptq.sensitivity import compare


def table(method: str, metric: str, values: list[float], *, first: int = 0) -> SensitivityTable:
    score = np.asarray(values, float)[:, None, None]
    names = tuple(f"n{first + i}" for i in range(len(values)))
    return SensitivityTable(
        rows=names,
        kind="node",
        members=tuple((name,) for name in names),
        candidates=("current",),
        metrics=(metric,),
        score=score,
        stderr=np.zeros_like(score),
        outputs=("y",),
        method=method,
        samples=1,
        seconds=2.5,
    )


def test_a_table_can_be_narrowed_to_metrics_in_another_order() -> None:
    both = dataclasses.replace(
        table("metric", "mse", [1.0, 2.0]),
        metrics=("mse", "sqnr"),
        score=np.array([[[1.0, 10.0]], [[2.0, 20.0]]]),
        stderr=np.zeros((2, 1, 2)),
    )
    turned = both.only(("sqnr", "mse"))
    assert turned.metrics == ("sqnr", "mse")
    np.testing.assert_array_equal(turned.column("sqnr"), [10.0, 20.0])
    assert both.only(("mse",)).score.shape == (2, 1, 1)
    with pytest.raises(UnknownNameError, match="'mre'"):
        both.only(("mre",))


def test_equal_orders_agree_fully_whatever_their_units() -> None:
    exact = table("metric", "cosine-similarity", [0.9, 0.99, 0.5, 0.999])
    found = compare(table("probe", "mse", [3.0, 2.0, 9.0, 1.0]), exact)
    assert found.spearman == pytest.approx(1.0)
    assert found.worst_in == found.worst == 4
    assert found.ratio is None
    assert (found.method, found.metric, found.seconds) == ("probe", "mse", 2.5)


def test_opposite_orders_disagree_fully() -> None:
    found = compare(table("a", "mse", [1.0, 2.0, 3.0]), table("b", "mse", [3.0, 2.0, 1.0]))
    assert found.spearman == pytest.approx(-1.0)


def test_heads_are_compared_by_their_members() -> None:
    reference = table("metric", "mse", [float(v) for v in range(30, 0, -1)])
    swapped = [float(v) for v in range(30, 0, -1)]
    swapped[0], swapped[29] = swapped[29], swapped[0]
    found = compare(table("probe", "mse", swapped), reference, worst=3, first=5)
    assert (found.worst_in, found.worst, found.first) == (2, 3, 5)


def test_the_ratio_is_the_median_of_estimate_over_reference() -> None:
    found = compare(table("a", "mse", [2.0, 4.0, 60.0]), table("b", "mse", [1.0, 2.0, 3.0]))
    assert found.ratio == pytest.approx(2.0)


def test_rows_are_matched_by_name() -> None:
    found = compare(
        table("a", "mse", [5.0, 1.0, 2.0, 3.0], first=-1), table("b", "mse", [1.0, 2.0, 3.0])
    )
    assert found.spearman == pytest.approx(1.0)
    assert found.worst == 3


def test_what_has_no_score_is_left_out() -> None:
    found = compare(
        table("a", "mse", [1.0, np.nan, 2.0, 3.0]), table("b", "mse", [1.0, 9.0, 2.0, 3.0])
    )
    assert found.spearman == pytest.approx(1.0)


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
def test_without_an_order_there_is_no_correlation(values: list[float]) -> None:
    found = compare(table("a", "mse", values), table("b", "mse", values))
    assert np.isnan(found.spearman)
