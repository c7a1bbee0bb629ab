"""What would change if some quantizers had other types or thresholds: asked again and again.

The network is cut into segments (`jptq.engine.segments`). The states at the cuts are kept for all
samples as far as memory allows, so that a question runs only what comes after the first quantizer
that it changes. All programs are compiled by the first question: types, thresholds and weights are
data.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from jptq.engine import Packed, memory
from jptq.engine.program import effort
from jptq.engine.segments import Segmented, State
from jptq.quant.assign import Table, table
from jptq.quant.plan import Plan
from jptq.results import Comparison, Evaluation
from jptq.tuning import findings
from jptq.tuning.changes import Change, Changer, Setting, Value
from jptq.tuning.compared import comparable
from jptq.tuning.evaluator import Evaluator
from jptq.tuning.journal import Journal
from jptq.tuning.measure import compared, evaluation
from jptq.tuning.prepare import Prepared, Progress, quiet
from jptq.tuning.scores import Scores

SEGMENTS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What changes did.

    Attributes:
      changes: Every quantizer that was asked about.
      before: The model that the changes start from; measured.
      after: The changed model; measured.
      rerun: Share of the network's work that had to be done again, 0 to 1.
      seconds: Time that the answer took.
      notes: What the figures of the changed model do not show.
    """

    changes: tuple[Change, ...]
    before: Evaluation
    after: Evaluation
    rerun: float
    seconds: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "schema": 1,
            "changes": [
                {**dataclasses.asdict(change), "applied": change.applied} for change in self.changes
            ],
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "notes": list(self.notes),
            "rerun": self.rerun,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        """Return a line per quantizer, output and score: old, new and difference."""
        lines = [
            f"{change.calibration}: {change.before} -> {change.after}"
            + (f" ({change.note})" if change.note else "")
            for change in self.changes
        ]
        pairs = [
            (f"{old.output} {title}", getattr(old, field).mean, getattr(new, field).mean)
            for old, new in self.outputs
            for title, field in COLUMNS
        ]
        pairs += [(name, self.before.scores[name], new) for name, new in self.after.scores.items()]
        width = max(len(name) for name, _, _ in pairs)
        lines += [
            f"{name:<{width}}  {old:.6g} -> {new:.6g}  ({new - old:+.3g})"
            for name, old, new in pairs
        ]
        lines += self.notes
        return "\n".join(lines)

    @property
    def outputs(self) -> list[tuple[Any, Any]]:
        """Every output's errors before and after."""
        assert self.before.comparison is not None
        assert self.after.comparison is not None
        return list(zip(self.before.comparison.outputs, self.after.comparison.outputs, strict=True))


COLUMNS = (("cosine", "cosine"), ("L1", "l1"), ("L2", "l2"), ("Chebyshev", "chebyshev"))
"""What is shown of an output: title and field of `OutputError`."""


@dataclasses.dataclass(kw_only=True)
class _Batch:
    """What is kept of some samples.

    Attributes:
      indices: Their positions in the set; the last one is repeated to fill the batch up.
      count: How many are real.
      floats: Outputs of the float model; None if they are computed when they are needed.
      states: Quantized states before segments, by the segment's number.
    """

    indices: tuple[int, ...]
    count: int
    floats: Mapping[str, Array] | None
    states: dict[int, State] = dataclasses.field(default_factory=dict)


