"""An assignment of types to quantizers, and the arrays that a forward takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from jax import Array

from jptq.errors import ConfigError
from jptq.numerics.affine import affine
from jptq.numerics.qtypes import DUAL_INT16, FLOAT16, FLOAT32, INT16, QTYPES, qtype
from jptq.pytree import pytree
from jptq.quant.plan import Calibration, Plan

Assignment: TypeAlias = Mapping[str, str]
"""``{calibration: qtype}``, total over a plan."""

Thresholds: TypeAlias = Mapping[str, np.ndarray]
"""``{calibration: float32[C]}`` (``[2]`` if asymmetric), in the tensor's unit."""


@pytree
class Table:
    """An assignment as arrays: all that changes between two runs of one program.

    K calibrations, T scales in total (`Plan.offsets`).

    Attributes:
      scale: ``float32[T]``.
      offset: ``float32[T]``.
      lower: ``float32[K]``.
      upper: ``float32[K]``; equal to ``lower`` for float16, which has no integers.
      gate: ``float32[K]``; 1 quantizes, 0 passes the tensor.
    """

    scale: Array | np.ndarray
    offset: Array | np.ndarray
    lower: Array | np.ndarray
    upper: Array | np.ndarray
    gate: Array | np.ndarray


def table(plan: Plan, thresholds: Thresholds, assignment: Assignment) -> Table:
    """Return the arrays of an assignment.

    Args:
      plan: K calibrations.
      thresholds: Of every calibration.
      assignment: Of every calibration; ``float32`` switches one off.

    Raises:
      ConfigError: A calibration has no thresholds or no type, or their number is wrong.
    """
    count = len(plan.calibrations)
    scale = np.ones(plan.offsets[-1], np.float32)
    offset = np.zeros(plan.offsets[-1], np.float32)
    lower, upper, gate = (np.zeros(count, np.float32) for _ in range(3))
    for k, calibration in enumerate(plan.calibrations):
        if calibration.name not in assignment:
            raise ConfigError("a calibration has no type", where=calibration.name)
        kind = qtype(assignment[calibration.name], where=calibration.name)
        if kind is FLOAT16:
            gate[k] = 1.0
        if not kind.quantizes:
            continue
        if calibration.name not in thresholds:
            raise ConfigError(
                "a calibration has no thresholds",
                where=calibration.name,
                hint="calibrate the model first: jptq calibrate",
            )
        values = np.asarray(thresholds[calibration.name], np.float32)
        expected = (2,) if calibration.asymmetric else (1, calibration.channels)
        if values.ndim != 1 or values.size not in expected:
            raise ConfigError(
                f"{values.size} thresholds where {expected[-1]} are needed", where=calibration.name
            )
        grid = affine(values, kind, asymmetric=calibration.asymmetric)
        start, stop = plan.offsets[k], plan.offsets[k + 1]
        scale[start:stop], offset[start:stop] = grid.scale, grid.offset
        lower[k], upper[k], gate[k] = grid.lower, grid.upper, 1.0
    return Table(scale=scale, offset=offset, lower=lower, upper=upper, gate=gate)


def finest(names: Iterable[str]) -> str:
    """Return the finest of some types."""
    return max(names, key=tuple(QTYPES).index)


def fitting(names: Sequence[str], asked: str) -> str:
    """Return the finest of some types that is no finer than what is asked, or the coarsest.

    Args:
      names: From coarse to fine.
      asked: A type.
    """
    order = tuple(QTYPES)
    return next((t for t in reversed(names) if order.index(t) <= order.index(asked)), names[0])


def accepted(calibration: Calibration, name: str, *, dual: bool = False) -> str:
    """Return the type that a quantizer takes when ``name`` is asked of it.

    That is the finest accepted type which is not finer (int8 weights under all-int16, hmct-spec
    6.2). ``float32`` is always accepted: the operator then leaves the accelerator. A pinned
    quantizer keeps its type, whatever is asked.

    Args:
      calibration: The quantizer.
      name: What is asked.
      dual: It is asked of the second operand of a ``dual-int16`` node.
    """
    asked = qtype(name, where=calibration.name).name
    if calibration.pinned is not None:
        return calibration.pinned
    if asked == FLOAT32.name or (dual and calibration.dual and asked == INT16.name):
        return asked
    return fitting(calibration.allowed, asked)


def uniform(plan: Plan, name: str) -> dict[str, str]:
    """Return the assignment that asks ``name`` of every calibration, see `accepted`."""
    return {calibration.name: accepted(calibration, name) for calibration in plan.calibrations}


def true_int16(plan: Plan) -> dict[str, str]:
    """Return int16 for every quantizer, whatever the target can; what is pinned keeps its type.

    No device runs it: it is the ceiling of what compensating the int8 leftovers can reach
    (hmct-spec 6.2).
    """
    return {one.name: one.pinned or INT16.name for one in plan.calibrations}


def promote(assignment: Assignment, plan: Plan, nodes: Mapping[str, str]) -> dict[str, str]:
    """Return the assignment with whole nodes raised; nothing is lowered.

    Args:
      assignment: What to start from; not changed.
      plan: Its plan.
      nodes: ``{node: int16 | dual-int16 | float32}``. Inputs of a node take the type where the
        target allows; second operands that are int8 otherwise take int16 only under
        ``dual-int16``. A graph output that follows the node is raised too.
    """
    out = dict(assignment)
    for node, candidate in nodes.items():
        slots = plan.of_node(node)
        dual = candidate == DUAL_INT16
        for name in filter(None, (*slots.calibrations, slots.output)):
            wanted = INT16.name if dual else candidate
            out[name] = finest([out[name], accepted(plan.calibration(name), wanted, dual=dual)])
    return out
