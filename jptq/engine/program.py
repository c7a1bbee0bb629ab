"""The lowered graph: steps in order, each a bound function with operands in decided layouts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from jptq.engine import layouts
from jptq.engine.layouts import Perm
from jptq.engine.nesting import Nests
from jptq.engine.quantizing import Quantizer, TableQuantizer
from jptq.errors import StaticInputError
from jptq.quant.plan import Plan

Directions = Mapping[str, tuple[tuple[Array, Array], ...]]
"""``{packed weight: ((gate, direction), ...)}``: see `Program.run`."""

_VECTOR_MACS = 8.0
"""MACs that cost as much as one elementary operation on XLA:CPU, which is bound by memory."""

_SMALL = 50e6
"""MACs of a forward that takes a few milliseconds: some hundred of them take less time than the
compilation of a program."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Operand:
    """Where one input of a step comes from: exactly one of the first four is set, or none.

    Attributes:
      value: A tensor computed by an earlier step (or fed), wanted in order `perm`.
      weight: Key of a packed weight.
      literal: A constant that is part of the program.
      static: The same where the step's function needs it on the host.
      perm: Wanted axis order of `value`.
      prepare: Applied to `value` after it is in order (packing, broadcasting).
    """

    value: str = ""
    weight: str = ""
    literal: np.ndarray | None = None
    static: np.ndarray | None = None
    perm: Perm = ()
    prepare: Callable[[Array], Array] | None = None


def beyond(value: np.ndarray) -> np.ndarray:
    """Return the integers of an array that JAX's widest integer at the moment cannot hold."""
    if value.dtype.kind not in "iu":
        return value.ravel()[:0]
    limits = np.iinfo(jax.dtypes.canonicalize_dtype(value.dtype))
    return value[(value < limits.min) | (value > limits.max)]


_MASK = 1000.0
"""Magnitude from which a number may stand for "never"."""


def may_be_mask(value: np.ndarray) -> bool:
    """Tell whether a constant is one float that may stand for "never"."""
    return value.dtype == np.float32 and value.size == 1 and bool(np.abs(value).item() >= _MASK)


