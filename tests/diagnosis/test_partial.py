from __future__ import annotations

import numpy as np
import pytest

from jptq.diagnosis import NONE, output_scores, rank_samples, unquantized
from jptq.quant.assign import table
from jptq.quant.calibrated import with_assignment
from jptq.quant.export import to_qdq
from tests.agreements.figures import ORACLES
from tests.agreements.network import run
from tests.diagnosis.networks import case, on, types


def test_quantizers_are_taken_away_one_group_after_another() -> None:
    found = unquantized({"a": "int8", "b": "int8", "c": "int16"}, {"x": ["a"], "y": ["c", "a"]})
    assert found == {
        NONE: {"a": "int8", "b": "int8", "c": "int16"},
        "x": {"a": "float32", "b": "int8", "c": "int16"},
        "y": {"a": "float32", "b": "int8", "c": "float32"},
    }
    assert unquantized({"a": "int8"}, {"x": ["a"]}, "int16")["x"] == {"a": "int16"}


@pytest.mark.parametrize("metric", ["cosine-similarity", "chebyshev"])
def test_each_step_scores_as_in_onnxruntime(metric: str) -> None:
    made = case()
    steps = {s.node: s.calibrations for s in made.plan.slots}
    assignments = unquantized(types(made), steps)
    found = output_scores(
        made.runner,
        {n: table(made.plan, made.thresholds, a) for n, a in assignments.items()},
        made.samples,
        metric=metric,
    )
    off = dict.fromkeys(types(made), "float32")
    floats = run(to_qdq(with_assignment(made.model, off)), made.samples)
    assert found.labels == (NONE, *steps)
    assert found.outputs == made.model.output_names
    for row, assignment in enumerate(assignments.values()):
        quantized = run(to_qdq(with_assignment(made.model, assignment)), made.samples)
        scores = np.asarray(
            [
                [ORACLES[metric](f[name], q[name]) for name in found.outputs]
                for f, q in zip(floats, quantized, strict=True)
            ]
        )
        np.testing.assert_allclose(found.scores[row], scores.mean(0), rtol=2e-3, atol=1e-6)
        np.testing.assert_allclose(found.mean[row], scores.mean(), rtol=2e-3, atol=1e-6)
        np.testing.assert_allclose(found.per_sample[row], scores.mean(1), rtol=3e-3, atol=1e-6)


def test_progress_counts_every_table_and_batch() -> None:
    made, seen = case(), []
    output_scores(
        made.runner,
        {"a": on(made), "b": on(made)},
        made.samples,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(i, 6) for i in range(1, 7)]


@pytest.mark.parametrize(("metric", "worst_first"), [("cosine-similarity", 1), ("mse", -1)])
def test_samples_are_ranked_worst_first(metric: str, worst_first: int) -> None:
    made = case()
    found = rank_samples(made.runner, on(made), made.samples, metric=metric)
    want = output_scores(made.runner, {"": on(made)}, made.samples, metric=metric).per_sample[0]
    assert np.array_equal(found.scores, want)
    ordered = worst_first * found.scores[found.order]
    assert np.array_equal(ordered, np.sort(ordered))
    assert sorted(found.order) == [0, 1, 2, 3, 4]
