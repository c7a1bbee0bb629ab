"""Requests such as ``Conv_12.input0=int16``: what they mean to the quantizers of a model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from jptq.errors import ConfigError, UnknownNameError
from jptq.ir.fused import unknown_node
from jptq.ir.model import Model
from jptq.numerics.qtypes import DUAL_INT16, INT16, QTYPES
from jptq.quant.assign import Assignment, Thresholds, accepted
from jptq.quant.calibrated import thresholds_of, with_thresholds
from jptq.quant.compensate import derived_thresholds
from jptq.quant.placement import tied_thresholds
from jptq.quant.plan import Calibration, Plan, Slots

Value: TypeAlias = str | float | Sequence[float] | np.ndarray
"""A type, or thresholds: a number, one per channel, a range, or ``x0.9`` times what is there."""

THRESHOLD = "threshold"
_INPUT = re.compile(r"input(\d+)")
_SHOWN = 3
"""Names and numbers that a message lists before it only counts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What a quantized model is beside its graph.

    Attributes:
      assignment: Type of every quantizer.
      thresholds: Of every quantizer that has any.
    """

    assignment: Assignment
    thresholds: Thresholds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """What became of one quantizer.

    Attributes:
      request: ``target=value`` as it was asked.
      calibration: The quantizer.
      kind: ``type`` or ``threshold``.
      asked: The type or thresholds asked for.
      before: What it held.
      after: What it holds now.
      note: Why that is not what was asked, and who shares it; empty if there is nothing to say.
    """

    request: str
    calibration: str
    kind: str
    asked: str
    before: str
    after: str
    note: str = ""

    @property
    def applied(self) -> bool:
        """Tell whether the quantizer holds what was asked for."""
        return self.asked == self.after


def read(words: Iterable[str]) -> dict[str, str]:
    """Return ``{target: value}`` of words ``target=value``.

    Raises:
      ConfigError: A word is not of that form, or a target is named twice.
    """
    found: dict[str, str] = {}
    for word in words:
        # Names of nodes may hold "=", types and numbers never do.
        target, _, value = word.rpartition("=")
        if not target or not value:
            raise ConfigError(
                f"{word!r} is not NODE=TYPE", hint="Conv_12=int16 or Conv_3.threshold=4.2"
            )
        if target in found:
            raise ConfigError(f"{target!r} is changed twice")
        found[target] = value
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Target:
    """The quantizers that a request names, and the node it names them by, if any."""

    names: tuple[str, ...]
    node: Slots | None = None
    whole: bool = False


class Changer:
    """Applies requests to settings of one model.

    Args:
      model: The calibrated model.
      plan: Its quantizers.
      march: Target, for messages.
    """

    def __init__(self, model: Model, plan: Plan, march: str) -> None:
        self.plan = plan
        self.march = march
        self._model = model
        self._operators = {node.name for node in model.operators()}
        self._derived = self._derive()
        self._ties = {name: group for group in tied_thresholds(model) for name in group}

    def __call__(
        self, setting: Setting, requests: Mapping[str, Value]
    ) -> tuple[Setting, tuple[Change, ...]]:
        """Return the changed setting and what was done to each quantizer, in request order.

        A target is a node (all its inputs and, if it gives out the network's output, that), one
        input (``NODE.input1``), its ``NODE.output``, or a quantizer by name; ``.threshold`` behind
        it (behind a node: of its input 0) changes thresholds instead of types.

        Raises:
          UnknownNameError: A node, input or type does not exist; near names are listed.
          ConfigError: A value is impossible.
        """
        types, thresholds = dict(setting.assignment), dict(setting.thresholds)
        done: list[Change] = []
        for target, value in requests.items():
            request = f"{target}={_written(value)}"
            base = target.removesuffix(f".{THRESHOLD}")
            if base == target or self._exists(target):
                done += self._retype(types, target, value, request)
            else:
                done += self._rescale(thresholds, base, value, request)
        if self._derived and any(change.kind == THRESHOLD for change in done):
            done += self._followers(thresholds)
        return Setting(assignment=types, thresholds=thresholds), tuple(done)

    def _exists(self, name: str) -> bool:
        return name in self.plan.by_node or name in self.plan.index

    def _retype(
        self, types: dict[str, str], target: str, value: Value, request: str
    ) -> list[Change]:
        asked = self._type(value, request)
        found = self._quantizers(target)
        dual = asked == DUAL_INT16
        if dual and not (
            found.whole and any(self.plan.calibration(name).dual for name in found.names)
        ):
            raise ConfigError(
                f"{target!r} has no {DUAL_INT16}",
                where=request,
                why="it is a type of whole nodes that multiply two operands",
                hint="int16",
            )
        plain = INT16.name if dual else asked
        done = []
        for name in found.names:
            calibration = self.plan.calibration(name)
            before, types[name] = types[name], accepted(calibration, plain, dual=dual)
            notes = [*self._refusal(calibration, plain, types[name]), *self._shared(name, found)]
            done.append(
                Change(
                    request=request,
                    calibration=name,
                    kind="type",
                    asked=plain,
                    before=before,
                    after=types[name],
                    note="; ".join(notes),
                )
            )
        return done

    def _refusal(self, calibration: Calibration, asked: str, applied: str) -> list[str]:
        if asked == applied:
            return []
        under = f", int16 only under {DUAL_INT16}" if calibration.dual and asked == "int16" else ""
        return [f"not applied: {self.march} takes {', '.join(calibration.allowed)} here{under}"]

    def _shared(self, name: str, target: _Target) -> list[str]:
        if target.node is None:
            return []
        others = [node for node in self.plan.owners[name] if node != target.node.node]
        return [f"also read by {_listed(others)}"] if others else []

    def _rescale(
        self, thresholds: dict[str, np.ndarray], target: str, value: Value, request: str
    ) -> list[Change]:
        found = self._quantizers(target)
        names, note = found.names, ""
        if found.node is not None and found.whole:
            if 0 not in found.node.inputs:
                raise UnknownNameError("input", "input0", _slots(found.node), where=request)
            names = (found.node.inputs[0],)
            note = f"input0 of {found.node.node}"
        done = []
        for name in names:
            given = _thresholds(
                self.plan.calibration(name), thresholds.get(name), value, where=request
            )
            if name in self._derived:
                raise ConfigError(
                    f"the threshold of {name!r} is not free",
                    where=request,
                    why="error compensation derives it from the tensor that it splits",
                    hint="change the threshold of that tensor",
                )
            # Quantizers around a Concat hold one threshold: the device has one grid for them.
            for member in self._ties.get(name, (name,)):
                before = thresholds.get(member)
                thresholds[member] = given
                shown = _numbers(given)
                done.append(
                    Change(
                        request=request,
                        calibration=member,
                        kind=THRESHOLD,
                        asked=shown,
                        before="none" if before is None else _numbers(before),
                        after=shown,
                        note=note if member == name else f"shares the grid of {name}",
                    )
                )
        return done

    def _derive(self) -> frozenset[str]:
        """Return the quantizers in which a threshold that is written does not stay."""
        if not derived_thresholds(self._model):
            return frozenset()
        held = thresholds_of(self._model)
        # A factor of its own for each: none follows another by chance.
        written = {n: v * np.float32(1 + (i + 1) / 64) for i, (n, v) in enumerate(held.items())}
        kept = self._written(written)
        return frozenset(n for n, v in written.items() if not np.array_equal(kept[n], v))

    def _written(self, thresholds: Thresholds) -> dict[str, np.ndarray]:
        """Return what the model holds once thresholds are written to it."""
        known = [self.plan.calibration(name) for name in thresholds]
        axes = {
            c.name: c.axis
            for c in known
            if c.axis is not None and thresholds[c.name].size > 1 and not c.asymmetric
        }
        asymmetric = [c.name for c in known if c.asymmetric]
        return thresholds_of(
            with_thresholds(self._model, thresholds, asymmetric=asymmetric, axes=axes)
        )

    def _followers(self, thresholds: dict[str, np.ndarray]) -> list[Change]:
        """Let the two halves of compensated operands follow the grids that they come from."""
        kept = self._written({n: v for n, v in thresholds.items() if n not in self._derived})
        followed = []
        for name, values in kept.items():
            if name in self._derived and not np.array_equal(values, thresholds[name]):
                followed.append(
                    Change(
                        request="",
                        calibration=name,
                        kind=THRESHOLD,
                        asked=_numbers(values),
                        before=_numbers(thresholds[name]),
                        after=_numbers(values),
                        note="follows by error compensation",
                    )
                )
                thresholds[name] = values
        return followed

    def _quantizers(self, target: str) -> _Target:
        plan = self.plan
        if target in plan.by_node:
            slots = plan.by_node[target]
            own = (*slots.calibrations, *filter(None, (slots.output,)))
            return _Target(names=tuple(dict.fromkeys(own)), node=slots, whole=True)
        if target in plan.index:
            return _Target(names=(target,))
        node, _, slot = target.rpartition(".")
        if node in plan.by_node:
            named = _slots(plan.by_node[node])
            if slot not in named:
                raise UnknownNameError("quantizer of the node", slot, named, where=node)
            return _Target(names=(named[slot],), node=plan.by_node[node])
        for name in (target, node):
            if name in self._operators:
                raise ConfigError(
                    f"node {name!r} has no quantizer",
                    why="its inputs are used as they are computed",
                    hint="change the nodes before it",
                )
        wanted = node if _INPUT.fullmatch(slot) or slot == "output" else target
        known = [*plan.by_node, *plan.index]
        raise unknown_node(wanted, self._model, known=known, kind="node or quantizer")

    def _type(self, value: Value, request: str) -> str:
        name = value if isinstance(value, str) else _written(value)
        if name in ("ec", "int16-ec"):
            raise ConfigError(
                f"{name} cannot be switched on in a calibrated model",
                where=request,
                why="it adds an operator, which needs thresholds of its own",
                hint="ask for it in a quant_config and calibrate the float model with that",
            )
        if name not in QTYPES and name != DUAL_INT16:
            raise UnknownNameError("type", name, (*QTYPES, DUAL_INT16), where=request)
        return name


def _slots(node: Slots) -> dict[str, str]:
    named = {f"input{index}": name for index, name in sorted(node.inputs.items())}
    return named if node.output is None else {**named, "output": node.output}


def _thresholds(
    calibration: Calibration, held: np.ndarray | None, value: Value, *, where: str
) -> np.ndarray:
    """Return ``float32[1]`` or ``[C]``, ``[2]`` if asymmetric, checked."""
    expected = (2,) if calibration.asymmetric else tuple({1, calibration.channels})
    factor = isinstance(value, str) and value.startswith("x")
    numbers = _parsed(value[1:] if isinstance(value, str) and factor else value, where=where)
    if factor:
        if held is None:
            raise ConfigError("there is no threshold to multiply", where=where)
        if numbers.size != 1 or not numbers[0] > 0:
            raise ConfigError("a factor is one number above 0", where=where)
        numbers = held * numbers[0]
    if numbers.size not in expected:
        what = "a range MIN,MAX is needed" if calibration.asymmetric else "one number is needed"
        several = f", or {calibration.channels}" if calibration.channels > 1 else ""
        count = f"{numbers.size} number{'' if numbers.size == 1 else 's'}"
        raise ConfigError(
            f"{count}, but {what}{several}",
            where=where,
            why=f"{calibration.name} is asymmetric" if calibration.asymmetric else "",
            hint="or a factor: x0.9",
        )
    sound = np.isfinite(numbers).all() and (
        numbers[0] <= 0 <= numbers[1] and numbers[0] < numbers[1]
        if calibration.asymmetric
        else bool((numbers > 0).all()) or factor
    )
    if not sound:
        raise ConfigError(
            "a range holds 0" if calibration.asymmetric else "a threshold is a number above 0",
            where=where,
        )
    return numbers.astype(np.float32)


def _parsed(value: Value, *, where: str) -> np.ndarray:
    if not isinstance(value, str):
        return np.asarray(value, np.float64).reshape(-1)
    try:
        return np.asarray([float(part) for part in value.split(",")], np.float64)
    except ValueError as error:
        raise ConfigError(
            f"{value!r} is no threshold", where=where, hint="4.2, -1,3.5 or x0.9"
        ) from error


def _written(value: Value) -> str:
    if isinstance(value, str):
        return value
    return _numbers(np.asarray(value, np.float64).reshape(-1))


def _numbers(values: np.ndarray) -> str:
    shown = ",".join(f"{number:.6g}" for number in values[:_SHOWN])
    return shown if values.size <= _SHOWN else f"{shown},... ({values.size})"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
