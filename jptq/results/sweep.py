"""A sweep of thresholds over a ranking: what each row raised, and what it measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jptq.results.evaluation import Evaluation
from jptq.results.report import Goal
from jptq.results.sensitivity import BETTER, SensitivityTable


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepRow:
    """One row: the nodes at or beyond a threshold raised, and really run.

    Attributes:
      threshold: Of the ranking's first metric; None raises nothing.
      nodes: What was raised, worst first.
      evaluation: What was measured.
    """

    threshold: float | None
    nodes: tuple[str, ...]
    evaluation: Evaluation


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """The rows of a sweep in the order in which they were run.

    Attributes:
      model: Name of the model file.
      march: Target.
      calibration: Tag of the calibration method of every row.
      goal: What a row has to reach.
      ranking: What the thresholds cut; only nodes that could still be raised.
      floating: The float model's scores.
      rows: The first one raises nothing.
      chosen: The first row that meets the goal, or None.
      best: The row of the best quality, of equals the first: a larger set can be worse.
      quant_config: Of the chosen row, of the best one if none meets the goal.
    """

    model: str
    march: str
    calibration: str
    goal: Goal
    ranking: SensitivityTable
    floating: Evaluation
    rows: tuple[SweepRow, ...]
    chosen: int | None
    best: int
    quant_config: Mapping[str, Any]

    @property
    def metric(self) -> str:
        """The metric that the thresholds are of."""
        return self.ranking.metrics[0]

    @property
    def comparison(self) -> str:
        """How a node's score is compared with a threshold to be raised."""
        return "<=" if BETTER[self.metric] == "higher" else ">="

    @property
    def taken(self) -> SweepRow:
        """The row that `quant_config` describes."""
        return self.rows[self.best if self.chosen is None else self.chosen]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``sweep.json``: same inputs, same bytes."""
        return {
            "schema": 1,
            "model": self.model,
            "march": self.march,
            "calibration": self.calibration,
            "goal": dataclasses.asdict(self.goal),
            "metric": self.metric,
            "comparison": self.comparison,
            "float": self.floating.to_json(),
            "rows": [
                {
                    "threshold": row.threshold,
                    "nodes": list(row.nodes),
                    "evaluation": row.evaluation.to_json(),
                }
                for row in self.rows
            ],
            "chosen": self.chosen,
            "best": self.best,
            "quant_config": dict(self.quant_config),
            "ranking": self.ranking.to_json(),
        }
