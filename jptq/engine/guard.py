"""Faults of a node while lowering: the user's get its name, ours keep their traceback."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jptq.engine.arrange import Spec
from jptq.errors import ModelError, ShapeError
from jptq.ir.model import Node
from jptq.quant.plan import Calibration

_MISFIT = re.compile(
    r"shape|broadcast|dimension|contract|\bsizes?\b|\bax[ei]s\b|\brank\b|\bndim\b|out of bounds"
    r"|same dtypes|does not accept dtype"
    # Numbers that are none of those an operator can take.
    r"|must be (a )?(positive|non-?negative)|cannot be zero|is not a valid|NaN to integer"
    r"|subscript|zip\(\) argument",
    re.IGNORECASE,
)
"""What JAX and NumPy say of arrays and numbers that do not fit. They have no class for it."""


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
    except (ArithmeticError, MemoryError) as error:
        raise ShapeError(
            f"{node.op} cannot be computed",
            where=f"node {node.name!r}, input shapes {listed}",
            why=str(error).partition("\n")[0] or type(error).__name__,
        ) from error


LARGEST = 1 << 32
"""Bytes of any tensor of one sample: hundreds of times those of a camera's picture in float32."""

_WORTH_A_LOOK = 1 << 24
"""Elements that a folded result may have without being looked at first."""


def refuse_giants(tensors: Sequence[Spec], *, what: str = "its result", where: str = "") -> None:
    """Refuse tensors that no machine is to hold, before anything of their size is made.

    Args:
      tensors: Shapes and types, of one sample.
      what: They are, for the error.
      where: They are.

    Raises:
      ShapeError: One of them is larger than `LARGEST`.
    """
    for spec in tensors:
        held = math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
        if held > LARGEST:
            raise ShapeError(
                f"{what} has {held / 2**30:.3g} GiB",
                where=where,
                why=f"its shape is {tuple(spec.shape)}; {LARGEST >> 30} GiB are the most that one "
                "tensor may have",
                hint="check the shapes of the inputs, and the constants that others come from",
            )


def may_be_giant(values: Sequence[Any], attributes: Mapping[str, Any]) -> bool:
    """Tell whether an operator could make much of values: broadcast, tiled, padded, expanded."""
    bound = 1
    for value in values:
        if not isinstance(value, np.ndarray) or value.size == 0:
            continue
        bound *= value.size
        if value.dtype.kind in "iu" and value.size <= 16:
            bound *= math.prod(max(abs(int(n)), 1) for n in value.ravel())
    for given in attributes.values():
        numbers = given if isinstance(given, tuple) else (given,)
        bound *= math.prod(max(abs(n), 1) for n in numbers if type(n) is int)
    return bound > _WORTH_A_LOOK


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
