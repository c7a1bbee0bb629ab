"""The choice that every solver makes: which groups of calibrations to raise to int16.

Symbols: G groups, O outputs; a choice is ``bool[G]``, True where a group is int16.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from jptq.errors import ConfigError, UnknownNameError
from jptq.numerics.qtypes import QTYPES
from jptq.results import LatencyTable
from jptq.results.latency import WIDTHS, width

INT8, INT16, FLOAT32 = WIDTHS
FREE = (INT8, INT16)

ROUNDING = 1e-12
"""Relative difference between two sums of the same errors in another order."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Calibrations that change their type together.

    Attributes:
      name: Of the group; its first calibration's, by habit.
      calibrations: At least one.
      types: ``("int8", "int16")`` if the solver chooses, one type if it is fixed.
    """

    name: str
    calibrations: tuple[str, ...]
    types: tuple[str, ...] = FREE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coupling:
    """A second operand that may be int16 only beside an int16 first one (hmct-spec 8.2).

    Attributes:
      second: Index of its group.
      first: Indices of the groups of the first operands, one of which must be int16.
    """

    second: int
    first: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Term:
    """The time of a node by its groups; see `NodeTime.candidate` for when it is what."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    int8: float
    int16: float
    dual: float

    def time_us(self, raised: np.ndarray) -> float:
        """Return the microseconds under a choice."""
        first = any(raised[g] for g in self.first)
        second = any(raised[g] for g in self.second)
        if second and (first or not self.first):
            return self.dual
        return self.int16 if first or second else self.int8

    @property
    def groups(self) -> frozenset[int]:
        """The groups that the time depends on."""
        return frozenset((*self.first, *self.second))


