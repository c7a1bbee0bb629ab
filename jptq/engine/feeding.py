"""What a program may be fed: whole samples of its shapes, types and static inputs."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import TypeAlias

import jax
import numpy as np

from jptq.data import SampleSet
from jptq.engine.program import Program, beyond
from jptq.errors import DataError, ShapeError

_logger = logging.getLogger(__name__)

Feeds: TypeAlias = Mapping[str, np.ndarray]
"""One sample, or S samples with a leading axis where a function says so."""


def fitting(program: Program, samples: SampleSet) -> SampleSet:
    """Return the samples; reading one that the program would misread is refused.

    Raises:
      StaticInputError: (when read) it differs in an input that is part of the program.
      DataError: (when read) it holds integers beyond 32 bits.
    """
    plain = not program.bound and all(_is_exact(program.dtypes[n]) for n in program.inputs)
    return samples if plain else _Fitting(program, samples)


@dataclasses.dataclass(frozen=True)
class _Fitting:
    """Samples that hold what a program was lowered for."""

    program: Program
    samples: SampleSet

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Feeds:
        sample = self.samples[index]
        self.program.refuse_other_static(sample, where=f"sample {index}")
        for name in self.program.inputs:
            _refuse_beyond(np.asarray(sample[name]), name, where=f"sample {index}")
        return sample


def checked(program: Program, feeds: Feeds) -> dict[str, np.ndarray]:
    """Return what a program takes of feeds that hold whole samples, joined along axis 0.

    Raises:
      ShapeError: An input is missing, or has another shape or dtype.
      StaticInputError: An input that is part of the program has another value.
      DataError: An input holds integers beyond 32 bits.
    """
    for name, value in program.bound.items():
        if name in feeds:
            for one in _samples_in(np.asarray(feeds[name]), value.shape):
                program.refuse_other_static({name: one})
    missing = [n for n in program.inputs if n not in feeds]
    if missing:
        raise ShapeError(
            f"forward needs the input {missing[0]!r}",
            where=f"given: {', '.join(feeds) or 'none'}",
        )
    out = {}
    for name in program.inputs:
        value = np.asarray(feeds[name])
        want = program.shapes[name]
        if not _whole(value, want):
            raise ShapeError(
                f"input {name!r} has shape {value.shape}",
                why=f"the model was prepared for {want} per sample",
                hint="feed whole samples, joined along axis 0",
            )
        dtype = program.dtypes[name]
        if value.dtype != dtype:
            raise ShapeError(
                f"input {name!r} has dtype {value.dtype}", why=f"the model takes {dtype}"
            )
        _refuse_beyond(value, name)
        out[name] = value
    return out


def _whole(value: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Tell whether an array is one sample of a shape, or several joined along axis 0."""
    return value.shape == shape or (
        value.ndim == len(shape) > 0
        and value.shape[1:] == shape[1:]
        and min(value.shape[0], shape[0]) > 0
        and value.shape[0] % shape[0] == 0
    )


def _samples_in(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the samples that an array holds ``[S, *shape]``; itself alone if there are none."""
    return value.reshape(-1, *shape) if _whole(value, shape) and value.size else value[np.newaxis]


def _is_exact(dtype: np.dtype) -> bool:
    """Tell whether every number of a type is one to the program too."""
    return dtype.kind not in "iu" or jax.dtypes.canonicalize_dtype(dtype) == dtype


def _refuse_beyond(value: np.ndarray, name: str, *, where: str = "") -> None:
    if not _is_exact(value.dtype) and beyond(value).size:
        raise DataError(
            f"input {name!r} holds {beyond(value)[0]}",
            where=where,
            why="programs count in 32 bits, as the accelerator does",
            hint="scale it down, or cut the network behind what reads it",
        )


_NO_LIMIT = 2**62
"""Integers from here on stand for "no limit": the largest one that there is serves as well."""


def warn_of_long_integers(program: Program) -> None:
    """Name the constants that a program counts with and cannot hold."""
    found = {
        step.node: value
        for step in program.steps
        for operand in step.operands
        if operand.literal is not None
        for value in beyond(operand.literal).tolist()
        if abs(value) < _NO_LIMIT
    }
    for node, value in found.items():
        _logger.warning(
            "node %r computes with %d: programs count in 32 bits, so its result is wrong where "
            "that matters",
            node,
            value,
        )