class WhatIf:
    """A calibrated network that answers questions.

    The numbers of an answer are those of a whole run of the changed model through the same
    programs, bit for bit.

    Args:
      prepared: The network; what it holds is the base of all changes.
      evaluator: The user's score: the whole network runs for it, over the user's own data.
      segments: Pieces that the network is cut into.
      progress: Called while the first question is prepared.

    Example::

        ask = jptq.what_if("calibrated_model.onnx", "calibration_data")
        print(ask({"Conv_12": "int16"}))
        print(ask({"Conv_3.threshold": 4.2}, accumulate=True))
    """

    def __init__(
        self,
        prepared: Prepared,
        evaluator: Evaluator | None = None,
        *,
        segments: int = SEGMENTS,
        progress: Progress = quiet,
    ) -> None:
        self.prepared = prepared
        self.evaluator = evaluator
        self.progress = progress
        runner = prepared.runner
        self._pieces = runner.compilations.once(
            ("segments", segments),
            lambda: Segmented(runner.program, segments, runner.compilations),
        )
        self._changer = Changer(prepared.calibrated, prepared.plan.unpinned, prepared.target.march)
        self._scores = Scores(evaluator, Journal(None), prepared.digest)
        self._given = Setting(assignment=prepared.configured, thresholds=prepared.thresholds)
        self._accumulated: tuple[Setting, Evaluation] | None = None
        self._batches: list[_Batch] = []
        self._cuts: frozenset[int] = frozenset()
        self._kept: tuple[Table, Packed] | None = None

    @functools.cached_property
    def base(self) -> Evaluation:
        """The model as it was given, measured."""
        return self._measured(self._given, keep=True)[0]

    @property
    def current(self) -> Evaluation:
        """The model with all accumulated changes, measured."""
        return self.base if self._accumulated is None else self._accumulated[1]

    @property
    def setting(self) -> Setting:
        """The model's types and thresholds with all accumulated changes."""
        return self._given if self._accumulated is None else self._accumulated[0]

    def reset(self) -> None:
        """Forget accumulated changes."""
        self._accumulated = None

    def __call__(self, changes: Mapping[str, Value], *, accumulate: bool = False) -> Answer:
        """Return what some changes do.

        Args:
          changes: ``{target: type or thresholds}``: a node (``Conv_12``), one input
            (``Conv_12.input1``), its ``.output``, or a quantizer by name, with a type; with
            ``.threshold`` behind it a number, one per channel, or ``"x0.9"``.
          accumulate: The changes come on top of earlier accumulated ones, and stay. Otherwise they
            are made to the model as it was given, and forgotten.

        Raises:
          UnknownNameError: A target or type does not exist; near names are listed.
          ConfigError: A value is impossible.
        """
        base = self.base
        before, origin = (self.current, self.setting) if accumulate else (base, self._given)
        started = time.perf_counter()
        setting, done = self._changer(origin, changes)
        after, rerun = self._measured(setting, keep=accumulate)
        if accumulate:
            self._accumulated = setting, after
        assert after.comparison is not None
        held = table(self.prepared.plan, setting.thresholds, setting.assignment)
        return Answer(
            changes=done,
            before=before,
            after=after,
            rerun=rerun,
            seconds=time.perf_counter() - started,
            notes=findings.remarks(self.prepared, held, after.comparison),
        )

    def _measured(self, setting: Setting, *, keep: bool) -> tuple[Evaluation, float]:
        """Return the measured model and the share of work that it took."""
        prepared = self.prepared
        wanted = table(prepared.plan, setting.thresholds, setting.assignment)
        if not self._batches:
            self._start()
        found, rerun = self._run(wanted, keep=keep)
        floats = self._scores.floating(lambda: prepared.runner.forward(None))
        scores = {} if self.evaluator is None else self.evaluator(prepared.runner.forward(wanted))
        return evaluation(prepared, setting.assignment, found, scores, floats), rerun

    def _start(self) -> None:
        """Run the float model once and decide which states will be kept."""
        runner, samples = self.prepared.runner, self.prepared.samples
        start = 0
        kept = memory.keeps(runner.program, runner.program.outputs, len(samples))
        # Half of the room for samples is for the states.
        most = runner.batch_for(2 * memory.forward(runner.program))
        for feeds, count in runner.batches(samples, most):
            self.progress("run in float", start, len(samples))
            size = next(iter(feeds.values())).shape[0]
            real = range(start, start + count)
            self._batches.append(
                _Batch(
                    indices=(*real, *[real[-1]] * (size - count)),
                    count=count,
                    floats=runner.run(runner.float_weights, feeds) if kept else None,
                )
            )
            start += count
        self._cuts = _affordable(self._pieces, self._room(), len(samples))

    def _room(self) -> float:
        """Return the bytes that states may take."""
        runner = self.prepared.runner
        weights = sum(w.nbytes for w in runner.program.weights.values())
        batch = len(self._batches[0].indices)
        outputs = memory.size(runner.program, runner.program.outputs)
        kept = len(self.prepared.samples) if self._batches[0].floats is not None else batch
        return (
            runner.batching.memory
            - memory.FIXED
            - memory.COPIES * weights
            - batch * memory.forward(runner.program)
            - kept * outputs
        )

    def _run(self, wanted: Table, *, keep: bool) -> tuple[Comparison, float]:
        """Run what differs from the kept states, for all samples, and compare with float."""
        pieces, program = self._pieces, self.prepared.runner.program
        start, packed = self._restart(wanted)
        sums = compared(self.prepared.runner)
        for number, batch in enumerate(self._batches):
            self.progress("run quantized", number, len(self._batches))
            state = batch.states[start] if start in batch.states else self._feeds(batch)
            for index in range(start, len(pieces)):
                if keep and index in self._cuts:
                    batch.states[index] = {n: state[n] for n in pieces.segments[index].live_in}
                state = pieces.run_quantized(index, packed.weights, wanted, state)
            floats = batch.floats
            if floats is None:
                runner = self.prepared.runner
                feeds = {n: np.asarray(v) for n, v in self._feeds(batch).items()}
                floats = runner.run(runner.float_weights, feeds)
            for name in comparable({n: state[n] for n in program.outputs}):
                sums.add(name, floats[name], state[name], batch.count)
        self.progress("run quantized", len(self._batches), len(self._batches))
        if keep:
            self._kept = wanted, packed
        return sums.comparison(), _work(pieces, start)

    def _restart(self, wanted: Table) -> tuple[int, Packed]:
        """Return the segment from which a table has to be run, and its weights."""
        plan, runner = self.prepared.plan, self.prepared.runner
        if self._kept is None:
            return 0, runner.pack(wanted)
        kept, packed = self._kept
        different = [k for k in range(len(plan.calibrations)) if _differ(plan, kept, wanted, k)]
        constants = {slot.calibration for slot in runner.program.slots.values()}
        if constants.intersection(different):
            packed = runner.pack(wanted)
        first = self._pieces.span(different)[0] if different else len(self._pieces) - 1
        return max((cut for cut in self._cuts if cut <= first), default=0), packed

    def _feeds(self, batch: _Batch) -> State:
        samples, program = self.prepared.samples, self.prepared.runner.program
        read = [samples[i] for i in batch.indices]
        stacked = {n: np.stack([feeds[n] for feeds in read]) for n in program.inputs}
        found: State = jax.device_put(stacked)
        return found


