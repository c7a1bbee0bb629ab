"""From a plan and two tables to a problem."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jptq.allocation.problem import FREE, INT16, Coupling, Group, Problem
from jptq.errors import ConfigError, UnknownNameError
from jptq.numerics.qtypes import QTYPES
from jptq.quant.assign import finest
from jptq.quant.plan import Plan
from jptq.results import LatencyTable, SensitivityTable
from jptq.results.latency import width
from jptq.results.sensitivity import BETTER


def build(
    plan: Plan,
    latency: LatencyTable,
    *sensitivities: SensitivityTable,
    metric: str = "mse",
    base_error: float | Sequence[float] = 0.0,
    pins: Mapping[str, str] | None = None,
    weights: Sequence[float] | None = None,
    limits: Sequence[float] | None = None,
) -> Problem:
    """Return the problem of choosing types for a plan.

    A calibration that takes int16 only as part of ``dual-int16`` may be raised where the node's
    first operand is raised too.

    Args:
      plan: The calibrations, with what the target allows.
      latency: Times of its nodes.
      *sensitivities: One per output (one for all outputs together is common). Their rows must
        not reach over the border of a decision group; rows within one are added. Candidates are
        ``int8`` and ``int16``; NaN where int16 is not to be had.
      metric: One of which lower is better.
      base_error: What no choice changes, per output or the same for all.
      pins: ``{calibration: type}`` that the solver must keep; the whole group follows.
      weights: Of the outputs in the sum that is minimised; 1 each if None.
      limits: Upper limits of the outputs' errors; none if None.

    Raises:
      ConfigError: The tables do not fit the plan, a score is not a finite number, higher is
        better for the metric, or two pins disagree.
      UnknownNameError: A table lacks the metric or a candidate, or a pin names nothing.
    """
    if BETTER.get(metric, "lower") != "lower":
        lower = ", ".join(name for name, better in BETTER.items() if better == "lower")
        raise ConfigError(
            f"errors cannot be sums of {metric!r}",
            why="higher is better",
            hint=f"take one of {lower}",
        )
    if not sensitivities:
        raise ConfigError("a problem needs at least one sensitivity table")
    members = plan.groups
    pinned = _pinned(plan, members, pins or {})
    firsts = _first_operands(plan, latency)
    errors = np.stack([_errors(table, members, metric) for table in sensitivities])
    groups = []
    for g, names in enumerate(members):
        types = _types(plan, names, firsts)
        if np.isnan(errors[:, g, 1]).any():
            types = (types[0],)
        groups.append(Group(name=names[0], calibrations=names, types=pinned.get(g, types)))
    group_of = {name: g for g, names in enumerate(members) for name in names}
    couplings = []
    for name, operands in firsts.items():
        g = group_of[name]
        for first in operands:
            needed = tuple(dict.fromkeys(group_of[other] for other in first))
            if needed and g not in needed and INT16 in groups[g].types:
                couplings.append(Coupling(second=g, first=needed))
    for g, group in enumerate(groups):
        used = [0, 1] if group.types == FREE else [int(width(group.types[0]) == INT16)]
        if group.types == ("float32",):
            errors[:, g] = 0.0
        elif not np.isfinite(errors[:, g, used]).all():
            raise ConfigError("a score is not a finite number", where=f"calibration {group.name!r}")
        errors[:, g] = np.nan_to_num(errors[:, g], nan=0.0, posinf=0.0)
    outputs = len(sensitivities)
    return Problem(
        groups=tuple(groups),
        errors=errors,
        latency=latency,
        couplings=tuple(couplings),
        weights=np.ones(outputs) if weights is None else np.asarray(weights, float),
        limits=np.full(outputs, math.inf) if limits is None else np.asarray(limits, float),
        base_error=np.broadcast_to(np.asarray(base_error, float), (outputs,)).copy(),
    )


def _errors(table: SensitivityTable, members: Sequence[tuple[str, ...]], metric: str) -> np.ndarray:
    """Return ``float64[G, 2]``, the rows of a table added up by group."""
    group_of = {name: g for g, names in enumerate(members) for name in names}
    errors = np.zeros((len(members), 2))
    columns = np.stack([table.column(metric, candidate) for candidate in FREE], axis=1)
    seen: set[str] = set()
    for row, names, scores in zip(table.rows, table.members, columns, strict=True):
        found = set()
        for name in names:
            if name not in group_of:
                raise UnknownNameError("calibration", name, group_of, where=f"row {row!r}")
            found.add(group_of[name])
        if len(found) != 1 or seen & set(names):
            raise ConfigError(
                "a sensitivity row is not the error of one decision group",
                where=f"row {row!r}",
                why=f"it switches {', '.join(names) or 'nothing'}",
                hint="rank with kind 'group'",
            )
        seen.update(names)
        errors[found.pop()] += scores
    missing = [name for name in group_of if name not in seen]
    if missing:
        raise ConfigError("calibrations without a score", where=", ".join(missing[:5]))
    return errors


def _types(
    plan: Plan, names: Sequence[str], firsts: Mapping[str, list[tuple[str, ...]]]
) -> tuple[str, ...]:
    """Return the types that all members of a group take, int8 or int16, coarse to fine."""
    kept = [kind for name in names if (kind := plan.calibration(name).pinned) is not None]
    if kept:
        return (finest(kept),)
    common = tuple(
        candidate
        for candidate in FREE
        if all(
            candidate in plan.calibration(name).allowed or (candidate == INT16 and name in firsts)
            for name in names
        )
    )
    return common or (plan.calibration(names[0]).allowed[0],)


def _first_operands(plan: Plan, latency: LatencyTable) -> dict[str, list[tuple[str, ...]]]:
    """Return, for calibrations that are int16 only in ``dual-int16``, their first operands."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for node in latency.nodes:
        for name in node.second:
            calibration = plan.calibration(name)
            if calibration.dual and INT16 not in calibration.allowed:
                found.setdefault(name, []).append(node.first)
    return found


def _pinned(
    plan: Plan, members: Sequence[tuple[str, ...]], pins: Mapping[str, str]
) -> dict[int, tuple[str]]:
    group_of = {name: g for g, names in enumerate(members) for name in names}
    found: dict[int, tuple[str]] = {}
    for name, kind in pins.items():
        calibration = plan.calibration(name)
        if kind not in QTYPES:
            raise UnknownNameError("type", kind, QTYPES, where=f"pin of {name!r}")
        dual = calibration.dual and kind == INT16
        if kind != "float32" and kind not in calibration.allowed and not dual:
            raise ConfigError(
                f"{kind} is not accepted here",
                where=f"pin of {name!r}",
                hint="accepted: " + ", ".join(calibration.allowed),
            )
        if found.setdefault(group_of[name], (kind,)) != (kind,):
            raise ConfigError(
                "two pins of one group disagree",
                where=", ".join(members[group_of[name]]),
            )
    return found
