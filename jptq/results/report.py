"""Everything that `jptq tune` found out, as data: reports, plots and JSON are drawn from it."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from jptq.results.agreement import Agreement
from jptq.results.calibration import MethodTrial
from jptq.results.evaluation import Evaluation
from jptq.results.fit import Fit
from jptq.results.latency import LatencyTable
from jptq.results.ranges import IntegerRanges
from jptq.results.reach import Limit, Outlying
from jptq.results.recalibration import Recalibration
from jptq.results.sensitivity import SensitivityTable


class Outcome(enum.IntEnum):
    """How a tuning ended; the values are the exit codes of design 3."""

    MET = 0
    NOT_MET = 3
    BUDGET_TOO_SMALL = 4
    OUT_OF_TIME = 5

    @property
    def verdict(self) -> str:
        """A sentence for a person."""
        return {
            Outcome.MET: "Goal met.",
            Outcome.NOT_MET: "Goal not met: this is the best that was found.",
            Outcome.BUDGET_TOO_SMALL: "The budget is below the least reachable latency.",
            Outcome.OUT_OF_TIME: "Stopped by the time limit: this is the best so far.",
        }[self]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goal:
    """What the user asked for.

    Attributes:
      min_score: Least share of float of every score; None without an evaluator.
      min_cosine: Least mean cosine of every output; None if `min_score` decides.
      budget_us: Largest modelled latency, or None.
    """

    min_score: float | None = None
    min_cosine: float | None = None
    budget_us: float | None = None

    @property
    def has_quality(self) -> bool:
        """Tell whether a quality is asked for, not only a budget."""
        return self.min_score is not None or self.min_cosine is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Raised:
    """A node that the final configuration runs finer than int8.

    Attributes:
      node: Its name.
      op: Operator type.
      candidate: ``int16``, ``dual-int16``, ``ec`` (a second operator) or ``int16-ec``.
      why: One line: the error it caused as INT8, its rank, what verifying it showed.
      error_int8: Its own MSE at the outputs as INT8 (only it quantized).
      rank: Place in the ranking, 1 is the worst.
      cost_us: Modelled latency that it adds, with that of its second operator.
      second: The operator that compensates it, if one does; it has a row of its own in rankings.
    """

    node: str
    op: str
    candidate: str
    why: str
    error_int8: float
    rank: int
    cost_us: float
    second: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """The story of one tuning.

    Attributes:
      model: Name of the model file.
      march: Target.
      calibration: Tag of the calibration method, as the vendor logs it.
      samples: Calibration samples.
      goal: What was asked for.
      outcome: How it ended.
      headline: One sentence with the measured end.
      floating: The float model's scores.
      int8: All-INT8, measured, without ec.
      int16: All-INT16 as the target allows it, measured, without ec.
      true_int16: Every quantizer INT16, a simulation: the ceiling of any compensation; or None.
      final: The chosen configuration, measured.
      steps: Every configuration that the target can run and that was run, in order; no two have
        one name.
      pareto: The measured configurations that no other one beats in score and latency.
      reachable: Names of steps to show as nearest reachable points if the goal was missed.
      raised: The nodes that are not INT8.
      sensitivity: Ranking of nodes, the vendor's definition.
      latency: Times of all nodes.
      assignment: The final types.
      quant_config: In the vendor's schema.
      search: ``milp``, ``walk`` or ``head``.
      method: How the search ranked: ``metric``, ``probe``, ``gradient``, ``hessian``.
      evaluator_calls: Scores asked for, those known from an earlier run included.
      notes: What a reader has to know, most important first.
      walk_us: Latency of the documented walk, the worst nodes raised one after the other, where
        it was first seen to meet the goal; None if no walk that was run does.
      renamed: ``{name: name in the file}`` of nodes whose name the file gives to several.
      agreement: What running the exported file showed; None if that was not tried.
      limits: Thresholds that stop where no reader tells larger values apart.
      outlying: Thresholds far above nearly all values.
      methods: The calibration methods that were compared; none if there was no choice.
      fit: What a fit of weights and biases did; None if there was none.
      recalibration: What a plain calibration of the prepared network gave; None if that was not
        tried.
    """

    model: str
    march: str
    calibration: str
    samples: int
    goal: Goal
    outcome: Outcome
    headline: str
    floating: Evaluation
    int8: Evaluation
    int16: Evaluation
    true_int16: Evaluation | None
    final: Evaluation
    steps: tuple[Evaluation, ...]
    pareto: tuple[Evaluation, ...]
    reachable: tuple[str, ...]
    raised: tuple[Raised, ...]
    sensitivity: SensitivityTable
    latency: LatencyTable
    assignment: Mapping[str, str]
    quant_config: Mapping[str, Any]
    search: str
    method: str
    evaluator_calls: int
    notes: tuple[str, ...] = ()
    walk_us: float | None = None
    ranges: IntegerRanges | None = None
    inside: Evaluation | None = None
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    agreement: Agreement | None = None
    limits: tuple[Limit, ...] = ()
    outlying: tuple[Outlying, ...] = ()
    methods: tuple[MethodTrial, ...] = ()
    fit: Fit | None = None
    recalibration: Recalibration | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``result.json``: every number of the report."""
        return {
            "schema": 1,
            "model": self.model,
            "march": self.march,
            "calibration": self.calibration,
            "methods": [one.to_json() for one in self.methods],
            "samples": self.samples,
            "goal": dataclasses.asdict(self.goal),
            "outcome": self.outcome.name.lower(),
            "headline": self.headline,
            "search": self.search,
            "method": self.method,
            "evaluator_calls": self.evaluator_calls,
            "float": self.floating.to_json(),
            "int8": self.int8.to_json(),
            "int16": self.int16.to_json(),
            "true_int16": self.true_int16.to_json() if self.true_int16 else None,
            "final": self.final.to_json(),
            "steps": [step.to_json() for step in self.steps],
            "pareto": [step.name for step in self.pareto],
            "reachable": list(self.reachable),
            "raised": [dataclasses.asdict(node) for node in self.raised],
            "walk_us": self.walk_us,
            "assignment": dict(self.assignment),
            "integer_ranges": None if self.ranges is None else self.ranges.to_json(),
            "within_integers": None if self.inside is None else self.inside.to_json(),
            "renamed": dict(self.renamed),
            "limits": [one.to_json() for one in self.limits],
            "outlying": [one.to_json() for one in self.outlying],
            "notes": list(self.notes),
            "fit": None if self.fit is None else self.fit.to_json(),
            "recalibration": None if self.recalibration is None else self.recalibration.to_json(),
            "onnxruntime": None if self.agreement is None else self.agreement.to_json(),
        }
