"""What a layer keeps: the simplest candidate that none beats clearly on held-out rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jptq.fitting import bias, rounding
from jptq.fitting.capture import Moments
from jptq.fitting.grid import grid_of, stored
from jptq.fitting.layers import Layer
from jptq.results.fit import BIAS, PLAIN, WEIGHTS, LayerFit

_MARGIN = 0.05
"""Share of the error by which something less simple has to be better, however many rows."""

Constants = Mapping[str, np.ndarray]
"""Initializers by name."""


def margin(rows: int) -> float:
    """Return the share of the error by which a candidate has to be better on held-out rows.

    An error that is a mean over few rows is uncertain by about one over the root of their number.
    """
    return min(1.0, _MARGIN + 1.0 / math.sqrt(max(rows, 1)))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What became of a layer.

    Attributes:
      row: What it keeps, and the errors of all candidates.
      constants: What it keeps, as initializers that change.
      biases: What it would keep if only biases could change.
    """

    layer: Layer
    row: LayerFit
    constants: Constants
    biases: Constants

    @property
    def plainer(self) -> Outcome:
        """The outcome with biases alone."""
        row = dataclasses.replace(self.row, kept=BIAS if self.biases else PLAIN)
        return dataclasses.replace(self, row=row, constants=self.biases)


def untouched(layer: Layer, reason: str, rows: int = 0) -> Outcome:
    """Return the outcome of a layer that nothing was tried on."""
    row = LayerFit(nodes=layer.nodes, weight=layer.weight, kept=PLAIN, rows=rows, reason=reason)
    return Outcome(layer=layer, row=row, constants={}, biases={})


def outcome(
    layer: Layer,
    constants: Constants,
    thresholds: np.ndarray,
    fit: Moments,
    held: Moments,
    *,
    allowed: Sequence[str],
) -> Outcome:
    """Return what a layer keeps.

    Args:
      layer: With readers.
      constants: Initializers of the float network.
      thresholds: Of its quantizer.
      fit: Sums over the rows to fit to.
      held: Sums over those to judge by.
      allowed: `BIAS`, `WEIGHTS` or both.
    """
    if not all(np.isfinite(one.scatter).all() for one in (fit, held)):
        return untouched(layer, "products of its inputs leave the range of float32", fit.rows)
    weight = constants[layer.weight]
    grid = grid_of(layer, weight, thresholds)
    varies = float(np.sum(grid.weight * (held.scatter @ grid.weight)))
    if not varies > 0.0:
        return untouched(layer, "its output is the same for all held-out rows", fit.rows)
    nothing = [np.zeros_like(mean[:, :1] * grid.weight[:, 0]) for mean in fit.mean]
    plain = grid.scale * grid.nearest - grid.weight
    errors = {PLAIN: bias.error(plain, nothing, held) / varies}
    shifts: dict[str, list[np.ndarray]] = {}
    has_bias = any(reader.bias for reader in layer.readers)
    shifts[BIAS] = bias.shifts(layer, plain, fit)
    errors[BIAS] = bias.error(plain, shifts[BIAS], held) / varies
    made: dict[str, Constants] = {PLAIN: {}}
    if has_bias:
        made[BIAS] = bias.corrected(layer, shifts[BIAS], constants)
    if WEIGHTS in allowed:
        integers = rounding.fitted(grid, rounding.damped(bias.hessian(layer, fit)))
        d = grid.scale * integers - grid.weight
        shift = bias.shifts(layer, d, fit)
        errors[WEIGHTS] = bias.error(d, shift, held) / varies
        made[WEIGHTS] = {
            **bias.corrected(layer, shift, constants),
            layer.weight: stored(layer, weight, grid, integers),
        }
    needed = margin(held.rows)
    names = [name for name in (BIAS, WEIGHTS) if name in made]
    simple = [name for name in names if name == BIAS]
    kept = _best(errors, [name for name in names if name in allowed], needed)
    return Outcome(
        layer=layer,
        row=LayerFit(
            nodes=layer.nodes,
            weight=layer.weight,
            kept=kept,
            rows=fit.rows,
            plain=errors[PLAIN],
            biased=errors[BIAS],
            fitted=errors.get(WEIGHTS, math.nan),
            reason=_reason(kept, made, allowed, needed, held.rows),
        ),
        constants=made[kept],
        biases=made[_best(errors, simple, needed)],
    )


def _best(errors: Mapping[str, float], names: Sequence[str], needed: float) -> str:
    """Return the simplest candidate that none is clearly better than.

    Args:
      errors: On held-out rows.
      names: Candidates beside `PLAIN`, simple ones first.
      needed: Share of the error by which one has to be better.
    """
    kept = PLAIN
    for name in names:
        if errors[name] < (1.0 - needed) * errors[kept]:
            kept = name
    return kept


def _reason(
    kept: str, made: Mapping[str, Constants], allowed: Sequence[str], needed: float, rows: int
) -> str:
    """Say why nothing better than what is kept was."""
    if kept == WEIGHTS:
        return ""
    tried = [name for name in made if name in allowed]
    if not tried:
        return "it has no bias to change"
    if kept == BIAS and WEIGHTS not in tried:
        return ""
    what = "fitted weights" if WEIGHTS in tried else "a bias"
    return f"{what} have to be better by {needed:.0%} on {rows} held-out rows"
