"""The quantized forward of a case against its QDQ export, unit by unit.

One program serves all runs, because precision is data. Beside the quantizers that the target asks
for it has an observer on every other float tensor; each of them may be told what onnxruntime has
there. So every operator works on onnxruntime's own numbers and is compared with what onnxruntime
makes of them, rounding errors do not add up, and no value falls to another side of a rounding
boundary than onnxruntime's: no difference has to be excused.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.engine import TableQuantizer, layouts, lower
from jptq.engine.program import Program
from jptq.errors import ConfigError, ModelError
from jptq.ir import CALIBRATION, HORIZON, Model, Node, Tensor, insert_on_tensors, prune, to_bytes
from jptq.numerics.fake_quant import fake_quant
from jptq.quant.assign import Table, table
from jptq.quant.calibrated import plan_of, thresholds_of, with_assignment
from jptq.quant.config import load_config
from jptq.quant.emit import quant_config
from jptq.quant.export import to_qdq
from jptq.quant.plan import FEATURE, Calibration, Plan
from jptq.quant.resolve import resolve
from tools.fuzz import oracle, reasons, settings
from tools.fuzz.compare import Allowance, Difference, distance, misplaced, unequal
from tools.fuzz.draw import Draw

_OBSERVER = "_observed"
_FLOAT = np.dtype(np.float32)
Arrays = Mapping[str, np.ndarray]


class QuantizedQuestion:
    """Does every unit of the quantized network compute what the export computes?

    Args:
      optimized: The float network.
      samples: Feeds.
      draw: Chooses thresholds, types, and what is compensated.
      runs: How many assignments are compared.

    Raises:
      NothingToQuantizeError: Nothing in it is quantized.
    """

    def __init__(
        self, optimized: Model, samples: Sequence[Arrays], draw: Draw, *, runs: int = 3
    ) -> None:
        self.samples = samples
        example = samples[0]
        everywhere = draw.chance(0.3)
        floating = settings.compensated(optimized, draw)
        try:
            placed, self._tensors = settings.placed(floating, example, everywhere)
            plan_of(placed, settings.TARGET)
        except ModelError as error:
            if "no type" not in error.what or floating is optimized:
                raise
            # What is compensated takes int16, its other reader int8: said, and not asked for here.
            placed, self._tensors = settings.placed(optimized, example, everywhere)
        off = {node.name: "float32" for node in placed.nodes if node.is_calibration}
        marked = [node.inputs[0] for node in placed.nodes if node.is_calibration]
        self._marked = [name for name in marked if name not in placed.initializers]
        self._float = self._export(placed, off)
        features = {
            node.name: np.stack([one[source] for one in self._float])
            for node in placed.nodes
            if node.is_calibration
            for source in (settings.seen(placed, node.inputs[0], self._float[0]),)
            if source
        }
        self.calibrated = settings.calibrated(placed, features, draw)
        self.plan = plan_of(self.calibrated, settings.TARGET)
        self.assignments = [off, *settings.assignments(self.plan, draw, runs)]
        self._observed = _with_observers(self.calibrated, self._tensors)
        self._whole = _with_calibrations(self.plan, self._observed)
        self.program: Program = lower(self._observed, example, plan=self._whole)
        self._given = [
            self._float,
            *(self._export(self.calibrated, a) for a in self.assignments[1:]),
        ]
        thresholds = thresholds_of(self.calibrated)
        self._tables = [table(self.plan, thresholds, one) for one in self.assignments]
        stacked = {n: np.stack([one[n] for one in samples]) for n in self.program.inputs}
        self.arguments = [
            [dict(self.program.weights), held, stacked, self._teachers(given)]
            for held, given in zip(self._tables, self._given, strict=True)
        ]

    def function(
        self,
        weights: Mapping[str, Any],
        held: Table,
        feeds: Mapping[str, Any],
        teachers: Mapping[str, Any],
    ) -> dict[str, dict[str, Array]]:
        """Return what reaches quantizers and observers, and what is made of it per channel."""
        program = self.program
        own = TableQuantizer(self.plan, held)
        known = len(self.plan.calibrations)

        def of_weight(index: int, x: Array, axis: int | None) -> Array:
            return own(index, x, axis) if index < known else x

        with jax.default_matmul_precision("highest"):
            packed = program.prepare({n: jnp.asarray(w) for n, w in weights.items()}, of_weight)

            def one(values: Mapping[str, Array], given: Mapping[str, Array]) -> Any:
                reached: dict[str, Array] = {}
                made: dict[str, Array] = {}

                def quantizer(index: int, x: Array, axis: int | None) -> Array:
                    calibration = self._whole.calibrations[index]
                    perm = program.perms[calibration.output]
                    plain = layouts.canonical(x.ndim)
                    reached[calibration.name] = layouts.convert(x, perm, plain)
                    if index < known and calibration.channels > 1:
                        made[calibration.name] = layouts.convert(own(index, x, axis), perm, plain)
                    told = given.get(calibration.output)
                    return x if told is None else layouts.convert(told, plain, perm)

                ends = program.run(packed, quantizer, values)
                whole = {n: v for n, v in ends.items() if n in self._whole_numbers}
                return {"reached": reached, "made": made, "whole": whole}

            found: dict[str, dict[str, Array]] = jax.vmap(one)(feeds, teachers)
            return found

    def differences(self, results: Sequence[Mapping[str, Any]]) -> list[Difference]:
        """Return the units and quantizers that differ from the export, one of each run at most."""
        found = []
        for run, (result, given) in enumerate(zip(results, self._given, strict=True)):
            first = self._first_difference(result, given, run)
            found += [] if first is None else [first]
        return [*found, *self._default_session()]

    def round_trip(self) -> list[Difference]:
        """Return where a configuration written for an assignment says another one."""
        found = []
        for assignment in self.assignments[-1:]:
            try:
                content = quant_config(self.calibrated, self.plan, settings.TARGET, assignment)
            except ConfigError:
                continue  # no configuration can say it, and that is said
            again = resolve(
                load_config(content), self.calibrated, self.plan, settings.TARGET, report=False
            )
            wrong = [n for n, qtype in assignment.items() if again.get(n) != qtype]
            if wrong:
                found.append(
                    Difference(
                        tensor=wrong[0],
                        what=f"{assignment[wrong[0]]} emitted, {again.get(wrong[0])} resolved",
                    )
                )
        return found

    def exported(self, run: int) -> Model:
        """Return the export of a run."""
        return to_qdq(with_assignment(self.calibrated, self.assignments[run]))

    def _first_difference(
        self, result: Mapping[str, Any], given: Sequence[Arrays], run: int
    ) -> Difference | None:
        reached = result["reached"]
        held = self._tables[run]
        single = {
            c.name: reached[c.name]
            for c in self.plan.calibrations
            if c.name in reached and c.channels == 1
        }
        made = {**_fake_quantized(self.plan, held, single), **result["made"]}
        known = None
        for calibration in self._whole.calibrations:
            name = calibration.name
            for i, told in enumerate(given):
                if name not in reached or calibration.tensor not in told:
                    continue  # on a constant
                want = told[calibration.tensor]
                what = unequal(
                    reached[name][i],
                    want,
                    functools.partial(self._allowed, run, calibration.tensor, want, i),
                )
                if what is not None:
                    return self._found(run, calibration.tensor, f"sample {i}: {what}")
                if name in made and calibration.output in told:
                    what, why = self._off_grid(calibration, made[name][i], told, run)
                    if what:
                        one = self._found(run, calibration.output, f"sample {i}: {what}")
                        if not why:
                            return one
                        known = dataclasses.replace(one, explained=why)
        for name, rows in result["whole"].items():
            for i, told in enumerate(given):
                what = unequal(rows[i], told[name], lambda: 0.0)
                if what is not None:
                    return self._found(run, name, f"sample {i}: {what}")
        return known

    def _default_session(self) -> list[Difference]:
        """Return where onnxruntime's optimizer makes something else of an export."""
        run = len(self.assignments) - 1
        content = to_bytes(self.exported(run))
        plain = oracle.onnxruntime(content, self.samples)
        try:
            found = oracle.onnxruntime(content, self.samples, optimized=True)
        except oracle.Refused as refused:
            return [self._found(run, "", f"onnxruntime's default session refuses it: {refused}")]
        allowance = Allowance(content, self.samples)
        for i, (got, right) in enumerate(zip(found, plain, strict=True)):
            for name, want in right.items():
                what = unequal(got[name], want, functools.partial(allowance, name, want, i))
                if what is not None:
                    close = distance(got[name], want) <= reasons.MOST_STEPS
                    one = self._found(run, name, f"default session, sample {i}: {what}")
                    return [dataclasses.replace(one, explained=reasons.STEPS if close else "")]
        return []

    def _found(self, run: int, tensor: str, what: str) -> Difference:
        kinds = sorted(set(self.assignments[run].values()))
        return Difference(tensor=tensor, what=f"run {run} ({', '.join(kinds)}), {what}")

    def _allowed(self, run: int, tensor: str, want: np.ndarray, sample: int) -> np.ndarray | float:
        """Return how far the unit that computes a tensor may be from the export's."""
        feeds = {**self.samples[sample], **self._given[run][sample]}
        feeds.pop(tensor, None)
        unit, feeds = _unit(self.exported(run), tensor, feeds)
        return Allowance(to_bytes(unit), [feeds])(tensor, want, 0)

    def _off_grid(
        self, calibration: Calibration, made: np.ndarray, told: Arrays, run: int
    ) -> tuple[str, str]:
        """Return how a quantizer's result differs from the export's, if so, and why if known.

        Both saw the same number.
        """
        k = self.plan.index[calibration.name]
        held = self._tables[run]
        start, stop = self.plan.offsets[k], self.plan.offsets[k + 1]
        if held.gate[k] == 0:
            return "", ""
        x, want = told[calibration.tensor], told[calibration.output]
        if made.shape != want.shape:
            return f"shape {made.shape}, expected {want.shape}", ""
        scale = None
        if held.lower[k] != held.upper[k]:  # equal for float16
            shape = [1] * x.ndim
            if stop - start > 1:
                assert calibration.axis is not None
                shape[calibration.axis] = -1
            scale = np.asarray(held.scale[start:stop]).reshape(shape).astype(np.float64)
        bad = misplaced(made, want, x, scale)
        if not bad.any():
            return "", ""
        kept = np.isnan(x) & np.isnan(made)
        why = "" if (bad & ~kept).any() else reasons.NO_NUMBER
        worst = bad & ~kept if not why else bad
        spot = np.unravel_index(int(np.argmax(worst)), worst.shape) if worst.ndim else ()
        return (
            f"{int(bad.sum())} of {bad.size} quantized to another value: {made[spot]!r} for "
            f"{want[spot]!r}, from {x[spot]!r}",
            why,
        )

    def _export(self, model: Model, assignment: Mapping[str, str]) -> list[oracle.Arrays]:
        """Return what onnxruntime has on all tensors of an export."""
        exported = to_qdq(with_assignment(model, assignment))
        there = {*exported.producers, *exported.input_names}
        marks = [node.outputs[0] for node in model.nodes if node.is_calibration]
        wanted = dict.fromkeys([*self._tensors, *self._marked, *marks])
        names = [name for name in wanted if name in there]
        found = oracle.onnxruntime(to_bytes(_giving_out(exported, names)), self.samples)
        self._whole_numbers = frozenset(
            n for n in model.output_names if found[0][n].dtype.kind in "iub"
        )
        return [
            {n: a for n, a in one.items() if a.dtype == _FLOAT or n in self._whole_numbers}
            for one in found
        ]

    def _teachers(self, given: Sequence[Arrays]) -> dict[str, np.ndarray]:
        """Return what every quantizer and observer is told, ``[samples, *shape]``."""
        told = {}
        for calibration in self._whole.calibrations:
            if calibration.constant:
                continue
            source = calibration.output if calibration.output in given[0] else calibration.tensor
            if source in given[0]:
                told[calibration.output] = np.stack([one[source] for one in given])
        return told


