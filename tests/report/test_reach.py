"""Thresholds that stop early, and those far above their values, in ``report.md`` and in JSON."""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from jptq.report import markdown
from jptq.report.reach import MOST
from jptq.results import Limit, Outlying
from jptq.results.reach import reach_notes
from tests.report.factory import make_report
from tests.report.test_markdown import cells, section


def limit(number: int = 0, *, least: float = -np.inf, low: float = -13.5) -> Limit:
    return Limit(
        calibration=f"scores_{number}_HzCalibration",
        tensor=f"scores_{number}",
        low=low,
        high=np.inf,
        least=least,
        largest=8.25,
        by=(("soft|max", "Softmax"),),
    )


GONE = Outlying(
    calibration="power_HzCalibration",
    tensor="power",
    threshold=900.0,
    usual=9.0,
    by=(("head", "Conv"), ("tail", "Conv")),
)


def test_each_limit_has_its_values_and_its_reader() -> None:
    text = markdown.render(dataclasses.replace(make_report(), limits=(limit(),)))
    rows = cells(section(text, "Which values the grids leave out"))
    assert rows[2] == [
        "`scores_0_HzCalibration`",
        "-inf to 8.25",
        "-13.5 to 8.25",
        "'soft\\|max' (Softmax)",
    ]


def test_the_strongest_limits_come_first_and_the_rest_is_counted() -> None:
    limits = tuple(limit(i, least=-20.0 * (i + 1)) for i in range(MOST + 5))
    text = section(
        markdown.render(dataclasses.replace(make_report(), limits=limits)), "Which values"
    )
    assert cells(text)[2][1] == f"{-20.0 * (MOST + 5):.4g} to 8.25"
    assert "And 5 more" in text


def test_an_outlying_threshold_says_how_few_steps_are_left() -> None:
    text = section(
        markdown.render(dataclasses.replace(make_report(), outlying=(GONE,))), "Which values"
    )
    assert cells(text)[2][1:] == ["900", "9", "1.3", "'head' (Conv), 'tail' (Conv)"]


def test_a_report_without_either_has_no_such_section() -> None:
    assert "Which values" not in markdown.render(make_report())


def test_json_gives_back_what_was_found() -> None:
    for one in (limit(), limit(least=-4.0, low=-np.inf)):
        assert Limit.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False))) == one
    assert Outlying.from_json(json.loads(json.dumps(GONE.to_json()))) == GONE


def test_notes_name_the_strongest_limit_once_and_few_outlying_ones() -> None:
    notes = reach_notes((limit(0, least=-30.0), limit(1)), (GONE,) * 5)
    assert notes[0].startswith("2 thresholds stop")
    assert "scores_1_HzCalibration: values reach from -inf to 8.25" in notes[0]
    assert sum("power_HzCalibration" in note for note in notes) == 3
    assert notes[-1].startswith("2 more thresholds")
    assert reach_notes((), ()) == ()
