"""What a fit changed, layer by layer, for the terminal and for ``report.md``."""

from __future__ import annotations

import math

from jptq.report import wording
from jptq.report.markup import code, plain, table
from jptq.report.table import RIGHT, Table
from jptq.report.text import shorten
from jptq.results import Fit, LayerFit, Report
from jptq.results.fit import BIAS, PLAIN, WEIGHTS

_NAME_WIDTH = 30

_HEADER = ("layer", "kept", "plain", "with bias", "fitted", "of plain", "why not more")

_KEPT = {WEIGHTS: "weights", BIAS: "bias", PLAIN: "-"}
"""How what a layer keeps is written."""


def sentence(fit: Fit) -> str:
    """Say how many layers were changed and what that does to the network."""
    if not fit.kept:
        error = "" if math.isnan(fit.fitted) else f" ({_network(fit)})"
        return f"Weights and biases stay what they were: {fit.reason}{error}."
    return (
        f"Of {len(fit.layers)} layers {fit.count(WEIGHTS)} with fitted weights, {fit.count(BIAS)} "
        f"with a corrected bias alone; {_network(fit)}."
    )


def _network(fit: Fit) -> str:
    return (
        f"error of the outputs on held-out samples, INT8 weights and INT16 activations: "
        f"{_error(fit.plain)} plain, {_error(fit.fitted)} fitted (measured)"
    )


def layers(fit: Fit, most: int = 0) -> Table:
    """Return the layers as the terminal shows them, those that lose most first.

    Args:
      fit: What was done.
      most: Rows; 0 for all.
    """
    shown = _ordered(fit)[: most or None]
    rows = [(shorten(", ".join(one.nodes), _NAME_WIDTH), *_cells(one)) for one in shown]
    if rest := len(fit.layers) - len(shown):
        rows.append((f"and {rest} more: --top=0", *("",) * (len(_HEADER) - 1)))
    return Table(
        title="Relative error of each layer's output on held-out samples, INT8 weights (measured)",
        header=_HEADER,
        rows=tuple(rows),
        align=("left", "left", *(RIGHT,) * 4, "left"),
    )


def section(report: Report) -> list[str]:
    """Return the paragraphs of ``report.md``: every layer with the figures of its guard."""
    fit = report.fit
    if fit is None or not fit.layers:
        return []
    rows = [(", ".join(map(code, one.nodes)), *map(plain, _cells(one))) for one in _ordered(fit)]
    return [
        "## What was fitted",
        plain(sentence(fit)),
        "Errors of a layer are of its output on samples that it was not fitted to, with INT8 "
        "weights and float inputs: squared errors over squared deviations from the mean. What "
        "does not lower them is not kept; fitted weights lie on the grid that `max|w| / 127` "
        "gives. What layers keep is dropped again if the outputs of the network do not gain.",
        table(_HEADER, rows, ("left", "left", *(RIGHT,) * 4, "left")),
    ]


def _ordered(fit: Fit) -> list[LayerFit]:
    """Return the layers by their plain error, the largest first, those without one last."""
    return sorted(fit.layers, key=lambda one: -one.plain if one.plain == one.plain else math.inf)


def _cells(one: LayerFit) -> tuple[str, ...]:
    """Return what stands behind a layer's name."""
    kept = {WEIGHTS: one.fitted, BIAS: one.biased, PLAIN: one.plain}[one.kept]
    gains = one.kept != PLAIN and one.plain > 0
    return (
        _KEPT[one.kept],
        _error(one.plain),
        _error(one.biased),
        _error(one.fitted),
        f"{100 * kept / one.plain:.0f} %" if gains else wording.NONE,
        one.reason,
    )


def _error(value: float) -> str:
    return wording.NONE if math.isnan(value) else wording.error(value)
