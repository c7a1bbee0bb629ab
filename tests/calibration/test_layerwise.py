"""The searches: for one method of the whole network, and for one of each sensitive feature."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pytest

from jptq.calibration import Calibrated
from jptq.errors import ConfigError
from jptq.quant.config import Activation, LayerwiseSearch, ModelwiseSearch
from tests.calibration.test_search import Judge, found

MIX = Activation(calibration_type=("mix",))
KL = "kl:num_bin=1024,max_num_bin=16384"
PERCENTILE = "max-percentile:percentile=0.99995"


def alone_best(tag: str) -> tuple[Judge, Calibrated]:
    """Return a judge to whom max is best for the network and ``tag`` for x alone."""
    each = Activation(calibration_type=("max", "kl"), max_percentile=(0.99995, 1.0))
    other = found(each, scorer=Judge({tag: 1.0}))
    return Judge(
        {"max": 0.95}, wanted={n: float(v.max()) for n, v in other.thresholds.items()}
    ), other


@pytest.mark.parametrize("tag", [KL, PERCENTILE])
def test_a_sensitive_feature_takes_the_method_that_suits_it(tag: str) -> None:
    judge, other = alone_best(tag)
    result = found(MIX, scorer=judge)
    assert result.method == "mix"
    assert [trial.method for trial in result.trials] == [PERCENTILE, "max", KL]
    name = "x_HzCalibration"
    np.testing.assert_array_equal(result.thresholds[name], other.thresholds[name])
    (merged,) = [one for one in result.merged if one.name == name]
    assert merged.method == tag
    assert merged.after > merged.before


def test_features_that_nothing_improves_keep_the_best_method_of_the_network() -> None:
    judge, base = alone_best("max")
    result = found(MIX, scorer=judge)
    for name, values in base.thresholds.items():
        np.testing.assert_array_equal(result.thresholds[name], values)
    assert all(one.method == "max" and one.after == one.before for one in result.merged)


@pytest.mark.parametrize(("saved", "is_taken"), [(0.04, False), (0.06, True)])
def test_another_method_has_to_be_clearly_better(saved: float, is_taken: bool) -> None:
    class Near(Judge):
        def alone(
            self, found: Calibrated, names: Sequence[str], qtype: str | None = None
        ) -> dict[str, float]:
            error = 0.1 * (1 - saved * (found.method == KL))
            return {"cosine-similarity": 1 - error, "mse": error}

    result = found(MIX, scorer=Near({"max": 0.95}))
    assert {one.method for one in result.merged} == {KL if is_taken else "max"}


def test_only_the_worst_features_are_looked_at() -> None:
    judge, _ = alone_best(KL)
    every = found(MIX, scorer=judge)
    two = found(MIX, scorer=judge, layerwise=LayerwiseSearch(topk=2))
    assert two.merged == every.merged[: len(two.merged)]
    assert 2 <= len(two.merged) < len(every.merged)
    scores = [one.before for one in every.merged]
    assert scores == sorted(scores)


def test_tied_features_change_their_method_together() -> None:
    judge, _ = alone_best(KL)
    result = found(MIX, scorer=judge)
    tied = [result.thresholds[f"{name}_HzCalibration"] for name in ("a:0", "b:0", "Concat_3:0")]
    assert tied[0] == tied[1] == tied[2]


def test_a_type_is_raised_where_that_helps() -> None:
    judge, _ = alone_best(KL)
    result = found(MIX, scorer=judge, layerwise=LayerwiseSearch(topk=1, qtype="int16"))
    assert set(result.types) == {one.name for one in result.merged}
    assert set(result.types.values()) == {"int16"}
    assert found(MIX, scorer=judge).types == {}


def test_a_layerwise_search_wins_over_a_silent_configuration(
    caplog: pytest.LogCaptureFixture,
) -> None:
    judge, _ = alone_best(KL)
    with caplog.at_level(logging.INFO, "jptq"):
        result = found(Activation(), scorer=judge, layerwise=LayerwiseSearch(metric="mse"))
    assert result.method == "mix"
    (table,) = [r.message for r in caplog.records if r.message.startswith("Merge_Info(mse)")]
    assert all(one.name in table for one in result.merged)
    assert all(one.after <= one.before for one in result.merged)


def test_a_search_needs_something_to_judge_by() -> None:
    with pytest.raises(ConfigError, match="nothing to compare"):
        found(MIX)


def test_the_metric_of_the_search_decides() -> None:
    class Torn(Judge):
        def whole(self, found: Calibrated) -> dict[str, float]:
            cosine = self.by_tag.get(found.method, self.default)
            return {"cosine-similarity": cosine, "mse": cosine}  # the wrong way round

    judge = Torn({"max": 0.99, KL: 0.5})
    both = Activation(calibration_type=("max", "kl"))
    assert found(both, scorer=judge).method == "max"
    assert found(both, scorer=judge, modelwise=ModelwiseSearch(metric="mse")).method == KL


def test_the_similarity_that_is_good_enough_can_be_set() -> None:
    judge = Judge({"max": 0.97})
    assert len(found(Activation(), scorer=judge).trials) == 12
    search = ModelwiseSearch(similarity=0.96)
    assert len(found(Activation(), scorer=judge, modelwise=search).trials) == 6
