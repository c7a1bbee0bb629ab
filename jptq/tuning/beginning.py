"""What costs no latency comes first: fitted weights and biases, then the calibration method."""

from __future__ import annotations

import dataclasses

from jptq.errors import NonFiniteScoreError
from jptq.numerics.qtypes import INT8, INT16
from jptq.quant.config import Config
from jptq.results import Evaluation, MethodTrial
from jptq.tuning.compensating import Again
from jptq.tuning.deadline import passed
from jptq.tuning.goal import Judge, told
from jptq.tuning.measure import Measurer
from jptq.tuning.methods import Settled, settled
from jptq.tuning.options import Options
from jptq.tuning.prepare import Prepared, Progress, quiet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beginning:
    """The network that is ranked and searched.

    Attributes:
      measurer: Runs it.
      again: Prepares it by another configuration, fitted if it is.
      methods: Calibration methods that were compared.
    """

    measurer: Measurer
    again: Again
    methods: tuple[MethodTrial, ...]


def begin(
    measurer: Measurer,
    judge: Judge,
    options: Options,
    again: Again,
    *,
    deadline: float | None = None,
    progress: Progress = quiet,
) -> Beginning:
    """Return the network with what makes it better at no cost; nothing of it if INT8 is enough.

    Args:
      measurer: Runs the network as it was calibrated.
      judge: Knows the goal.
      options: How to tune.
      again: Prepares the network by another configuration.
      deadline: `time.monotonic` value after which nothing is fitted and no further calibration
        method is tried.
      progress: Called as work goes on.
    """
    started, note = measurer.prepared, ""
    before = measurer("all-INT8", started.all(INT8.name))
    enough = judge.goal.has_quality and judge.meets(before)
    if started.fitted is not None and not enough and not passed(deadline):
        fitted = options.allowed(started.fitted())
        started, note = _fitted(measurer, judge, fitted, before)
        measurer = measurer.on(started)
    chosen = settled(measurer, judge, options.allowed, deadline=deadline, progress=progress)
    prepared = _going_on(chosen)
    if note:
        prepared = dataclasses.replace(prepared, remarks=(note, *prepared.remarks))
    if prepared.fit is None:  # by another method: a fit that was refused is told all the same
        prepared = dataclasses.replace(prepared, fit=started.fit)
    return Beginning(
        measurer=chosen.measurer.on(prepared),
        again=_fitting(again) if started.fit is not None and started.fit.kept else again,
        methods=chosen.methods,
    )


def _fitted(
    measurer: Measurer, judge: Judge, fitted: Prepared, before: Evaluation
) -> tuple[Prepared, str]:
    """Return the network fitted, unless the goal's own score is clearly against it, and a note.

    The fit was judged by errors of the outputs; a score may see what they do not.
    """
    plain = measurer.prepared
    if fitted.fit is None or not fitted.fit.kept:
        return dataclasses.replace(plain, fit=fitted.fit), ""
    finest = measurer("all-INT16", plain.all(INT16.name))
    other = measurer.on(fitted)
    try:
        after = other("all-INT8", fitted.all(INT8.name))
        found = other("all-INT16", fitted.all(INT16.name))
    except NonFiniteScoreError as error:
        worse, text = True, f"{error.what}."
    else:
        worse = not judge.meets(found) and (judge.meets(finest) or judge.gains(finest, found))
        text = (
            f"all-INT8 gives {told(after)} with them and {told(before)} without, all-INT16 "
            f"{told(found)} and {told(finest)} (measured)."
        )
    if worse:
        reason = "the score that the goal bounds is better without"
        refused = dataclasses.replace(fitted.fit, kept=False, reason=reason)
        return (
            dataclasses.replace(plain, fit=refused),
            f"Fitted weights and biases are not used: {text}",
        )
    return fitted, f"Weights and biases are fitted to the samples: {text}"


def _fitting(again: Again) -> Again:
    """Return what prepares a network by another configuration and fits that too."""

    def fitted(config: Config) -> Prepared:
        made = again(config)
        return made if made.fitted is None else made.fitted()

    return fitted


def _going_on(chosen: Settled) -> Prepared:
    """Return the network that goes on: whatever is made of it keeps the method."""
    prepared = chosen.measurer.prepared
    if chosen.methods:
        config = prepared.config.calibrated_by(prepared.activation)
        prepared = dataclasses.replace(prepared, config=config)
    if chosen.note:
        prepared = dataclasses.replace(prepared, remarks=(*prepared.remarks, chosen.note))
    return prepared
