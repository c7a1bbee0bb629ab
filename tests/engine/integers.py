"""Products on grids whose steps are powers of two: float32 computes their integers exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from jptq.engine import Runner
from jptq.ir.model import Model
from jptq.quant.assign import Table, Thresholds, table
from jptq.quant.calibrated import plan_of, with_thresholds
from jptq.quant.placement import place
from jptq.quant.plan import Plan
from jptq.targets import Fact, Target
from tests.graphs import Graph
from tests.oracles import run_onnx
from tests.quant.networks import TARGET, float_model, floats_of

FEATURE_STEP = 2.0**-5
WEIGHT_STEPS = 2.0 ** -np.arange(6, 10)
"""Channel c of a weight has the step ``WEIGHT_STEPS[c % 4]``."""

Integers = dict[str, np.ndarray]


def target(*, beyond: str, **bits: int) -> Target:
    """Return nash-e with other widths."""
    widths = {name: Fact(value=float(n), source="doc: this test") for name, n in bits.items()}
    integers = dataclasses.replace(TARGET.integers, beyond=beyond, **widths)
    return dataclasses.replace(TARGET, integers=integers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Products:
    """A network of products that each give an output.

    Attributes:
      graph: Weights hold integers, as the forward's would; biases are zero.
      model: With quantizers, thresholds and biases.
      runner: Keeps sums within the target.
    """

    graph: Graph
    model: Model
    plan: Plan
    thresholds: Thresholds
    runner: Runner

    def table(self, name: str, **changed: str) -> Table:
        """Return a table: features have one type, weights INT8; quantizers may have another."""
        types = {
            c.name: name if c.kind == "feature" else "int8" for c in self.plan.calibrations
        } | changed
        return table(self.plan, self.thresholds, types)

    def sums(self, feeds: Mapping[str, np.ndarray]) -> Integers:
        """Return the sums of products of integers by output, as onnxruntime adds them: exactly.

        Args:
          feeds: Integers.
        """
        return {n: v.astype(np.int64) for n, v in run_onnx(self.graph.proto(), feeds).items()}


def products(
    build: Callable[[Graph], None],
    feeds: Mapping[str, np.ndarray],
    on: Target,
    *,
    biases: Mapping[str, np.ndarray],
    strict: bool = True,
) -> Products:
    """Return a network of products.

    Args:
      build: Adds them to a graph; constants hold integers, names of biases are those of `biases`.
      feeds: One sample.
      on: Target.
      biases: In the unit of the network.
      strict: The runner keeps sums within the target.
    """
    graph = Graph(seed=1)
    build(graph)
    model = place(float_model(graph), on, floats=floats_of(graph.proto()))
    thresholds, constants = {}, dict(model.initializers)
    for one in plan_of(model, on).calibrations:
        if one.kind == "feature":
            thresholds[one.name] = np.full(1, 127 * FEATURE_STEP, np.float32)
            continue
        count = constants[one.tensor].shape[one.axis]
        steps = WEIGHT_STEPS[np.arange(count) % len(WEIGHT_STEPS)].astype(np.float32)
        shape = [1] * constants[one.tensor].ndim
        shape[one.axis] = -1
        constants[one.tensor] = (constants[one.tensor] * steps.reshape(shape)).astype(np.float32)
        thresholds[one.name] = 127 * steps
    constants |= {name: value.astype(np.float32) for name, value in biases.items()}
    model = with_thresholds(dataclasses.replace(model, initializers=constants), thresholds)
    plan = plan_of(model, on, strict_integers=strict)
    runner = Runner(model, feeds, plan=plan)
    return Products(graph=graph, model=model, plan=plan, thresholds=thresholds, runner=runner)


def kept(value: np.ndarray, bits: int, beyond: str) -> np.ndarray:
    """Return int64 numbers as a width holds them."""
    half = 1 << (bits - 1)
    if beyond == "wraps":
        return (value + half) % (2 * half) - half
    return np.clip(value, -half, half - 1)
