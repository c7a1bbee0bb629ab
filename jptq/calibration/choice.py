"""Which of several methods a network is calibrated by: judged by what several samples lose.

A method is judged twice, because a mixed configuration is made of both: with the types that are
asked for (INT8), and with everything INT16. What is lost at INT16 is clipping and coarse weights,
and no raised node gives it back; a method that loses more there than another one does is left out.
Among the others INT8 decides, and a method replaces a simpler one only by a clear margin.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from jptq.calibration.found import Calibrated
from jptq.calibration.method import Method
from jptq.calibration.scoring import MARGIN
from jptq.results import MethodTrial

_logger = logging.getLogger(__name__)

SURE = 2.0
"""Standard errors of the paired ratios by which a method has to be ahead of a simpler one."""

POOR = 0.01
"""Share that is lost at INT8 above which methods per channel, and one for each feature, are tried:
what a cosine of 0.995 is (hmct-spec 2.4 stops there)."""

REPAIRED = 1e-3
"""Share that is lost at INT16 below which methods differ by nothing that counts."""

APART = 2.0
"""How often the least loss at INT16 a method may lose there, above `REPAIRED`."""


_NOTHING = 1e-6
"""Share that counts as nothing: ratios below it say nothing."""


class Panel(Protocol):
    """Runs a network with thresholds that were found on some samples."""

    def losses(self, found: Calibrated) -> tuple[np.ndarray, np.ndarray]:
        """Return what each sample loses, 0 to 1, at INT8 and at INT16: two ``float64[S]``."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Tried:
    found: Calibrated
    simplicity: int
    int8: np.ndarray
    int16: np.ndarray

    @property
    def repairable(self) -> float:
        return _mean(self.int16)


def choose(
    methods: Sequence[Method],
    found: Callable[[Method], Calibrated],
    panel: Panel,
    *,
    mixed: Callable[[], Calibrated] | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> Calibrated:
    """Return the thresholds of the method that loses least, with what all of them lose.

    Args:
      methods: At least one. Those per channel are tried only if the others are poor.
      found: Gives the thresholds of a method.
      panel: Judges them.
      mixed: Gives thresholds by another method for each of the worst features; tried last, if
        all others are poor. None if that is not to be tried.
      enough: Tells, between two methods, that no further one is to be compared.

    Returns:
      The best one, with `Calibrated.compared` and `Calibrated.rivals`.
    """
    tried: list[_Tried] = []
    tensorwise: list[_Tried] = []
    left = 0
    for number, method in enumerate(sorted(methods, key=_simplicity)):
        if tensorwise and method.per_channel and _least(tensorwise) <= POOR:
            break
        if tried and enough():
            left = len(methods) - number
            break
        tried.append(_judged(found(method), number, panel))
        tensorwise += [] if method.per_channel else tried[-1:]
    if mixed is not None and not left and _least(tried) > POOR and not enough():
        tried.append(_judged(mixed(), len(methods), panel))
    if left:
        _logger.warning(
            "the time limit: %d of %d calibration methods were compared", len(tried), len(methods)
        )
    allowed = _allowed(tried)
    best = allowed[0]
    for one in allowed[1:]:
        if _clearly(one.int8, best.int8):
            best = one
    _logger.info("Select %s method.", best.found.method)
    rows = tuple(_row(one, best, allowed) for one in tried)
    rivals = tuple(one.found for one in tried if one is not best)
    return dataclasses.replace(best.found, compared=rows, rivals=rivals)


def _simplicity(method: Method) -> tuple[bool, bool, bool, bool]:
    """Return what sorts methods by how much they assume: the largest value first."""
    return (
        method.per_channel,
        method.asymmetric,
        method.name != "max",
        method.percentile < 1.0,
    )


def _judged(found: Calibrated, simplicity: int, panel: Panel) -> _Tried:
    int8, int16 = panel.losses(found)
    one = _Tried(found=found, simplicity=simplicity, int8=int8, int16=int16)
    _logger.info("%s: loses %.6f, as INT16 %.6f", found.method, _mean(int8), _mean(int16))
    return one


def _least(tried: Sequence[_Tried]) -> float:
    return min(_mean(one.int8) for one in _allowed(tried))


def _allowed(tried: Sequence[_Tried]) -> list[_Tried]:
    """Return those that lose as little at INT16 as any, within what counts; simplest first."""
    least = min(one.repairable for one in tried)
    return [one for one in tried if one.repairable <= max(REPAIRED, APART * least)]


def _clearly(one: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether one loses clearly less than the other on the same samples.

    What each sample loses is compared as a ratio: some lose a hundred times what others do, and
    the mean of differences would be theirs alone. The mean has to fall too.
    """
    gain = np.log((other + _NOTHING) / (one + _NOTHING))
    spread = float(np.std(gain, ddof=1)) / math.sqrt(gain.size) if gain.size > 1 else 0.0
    return _mean(one) < _mean(other) and _mean(gain) > max(-math.log1p(-MARGIN), SURE * spread)


def _mean(losses: np.ndarray) -> float:
    return float(math.fsum(losses.tolist()) / losses.size)


def _row(one: _Tried, best: _Tried, allowed: Sequence[_Tried]) -> MethodTrial:
    if one is best:
        why = "loses least at INT8" if len(allowed) > 1 else "the only one left"
    elif one not in allowed:
        why = f"loses {_mean(one.int16):.2%} at INT16, which nothing gives back"
    elif one.simplicity > best.simplicity:
        why = "not clearly better than a simpler one"
    else:
        why = "loses more at INT8"
    return MethodTrial(
        method=one.found.method,
        int8=_mean(one.int8),
        int16=_mean(one.int16),
        clipped=one.found.clipped,
        clips=one.found.clips,
        chosen=one is best,
        why=why,
    )