_BLOCK = 4096
_elementwise = jax.jit(fake_quant)


def _fake_quantized(plan: Plan, held: Table, tensors: Arrays) -> dict[str, np.ndarray]:
    """Return what quantizers of one scale make of tensors.

    All of them at once, in blocks of one length: the function works element by element, and so
    one compilation serves every graph.
    """
    if not any(a.size for a in tensors.values()):
        return dict(tensors)
    indices = np.repeat([plan.index[n] for n in tensors], [a.size for a in tensors.values()])
    places = np.asarray(plan.offsets)[indices]
    columns = [
        np.concatenate([a.ravel() for a in tensors.values()]).astype(np.float32),
        *(np.asarray(v)[places] for v in (held.scale, held.offset)),
        *(np.asarray(v)[indices] for v in (held.lower, held.upper, held.gate)),
    ]
    padded = [np.pad(column, (0, -column.size % _BLOCK), mode="edge") for column in columns]
    flat = np.concatenate(
        [
            np.asarray(_elementwise(*(column[start : start + _BLOCK] for column in padded)))
            for start in range(0, padded[0].size, _BLOCK)
        ]
    )
    ends = np.cumsum([a.size for a in tensors.values()])[:-1]
    parts = np.split(flat[: indices.size], ends)
    return {n: part.reshape(a.shape) for (n, a), part in zip(tensors.items(), parts, strict=True)}


