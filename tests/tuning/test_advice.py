from __future__ import annotations

import numpy as np
import pytest

from jptq.results import Comparison, Evaluation, Goal, OutputError, SensitivityTable, Spread
from jptq.tuning.advice import (
    compensation_advice,
    failing,
    magnitude,
    metric_advice,
    output_advice,
    tie_advice,
    tied_share,
)
from tests.quant.networks import branches, float_model


def output(name: str, a: np.ndarray, b: np.ndarray) -> OutputError:
    """Return the errors of an output by the definitions of hmct-spec 2.5."""
    e = np.abs(b - a)
    norms = [float(np.linalg.norm(v)) for v in (a, b, e)]
    values = {
        "cosine": float(a.ravel() @ b.ravel()) / (norms[0] * norms[1]),
        "l1": float(e.mean()),
        "l2": float((e**2).mean()),
        "chebyshev": float(e.max()),
        "sqnr": 10 * np.log10(norms[0] / norms[2]) if norms[2] else 1e9,
    }
    return OutputError(output=name, **{k: Spread(min=v, mean=v, max=v) for k, v in values.items()})


def told(*outputs: OutputError) -> Comparison:
    return Comparison(outputs=outputs, samples=1)


PIXELS = np.concatenate([np.full(900, 170.0), np.linspace(0, 1, 100)])


@pytest.mark.seed("C7")
def test_an_error_above_the_magnitude_under_a_high_cosine_asks_for_mse() -> None:
    rng = np.random.default_rng(0)
    wrong = PIXELS.copy()
    wrong[3] += 500.0
    boxes = output("det_out", PIXELS, wrong + rng.normal(0, 1, PIXELS.size))
    mask = rng.uniform(0, 1, 500)
    plain = output("drive_area_seg", mask, mask + rng.normal(0, 0.03, 500))
    found = metric_advice(told(plain, boxes))
    assert found is not None
    assert found.flags == ("--metric=mse",)
    for part in ("det_out", f"{boxes.cosine.mean:.6f}", f"{boxes.l1.mean:.6g}"):
        assert part in found.text
    assert boxes.cosine.mean > 0.99
    assert metric_advice(told(plain)) is None


@pytest.mark.seed("C7")
def test_a_high_cosine_that_fails_a_score_asks_for_mse_and_a_low_one_does_not() -> None:
    noise = np.random.default_rng(1).normal(0, 2.0, PIXELS.size)
    boxes = output("boxes", PIXELS, PIXELS + noise)
    assert metric_advice(told(boxes)) is None
    found = metric_advice(told(boxes), ("boxes",))
    assert found is not None
    assert "makes a score fail" in found.text
    lost = output("boxes", PIXELS, PIXELS + 60 * noise)
    assert metric_advice(told(lost), ("boxes",)) is None


def test_the_magnitude_is_the_root_mean_square_of_the_float_output() -> None:
    noisy = output("y", PIXELS, PIXELS + 0.5)
    assert magnitude(noisy) == pytest.approx(float(np.sqrt(np.mean(PIXELS**2))))
    assert magnitude(output("y", PIXELS, PIXELS)) == 0.0


def ranking(scores: dict[str, tuple[float, ...]], metrics: tuple[str, ...]) -> SensitivityTable:
    values = np.asarray(list(scores.values()))[:, None, :]
    return SensitivityTable(
        rows=tuple(scores),
        kind="node",
        members=tuple((name.partition("~")[0],) for name in scores),
        candidates=("current",),
        metrics=metrics,
        score=values,
        stderr=values * 0.0,
        outputs=("y",),
        method="metric",
        samples=1,
    )


@pytest.mark.seed("C7")
def test_the_share_of_tied_scores_is_named_and_the_metric_that_ties_least() -> None:
    scores = {
        "a": (0.5, 3.0),
        "b": (0.999991, 1.0),
        "c": (0.999992, 0.7),
        "d": (0.999989, 0.2),
        "d~shared": (0.999989, 0.2),
    }
    table = ranking(scores, ("cosine-similarity", "mse"))
    assert tied_share(table) == 3 / 4
    assert tied_share(table, "mse") == 0.0
    found = tie_advice(table)
    assert found is not None
    assert found.text.startswith("75% of the scores by cosine-similarity are tied")
    assert "4 nodes print 0.99999" in found.text
    assert "By mse it is 0%" in found.text
    assert found.flags == ("--metric=mse",)
    assert tie_advice(ranking({n: (v[1],) for n, v in scores.items()}, ("mse",))) is None


@pytest.mark.seed("C8")
def test_only_a_part_of_the_outputs_is_worth_restricting_to() -> None:
    model = float_model(branches())
    head, squashed = model.output_names
    found = output_advice(model, (squashed,), ("lane",))
    assert found is not None
    assert found.flags == ("--output_node=squashed",)
    assert "'lane'" in found.text
    assert output_advice(model, (head, squashed), ("lane",)) is None
    assert output_advice(model, (), ()) is None


def test_what_fails_is_a_score_if_there_are_scores_and_an_output_otherwise() -> None:
    errors = told(output("y", PIXELS, PIXELS + 200), output("z", PIXELS, PIXELS))
    shares = {"det": 0.8, "seg": 1.01}
    scored = Evaluation(name="", scores=shares, shares=shares, comparison=errors)
    assert failing(Goal(min_score=0.99), scored) == ("det",)
    assert failing(Goal(min_cosine=0.999), Evaluation(name="", comparison=errors)) == ("y",)
    assert failing(Goal(budget_us=1.0), scored) == ()


def test_a_ceiling_that_fails_blames_the_thresholds() -> None:
    assert compensation_advice(False, (), "0.7").kind == "calibration"
    assert compensation_advice(True, (), "0.999").kind == "compensate"