def narrowed(value: np.ndarray) -> np.ndarray:
    """Return a constant in the widest type that JAX has at the moment.

    Integers that do not fit become the largest ones that do: what stands for "no limit" (the
    bound of a Clip, a fill) stays that.
    """
    dtype = jax.dtypes.canonicalize_dtype(value.dtype)
    if dtype == value.dtype:
        return value
    if value.dtype.kind in "iu":
        limits = np.iinfo(dtype)
        value = np.clip(value, limits.min, limits.max)
    return value.astype(dtype)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One operator or quantizer.

    Attributes:
      node: Name of its node.
      op: Operator type.
      operands: In schema order.
      outputs: Tensor names; "" where unused.
      perms: Axis order of each output.
      function: Takes the operands, returns a tuple of outputs; None for a quantizer.
      calibration: Index of the quantizer in the plan, or None.
      axis: Physical channel axis of a per-channel quantizer, or None.
      macs: Multiply-accumulates of one run.
      vector: Elementary operations of one run.
    """

    node: str
    op: str
    operands: tuple[Operand, ...]
    outputs: tuple[str, ...]
    perms: tuple[Perm, ...]
    function: Callable[..., tuple[Any, ...]] | None
    calibration: int | None = None
    axis: int | None = None
    macs: int = 0
    vector: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class WeightSlot:
    """A constant in the form that its consumer wants.

    Attributes:
      tensor: Initializer name.
      calibration: Index of its quantizer, or None.
      axis: Channel axis of the quantizer in canonical order, or None.
      pack: Brings the (quantized) constant into its consumer's form, or None.
      follows: Index of the quantizer of the weight that a bias was fitted with, or None.
    """

    tensor: str
    calibration: int | None
    axis: int | None
    pack: Callable[[Array], Array] | None
    follows: int | None = None

    @property
    def owner(self) -> int | None:
        """Index of the quantizer that decides on its values, or None."""
        return self.calibration if self.calibration is not None else self.follows


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A graph lowered for concrete shapes of one sample.

    Attributes:
      steps: In execution order.
      inputs: Fed tensors, those of `bound` left out.
      outputs: Names of the graph outputs.
      constants: Outputs that are known without running.
      weights: Raw constants by initializer name: the first argument of everything traced.
      slots: Packed weights by key.
      plan: The quantizers, or None if the graph has none.
      shapes: Canonical shape of every tensor; of a sequence the number of all its elements.
      dtypes: Dtype of every tensor, as the graph declares it: programs that run without 64-bit
        types have 32 bits instead.
      bound: Inputs that hold the example's value, because an operator needed it.
      needs: What needed the value of each of `bound`.
      nests: Structure of the sequences and optionals; `inputs` and `outputs` name their tensors.
    """

    steps: tuple[Step, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, np.ndarray]
    weights: Mapping[str, np.ndarray]
    slots: Mapping[str, WeightSlot]
    plan: Plan | None
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, np.dtype]
    bound: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    needs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    nests: Nests = dataclasses.field(default_factory=dict)

    @property
    def static_inputs(self) -> tuple[str, ...]:
        """Names of the inputs that are part of the program."""
        return tuple(self.bound)

    def other_static(self, feeds: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the static inputs that feeds hold with another value than the program."""
        return tuple(
            name
            for name, value in self.bound.items()
            if name in feeds and not np.array_equal(feeds[name], value)
        )

    def refuse_other_static(self, feeds: Mapping[str, Any], *, where: str = "") -> None:
        """Refuse feeds that the program would give another network's outputs for.

        Raises:
          StaticInputError: An input of `static_inputs` differs.
        """
        for name in self.other_static(feeds):
            raise StaticInputError(
                f"input {name!r} differs from the example",
                where=where,
                why=self.needs.get(name, "an operator needed its value while tracing"),
                hint="a network of its own for every value: trace it again, make the input a "
                "constant (--input_value), or cut the network before that node (--output_node)",
            )

    def prepare(
        self, weights: Mapping[str, Array], quantizer: Quantizer | None
    ) -> dict[str, Array]:
        """Quantize and pack the weights: once per table, not once per sample.

        Args:
          weights: By initializer name.
          quantizer: Applied to weights that carry a quantizer; None for the float model.
        """

        def packed(slot: WeightSlot) -> Array:
            value = weights[slot.tensor]
            if quantizer is not None and slot.calibration is not None:
                value = quantizer(slot.calibration, value, slot.axis)
            return value if slot.pack is None else slot.pack(value)

        return {key: packed(slot) for key, slot in self.slots.items()}

    def run(
        self,
        packed: Mapping[str, Array],
        quantizer: Quantizer | None,
        values: Mapping[str, Array],
        *,
        start: int = 0,
        stop: int | None = None,
        keep: tuple[str, ...] | None = None,
        directions: Directions | None = None,
    ) -> dict[str, Array]:
        """Run some steps on one sample.

        Args:
          packed: What `prepare` returned.
          quantizer: Applied to features; None leaves every quantizer out of the program. One of a
            table also keeps sums within the target's integers, where its plan asks for that.
          values: Tensors that are live before ``start``, physical order; the feeds at 0.
          start: First step.
          stop: One past the last step; None for all.
          keep: Tensors to return in physical order; None returns the graph outputs in
            canonical order.
          directions: Adds ``gate * (derivative of the step along direction)`` to the output of
            every step that reads such a weight. The derivative is pushed forward through the one
            step, so that a gradient with respect to the gate needs no weight gradient, which
            would be one per sample.
        """
        env = dict(values)
        converted: dict[tuple[str, Perm], Array] = {}

        def fetch(operand: Operand) -> Any:
            if operand.weight:
                return packed[operand.weight]
            if operand.literal is not None:
                return narrowed(operand.literal)
            if not operand.value:
                return operand.static
            cached = (operand.value, operand.perm)
            if cached not in converted:
                have = self.perms[operand.value]
                converted[cached] = layouts.convert(env[operand.value], have, operand.perm)
            x = converted[cached]
            return x if operand.prepare is None else operand.prepare(x)

        for step in self.steps[start:stop]:
            operands = [fetch(operand) for operand in step.operands]
            own = quantizer.step(step, operands) if isinstance(quantizer, TableQuantizer) else None
            if own is not None:
                results = own
            elif step.function is not None:
                results = _along(step, operands, directions or {})
            elif quantizer is None:
                results = (operands[0],)
            else:
                assert step.calibration is not None
                results = (quantizer(step.calibration, operands[0], step.axis),)
            env.update({name: r for name, r in zip(step.outputs, results, strict=False) if name})
        if keep is not None:
            return {name: env[name] for name in keep}
        out = {}
        for name in self.outputs:
            if name in self.constants:
                out[name] = jax.numpy.asarray(narrowed(self.constants[name]))
            else:
                perm = self.perms[name]
                out[name] = layouts.convert(env[name], perm, layouts.canonical(len(perm)))
        return out

    @functools.cached_property
    def live(self) -> tuple[tuple[str, ...], ...]:
        """Tensors that are needed at or after each step and exist before it; last, the outputs."""
        needed = {name for name in self.outputs if name not in self.constants}
        after = [tuple(sorted(needed))]
        for step in reversed(self.steps):
            needed -= set(step.outputs)
            needed |= {operand.value for operand in step.operands if operand.value}
            after.append(tuple(sorted(needed)))
        return tuple(reversed(after))

    @functools.cached_property
    def small(self) -> bool:
        """Tell whether a program that is not compiled saves more than work that is not done."""
        return sum(effort(step) for step in self.steps) <= _SMALL

    @property
    def perms(self) -> Mapping[str, Perm]:
        """Axis order of every tensor that a step or a feed provides."""
        return self._perms

    def __post_init__(self) -> None:
        perms = {name: layouts.canonical(len(self.shapes[name])) for name in self.inputs}
        for step in self.steps:
            perms.update({n: p for n, p in zip(step.outputs, step.perms, strict=True) if n})
        object.__setattr__(self, "_perms", perms)

    _perms: Mapping[str, Perm] = dataclasses.field(init=False, repr=False)


def effort(step: Step) -> float:
    """Return the work of a step, in MACs."""
    return step.macs + _VECTOR_MACS * step.vector


def _along(step: Step, operands: list[Any], directions: Directions) -> tuple[Any, ...]:
    """Run a step; add the gated derivative along the directions of its weights."""
    assert step.function is not None
    results = step.function(*operands)
    for i, operand in enumerate(step.operands):
        if operand.weight not in directions:
            continue

        def of_weight(w: Array, index: int = i) -> tuple[Any, ...]:
            assert step.function is not None
            return step.function(*operands[:index], w, *operands[index + 1 :])

        for gate, direction in directions[operand.weight]:
            _, pushed = jax.jvp(of_weight, (operands[i],), (direction,))
            # The gate is zero where derivatives are taken: what flows back through the pushed
            # term would be multiplied by it, so it is cut off.
            results = tuple(
                r + gate * jax.lax.stop_gradient(p) for r, p in zip(results, pushed, strict=True)
            )
    return results