@dataclasses.dataclass(frozen=True)
class Edge:
    """A boundary by its groups: it costs if `second` is raised and none of `first` is."""

    first: tuple[int, ...]
    second: int
    cost: float

    @property
    def groups(self) -> frozenset[int]:
        """The groups that the time depends on."""
        return frozenset((*self.first, self.second))

    def time_us(self, raised: np.ndarray) -> float:
        """Return the microseconds under a choice."""
        return self.cost if raised[self.second] and not any(raised[g] for g in self.first) else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """Groups, what they cost in error and in time, and what must hold.

    The error of a choice at an output is ``base_error + sum over groups``. What is minimised is
    the sum of the outputs' errors with `weights`.

    Attributes:
      groups: G of them; every calibration of `latency` is in exactly one.
      errors: ``float64[O, G, 2]`` for int8 and int16, finite and not negative, in the unit of the
        scores used. A group fixed to float32 has none: its entries are zero. One fixed to float16
        is taken for int16, here and in its time.
      latency: Node times and boundaries.
      couplings: Hard constraints.
      weights: ``float64[O]``, not negative.
      limits: ``float64[O]``, upper limits of the outputs' errors; inf where there is none.
      base_error: ``float64[O]``, what no choice changes.

    Raises:
      ConfigError: The parts do not fit each other.
    """

    groups: tuple[Group, ...]
    errors: np.ndarray
    latency: LatencyTable
    couplings: tuple[Coupling, ...] = ()
    weights: np.ndarray
    limits: np.ndarray
    base_error: np.ndarray

    def __post_init__(self) -> None:
        outputs = len(self.errors)
        if self.errors.shape != (outputs, len(self.groups), 2) or outputs == 0:
            raise ConfigError(
                "errors do not fit the groups",
                why=f"shape {self.errors.shape} for {len(self.groups)} groups and 2 candidates",
            )
        for name, values in (("errors", self.errors), ("base errors", self.base_error)):
            if not np.isfinite(values).all() or (values < 0).any():
                raise ConfigError(f"{name} must be finite and not negative")
        for name, values in (("weights", self.weights), ("limits", self.limits)):
            if values.shape != (outputs,) or not (values >= 0).all():
                raise ConfigError(f"{name} must be {outputs} numbers that are not negative")
        if not np.isfinite(self.weights).all() or self.base_error.shape != (outputs,):
            raise ConfigError(f"weights and base errors must be {outputs} finite numbers")
        for group in self.groups:
            if group.types != FREE and (len(group.types) != 1 or group.types[0] not in QTYPES):
                raise ConfigError(f"a group cannot choose among {group.types}", where=group.name)
        members = [name for group in self.groups for name in group.calibrations]
        if len(members) != len(self.group_of):
            twice = next(name for name in members if members.count(name) > 1)
            raise ConfigError("a calibration is in two groups", where=twice)
        for edge in self.edges:
            if edge.cost < 0:
                raise ConfigError("boundary times must not be negative")
        for term in self.terms:
            if not np.isfinite([term.int8, term.int16, term.dual]).all():
                raise ConfigError("node times must be finite")

    @cached_property
    def group_of(self) -> Mapping[str, int]:
        """Index of the group of each calibration."""
        return {name: g for g, group in enumerate(self.groups) for name in group.calibrations}

    @cached_property
    def free(self) -> np.ndarray:
        """``bool[G]``: the groups that the solver chooses."""
        return np.array([group.types == FREE for group in self.groups], bool)

    @cached_property
    def fixed_int16(self) -> np.ndarray:
        """``bool[G]``: the groups that are int16, or as wide, in every choice."""
        return np.array([set(map(width, g.types)) == {INT16} for g in self.groups], bool)

    @cached_property
    def cost(self) -> np.ndarray:
        """``float64[G, 2]``: weighted errors."""
        return np.asarray(np.tensordot(self.weights, self.errors, axes=1))

    @property
    def base_cost(self) -> float:
        """The weighted base error."""
        return float(self.weights @ self.base_error)

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """Nodes by groups, in graph order; those that are float32 in every choice are left out."""
        found = []
        for node in self.latency.nodes:
            first, second = (self._groups(names, node.node) for names in (node.first, node.second))
            if any(self.groups[g].types == (FLOAT32,) for g in (*first, *second)):
                continue
            if "dual-int16" not in node.time_us and any(
                self.free[g] or self.fixed_int16[g] for g in second
            ):
                raise ConfigError("no time as dual-int16", where=f"node {node.node!r}")
            int8, int16 = node.time_us[INT8], node.time_us[INT16]
            found.append(Term(first, second, int8, int16, node.time_us.get("dual-int16", int16)))
        return tuple(found)

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Boundaries by groups; those that every choice or none crosses are left out."""
        found = []
        for boundary in self.latency.boundaries:
            first = self._groups(boundary.first, "a boundary")
            (second,) = self._groups((boundary.second,), "a boundary")
            float32 = any(self.groups[g].types == (FLOAT32,) for g in (*first, second))
            if not float32 and second not in first:
                found.append(Edge(first, second, boundary.time_us))
        return tuple(found)

    def _groups(self, calibrations: tuple[str, ...], where: str) -> tuple[int, ...]:
        for name in calibrations:
            if name not in self.group_of:
                raise UnknownNameError("calibration", name, self.group_of, where=where)
        return tuple(dict.fromkeys(self.group_of[name] for name in calibrations))

    @property
    def parts(self) -> tuple[Term | Edge, ...]:
        """All that has a time: `terms` and `edges`."""
        return (*self.terms, *self.edges)

    def lowest(self) -> np.ndarray:
        """Return the choice that raises nothing it need not."""
        return self.fixed_int16.copy()

    def highest(self) -> np.ndarray:
        """Return the choice that raises everything it may."""
        return np.asarray(self.fixed_int16 | self.free)

    def assignment(self, raised: np.ndarray) -> dict[str, str]:
        """Return ``{calibration: type}`` of a choice."""
        return {
            name: (INT16 if raised[g] else INT8) if group.types == FREE else group.types[0]
            for g, group in enumerate(self.groups)
            for name in group.calibrations
        }

    def choice(self, assignment: Mapping[str, str]) -> np.ndarray:
        """Return ``bool[G]`` of an assignment over the groups."""
        types = [assignment[group.calibrations[0]] for group in self.groups]
        return np.array([width(name) == INT16 for name in types], bool)

    def time_us(self, raised: np.ndarray) -> float:
        """Return the modelled time of a choice, exactly as the latency table tells it."""
        return self.latency.total_us(self.assignment(raised))

    def output_errors(self, raised: np.ndarray) -> np.ndarray:
        """Return ``float64[O]``, the errors of a choice."""
        taken = np.where(raised, self.errors[:, :, 1], self.errors[:, :, 0])
        return np.asarray(self.base_error + taken.sum(axis=1))

    def error(self, raised: np.ndarray) -> float:
        """Return the weighted error of a choice: what is minimised."""
        return float(self.weights @ self.output_errors(raised))

    def least_error(self) -> float:
        """Return a bound on the error of any choice, budget and couplings left aside."""
        low = np.where(self.free, self.cost.min(axis=1), self.cost[:, 0])
        low = np.where(self.fixed_int16, self.cost[:, 1], low)
        return float(self.base_cost + low.sum())

    def admits(self, raised: np.ndarray) -> bool:
        """Tell whether a choice keeps the fixed types, the couplings and the outputs' limits."""
        return (
            bool((raised[~self.free] == self.fixed_int16[~self.free]).all())
            and all(
                not raised[coupling.second] or any(raised[g] for g in coupling.first)
                for coupling in self.couplings
            )
            and bool((self.output_errors(raised) <= self.limits * (1 + ROUNDING)).all())
        )