def _differ(plan: Plan, one: Table, other: Table, k: int) -> bool:
    """Tell whether a quantizer is not the same under two tables, to the last bit."""
    scales, single = slice(plan.offsets[k], plan.offsets[k + 1]), slice(k, k + 1)
    for field in dataclasses.fields(Table):
        old, new = (np.asarray(getattr(table, field.name)) for table in (one, other))
        at = scales if old.size == plan.offsets[-1] else single
        if (old[at] != new[at]).any():
            return True
    return False


def _affordable(pieces: Segmented, room: float, samples: int) -> frozenset[int]:
    """Return the segments whose states can be kept for all samples.

    Starting from all of them, the state is given up that saves most memory for the work that has
    to be done again without it, until the rest fits.
    """
    cuts = list(range(len(pieces)))
    held = [samples * memory.size(pieces.program, s.live_in) for s in pieces.segments]
    work = [_work(pieces, i) - _work(pieces, i + 1) for i in cuts]
    acting = [
        sum(step.calibration is not None for step in pieces.program.steps[s.start : s.stop]) + 1
        for s in pieces.segments
    ]

    def loss(cut: int) -> float:
        """Return the work that giving up a cut costs, over the quantizers that restart there."""
        at = cuts.index(cut)
        before = cuts[at - 1] if at else 0
        after = cuts[at + 1] if at + 1 < len(cuts) else len(pieces)
        return sum(work[before:cut]) * sum(acting[cut:after]) / max(held[cut], 1.0)

    while cuts and sum(held[cut] for cut in cuts) > room:
        cuts.remove(min(cuts, key=loss))
    return frozenset(cuts)


def _work(pieces: Segmented, start: int) -> float:
    """Return the share of the network's work that lies in a segment or after it."""
    total = [effort(step) for step in pieces.program.steps]
    first = pieces.segments[start].start if start < len(pieces) else len(total)
    return sum(total[first:]) / max(sum(total), 1.0)
