"""Sequences and optionals: a sequence is a tuple of arrays, an absent optional is None.

How many tensors a sequence holds is known while tracing, so positions in it are too. An operator
whose one output is a sequence returns a tuple of one tuple.
Source of every function here: ONNX operator specification, the version last in ``since``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.errors import ShapeError
from jptq.ops import joining
from jptq.ops.registry import op
from jptq.ops.traits import Traits

Arrays: TypeAlias = tuple[Array, ...]
Value: TypeAlias = "Array | Arrays | None"

_PLUMBING = Traits.float_only()


@op("SequenceEmpty", since=(11,), traits=_PLUMBING)
def sequence_empty(*, dtype: int | None = None) -> tuple[Arrays]:
    """Return a sequence of nothing."""
    del dtype  # of tensors that are not there
    return ((),)


@op("SequenceConstruct", since=(11,), traits=_PLUMBING)
def sequence_construct(*inputs: Array) -> tuple[Arrays]:
    """Return the tensors as a sequence."""
    return (inputs,)


def _place(position: np.ndarray, count: int, *, end: int) -> int:
    """Return a position counted from the front.

    Args:
      position: A scalar; negative counts from the end.
      count: Tensors in the sequence.
      end: First position that is none.

    Raises:
      ShapeError: There is no such position.
    """
    place = int(position.item())
    if not -count <= place < end:
        raise ShapeError(f"position {place} in a sequence of {count}")
    return place + count if place < 0 else place


@op("SequenceAt", since=(11,), static=("position",), traits=_PLUMBING)
def sequence_at(input_sequence: Arrays, position: np.ndarray) -> Array:
    """Return the tensor at a position, a scalar."""
    count = len(input_sequence)
    return input_sequence[_place(position, count, end=count)]


@op("SequenceInsert", since=(11,), static=("position",), traits=_PLUMBING)
def sequence_insert(
    input_sequence: Arrays, tensor: Array, position: np.ndarray | None = None
) -> tuple[Arrays]:
    """Put a tensor before a position, a scalar; at the end if absent."""
    count = len(input_sequence)
    place = count if position is None else _place(position, count, end=count + 1)
    return ((*input_sequence[:place], tensor, *input_sequence[place:]),)


@op("SequenceErase", since=(11,), static=("position",), traits=_PLUMBING)
def sequence_erase(input_sequence: Arrays, position: np.ndarray | None = None) -> tuple[Arrays]:
    """Leave out the tensor at a position, a scalar; the last if absent."""
    count = len(input_sequence)
    place = _place(np.asarray(-1) if position is None else position, count, end=count)
    return ((*input_sequence[:place], *input_sequence[place + 1 :]),)


@op("SequenceLength", since=(11,), traits=Traits.shape_only())
def sequence_length(input_sequence: Arrays) -> np.ndarray:
    """Return the number of tensors as an ``int64`` scalar."""
    return np.asarray(len(input_sequence), np.int64)


@op("SplitToSequence", since=(11, 24), static=("split",), traits=_PLUMBING)
def split_to_sequence(
    input: Array, split: np.ndarray | None = None, *, axis: int = 0, keepdims: int = 1
) -> tuple[Arrays]:
    """Part a tensor along an axis.

    Args:
      input: Any shape.
      split: A scalar, the length of all parts but perhaps the last; or ``[K]``, that of each. Parts
        of length one if absent.
      keepdims: Whether parts keep the axis; it only matters without ``split``.

    Raises:
      ShapeError: The lengths do not add up.

    Source: ONNX operator specification, SplitToSequence-24.
    """
    length = input.shape[axis]
    if split is None:
        lengths = [1] * length
    elif split.ndim == 0:
        step = int(split.item())
        lengths = [min(step, length - start) for start in range(0, length, step)]
    else:
        lengths = split.tolist()
    parts = joining.parts(input, lengths, axis)
    if split is None and not keepdims:
        parts = tuple(jnp.squeeze(part, axis) for part in parts)
    return (parts,)


@op("ConcatFromSequence", since=(11,), traits=_PLUMBING)
def concat_from_sequence(input_sequence: Arrays, *, axis: int, new_axis: int = 0) -> Array:
    """Put the tensors behind each other along an axis, a new one if told.

    Raises:
      ShapeError: There are none.
    """
    if not input_sequence:
        raise ShapeError("ConcatFromSequence of an empty sequence")
    join = jnp.stack if new_axis else jnp.concatenate
    return join(input_sequence, axis)


@op("SequenceMap", since=(17,), traits=_PLUMBING)
def sequence_map(
    input_sequence: Arrays,
    *additional_inputs: Array | Arrays,
    body: Callable[..., Arrays],
    n_outputs: int = 1,
) -> tuple[Arrays, ...]:
    """Run a subgraph on each tensor.

    Args:
      input_sequence: N tensors.
      *additional_inputs: Sequences of N tensors, which are taken one by one, and tensors.
      body: From a tensor of each input to a tensor of each output.

    Raises:
      ShapeError: The sequences differ in length.

    Source: ONNX operator specification, SequenceMap-17.
    """
    count = len(input_sequence)
    lengths = {len(value) for value in additional_inputs if isinstance(value, tuple)}
    if lengths - {count}:
        raise ShapeError(f"SequenceMap over sequences of {count} and {max(lengths - {count})}")

    def at(i: int) -> list[Any]:
        return [value[i] if isinstance(value, tuple) else value for value in additional_inputs]

    found = [body(tensor, *at(i)) for i, tensor in enumerate(input_sequence)]
    columns: Sequence[Arrays] = list(zip(*found, strict=True)) if found else [()] * n_outputs
    return tuple(columns)


@op("Optional", since=(15, 28), traits=_PLUMBING)
def optional(input: Value = None, *, type: object = None) -> tuple[Value]:
    """Return the input, which may be absent; ``type`` says of what type it would be."""
    del type
    return (input,)


@op("OptionalHasElement", since=(15, 18, 28), traits=Traits.shape_only())
def optional_has_element(input: Value = None) -> np.ndarray:
    """Tell whether the input is there; a tensor or a sequence always is."""
    return np.asarray(input is not None)


@op("OptionalGetElement", since=(15, 18, 28), traits=_PLUMBING)
def optional_get_element(input: Value) -> tuple[Value]:
    """Return the input, which has to be there.

    Raises:
      ShapeError: It is absent.
    """
    if input is None:
        raise ShapeError("OptionalGetElement of an optional that is absent")
    return (input,)