def _unit(model: Model, tensor: str, known: Arrays) -> tuple[Model, dict[str, np.ndarray]]:
    """Return the part of a model that computes a tensor from known ones, and its feeds."""
    needed, queue = [], [tensor]
    feeds: dict[str, np.ndarray] = {}
    while queue:
        name = queue.pop()
        node = model.producers.get(name)
        if name in known and name != tensor:
            feeds[name] = known[name]
        elif node is not None and node not in needed:
            needed.append(node)
            queue += node.reads
    inputs = tuple(Tensor(name=n, dtype=a.dtype, shape=a.shape) for n, a in feeds.items())
    part = dataclasses.replace(
        model,
        inputs=inputs,
        outputs=(Tensor(name=tensor, dtype=_FLOAT, shape=None),),
        nodes=tuple(node for node in model.nodes if any(node is one for one in needed)),
    )
    return prune(part), feeds


def _giving_out(model: Model, names: Sequence[str]) -> Model:
    extra = [name for name in names if name not in model.output_names]
    described = tuple(Tensor(name=name, dtype=_FLOAT, shape=None) for name in extra)
    return dataclasses.replace(model, outputs=(*model.outputs, *described))


def _with_observers(model: Model, tensors: Sequence[str]) -> Model:
    """Return the network with an observer, a quantizer that is told what to give, on tensors."""
    chains = {
        tensor: [
            Node(
                name=f"{tensor}{_OBSERVER}",
                op=CALIBRATION,
                domain=HORIZON,
                inputs=(tensor,),
                outputs=(f"{tensor}{_OBSERVER}:0",),
                attributes={"tensor_type": FEATURE},
            )
        ]
        for tensor in tensors
    }
    return insert_on_tensors(model, chains)


def _with_calibrations(plan: Plan, observed: Model) -> Plan:
    """Return the plan with the observers behind the quantizers."""
    observers = tuple(
        Calibration(
            name=node.name,
            tensor=node.inputs[0],
            output=node.outputs[0],
            kind=FEATURE,
            allowed=(),
        )
        for node in observed.nodes
        if node.is_calibration and node.name.endswith(_OBSERVER)
    )
    return dataclasses.replace(plan, calibrations=(*plan.calibrations, *observers), slots=())
