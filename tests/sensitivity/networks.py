"""Small calibrated networks with samples."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np

from jptq.engine import Batching, Runner, TableQuantizer, lower
from jptq.engine.program import Program
from jptq.ir import Model
from jptq.quant.assign import Table, table, uniform
from jptq.quant.calibrated import plan_of, with_thresholds
from jptq.quant.plan import Plan
from jptq.results.sensitivity import SensitivityTable
from jptq.sensitivity import Rows, exact, naive, rows_of
from jptq.sensitivity.gates import Gates, error_direction
from tests.agreements import max_thresholds
from tests.graphs import Graph, feeds_for
from tests.quant.networks import TARGET, placed

METRICS = ("cosine-similarity", "mre", "mse", "sqnr", "chebyshev")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
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


@functools.cache
def shared(network: Callable[[], Graph]) -> Case:
    """Return the case of a network that several tests rank, and no test changes: its programs are
    compiled once."""
    return case(network())


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


def tiny() -> Graph:
    """Return a network with as little to compile as two outputs behind one stem are."""
    g = Graph()
    stem = g.add("MatMul", g.input("x", (1, 6)), g.random(6, 5), name="stem")
    hidden = g.add("Tanh", stem, name="bend")
    g.output(g.add("MatMul", hidden, g.random(5, 3), name="classes"), g.add("Sigmoid", hidden))
    return g


@dataclasses.dataclass(frozen=True)
class Double:
    """A network in float64 as a function of its gates; built and used under ``enable_x64``."""

    program: Program
    weights: Mapping[str, jax.Array]
    settings: Table
    feeds: Mapping[str, jax.Array]

    def blended(self, gates: jax.Array) -> dict[str, jax.Array]:
        """Run with every tensor moved by its share of its quantization error: the definition."""
        plan = self.program.plan
        assert plan is not None
        on_grid = TableQuantizer(plan, self.settings)

        def quantizer(index: int, x: jax.Array, axis: int | None) -> jax.Array:
            return x + gates[index] * (on_grid(index, x, axis) - x)

        packed = self.program.prepare(self.weights, quantizer)
        return self.program.run(packed, quantizer, self.feeds)

    def by_table(self, gates: jax.Array) -> dict[str, jax.Array]:
        """Run with the gates in the table, weights quantized on the way."""
        plan = self.program.plan
        assert plan is not None
        quantizer = TableQuantizer(plan, dataclasses.replace(self.settings, gate=gates))
        packed = self.program.prepare(self.weights, quantizer)
        return self.program.run(packed, quantizer, self.feeds)

    def by_directions(self, gates: jax.Array) -> dict[str, jax.Array]:
        """Run the network of `Gates`, as probes do."""
        plan = self.program.plan
        assert plan is not None
        plain = self.program.prepare(self.weights, None)
        full = self.program.prepare(self.weights, TableQuantizer(plan, self.settings))
        keys = [k for k, slot in self.program.slots.items() if slot.calibration is not None]
        return Gates(self.program, 1).outputs(
            gates[None],
            plain,
            [{key: full[key] - plain[key] for key in keys}],
            error_direction(self.program, [self.settings]),
            self.feeds,
        )


def in_double(c: Case, sample: int = 0) -> Double:
    """Return the network and one sample in float64; call it under ``enable_x64``."""

    def wide(array: np.ndarray) -> np.ndarray:
        return array.astype(np.float64) if array.dtype == np.float32 else array

    model = dataclasses.replace(
        c.model, initializers={n: wide(a) for n, a in c.model.initializers.items()}
    )
    feeds = {name: wide(array) for name, array in c.samples[sample].items()}
    program = lower(model, feeds, plan=c.plan)
    return Double(
        program=program,
        weights=jax.device_put(dict(program.weights)),
        settings=jax.tree.map(
            lambda a: jax.device_put(wide(np.asarray(a))), table(c.plan, c.thresholds, c.int8)
        ),
        feeds=jax.device_put(feeds),
    )
