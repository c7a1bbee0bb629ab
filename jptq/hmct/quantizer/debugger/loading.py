"""What every debugger function begins with: a model and its samples, in any form they come in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from jptq import ir
from jptq.data import MemorySamples, Samples
from jptq.data.check import check_layout
from jptq.errors import ConfigError, DataError, ModelError, UnknownNameError
from jptq.hmct.engines import engines
from jptq.hmct.model import OnnxModel
from jptq.ir import Model
from jptq.tuning import Prepared
from jptq.tuning.prepare import MARCH
from jptq.tuning.reopen import take_up
from jptq.tuning.source import expected_of, is_calibrated, samples_of

DEFAULT_MARCH = "nash-e"

_IN_MEMORY = "the model"
"""Stands for a file in messages."""


class Proto(Protocol):
    """An ``onnx.ModelProto``."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Return the content of an ONNX file."""


@runtime_checkable
class HasProto(Protocol):
    """The vendor's model object."""

    @property
    def proto(self) -> Proto:
        """The model as ONNX writes it."""


ModelOrFile: TypeAlias = Model | HasProto | Proto | bytes | str | os.PathLike[str]
"""A calibrated model: in memory, serialized, or its file."""

Data: TypeAlias = (
    str
    | os.PathLike[str]
    | Samples
    | Mapping[str, Sequence[np.ndarray]]
    | list[Mapping[str, np.ndarray]]
    | tuple[Mapping[str, np.ndarray], ...]
)
"""Samples: a folder, arrays per sample for every input, or arrays per input for every sample."""


class ArgumentError(ConfigError, ValueError):
    """An argument of the debugger that is out of its range; scripts catch it as ValueError."""


def loaded(
    model_or_file: ModelOrFile,
    calibrated_data: Data | None,
    march: str | None = None,
    *,
    output_node: str | None = None,
) -> Prepared:
    """Return a calibrated network with its samples, ready to run.

    Args:
      model_or_file: The calibrated model.
      calibrated_data: Its samples.
      march: Target; it decides on accepted types and on times, not on numbers. The one that the
        model was made for if None.
      output_node: Leave out all that this node does not need; its outputs are the network's.

    Raises:
      ArgumentError: There is neither a model nor data.
      ModelError: The model is damaged or has no quantizers.
      DataError: The samples do not fit it.
    """
    if calibrated_data is None:
        raise ArgumentError(
            "there is no calibration data", hint="give the folder that the model was calibrated on"
        )
    model, where = calibrated_of(model_or_file)
    samples = _samples(model, where, calibrated_data)
    march = march or model.metadata.get(MARCH, DEFAULT_MARCH)
    if output_node is not None:
        model = _up_to(model, output_node)
    return take_up(
        model,
        samples,
        where=where,
        march=march,
        reference=_reference.get(),
        make=engines().runner,
    )


_reference: ContextVar[Path | None] = ContextVar("reference", default=None)


@contextmanager
def compared_with(reference: str | os.PathLike[str] | None) -> Iterator[None]:
    """Name the float network of the calibrated models that are looked at inside.

    Only models whose weights were fitted need one, and only where ``optimized_float_model.onnx``
    does not lie beside them; of a model in memory, in the working folder.

    Args:
      reference: Its file; None changes nothing.

    Example::

        with compared_with("tuned/optimized_float_model.onnx"):
            get_sensitivity_of_nodes(model, calibrated_data="calibration_data")
    """
    token = None if reference is None else _reference.set(Path(reference))
    try:
        yield
    finally:
        if token is not None:
            _reference.reset(token)


def missing(name: str, known: Sequence[str], model: Model | None = None) -> ArgumentError:
    """Return the vendor's message about a name that no node has, with the nearest ones."""
    found = (
        UnknownNameError("node", name, known)
        if model is None
        else ir.unknown_node(name, model, known=known)
    )
    return ArgumentError(
        f"{name} does not exist in the model.",
        why="" if isinstance(found, UnknownNameError) else found.what,
        hint=found.hint or "jptq-info MODEL lists the nodes",
    )


def calibrated_of(given: ModelOrFile) -> tuple[Model, Path]:
    """Return a calibrated model and its file, or what stands for it.

    Raises:
      ModelError: It cannot be read, or has no quantizers.
    """
    model, where = model_of(given)
    if not is_calibrated(model):
        raise ModelError(
            "the model has no quantizers",
            where=str(where),
            why="it is not a calibrated model",
            hint="give calibrated_model.onnx; jptq calibrate makes it",
        )
    return model, where


def model_of(given: ModelOrFile) -> tuple[Model, Path]:
    """Return a model and its file, or what stands for it."""
    if isinstance(given, OnnxModel):
        return given.freeze(), given.source or Path(_IN_MEMORY)
    if isinstance(given, Model):
        return given, Path(_IN_MEMORY)
    if isinstance(given, bytes):
        return ir.from_bytes(given), Path(_IN_MEMORY)
    if isinstance(given, str | os.PathLike):
        path = Path(given)
        return ir.load(path), path
    proto = given.proto if isinstance(given, HasProto) else given
    if not hasattr(proto, "SerializeToString"):
        raise ArgumentError(
            f"{type(given).__name__} is no model", hint="give a file, its bytes, or load_model(...)"
        )
    return ir.from_bytes(proto.SerializeToString()), Path(_IN_MEMORY)


def _up_to(model: Model, name: str) -> Model:
    node = model.by_name.get(name)
    if node is None:
        raise missing(name, [one.name for one in model.operators()], model)
    if node.is_calibration:
        raise ArgumentError(
            f"{name} is a calibration", hint="give the node whose output it quantizes"
        )
    part = ir.extract(model, [tensor for tensor in node.outputs if tensor])
    if not any(one.is_calibration for one in part.nodes):
        raise ArgumentError(f"nothing in front of {name} is quantized")
    return part


def _samples(model: Model, where: Path, data: Data) -> Samples:
    if isinstance(data, str | os.PathLike):
        return samples_of(model, where, Path(data), {}, None)
    feeds: tuple[Mapping[str, np.ndarray], ...]
    if isinstance(data, Mapping):
        feeds = _rows(data)
    elif isinstance(data, list | tuple):
        feeds = tuple(data)
    else:
        return data
    expected = expected_of(model, where)
    for number, feed in enumerate(feeds):
        for one in expected:
            place = f"sample {number}"
            if one.name not in feed:
                raise DataError(
                    f"there is no array for input {one.name!r}",
                    where=place,
                    why="arrays here: " + (", ".join(feed) or "none"),
                )
            array = np.asarray(feed[one.name])
            check_layout(array.shape, array.dtype, one, where=place)
    if not feeds:
        raise DataError("there are no samples")
    return MemorySamples(
        feeds=tuple({e.name: np.asarray(f[e.name]) for e in expected} for f in feeds)
    )


def _rows(columns: Mapping[str, Sequence[np.ndarray]]) -> tuple[Mapping[str, np.ndarray], ...]:
    """Turn an array per sample for every input into an array per input for every sample."""
    counts = {name: len(arrays) for name, arrays in columns.items()}
    if len(set(counts.values())) > 1:
        raise DataError(
            "the inputs have different numbers of samples",
            why=", ".join(f"{name}: {count}" for name, count in counts.items()),
        )
    return tuple(
        dict(zip(columns, arrays, strict=True)) for arrays in zip(*columns.values(), strict=True)
    )
