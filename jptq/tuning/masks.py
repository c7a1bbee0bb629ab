"""Masks in constants, written shorter: the float network has to compute the same."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import jax
import numpy as np

from jptq.data import SampleSet
from jptq.engine import Runner

_logger = logging.getLogger(__name__)

_SAME = 1e-6
"""Difference from the outputs before, as a share of their largest absolute value, that float32
rounds its sums by in another order too."""


def proven(
    runner: Runner, samples: SampleSet, constants: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return constants in the place of which others may stand, as all samples show.

    Args:
      runner: Of the placed graph.
      samples: All are run, with the constants as they are and with the others.
      constants: Initializers that may have other values.

    Returns:
      `constants`, without those that are part of a program and those that change an output.
    """
    found = {n: v for n, v in constants.items() if n in runner.replaceable}
    if not found or _proven(runner, samples, found):
        return found
    return {n: v for n, v in found.items() if len(found) > 1 and _proven(runner, samples, {n: v})}


def _proven(runner: Runner, samples: SampleSet, found: Mapping[str, np.ndarray]) -> bool:
    other = runner.pack(None, changed=found)
    for feeds, count in runner.batches(samples):
        before = jax.device_get(runner.run(runner.float_weights, feeds))
        after = jax.device_get(runner.run(other, feeds))
        for name, values in before.items():
            if not _same(np.asarray(values)[:count], np.asarray(after[name])[:count]):
                _logger.info("output %r needs the mask %s as it is", name, ", ".join(found))
                return False
    return True


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype.kind != "f":
        return np.array_equal(one, other)
    size = np.max(np.abs(one), where=np.isfinite(one), initial=0)
    return np.allclose(one, other, rtol=0, atol=_SAME * float(size), equal_nan=True)
