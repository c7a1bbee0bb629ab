"""What a fit did, as data that can be stored."""

from __future__ import annotations

import json
import math

from jptq import files
from jptq.results.fit import BIAS, PLAIN, WEIGHTS, Fit, LayerFit

FOUND = Fit(
    mode="auto",
    layers=(
        LayerFit(nodes=("a", "b"), weight="w", kept=WEIGHTS, rows=9, plain=3e-3, biased=2e-3),
        LayerFit(nodes=("c",), weight="v", kept=PLAIN, reason="int16 is asked for"),
        LayerFit(nodes=("d",), weight="u", kept=BIAS, rows=9, plain=1.0, biased=0.5, fitted=0.4),
    ),
    plain=0.25,
    fitted=0.125,
    kept=True,
)


def test_a_fit_comes_back_from_json_though_some_of_its_numbers_are_none() -> None:
    text = files.json_text(FOUND.to_json())
    again = Fit.from_json(json.loads(text))
    assert files.json_text(again.to_json()) == text
    assert again.layers[2] == FOUND.layers[2]
    assert math.isnan(again.layers[0].fitted)
    assert math.isnan(Fit.from_json(Fit(mode="off").to_json()).plain)


def test_layers_are_counted_by_what_they_keep() -> None:
    assert [FOUND.count(kept) for kept in (WEIGHTS, BIAS, PLAIN)] == [1, 1, 1]
