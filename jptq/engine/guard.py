"""Faults of a node while lowering: the user's get its name, ours keep their traceback."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from jptq.errors import ModelError, ShapeError
from jptq.ir.model import Node
from jptq.quant.plan import Calibration

_MISFIT = re.compile(
    r"shape|broadcast|dimension|contract|\bsizes?\b|\bax[ei]s\b|\brank\b|\bndim\b|out of bounds"
    r"|same dtypes|does not accept dtype",
    re.IGNORECASE,
)
"""What JAX and NumPy say of arrays that do not fit each other. They have no class for it."""


def guarded(
    node: Node, shapes: Sequence[tuple[int, ...] | None], call: Callable[..., Any], *args: Any
) -> Any:
    """Return ``call(*args)``; what is raised on the way says in which node.

    Args:
      node: Is lowered.
      shapes: Of its inputs; None where absent.
      call: A step of that.
      *args: Of the call.

    Raises:
      ShapeError: The inputs do not fit the operator.
      ModelError: As the call raises it, with the node's name.
    """
    listed = ", ".join("-" if shape is None else str(shape) for shape in shapes)
    try:
        return call(*args)
    except ModelError as error:
        inside = f", inside it {error.where}" if error.where else ""
        raise type(error)(
            error.what,
            where=f"node {node.name!r} ({node.op}){inside}",
            why=error.why,
            hint=error.hint,
        ) from error
    except (TypeError, ValueError, IndexError) as error:
        said = str(error).strip()
        if not _MISFIT.search(said):
            error.add_note(f"in node {node.name!r} ({node.op}), input shapes {listed}")
            raise
        raise ShapeError(
            f"{node.op} does not fit its inputs",
            where=f"node {node.name!r}, input shapes {listed}",
            why=said.splitlines()[0],
        ) from error


def refuse_channels(quantizer: Calibration, shape: tuple[int, ...]) -> None:
    """Refuse a quantizer whose channels are not the tensor's.

    Raises:
      ShapeError: They are not.
    """
    axis = quantizer.axis
    if axis is None or not -len(shape) <= axis < len(shape) or shape[axis] != quantizer.channels:
        raise ShapeError(
            f"a quantizer has {quantizer.channels} channels on axis {axis}",
            where=quantizer.name,
            why=f"{quantizer.tensor!r} has shape {shape}",
            hint="calibrate again: jptq calibrate",
        )
