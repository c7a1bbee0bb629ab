"""The choice between methods, by a panel whose losses are made up."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from jptq.calibration import Calibrated, Method
from jptq.calibration.choice import POOR, choose

MAX = Method(name="max")
SHARE = Method(name="max", percentile=0.99995)
KL = Method(name="kl")
CHANNELS = Method(name="max", per_channel=True)


class Panel:
    """Gives the losses that it was told, by tag; notes what it is asked."""

    def __init__(self, **losses: tuple[object, object]) -> None:
        self.known = {name: [np.atleast_1d(v) for v in two] for name, two in losses.items()}
        self.asked: list[str] = []

    def losses(self, found: Calibrated) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append(found.method)
        int8, int16 = self.known[found.method.partition(":")[0]]
        return int8.astype(float), int16.astype(float)


def found(method: Method) -> Calibrated:
    names = ("share", "clipped") if method.percentile < 1 else (method.name, "channels")
    name = names[method.per_channel]
    return Calibrated(thresholds={}, method=name)


def chosen(panel: Panel, *methods: Method, **options: object) -> Calibrated:
    return choose(methods, found, panel, **options)  # type: ignore[arg-type]


def test_the_simplest_method_is_asked_first_and_stays_among_equals() -> None:
    same = (np.full(8, 0.2), np.full(8, 1e-6))
    panel = Panel(max=same, share=same, kl=same)
    result = chosen(panel, SHARE, KL, MAX)
    assert (result.method, panel.asked) == ("max", ["max", "share", "kl"])
    assert [one.why for one in result.compared if not one.chosen] == 2 * [
        "not clearly better than a simpler one"
    ]


def test_a_method_that_loses_less_on_every_sample_replaces_a_simpler_one() -> None:
    before = np.linspace(0.1, 0.4, 8)
    panel = Panel(max=(before, 0.0), kl=(0.8 * before, 0.0))
    assert chosen(panel, MAX, KL).method == "kl"


def test_one_sample_that_loses_a_hundred_times_more_does_not_hide_what_all_gain() -> None:
    before = np.array([0.5, 5e-3, 4e-3, 6e-3, 5e-3, 5e-3, 4e-3, 5e-3])
    panel = Panel(max=(before, 0.0), kl=(0.2 * before, 0.0))
    assert chosen(panel, MAX, KL).method == "kl"


def test_what_most_samples_gain_is_not_paid_by_one() -> None:
    after = np.array([0.9, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3])
    panel = Panel(max=(np.full(8, 0.02), 0.0), kl=(after, 0.0))
    assert chosen(panel, MAX, KL).method == "max"


def test_noise_of_the_samples_is_no_reason() -> None:
    before = np.full(8, 0.2)
    after = before * np.array([0.2, 2.0, 0.3, 1.8, 0.4, 1.6, 0.2, 1.0])
    assert after.mean() < 0.95 * before.mean()
    panel = Panel(max=(before, 0.0), kl=(after, 0.0))
    assert chosen(panel, MAX, KL).method == "max"


def test_what_int16_loses_too_rules_a_method_out() -> None:
    """As INT8 it is ahead by half: but what it clips no raised node gives back."""
    panel = Panel(max=(np.full(8, 0.4), np.full(8, 1e-5)), kl=(np.full(8, 0.2), np.full(8, 0.1)))
    result = chosen(panel, MAX, KL)
    assert result.method == "max"
    assert result.compared[1].why == "loses 10.00% at INT16, which nothing gives back"


def test_where_every_method_loses_at_int16_the_least_decides_who_is_left() -> None:
    panel = Panel(
        max=(np.full(4, 0.9), np.full(4, 0.30)),
        share=(np.full(4, 0.7), np.full(4, 0.25)),
        kl=(np.full(4, 0.5), np.full(4, 0.70)),
    )
    assert chosen(panel, MAX, SHARE, KL).method == "share"


@pytest.mark.parametrize(("loss", "asked"), [(POOR, ["max"]), (1.01 * POOR, ["max", "channels"])])
def test_thresholds_per_channel_are_tried_only_where_the_others_are_poor(
    loss: float, asked: list[str]
) -> None:
    panel = Panel(max=(loss, 0.0), channels=(0.5 * loss, 0.0))
    result = chosen(panel, MAX, CHANNELS)
    assert (panel.asked, result.method) == (asked, asked[-1])


def test_where_only_such_methods_are_asked_for_all_are_tried() -> None:
    panel = Panel(channels=(0.5 * POOR, 0.0), clipped=(0.1 * POOR, 0.0))
    clipped = Method(name="max", percentile=0.99995, per_channel=True)
    assert chosen(panel, CHANNELS, clipped).method == "clipped"


def test_all_of_them_are_tried_if_one_is() -> None:
    panel = Panel(max=(0.3, 0.0), channels=(0.5 * POOR, 0.0), clipped=(0.1 * POOR, 0.0))
    clipped = Method(name="max", percentile=0.99995, per_channel=True)
    assert chosen(panel, MAX, CHANNELS, clipped).method == "clipped"


@pytest.mark.parametrize("poor", [True, False])
def test_a_method_for_each_feature_comes_last_and_only_where_all_others_are_poor(
    poor: bool,
) -> None:
    panel = Panel(max=(0.3 if poor else POOR, 0.0), mix=(0.1, 0.0))
    result = chosen(panel, MAX, mixed=lambda: Calibrated(thresholds={}, method="mix"))
    assert result.method == ("mix" if poor else "max")
    assert panel.asked == ["max", "mix"][: 1 + poor]


def test_a_time_limit_keeps_what_was_compared(caplog: pytest.LogCaptureFixture) -> None:
    panel = Panel(max=(0.3, 0.0), kl=(0.1, 0.0))
    with caplog.at_level(logging.WARNING):
        result = chosen(panel, MAX, KL, enough=lambda: True)
    assert (result.method, panel.asked) == ("max", ["max"])
    assert "1 of 2 calibration methods were compared" in caplog.text


def test_the_others_stay_at_hand() -> None:
    panel = Panel(max=(0.3, 0.0), kl=(0.1, 0.0))
    result = chosen(panel, MAX, KL)
    assert [one.method for one in result.rivals] == ["max"]
    assert [(one.method, one.chosen) for one in result.compared] == [("max", False), ("kl", True)]
