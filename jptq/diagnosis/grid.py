"""The numbers that one quantizer can give out, on the host and in float64."""

from __future__ import annotations

import dataclasses

import numpy as np

from jptq.quant.assign import Table
from jptq.quant.plan import Calibration, Plan


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Applied:
    """Values on a grid.

    Attributes:
      rounded: ``float64[S, *shape]``.
      clipped: How many lay beyond the grid by more than half a step.
      codes: Integers counted from the least one of the grid; None where there are none.
    """

    rounded: np.ndarray
    clipped: int = 0
    codes: np.ndarray | None = None


class Grid:
    """One quantizer of a table.

    Args:
      calibration: The quantizer.
      plan: Its plan.
      table: What it holds.

    Attributes:
      on: Whether it changes values at all.
      integral: Whether its numbers are integers times a scale; the others are float16's.
      lower: Least integer.
      upper: Largest integer.
    """

    def __init__(self, calibration: Calibration, plan: Plan, table: Table) -> None:
        index = plan.index[calibration.name]
        start, stop = plan.offsets[index], plan.offsets[index + 1]
        self._axis = calibration.axis
        self._scale = np.asarray(table.scale)[start:stop].astype(np.float64)
        self._offset = np.asarray(table.offset)[start:stop].astype(np.float64)
        self.on = bool(np.asarray(table.gate)[index])
        self.lower = int(np.asarray(table.lower)[index])
        self.upper = int(np.asarray(table.upper)[index])
        self.integral = self.on and self.lower < self.upper

    def applied(self, values: np.ndarray) -> Applied:
        """Return what the quantizer makes of values.

        Args:
          values: ``[S, *shape of the tensor]``.
        """
        x = values.astype(np.float64)
        if not self.on:
            return Applied(rounded=x)
        if not self.integral:
            largest = float(np.finfo(np.float16).max)
            half = np.clip(x, -largest, largest).astype(np.float32).astype(np.float16)
            clipped = int(np.count_nonzero(np.abs(x) > largest))
            return Applied(rounded=half.astype(np.float64), clipped=clipped)
        shape = [1] * values.ndim
        if self._axis is not None:
            shape[self._axis % (values.ndim - 1) + 1] = self._scale.size
        scale, offset = self._scale.reshape(shape), self._offset.reshape(shape)
        nearest = np.round(x / scale) + offset
        integers = np.clip(nearest, self.lower, self.upper)
        return Applied(
            rounded=(integers - offset) * scale,
            clipped=int(np.count_nonzero(nearest != integers)),
            codes=(integers - self.lower).astype(np.int64),
        )
