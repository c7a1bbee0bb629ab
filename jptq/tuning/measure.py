"""Really run a mixed model: output errors over the samples, the user's scores. Never twice."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax import Array

from jptq.engine import Runner, memory
from jptq.errors import EvaluatorError
from jptq.numerics.qtypes import INT8
from jptq.quant.assign import Assignment, uniform
from jptq.results import Comparison, Evaluation, Lost, OutputError, Spread
from jptq.results.evaluation import plain
from jptq.tuning.compared import Compared, comparable, parts_of
from jptq.tuning.deadline import OutOfTime, passed
from jptq.tuning.evaluator import Evaluator
from jptq.tuning.journal import Journal
from jptq.tuning.prepare import Prepared
from jptq.tuning.scores import Scores

FORMAT = "3"
"""Of what the journal keeps; what has another one is measured anew."""


class Measurer:
    """Measures assignments of one prepared network.

    Args:
      prepared: The network.
      evaluator: The user's, or None.
      journal: Keeps results between runs.
      scores: Those of a network with the same float model, to go on with; new ones if None.

    Attributes:
      scores: The user's.
      deadline: `time.monotonic` value after which nothing new is run, or None.
      run_s: Seconds that the last configuration took, its scores included.
    """

    def __init__(
        self,
        prepared: Prepared,
        evaluator: Evaluator | None,
        journal: Journal,
        *,
        scores: Scores | None = None,
    ) -> None:
        self.prepared = prepared
        self.evaluator = evaluator
        self.journal = journal
        self.scores = scores or Scores(evaluator, journal, prepared.digest)
        self.deadline: float | None = None
        self.run_s = 0.0
        self._floats: list[dict[str, Array]] = []
        self._known: dict[str, Evaluation] = {}

    @property
    def evaluator_calls(self) -> int:
        """Scores asked for, see `Scores.calls`."""
        return self.scores.calls

    def on(self, prepared: Prepared) -> Measurer:
        """Return what measures another form of the network, whose float model is the same."""
        other = Measurer(prepared, self.evaluator, self.journal, scores=self.scores)
        if prepared.digest == self.prepared.digest:
            other._floats, other._known, other.run_s = self._floats, self._known, self.run_s
        return other

    @property
    def float_scores(self) -> Mapping[str, float]:
        """The user's scores of the float model."""
        return self.scores.floating(lambda: self.prepared.runner.forward(None))

    def floating(self) -> Evaluation:
        """Return the float model's evaluation: every share is 1."""
        scores = self.float_scores
        return Evaluation(
            name="float",
            scores=dict(scores),
            shares=dict.fromkeys(scores, 1.0),
            noise=dict(self.scores.noise),
        )

    def __call__(
        self, name: str, assignment: Assignment, *, predicted: float | None = None
    ) -> Evaluation:
        """Return what an assignment really gives.

        Args:
          name: For the report.
          assignment: Total over the plan.
          predicted: The error that a solver expects, to stand beside.

        Raises:
          OutOfTime: The deadline has passed, and this has not been measured yet.
        """
        key = json.dumps(sorted(assignment.items()))
        if key not in self._known:
            self.check_time()
            started = time.monotonic()
            self._known[key] = self._measured(key, assignment)
            self.run_s = time.monotonic() - started
        return dataclasses.replace(self._known[key], name=name, predicted_error=predicted)

    def check_time(self) -> None:
        """Raise `OutOfTime` if the deadline has passed."""
        if passed(self.deadline):
            raise OutOfTime

    def _measured(self, key: str, assignment: Assignment) -> Evaluation:
        floats = self.float_scores  # evaluators may count on the float model coming first
        prepared = self.prepared
        scores = self.scores.of(
            prepared.digest,
            key,
            forward=lambda: prepared.runner.forward(prepared.table(assignment)),
        )
        found = self._comparison(key, assignment)
        return evaluation(prepared, assignment, found, scores, floats)

    def _comparison(self, key: str, assignment: Assignment) -> Comparison:
        stored = self.journal.load("comparison", FORMAT, self.prepared.digest, key)
        if stored is not None:
            return _comparison_from(stored)
        found = self.compare(assignment)
        content = plain(dataclasses.asdict(found))
        self.journal.save("comparison", FORMAT, self.prepared.digest, key, content=content)
        return found

    def compare(self, assignment: Assignment) -> Comparison:
        """Run all samples and compare every output with the float model's."""
        runner, samples = self.prepared.runner, self.prepared.samples
        packed = runner.pack(self.prepared.table(assignment))
        sums = compared(runner)
        for number, (feeds, count) in enumerate(runner.batches(samples)):
            reference = self._reference(number, feeds)
            found = runner.run(packed, feeds)
            for name in comparable(found):
                sums.add(name, reference[name], found[name], count)
        return sums.comparison()

    def _reference(self, number: int, feeds: Mapping[str, np.ndarray]) -> dict[str, Array]:
        runner = self.prepared.runner
        if number < len(self._floats):
            return self._floats[number]
        outputs = runner.run(runner.float_weights, feeds)
        program, count = runner.program, len(self.prepared.samples)
        if number == len(self._floats) and memory.keeps(program, program.outputs, count):
            self._floats.append(outputs)
        return outputs


