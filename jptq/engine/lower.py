"""Lower a graph for concrete shapes: fold what is known, choose functions and layouts."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jptq.engine import layouts, nesting, subgraphs
from jptq.engine.arrange import Spec, arrange
from jptq.engine.fold import fold, infer, infer_step
from jptq.engine.guard import guarded, refuse_channels, refuse_giants
from jptq.engine.layouts import Perm
from jptq.engine.nesting import Flat, Nest, Tree
from jptq.engine.operators import choose, cost_of, find_op, refuse_text, refuse_unsupported
from jptq.engine.program import Operand, Program, Step, WeightSlot, may_be_mask
from jptq.errors import ModelError, ShapeError, StaticInputError
from jptq.ir.model import Model, Node
from jptq.ops.registry import Op
from jptq.quant.plan import Plan


class _NeedsValueError(Exception):
    """An operator needs the value of a tensor that depends on these graph inputs."""

    def __init__(self, inputs: frozenset[str], error: StaticInputError) -> None:
        super().__init__()
        self.inputs = inputs
        self.error = error


def lower(
    model: Model,
    example: Mapping[str, Any],
    *,
    plan: Plan | None = None,
    platform: str | None = None,
    prefer: Mapping[str, str] | None = None,
    wide: bool = True,
) -> Program:
    """Return the program of a graph for the shapes of an example.

    Args:
      model: Float or calibrated graph.
      example: One value (or shape and dtype) per graph input; values are only used if an
        operator needs them while tracing. A sequence is a list of these, an absent optional None.
      plan: The quantizers of a calibrated graph; without it HzCalibration nodes pass their input.
      platform: "cpu", "gpu" or "tpu"; the default backend if None.
      prefer: ``{operator: lowering}`` to force; "default" is the operator's own function.
      wide: The example's types are those that the graph declares; False if they are JAX's 32-bit
        ones already.

    Raises:
      UnsupportedOpError: Operators or attributes without an implementation, all at once.
      StaticInputError: A value is needed that the example does not hold.
      ShapeError: Shapes do not fit, with the node's name.
    """
    refuse_unsupported(model)
    fed, nests = nesting.flat_feeds(model.inputs, example)
    bound: dict[str, np.ndarray] = {}
    needs: dict[str, str] = {}
    while True:
        try:
            program = _Lowering(model, fed, nests, bound, plan, platform, prefer, wide).program()
            return dataclasses.replace(program, needs=needs)
        except _NeedsValueError as need:
            new = sorted(need.inputs - set(bound))
            values = {name: fed[name] for name in new}
            if not new or not all(isinstance(v, np.ndarray) for v in values.values()):
                raise subgraphs.needs_input(need.error, need.inputs) from None
            bound.update({name: np.asarray(value) for name, value in values.items()})
            needs.update(dict.fromkeys(new, f"{need.error.where}: {need.error.what}"))


class _Lowering:
    """One attempt at lowering; `program` runs it."""

    def __init__(
        self,
        model: Model,
        fed: Mapping[str, np.ndarray | Spec],
        nests: Mapping[str, Nest],
        bound: Mapping[str, np.ndarray],
        plan: Plan | None,
        platform: str | None,
        prefer: Mapping[str, str] | None,
        wide: bool,
    ) -> None:
        self.model = model
        self.plan = plan
        self.platform = platform or jax.default_backend()
        self.prefer = prefer or {}
        self.wide = wide
        self.known: dict[str, np.ndarray] = dict(model.initializers) | dict(bound)
        self.bound = dict(bound)
        self.specs: dict[str, Spec] = {}
        self.perms: dict[str, Perm] = {}
        self.depends: dict[str, frozenset[str]] = {}
        self.quantized: dict[str, tuple[str, int, int | None]] = {}  # output: (weight, k, axis)
        self.slots: dict[str, WeightSlot] = {}
        self.steps: list[Step] = []
        self.nests: dict[str, Nest] = dict(nests)
        self.fed: list[str] = [leaf for n in model.input_names for leaf in self._leaves(n)]
        for name in self.fed:
            if name not in fed:
                raise ShapeError("no example for a graph input", where=name)
            given = fed[name]
            self.specs[name] = Spec(given.shape, given.dtype)
            refuse_giants([self.specs[name]], what="an input", where=name)
            self.perms[name] = layouts.canonical(len(given.shape))
            self.depends[name] = frozenset((name,))

    def program(self) -> Program:
        for node in self.model.nodes:
            if node.is_calibration:
                self._calibration(node)
            else:
                self._operator(node)
        outputs = [leaf for n in self.model.output_names for leaf in self._leaves(n)]
        missing = [n for n in outputs if n not in self.specs and n not in self.known]
        if missing:
            raise ModelError("nothing computes a graph output", where=", ".join(missing))
        for name in outputs:
            if name in self.quantized:
                raise ModelError("a graph output is a quantized constant", where=name)
        shapes = {n: tuple(v.shape) for n, v in self.known.items()}
        shapes |= {n: tuple(s.shape) for n, s in self.specs.items()}
        shapes |= {n: self._size(nest) for n, nest in self.nests.items()}
        dtypes = {n: np.dtype(v.dtype) for n, v in self.known.items()}
        dtypes |= {n: np.dtype(s.dtype) for n, s in self.specs.items()}
        return Program(
            steps=tuple(self.steps),
            inputs=tuple(n for n in self.fed if n not in self.bound),
            outputs=tuple(outputs),
            constants={n: self.known[n] for n in outputs if n in self.known},
            weights={s.tensor: self.known[s.tensor] for s in self.slots.values()},
            slots=self.slots,
            plan=self.plan,
            shapes=shapes,
            dtypes=dtypes,
            bound=self.bound,
            nests=self.nests,
        )

    def _calibration(self, node: Node) -> None:
        source, output = node.inputs[0], node.outputs[0]
        index = self.plan.index.get(node.name) if self.plan is not None else None
        axis = (
            self.plan.calibrations[index].axis
            if self.plan is not None and index is not None
            else None
        )
        if source in self.known and source not in self.bound:
            if index is None:
                self.known[output] = self.known[source]
            else:
                value = self.known[source]
                self.quantized[output] = (
                    source,
                    index,
                    None if axis is None else axis % value.ndim,
                )
                self.specs[output] = Spec(value.shape, value.dtype)
                self.depends[output] = frozenset()
            return
        perm = self.perms[source]
        if axis is not None and index is not None and self.plan is not None:
            refuse_channels(self.plan.calibrations[index], self.specs[source].shape)
        self.specs[output], self.perms[output] = self.specs[source], perm
        self.depends[output] = self.depends[source]
        self.steps.append(
            Step(
                node=node.name,
                op=node.op,
                operands=(Operand(value=source, perm=perm),),
                outputs=(output,),
                perms=(perm,),
                function=None if index is not None else _identity,
                calibration=index,
                axis=None if axis is None else layouts.axis_position(axis, perm),
                vector=int(np.prod(self.specs[source].shape)),
            )
        )

    def _operator(self, node: Node) -> None:
        entry = find_op(self.model, node)
        assert entry is not None  # refused before
        bodies = {k: v for k, v in node.attributes.items() if isinstance(v, Model)}
        captured = sorted({n for body in bodies.values() for n in body.captured})
        attributes = {
            k: v for k, v in node.attributes.items() if k in entry.attributes and k not in bodies
        }
        if entry.counts_outputs:
            attributes["n_outputs"] = len(node.outputs)
        # Each tensor that is read, with the input that it is or is part of.
        read = [
            (leaf, i) for i, n in enumerate([*node.inputs, *captured]) for leaf in self._leaves(n)
        ]
        names = [leaf for leaf, _ in read]
        trees = [self._tree(n) for n in (*node.inputs, *captured)]
        refuse_text(node, [n for n in names if n and self._spec(n).dtype == np.object_])
        if all(not n or n in self.known for n in names) and not bodies:
            values = [
                nesting.put_together(n, self.nests, self.known) if n else None for n in node.inputs
            ]
            found = self._guard(node, fold, entry, values, attributes)
            for name, value in zip(node.outputs, found, strict=False):
                if name:
                    self._know(name, value)
            return

        static = {}
        for k, (name, i) in enumerate(read):
            if name and i < len(node.inputs) and entry.is_static(i):
                static[k] = self._static_value(node, entry, i)
        function: Callable[..., Any] = functools.partial(entry.function, **attributes)
        if bodies:
            function = subgraphs.bind(
                function,
                bodies,
                captured,
                len(node.inputs),
                self.model,
                functools.partial(lower, platform=self.platform),
            )
            # What is known here stays known inside: it may decide a branch or a shape.
            static |= {
                k: self.known[n] for k, (n, i) in enumerate(read) if self._is_literal(n, entry, i)
            }
        specs = [self._spec(n) if n else None for n in names]
        dynamic = {k: s for k, s in enumerate(specs) if s is not None and k not in static}
        flat = Flat(function, trees)
        try:
            abstract, known = self._guard(node, infer, flat, dynamic, static, len(names), self.wide)
        except StaticInputError as error:
            inside = subgraphs.needed(error) & set(captured)
            needed = frozenset().union(*(self.depends.get(n, frozenset()) for n in inside))
            if not needed:
                raise
            raise _NeedsValueError(needed, error) from None
        self._guard(node, refuse_giants, [s for s in abstract if isinstance(s, Spec)])
        outputs, nests = nesting.named(node.outputs, flat.results)
        self.nests |= nests
        if all(value is not None for value in known):
            self.known |= {n: v for n, v in zip(outputs, known, strict=True) if n}
            return
        depends = frozenset().union(*(self.depends.get(names[k], frozenset()) for k in dynamic))
        chosen = choose(entry, specs, static, attributes, self.platform, self.prefer)
        have = [self.perms.get(n) if n not in self.bound else None for n in names]
        decided = arrange(entry, chosen, have, specs, abstract, static, attributes)
        operands = [
            self._operand(
                n, entry, i, decided.static.get(k), decided.wants.get(k), decided.prepare.get(k)
            )
            for k, (n, i) in enumerate(read)
        ]
        for name, spec, perm in zip(outputs, abstract, decided.outputs, strict=True):
            if name:
                self.specs[name] = Spec(spec.shape, spec.dtype)
                self.depends[name] = depends
                self.perms[name] = perm
        macs, vector = cost_of(entry, specs, abstract, attributes)
        if chosen is None:
            call = (
                functools.partial(entry.function, **decided.attributes) if not bodies else function
            )
        else:
            call = functools.partial(chosen.function, **decided.attributes)
            packs = {key: slot.pack for key, slot in self.slots.items()}
            self._guard(node, infer_step, call, operands, specs, packs, self.wide)
        while len(outputs) > len(node.outputs) and not outputs[-1]:
            outputs.pop()
        self.steps.append(
            Step(
                node=node.name,
                op=node.op,
                operands=tuple(operands),
                outputs=tuple(outputs),
                perms=tuple(decided.outputs[: len(outputs)]),
                function=Flat(call, trees),
                macs=macs,
                vector=vector,
            )
        )

    def _size(self, nest: Nest) -> tuple[int]:
        """Return how many elements a sequence has, as the shape of a tensor of as many."""
        return (sum(math.prod(self._spec(leaf).shape) for leaf in nest.leaves),)

    def _leaves(self, name: str) -> tuple[str, ...]:
        """Return the tensors of a value: itself, if it is one."""
        return self.nests[name].leaves if name in self.nests else (name,)

    def _tree(self, name: str) -> Tree | None:
        return self.nests[name].tree if name in self.nests else None

    def _know(self, name: str, value: Any) -> None:
        """Take in a value that is there without running."""
        if not nesting.is_nested(value):
            self.known[name] = value
            return
        self.nests[name], tensors = nesting.taken_apart(name, value)
        self.known |= tensors

    def _guard(self, node: Node, call: Callable[..., Any], *args: Any) -> Any:
        """Return ``call(*args)``; faults get the node's name."""
        shapes = [
            tuple(self._spec(n).shape) if n else None
            for name in node.inputs
            for n in self._leaves(name)
        ]
        return guarded(node, shapes, call, *args)

    def _spec(self, name: str) -> Spec:
        if name in self.specs and name not in self.bound:
            return self.specs[name]
        value = self.known[name]
        return Spec(value.shape, value.dtype)

    def _is_literal(self, name: str, entry: Op, index: int) -> bool:
        """Return whether an operand is known and no weight: weights are data of the program.

        A number that all elements share is none (compilers simplify a power of 2), but for the
        bias or the kernel of one channel, and for what may be a mask: it may be written shorter.
        """
        value = self.known.get(name)
        if value is None:
            return False
        parameter = index in entry.traits.weights or index in entry.traits.exact
        single = value.size == 0 or (value.size == 1 and not (parameter and value.ndim))
        single = single and not may_be_mask(value)
        return single or value.dtype.kind != "f" or name in self.bound

    def _static_value(self, node: Node, entry: Op, index: int) -> np.ndarray:
        name = node.inputs[index]
        if name in self.known:
            return self.known[name]
        if name in self.quantized:
            return self.known[self.quantized[name][0]]
        inputs = self.depends[name]
        raise _NeedsValueError(
            inputs,
            StaticInputError(
                f"{node.op} needs {entry.inputs[index]!r} while tracing",
                where=f"node {node.name!r}",
                why=f"it is computed from graph input {', '.join(sorted(inputs))}, "
                "so shapes are unknown",
                hint="cut the network before this node; an input that is the same in every run "
                "can be made a constant (--input_value)",
            ),
        )

    def _operand(
        self,
        name: str,
        entry: Op,
        index: int,
        static: np.ndarray | None,
        want: Perm | None,
        prepare: Callable[..., Any] | None,
    ) -> Operand:
        if not name:
            return Operand()
        if static is not None:
            return Operand(static=static)
        if name in self.perms and name not in self.bound:
            perm = want if want is not None else layouts.canonical(len(self.perms[name]))
            return Operand(value=name, perm=perm, prepare=prepare)
        tensor, calibration, axis = self.quantized.get(name, (name, None, None))
        if calibration is None and self._is_literal(name, entry, index):
            literal = self.known[name]
            if prepare is not None:
                with jax.enable_x64(True), jax.ensure_compile_time_eval():
                    literal = np.asarray(prepare(literal))
            return Operand(literal=literal)
        key = f"{tensor}|{calibration}|{_pack_name(prepare)}"
        self.slots.setdefault(
            key, WeightSlot(tensor=tensor, calibration=calibration, axis=axis, pack=prepare)
        )
        return Operand(weight=key)


def _pack_name(prepare: Callable[..., Any] | None) -> str:
    if prepare is None:
        return ""
    if isinstance(prepare, functools.partial):
        return f"{_pack_name(prepare.func)}{sorted(prepare.keywords.items())}{prepare.args}"
    return f"{prepare.__module__}.{prepare.__qualname__}"


def _identity(x: Any) -> tuple[Any]:
    return (x,)
