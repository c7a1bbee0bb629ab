"""A calibrated network whose weights were moved on their grid, as a fit moves them."""

from __future__ import annotations

import dataclasses

import numpy as np

from jptq.ir import Model
from jptq.numerics.affine import affine
from jptq.numerics.fake_quant import on_grid
from jptq.numerics.qtypes import INT8
from jptq.quant.originals import with_originals
from jptq.tuning import Prepared


def moved(found: Prepared, *, share: float = 0.3, seed: int = 0) -> dict[str, np.ndarray]:
    """Return weights that lie on their INT8 grid, some of them a step off the nearest place.

    Each channel's largest weights stay what they are, so that max|w| / 127 is the same scale.

    Args:
      found: Its calibration.
      share: Of the weights that move.
      seed: Of which.
    """
    rng = np.random.default_rng(seed)
    changed = {}
    for one in found.plan.calibrations:
        if not one.constant or one.kind != "weight":
            continue
        weight = found.calibrated.initializers[one.tensor]
        grid = affine(found.thresholds[one.name], INT8)
        scale = grid.scale.reshape([-1 if i == one.axis else 1 for i in range(weight.ndim)])
        steps = on_grid(weight, grid, one.axis)
        places = steps + rng.choice([-1, 0, 1], steps.shape, p=[share / 2, 1 - share, share / 2])
        new = (np.clip(places, -126, 126) * scale).astype(np.float32)
        # 127 steps may be a last bit more than the largest weight, which makes the scale.
        others = tuple(i for i in range(weight.ndim) if i != one.axis)
        largest = np.abs(weight).max(axis=others, keepdims=True)
        changed[one.tensor] = np.where(np.abs(steps) == 127, np.sign(steps) * largest, new)
    return changed


def refitted(found: Prepared, changed: dict[str, np.ndarray]) -> Model:
    """Return the calibrated model with other constants, and a note of what they were."""
    constants = {**found.calibrated.initializers, **changed}
    model = dataclasses.replace(found.calibrated, initializers=constants)
    return with_originals(model, {name: found.floating.initializers[name] for name in changed})
