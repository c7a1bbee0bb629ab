"""Run a lowered graph over many samples: jitted once per shape, precision and weights as data."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array

from jptq.data import SampleSet, batches
from jptq.engine import memory
from jptq.engine.feeding import Feeds, checked, fitting, warn_of_long_integers
from jptq.engine.lower import lower
from jptq.engine.memory import Batching
from jptq.engine.program import Program
from jptq.engine.quantizing import TableQuantizer
from jptq.errors import ModelError, ShapeError
from jptq.ir.float32 import taken
from jptq.ir.model import Model
from jptq.numerics.qtypes import FLOAT32, INT8
from jptq.quant.assign import Table, table
from jptq.quant.originals import owners_of
from jptq.quant.plan import Plan

__all__ = ["Compilations", "Feeds", "Packed", "Runner", "SampleSet"]

T = TypeVar("T")


class Compilations:
    """How many programs were traced, by name; tests and ``run.json`` read it."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._programs: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what ``make`` made when ``key`` was first asked for: programs outlive a call."""
        if key not in self._programs:
            self._programs[key] = make()
        found: T = self._programs[key]
        return found

    @property
    def total(self) -> int:
        """Number of programs."""
        return sum(self.counts.values())

    def jit(self, name: str, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """Return ``jax.jit(function)`` that counts its traces.

        Matrix products run in full float32 everywhere; some devices default to less.
        """

        @functools.wraps(function)
        def counted(*args: Any) -> Any:
            self.counts[name] = self.counts.get(name, 0) + 1
            with jax.default_matmul_precision("highest"):
                return function(*args)

        return jax.jit(counted, **options)


def _refuse_nested(model: Model, program: Program) -> None:
    """Refuse a graph that takes or gives sequences: samples and scores are tensors.

    Raises:
      ModelError: Names them.
    """
    ends = (*model.input_names, *model.output_names)
    nested = [name for name in dict.fromkeys(ends) if name in program.nests]
    if nested:
        raise ModelError(
            "the network takes or gives sequences or optionals",
            where=", ".join(map(repr, nested)),
            why="samples and scores are tensors, one per name",
            hint="cut the network where they are tensors (--output_node)",
        )


@dataclasses.dataclass(frozen=True)
class Packed:
    """Weights on the device, quantized and in the form that the program wants."""

    weights: dict[str, Array]
    table: Table | None


class Runner:
    """A graph, its weights on the device and the programs that run it.

    Args:
      model: Float or calibrated graph with fixed input shapes.
      example: One sample.
      plan: The quantizers of a calibrated graph.
      batching: Bounds the samples of a program run.
      prefer: Lowerings to force (`lower`).
      floats: Constants of the float network where the graph holds others (fitted weights, corrected
        biases). What was fitted to INT8 (`owners_of`) has them too while its weight is not INT8.

    Raises:
      ModelError: The graph cannot be lowered, or one of `floats` is part of the programs.
    """

    def __init__(
        self,
        model: Model,
        example: Feeds,
        *,
        plan: Plan | None = None,
        batching: Batching | None = None,
        prefer: Mapping[str, str] | None = None,
        floats: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.model = model
        self.plan = plan
        self.batching = batching or Batching()
        self.program: Program = lower(model, example, plan=plan, prefer=prefer)
        _refuse_nested(model, self.program)
        warn_of_long_integers(self.program)
        memory.warn_of_too_little(self.program, self.batching)
        self.batch = self.batch_for(memory.forward(self.program))
        self.compilations = Compilations()
        # Not by jnp.asarray, which compiles a program for every shape.
        self.weights: dict[str, Array] = jax.device_put(dict(self.program.weights))
        self.floats = self._replacements(floats)
        self._follow()
        jit = self.compilations.jit
        self._prepare_float = jit("prepare float", lambda w: self.program.prepare(w, None))
        self._prepare = jit("prepare", self._prepare_quantized)
        # Without inputs there is nothing to count samples by: all of them are the same.
        size = None if self.program.inputs else 1
        self._float = jit(
            "float forward", jax.vmap(self._run_float, in_axes=(None, 0), axis_size=size)
        )
        self._quantized = jit(
            "quantized forward",
            jax.vmap(self._run_quantized, in_axes=(None, None, 0), axis_size=size),
        )

    def sharing(
        self,
        model: Model,
        *,
        plan: Plan | None = None,
        changed: Mapping[str, np.ndarray] | None = None,
        floats: Mapping[str, np.ndarray] | None = None,
    ) -> Runner:
        """Return a runner of a graph that differs in numbers alone; all programs are common.

        Args:
          model: The same nodes, but for the settings of quantizers and the values of `changed`.
          plan: Its quantizers, on the same tensors and with room for as many scales.
          changed: Weights, by initializer, that differ.
          floats: As of a new runner.

        Raises:
          ModelError: One of `changed` or `floats` is part of the programs.
        """
        other = copy.copy(self)
        other.__dict__.pop("float_weights", None)
        other.model, other.plan = model, plan
        new = self._replacements(changed)
        other.program = dataclasses.replace(
            self.program, plan=plan, weights={**self.program.weights, **new}
        )
        other.weights = {**self.weights, **jax.device_put(new)}
        other.floats = self._replacements(floats)
        other._follow()
        return other

    def _follow(self) -> None:
        """Note of constants that were fitted with a weight whose they are."""
        index = {} if self.plan is None else self.plan.index
        known = {n: index[q] for n, q in owners_of(self.model).items() if q in index}
        self._fitted = {name: k for name, k in known.items() if name in self.floats}
        slots = {
            key: dataclasses.replace(slot, follows=self._fitted.get(slot.tensor))
            for key, slot in self.program.slots.items()
        }
        self.program = dataclasses.replace(self.program, slots=slots)

    def _unfitted(self, table: Table) -> dict[str, np.ndarray]:
        """Return the float values of what was fitted to INT8 and is not INT8 under a table."""
        lower, upper, gate = (np.asarray(v) for v in (table.lower, table.upper, table.gate))
        int8 = (gate > 0) & (lower == INT8.lower) & (upper == INT8.upper)
        return {name: self.floats[name] for name, k in self._fitted.items() if not int8[k]}

    @functools.cached_property
    def replaceable(self) -> frozenset[str]:
        """Constants that all their readers take as an argument of the programs."""
        program, model = self.program, self.model
        steps = {step.node: step for step in program.steps}

        def argument(tensor: str, source: str) -> bool:
            for reader, index in model.consumers.get(tensor, ()):
                if reader.is_calibration:
                    if not argument(reader.outputs[0], source):
                        return False
                    continue
                step = steps.get(reader.name)
                if step is None or not step.operands[index].weight.startswith(f"{source}|"):
                    return False
            return True

        inside = {name for node in model.nodes for name in node.reads if name not in node.inputs}
        given_out = {*model.output_names, *inside}
        return frozenset(
            name for name in model.initializers if name not in given_out and argument(name, name)
        )

    def _replacements(self, given: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray]:
        """Return those of some constants that the programs read."""
        for name in given or ():
            if name not in self.replaceable:
                raise ModelError(
                    f"constant {name!r} cannot be replaced",
                    why="what reads it was computed while tracing: it is part of the program",
                    hint="build the network with the new value",
                )
        return {name: v for name, v in (given or {}).items() if name in self.program.weights}

    def serves(self, plan: Plan) -> bool:
        """Whether quantizers lie as this runner's do; what else they hold is data (`sharing`)."""

        def places(one: Plan) -> list[tuple[str, str, int | None, int]]:
            return [(c.name, c.tensor, c.axis, c.channels) for c in one.calibrations]

        return self.plan is not None and places(self.plan) == places(plan)

    def batch_for(self, bytes_per_sample: float) -> int:
        """Return the samples of a program run that needs so many bytes for each."""
        return self.batching.of(bytes_per_sample, self._weight_bytes())

    def fits(self, bytes_per_sample: float) -> bool:
        """Tell whether a run that needs so many bytes for each sample may take even one."""
        return bytes_per_sample <= self.batching.room(self._weight_bytes())

    def _weight_bytes(self) -> int:
        return sum(w.nbytes for w in self.program.weights.values())

    def _prepare_quantized(self, weights: Mapping[str, Array], table: Table) -> dict[str, Array]:
        assert self.plan is not None
        return self.program.prepare(weights, TableQuantizer(self.plan, table))

    def _run_float(
        self, packed: Mapping[str, Array], values: Mapping[str, Array]
    ) -> dict[str, Array]:
        return self.program.run(packed, None, values)

    def _run_quantized(
        self, packed: Mapping[str, Array], table: Table, values: Mapping[str, Array]
    ) -> dict[str, Array]:
        assert self.plan is not None
        return self.program.run(packed, TableQuantizer(self.plan, table), values)

    @functools.cached_property
    def float_weights(self) -> Packed:
        """The weights of the float model, packed once."""
        return self._packed({**self.weights, **jax.device_put(self.floats)})

    def _packed(self, weights: Mapping[str, Array]) -> Packed:
        """Pack weights as they are: with quantizers off, where there are any, by one program."""
        if self.plan is None:
            return Packed(self._prepare_float(weights), None)
        off = table(self.plan, {}, {one.name: FLOAT32.name for one in self.plan.calibrations})
        return Packed(self._prepare(weights, jax.device_put(off)), None)

    def pack(self, table: Table | None, changed: Mapping[str, np.ndarray] | None = None) -> Packed:
        """Quantize and pack the weights under a table; the float weights for None.

        Args:
          table: Precision and thresholds.
          changed: Weights, by initializer, that take the place of the model's own.

        Raises:
          ModelError: One of them is part of the programs.
        """
        new = self._replacements(changed)
        weights = {**self.weights, **jax.device_put(new)}
        if table is None:
            return self._packed(weights) if changed else self.float_weights
        weights |= jax.device_put(self._unfitted(table))
        device = jax.device_put(table)
        return Packed(self._prepare(weights, device), device)

    def run(self, packed: Packed, feeds: Feeds) -> dict[str, Array]:
        """Run ``feeds`` with a leading sample axis in one program run.

        Returns:
          Outputs ``[S, *shape]`` on the device, in the graph's order.
        """
        if packed.table is None:
            out = self._float(packed.weights, feeds)
        else:
            out = self._quantized(packed.weights, packed.table, feeds)
        return {n: out[n] for n in self.program.outputs}  # jit sorts by name

    def outputs(self, packed: Packed, samples: SampleSet) -> Iterator[tuple[int, dict[str, Array]]]:
        """Yield ``(number of real samples, outputs [batch, ...])`` batch by batch."""
        for feeds, count in self.batches(samples):
            yield count, self.run(packed, feeds)

    def batches(
        self, samples: SampleSet, size: int | None = None
    ) -> Iterator[tuple[dict[str, np.ndarray], int]]:
        """Yield what the program takes of some samples, see `jptq.data.batches`.

        Args:
          samples: Any number of them.
          size: Most samples of a batch; `batch` if None.

        Raises:
          StaticInputError: (when read) a sample differs in an input that is part of the program.
          DataError: (when read) a sample holds integers beyond 32 bits.
        """
        size = (size or self.batch) if self.program.inputs else 1
        return batches(self.fitting(samples), size, self.program.inputs)

    def fitting(self, samples: SampleSet) -> SampleSet:
        """Return the samples; reading one that the program would misread is refused.

        Raises:
          StaticInputError: (when read) it differs in an input that is part of the program.
          DataError: (when read) it holds integers beyond 32 bits.
        """
        return fitting(self.program, samples)

    def forward(self, table: Table | Packed | None) -> Callable[[Feeds], dict[str, np.ndarray]]:
        """Return the function that evaluators call: feeds of any batch, outputs on the host.

        A batch is a multiple of the sample's own length along axis 0 of every input. Outputs have
        the dtypes that the model declares.

        Raises:
          ShapeError: (when called) feeds do not consist of whole samples.
          StaticInputError: (when called) an input that is part of the program has another value.
          DataError: (when called) an input holds integers beyond 32 bits.
        """
        packed = table if isinstance(table, Packed) else self.pack(table)
        shapes = self.program.shapes
        declared = {tensor.name: tensor.dtype for tensor in self.model.outputs}

        def forward(feeds: Feeds) -> dict[str, np.ndarray]:
            arrays = checked(self.program, taken(self.model, feeds))
            counts = {
                1 if arrays[n].shape == shapes[n] else arrays[n].shape[0] // shapes[n][0]
                for n in self.program.inputs
            }
            if len(counts) > 1:
                raise ShapeError(
                    "inputs hold different numbers of samples",
                    where=", ".join(f"{n} {arrays[n].shape}" for n in self.program.inputs),
                )
            count = max(counts, default=1)
            stacked = {n: a.reshape(count, *shapes[n]) for n, a in arrays.items()}
            parts = []
            for start in range(0, count, self.batch):
                chunk = {n: a[start : start + self.batch] for n, a in stacked.items()}
                size = min(self.batch, count - start)
                if count > self.batch and size < self.batch:
                    chunk = {
                        n: np.concatenate([a, np.repeat(a[-1:], self.batch - size, 0)])
                        for n, a in chunk.items()
                    }
                out = self.run(packed, chunk)
                parts.append({n: np.asarray(v)[:size] for n, v in out.items()})
            joined = {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}
            known = self.program.constants  # may have 64 bits
            joined |= {n: np.repeat(v[np.newaxis], count, 0) for n, v in known.items()}
            # Programs count in 32 bits; who reads the outputs goes by the model's declaration.
            joined = {
                n: v.astype(declared.get(n) or v.dtype, copy=False) for n, v in joined.items()
            }
            return {
                n: v[0]
                if count == 1
                else v.reshape(-1 if v.ndim == 1 else count * v.shape[1], *v.shape[2:])
                for n, v in joined.items()
            }

        return forward
