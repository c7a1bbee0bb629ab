"""Graph inputs that a user fixes: their shapes, or their values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from jptq.errors import ModelError, ShapeError, UnknownNameError
from jptq.ir.model import Dimension, Model, Tensor


def fix_inputs(model: Model, input_shapes: Mapping[str, tuple[int, ...]]) -> Model:
    """Return the model with fixed input shapes; the outputs' shapes become unknown.

    Raises:
      UnknownNameError: `input_shapes` names something that is no input.
      ShapeError: A length stays unknown, or contradicts the file.
    """
    given = give_shapes(model, input_shapes)
    for tensor in given.inputs:
        _refuse_open(tensor)
    return dataclasses.replace(
        given,
        outputs=tuple(dataclasses.replace(tensor, shape=None) for tensor in model.outputs),
    )


def give_shapes(model: Model, input_shapes: Mapping[str, tuple[int, ...]]) -> Model:
    """Return the model with some input shapes fixed; the others stay as they are.

    Raises:
      UnknownNameError: `input_shapes` names something that is no input.
      ShapeError: A shape contradicts the file.
    """
    _known(model, input_shapes)
    return dataclasses.replace(
        model,
        inputs=tuple(
            _given(tensor, input_shapes[tensor.name]) if tensor.name in input_shapes else tensor
            for tensor in model.inputs
        ),
    )


def fix_values(model: Model, input_values: Mapping[str, ArrayLike]) -> Model:
    """Return the model with some inputs turned into constants.

    A switch between sampling rates, a scale or a camera matrix: what is the same in every run is
    a constant, and `optimize` then folds what hangs on it, control flow included.

    Args:
      model: A float network as loaded.
      input_values: By input name. A single number fills an input whose shape the file fixes, a
        row of numbers takes that shape; an array has the input's shape.

    Raises:
      UnknownNameError: `input_values` names something that is no input.
      ShapeError: A value does not fit the input's shape, or that is not known.
      ModelError: The input's element type cannot hold the value.
    """
    _known(model, input_values)
    constants = {
        tensor.name: _constant(tensor, input_values[tensor.name])
        for tensor in model.inputs
        if tensor.name in input_values
    }
    if not constants:
        return model
    kept = tuple(tensor for tensor in model.inputs if tensor.name not in constants)
    return dataclasses.replace(model, inputs=kept, initializers={**model.initializers, **constants})


def _known(model: Model, given: Iterable[str]) -> None:
    for name in given:
        if name not in model.input_names:
            raise UnknownNameError("input", name, model.input_names)


def _refuse_open(tensor: Tensor) -> None:
    """Refuse a tensor of unknown shape; a sequence has none."""
    declared = tensor.shape
    open_ = declared is None or not all(isinstance(length, int) for length in declared)
    if open_ and not tensor.container:
        raise ShapeError(
            f"the shape of input {tensor.name!r} is not known",
            where=f"input {tensor.name!r}",
            why=f"the file declares it {_shown(declared)}",
            hint=f"{shape_flag(tensor.name, declared)}, or samples that have it",
        )


def shape_flag(name: str, declared: tuple[Dimension, ...] | None) -> str:
    """Return a flag that fixes an input's shape, for hints: of its rank, with the lengths it has.

    >>> shape_flag("x", ("batch", 3, "h", "w")), shape_flag("ids", (1, "length"))
    ('--input_shape=x:1x3x224x224', '--input_shape=ids:1x128')
    """
    image = (1, 3, 224, 224)
    rank = len(image if declared is None else declared)
    usual = image if rank == len(image) else (1, *[128] * (rank - 1))[:rank]
    lengths = [
        known if isinstance(known, int) else length
        for known, length in zip(declared or [None] * rank, usual, strict=True)
    ]
    return f"--input_shape={name}:{'x'.join(map(str, lengths))}"


def _given(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if not _fits(shape, tensor.shape) or any(length < 0 for length in shape):
        raise ShapeError(
            f"input {tensor.name!r} cannot have shape {_shown(shape)}",
            where=f"input {tensor.name!r}",
            why=f"the file declares it {_shown(tensor.shape)}",
            hint="prepare the samples for this model, or export it with another input shape",
        )
    return dataclasses.replace(tensor, shape=tuple(shape))


def _constant(tensor: Tensor, given: ArrayLike) -> np.ndarray:
    """Return the value of a fixed input, in its shape and element type."""
    where = f"input {tensor.name!r}"
    value = np.asarray(given)
    if tensor.dtype is None or tensor.dtype.kind not in "fiub" or tensor.container:
        raise ModelError("an input that is no numeric tensor cannot be fixed", where=where)
    declared = tensor.shape
    lengths = [length for length in declared or () if isinstance(length, int)]
    if declared is None or len(lengths) < len(declared):
        # A value of as many axes as the input says itself how long the open ones are.
        if not _fits(value.shape, declared):
            raise ShapeError(
                f"the shape of input {tensor.name!r} is not known",
                where=where,
                why=f"the file declares it {_shown(declared)}, the value has {_shown(value.shape)}",
                hint="give an array of the shape that the input is to have",
            )
        lengths = list(value.shape)
    if value.ndim == 1 and value.size == math.prod(lengths):
        value = value.reshape(lengths)
    if value.ndim and value.shape != tuple(lengths):
        raise ShapeError(
            f"input {tensor.name!r} cannot have a value of shape {_shown(value.shape)}",
            where=where,
            why=f"the file declares it {_shown(declared)}",
            hint="give a single number, or as many as the input has",
        )
    if value.dtype.kind not in "fiub":
        raise ModelError(f"the value of input {tensor.name!r} is no number", where=where)
    with np.errstate(over="ignore", invalid="ignore"):
        held = value.astype(tensor.dtype)
    # A float is rounded to what the input holds; anything else has to be held exactly.
    rounds = tensor.dtype.kind == "f" and bool(np.isfinite(held).all())
    if not rounds and not np.array_equal(held, value):
        raise ModelError(
            f"input {tensor.name!r} cannot hold the value",
            where=where,
            why=f"its element type is {tensor.dtype}",
        )
    return np.array(np.broadcast_to(held, lengths))


def _fits(shape: tuple[int, ...], declared: tuple[Dimension, ...] | None) -> bool:
    """Tell whether a shape agrees with every length that the file fixes."""
    return declared is None or (
        len(declared) == len(shape)
        and all(
            length == found
            for length, found in zip(declared, shape, strict=True)
            if isinstance(length, int)
        )
    )


def _shown(shape: tuple[Dimension, ...] | None) -> str:
    if shape is None:
        return "of unknown rank"
    return "[" + ", ".join("?" if length is None else str(length) for length in shape) + "]"
