from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

from jptq import files
from jptq.errors import EvaluatorError
from jptq.tuning import Evaluator, Journal, Measurer, Prepared
from jptq.tuning.evaluator import Forward
from jptq.tuning.measure import OutOfTime, share_of, shares_of
from tests.tuning.networks import evaluator


@pytest.mark.parametrize(
    ("score", "reference", "want"),
    [(0.5, 1.0, 0.5), (1.2, 1.0, 1.2), (0.0, 0.0, 1.0), (0.1, 0.0, 1.0), (-0.1, 0.0, 0.0)],
)
def test_a_share_is_of_the_float_score(score: float, reference: float, want: float) -> None:
    assert share_of(score, reference) == pytest.approx(want)


def test_a_score_below_zero_is_worse_the_further_it_falls() -> None:
    # A negative loss: -1.1 is 10 % worse than -1.0, as 0.9 is than 1.0.
    assert share_of(-1.0, -1.0) == pytest.approx(1.0)
    assert share_of(-1.1, -1.0) == pytest.approx(0.9)
    assert share_of(-0.9, -1.0) == pytest.approx(1.1)


def test_scores_without_a_name_of_the_float_models_are_refused() -> None:
    with pytest.raises(EvaluatorError, match="other scores") as caught:
        shares_of({"car": 0.9, "dog": 0.1}, {"car": 0.9, "person": 0.8})
    assert caught.value.why == "missing: person; new: dog"


def test_the_evaluator_sees_the_float_model_first(prepared: Prepared) -> None:
    seen: list[np.ndarray] = []

    def evaluate(forward: Forward) -> float:
        seen.append(next(iter(forward(prepared.samples[0]).values())))
        return 1.0

    Measurer(prepared, Evaluator.of(evaluate), Journal(None))("int8", prepared.all("int8"))
    exact = next(iter(prepared.runner.forward(None)(prepared.samples[0]).values()))
    assert len(seen) == 3  # float twice: is it deterministic?
    np.testing.assert_array_equal(seen[0], exact)
    np.testing.assert_array_equal(seen[1], exact)
    assert (seen[2] != exact).any()


def test_after_the_deadline_nothing_new_is_run(prepared: Prepared) -> None:
    measurer = Measurer(prepared, None, Journal(None))
    known = measurer("int8", prepared.all("int8"))
    measurer.deadline = time.monotonic() - 1
    with pytest.raises(OutOfTime):
        measurer("int16", prepared.all("int16"))
    assert measurer("int8", prepared.all("int8")) == known


def test_evaluations_are_json_though_a_ratio_is_infinite(prepared: Prepared) -> None:
    same = Measurer(prepared, None, Journal(None))(
        "float", dict.fromkeys(prepared.all("int8"), "float32")
    )
    assert same.comparison is not None
    assert same.comparison.outputs[0].sqnr.mean == math.inf
    stored = json.loads(files.json_text(same.to_json()))
    assert stored["comparison"]["outputs"][0]["sqnr"]["mean"] == "inf"


def test_the_journal_keeps_all_that_was_compared(prepared: Prepared, tmp_path: Path) -> None:
    types = dict.fromkeys(prepared.all("int8"), "float32")
    first = Measurer(prepared, None, Journal(tmp_path))("a", types)
    assert Measurer(prepared, None, Journal(tmp_path))("a", types) == first


def test_the_float_model_is_all_of_itself(prepared: Prepared) -> None:
    floating = Measurer(prepared, evaluator(), Journal(None)).floating()
    assert floating.worst_share == 1.0
    assert floating.scores["score"] == pytest.approx(1.0, abs=1e-5)
    assert Measurer(prepared, None, Journal(None)).floating().worst_share is None


def test_output_errors_are_those_of_the_two_forwards(prepared: Prepared) -> None:
    assignment = prepared.all("int8")
    found = Measurer(prepared, None, Journal(None))("int8", assignment)
    assert found.comparison is not None
    (output,) = found.comparison.outputs
    exact = prepared.runner.forward(None)
    rough = prepared.runner.forward(prepared.table(assignment))
    cosines, squares, absolutes, worst = [], [], [], []
    for i in range(len(prepared.samples)):
        a, b = (f(prepared.samples[i])[output.output].astype(float).ravel() for f in (exact, rough))
        cosines.append(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
        squares.append(np.mean((a - b) ** 2))
        absolutes.append(np.mean(np.abs(a - b)))
        worst.append(np.max(np.abs(a - b)))
    assert found.comparison.samples == len(cosines) == 5
    pairs = (output.cosine, cosines), (output.l2, squares), (output.l1, absolutes)
    for spread, want in (*pairs, (output.chebyshev, worst)):
        got = (spread.min, spread.mean, spread.max)
        np.testing.assert_allclose(got, (np.min(want), np.mean(want), np.max(want)), rtol=1e-4)


def test_nothing_is_measured_twice(prepared: Prepared) -> None:
    scored = evaluator()
    measurer = Measurer(prepared, scored, Journal(None))
    first = measurer("one name", prepared.all("int8"), predicted=1.0)
    calls = scored.calls
    second = measurer("another", dict(reversed(prepared.all("int8").items())), predicted=2.0)
    assert scored.calls == calls
    assert second.comparison == first.comparison
    assert (second.name, second.predicted_error) == ("another", 2.0)


def test_what_the_journal_knows_is_counted_and_only_float_is_scored_again(
    prepared: Prepared, tmp_path: Path
) -> None:
    first = Measurer(prepared, evaluator(digest="file"), Journal(tmp_path))
    want = first("int8", prepared.all("int8"))
    scored = evaluator(digest="file")
    later = Measurer(prepared, scored, Journal(tmp_path))
    assert later("int8", prepared.all("int8")) == want
    assert scored.calls == 1
    assert later.evaluator_calls == first.evaluator_calls == 3  # float twice, and INT8


def test_what_is_known_of_a_network_is_known_of_it_with_other_remarks(prepared: Prepared) -> None:
    scored = evaluator()
    measurer = Measurer(prepared, scored, Journal(None))
    want = measurer("int8", prepared.all("int8"))
    other = measurer.on(dataclasses.replace(prepared, remarks=("it is the same",)))
    assert other("int8", prepared.all("int8")) == want
    assert scored.calls == 3  # the float network is scored twice


def test_another_form_of_the_network_is_scored_against_the_same_float_model(
    prepared: Prepared,
) -> None:
    scored = evaluator()
    measurer = Measurer(prepared, scored, Journal(None))
    want = measurer("int8", prepared.all("int8"))
    other = measurer.on(dataclasses.replace(prepared, digest="of another form"))
    assert other("int8", prepared.all("int8")) == want
    assert scored.calls == other.evaluator_calls == measurer.evaluator_calls == 4


def test_latency_and_int16_work_are_those_of_the_assignment(prepared: Prepared) -> None:
    measurer = Measurer(prepared, None, Journal(None))
    low, high = (measurer(n, prepared.all(n)) for n in ("int8", "int16"))
    assert (low.raised, low.macs_int16) == (0, 0.0)
    assert high.raised > 0
    assert high.macs_int16 == 1.0
    assert high.time_us == prepared.latency.total_us(prepared.all("int16"))