def evaluation(
    prepared: Prepared,
    assignment: Assignment,
    found: Comparison,
    scores: Mapping[str, float],
    float_scores: Mapping[str, float],
) -> Evaluation:
    """Return what was measured of an assignment, with its modelled time and INT16 work.

    Raises:
      EvaluatorError: Scores have other names than the float model's.
    """
    return Evaluation(
        name="",
        scores=dict(scores),
        shares=shares_of(scores, float_scores),
        comparison=found,
        time_us=prepared.latency.total_us(assignment),
        time_is=prepared.latency.origin,
        macs_int16=prepared.latency.macs_share(assignment),
        raised=len(raised(prepared, assignment)),
    )


def raised(prepared: Prepared, assignment: Assignment) -> dict[str, tuple[str, ...]]:
    """Return the nodes that run finer than INT8, with those of their quantizers that do.

    What the configuration names counts like what was chosen. A compensated node is one with its
    second operator: it counts once, and also if ec is all that was done.
    """
    int8 = uniform(prepared.plan.unpinned, INT8.name)
    second = {pair.low.name: pair.high.name for pair in prepared.pairs}
    out: dict[str, tuple[str, ...]] = dict.fromkeys(second.values(), ())
    for slots in prepared.plan.slots:
        changed = tuple(c for c in slots.calibrations if assignment[c] != int8[c])
        if changed:
            node = second.get(slots.node, slots.node)
            out[node] = tuple(dict.fromkeys((*out.get(node, ()), *changed)))
    return out


def compared(runner: Runner) -> Compared:
    """Return what takes in the outputs of a runner's network."""
    shapes = runner.program.shapes
    return Compared(shapes, parts_of(runner.model, runner.program.outputs, shapes))


def shares_of(scores: Mapping[str, float], float_scores: Mapping[str, float]) -> dict[str, float]:
    """Return each score as a share of its float value.

    Raises:
      EvaluatorError: The names differ: a score that is not there cannot keep its share.
    """
    if scores.keys() != float_scores.keys():
        missing, new = float_scores.keys() - scores.keys(), scores.keys() - float_scores.keys()
        faults = [
            f"{what}: {', '.join(sorted(names))}"
            for what, names in (("missing", missing), ("new", new))
            if names
        ]
        raise EvaluatorError(
            "the evaluator returned other scores than for the float model",
            why="; ".join(faults),
            hint="return the same names every time, 0 for a case that fails",
        )
    return {name: share_of(scores[name], float_scores[name]) for name in scores}


def share_of(score: float, reference: float) -> float:
    """A score as a share of float; a float score of 0 is met by anything not below it."""
    if reference == 0:
        return 1.0 if score >= 0 else 0.0
    return score / reference if reference > 0 else 2.0 - score / reference


def _comparison_from(stored: Mapping[str, Any]) -> Comparison:
    def output(entry: Mapping[str, Any]) -> OutputError:
        spreads = {
            name: Spread(**{k: float(v) for k, v in entry[name].items()})
            for name in ("cosine", "l1", "l2", "chebyshev", "sqnr")
        }
        lost = tuple(Lost(**{**one, "channels": tuple(one["channels"])}) for one in entry["lost"])
        return OutputError(**{**entry, **spreads, "lost": lost})

    return Comparison(outputs=tuple(map(output, stored["outputs"])), samples=stored["samples"])
