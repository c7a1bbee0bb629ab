"""Small calibrated networks with samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from jptq.engine import Batching, Runner
from jptq.ir import Model
from jptq.quant.assign import uniform
from jptq.quant.calibrated import plan_of, with_thresholds
from jptq.quant.plan import Plan
from jptq.results.sensitivity import SensitivityTable
from jptq.sensitivity import Rows, exact, naive, rows_of
from tests.agreements import max_thresholds
from tests.graphs import Graph, feeds_for
from tests.quant.networks import TARGET, placed

METRICS = ("cosine-similarity", "mre", "mse", "sqnr", "chebyshev")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A network ready to be ranked."""

    model: Model
    plan: Plan
    thresholds: Mapping[str, np.ndarray]
    samples: list[dict[str, np.ndarray]]
    runner: Runner

    @property
    def int8(self) -> dict[str, str]:
        return uniform(self.plan, "int8")

    def rows(self, kind: str = "node") -> Rows:
        return rows_of(self.model, self.plan, kind)

    def exact(self, rows: Rows, *, segments: int = 4) -> SensitivityTable:
        return exact.rank(
            self.runner,
            self.thresholds,
            self.int8,
            rows,
            self.samples,
            metrics=METRICS,
            segments=segments,
        )

    def naive(self, rows: Rows) -> SensitivityTable:
        return naive.rank(
            self.runner, self.thresholds, self.int8, rows, self.samples, metrics=METRICS
        )


def case(graph: Graph, *, samples: int = 3, batch: int = 2) -> Case:
    """Return a network with the thresholds of its samples; the last batch is not full."""
    feeds = [feeds_for(graph.proto(), seed=seed) for seed in range(samples)]
    model = placed(graph)
    thresholds = max_thresholds(model, plan_of(model, TARGET), feeds)
    calibrated = with_thresholds(model, thresholds)
    plan = plan_of(calibrated, TARGET)
    return Case(
        model=calibrated,
        plan=plan,
        thresholds=thresholds,
        samples=feeds,
        runner=Runner(calibrated, feeds[0], plan=plan, batching=Batching(samples=batch)),
    )


def smooth() -> Graph:
    """Return a network without kinks: ``x`` of shape [1, 3, 5, 5], two outputs, one stem."""
    g = Graph()
    x = g.input("x", (1, 3, 5, 5))
    stem = g.add("Sigmoid", g.conv(x, 3, 4, name="stem"), name="stem_gate")
    deep = g.add("Tanh", g.conv(stem, 4, 4, group=4, name="depthwise"), name="bend")
    joined = g.add("Mul", deep, stem, name="joined")
    flat = g.add("Flatten", g.add("GlobalAveragePool", joined, name="pooled"))
    g.output(
        g.add("Gemm", flat, g.random(3, 4), g.random(3), transB=1, name="classes"),
        g.add("Sigmoid", g.conv(stem, 4, 1, 1, name="map"), name="probability"),
    )
    return g
