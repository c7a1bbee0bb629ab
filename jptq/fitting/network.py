"""The network's own guard: what quantized weights cost at its outputs, on held-out samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jptq.engine import Packed
from jptq.fitting.observed import Observed
from jptq.quant.assign import Table


def network_error(
    observed: Observed, table: Table, numbers: Sequence[int], changed: Mapping[str, np.ndarray]
) -> float:
    """Return the error of the outputs under a table: the mean over what stands for them.

    Of each it is the sum of squared errors over the sum of squared deviations from its mean.

    Args:
      observed: The network.
      table: What is run.
      numbers: Of the samples, at least one.
      changed: Initializers that differ from the float network's.

    Returns:
      NaN if no output varies.
    """
    packed = observed.runner.pack(table, changed)
    with np.errstate(over="ignore", invalid="ignore"):  # what is no number is no improvement
        return _mean_error(observed, packed, numbers)


def _mean_error(observed: Observed, packed: Packed, numbers: Sequence[int]) -> float:
    lost = dict.fromkeys(observed.scores, 0.0)
    sums = {name: np.zeros(3) for name in observed.scores}
    for feeds, count in observed.batches(numbers):
        _, wanted = observed.run(observed.floating, feeds)
        _, found = observed.run(packed, feeds)
        for name in observed.scores:
            want = np.asarray(wanted[name], np.float64)[:count]
            lost[name] += float(np.sum((np.asarray(found[name])[:count] - want) ** 2))
            sums[name] += (want.size, np.sum(want), np.sum(want * want))
    varies = {n: square - total**2 / max(size, 1) for n, (size, total, square) in sums.items()}
    shares = [lost[name] / power for name, power in varies.items() if power > 0.0]
    return float(np.mean(shares)) if shares else float("nan")
