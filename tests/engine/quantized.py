"""Small quantized networks with thresholds, ready to run."""

from __future__ import annotations

import dataclasses

import numpy as np

from jptq.engine import Batching, Runner
from jptq.ir.model import Model
from jptq.quant.assign import Table, Thresholds, table, uniform
from jptq.quant.calibrated import plan_of
from jptq.quant.plan import Plan
from tests.graphs import Graph
from tests.quant.networks import TARGET, placed

Sample = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A calibrated graph with thresholds and the runner of it."""

    model: Model
    plan: Plan
    thresholds: Thresholds
    runner: Runner

    def table(self, name: str) -> Table:
        """Return the table of one type everywhere."""
        return table(self.plan, self.thresholds, uniform(self.plan, name))


def network(graph: Graph, sample: Sample, *, batch: int = 3, threshold: float = 6.0) -> Network:
    """Return a network whose features have one threshold and whose weights have their maxima."""
    model = placed(graph)
    plan = plan_of(model, TARGET)
    thresholds = {}
    for calibration in plan.calibrations:
        if calibration.constant and calibration.kind == "weight":
            weight = np.abs(model.initializers[calibration.tensor])
            if calibration.axis is None:
                thresholds[calibration.name] = weight.max(keepdims=False).reshape(1)
            else:
                others = tuple(a for a in range(weight.ndim) if a != calibration.axis % weight.ndim)
                thresholds[calibration.name] = weight.max(others)
        else:
            thresholds[calibration.name] = np.full(calibration.channels, threshold, np.float32)
    return Network(
        model=model,
        plan=plan,
        thresholds=thresholds,
        runner=Runner(model, sample, plan=plan, batching=Batching(samples=batch)),
    )


def chain(layers: int = 3, *, seed: int = 0) -> Graph:
    """Return convolutions with Relu on ``x`` [1, 3, 6, 6] and a linear end."""
    g = Graph(seed=seed)
    x, width = g.input("x", (1, 3, 6, 6)), 3
    for i in range(layers):
        x = g.add("Relu", g.conv(x, width, 4, name=f"conv{i}"), name=f"relu{i}")
        width = 4
    pooled = g.add("Flatten", g.add("GlobalAveragePool", x, name="pool"), name="flat")
    g.output(g.add("Gemm", pooled, g.random(5, 4), g.random(5), transB=1, name="head"))
    return g


def samples(count: int, *shape: int, name: str = "x", seed: int = 0) -> list[Sample]:
    """Return random samples of one input."""
    rng = np.random.default_rng(seed)
    return [{name: rng.standard_normal(shape).astype(np.float32)} for _ in range(count)]
