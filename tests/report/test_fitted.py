from __future__ import annotations

import dataclasses
import math

from jptq.report import fitted, markdown
from jptq.results import Fit, LayerFit
from tests.report.factory import make_report
from tests.report.test_markdown import cells, section

LAYERS = (
    LayerFit(
        nodes=("stem",),
        weight="w0",
        kept="weights",
        rows=900,
        plain=4e-4,
        biased=3.9e-4,
        fitted=1e-4,
    ),
    LayerFit(
        nodes=("left|1", "right"),
        weight="w1",
        kept="bias",
        rows=12,
        plain=2e-3,
        biased=1e-3,
        fitted=5e-3,
        reason="fitted weights lose more on held-out samples",
    ),
    LayerFit(nodes=("head",), weight="w2", kept="plain", reason="int16 is asked for"),
)
FIT = Fit(mode="auto", layers=LAYERS, plain=0.0123, fitted=0.0041, kept=True)


def test_the_line_counts_layers_and_gives_the_networks_guard() -> None:
    assert fitted.sentence(FIT) == (
        "Of 3 layers 1 with fitted weights, 1 with a corrected bias alone; error of the outputs on "
        "held-out samples, INT8 weights and INT16 activations: 0.0123 plain, 0.0041 fitted "
        "(measured)."
    )


def test_where_nothing_is_kept_the_line_says_why() -> None:
    none = dataclasses.replace(FIT, kept=False, fitted=0.02, reason="the network is no better")
    assert fitted.sentence(none).startswith(
        "Weights and biases stay what they were: the network is no better (error of"
    )
    alone = Fit(mode="auto", reason="a single sample cannot be fitted to and held out")
    assert fitted.sentence(alone) == (
        "Weights and biases stay what they were: a single sample cannot be fitted to and held out."
    )


def test_the_layers_that_lose_most_come_first_and_unmeasured_ones_last() -> None:
    table = fitted.layers(FIT)
    assert table.rows == (
        ("left|1, right", "bias", "0.002", "0.001", "0.005", "50 %", LAYERS[1].reason),
        ("stem", "weights", "0.0004", "0.00039", "0.0001", "25 %", ""),
        ("head", "-", "-", "-", "-", "-", "int16 is asked for"),
    )
    short = fitted.layers(FIT, 1)
    assert len(short.rows) == 2
    assert short.rows[1][0] == "and 2 more: --top=0"
    assert {len(row) for row in short.rows} == {len(short.header)}


def test_the_report_has_every_layer_with_the_figures_of_its_guard() -> None:
    text = markdown.render(dataclasses.replace(make_report(), fit=FIT))
    part = section(text, "What was fitted")
    assert fitted.sentence(FIT) in part
    rows = cells(part)[2:]
    assert rows[0][0] == "`left\\|1`, `right`"
    assert [row[1] for row in rows] == ["bias", "weights", "-"]


def test_a_report_without_a_fit_has_no_such_part() -> None:
    assert "What was fitted" not in markdown.render(make_report())
    off = dataclasses.replace(make_report(), fit=Fit(mode="off"))
    assert "What was fitted" not in markdown.render(off)


def test_results_hold_the_fit() -> None:
    content = dataclasses.replace(make_report(), fit=FIT).to_json()["fit"]
    back = Fit.from_json(content)
    assert back.count("weights") == 1
    assert math.isnan(back.layers[2].plain)
    assert content["layers"][2]["plain"] is None
