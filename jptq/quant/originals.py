"""Constants of the float network that a calibrated model no longer holds: fitted or corrected ones.

The model computes with the changed ones. Its metadata say what they were, so that the float
reference of a model that is opened again is the network that was given, not one that is neither
float nor quantized. Other tools ignore the entries.

- *Vectors* (biases, scalars) stand there with their values: they are small, and a model of which
  nothing else was changed remains a file that needs no other.
- All others (weights) would make the file twice as large. Of these there is a digest; the values
  are in ``optimized_float_model.onnx``, which is written with the calibrated model
  (`jptq.tuning.reference` finds it).
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from jptq import files
from jptq.errors import ModelError
from jptq.ir.model import Model
from jptq.numerics.qtypes import INT8

ORIGINALS = "float_constants"
"""Metadata of a calibrated model: JSON ``{initializer: float32, little endian, as base64}``."""

REFERENCE = "float_reference"
"""Metadata of a calibrated model: JSON ``{initializer: digest of its float value}``."""

FITTED = "fitted_constants"
"""Metadata of a calibrated model: JSON ``{initializer: quantizer of its layer's weight}``.

Its values are fitted to INT8. Where that weight has another type, the float values count."""


def with_originals(model: Model, originals: Mapping[str, np.ndarray]) -> Model:
    """Return the model with a note of what some of its constants were.

    Args:
      model: A calibrated model. What is noted in it already stays.
      originals: ``{initializer: float32}`` of the constants' shapes.

    Raises:
      ModelError: A note that is there is damaged.
    """
    kept, digests = dict(_entry(model, ORIGINALS)), absent_constants(model, gone=True)
    for name, value in originals.items():
        if name in kept or name in digests:
            continue
        if _is_vector(value):
            kept[name] = base64.b64encode(np.asarray(value, "<f4").tobytes()).decode("ascii")
        else:
            digests[name] = constant_digest(value)
    entries = {
        key: json.dumps(dict(sorted(entry.items())))
        for key, entry in ((ORIGINALS, kept), (REFERENCE, digests))
        if entry
    }
    return dataclasses.replace(model, metadata={**model.metadata, **entries})


def original_constants(model: Model) -> dict[str, np.ndarray]:
    """Return what constants of a calibrated model were in the float network, where it says so.

    Constants that the graph has lost since, or that have another shape now, are left out.

    Returns:
      ``{initializer: float32}``, without those of which there is only a digest.

    Raises:
      ModelError: The note is damaged.
    """
    try:
        found = {
            name: np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
            for name, text in _entry(model, ORIGINALS).items()
        }
    except (ValueError, TypeError, binascii.Error) as error:
        raise _damaged(ORIGINALS, error) from error
    held = model.initializers
    return {
        name: value.reshape(held[name].shape)
        for name, value in found.items()
        if name in held and held[name].size == value.size
    }


def absent_constants(model: Model, *, gone: bool = False) -> dict[str, str]:
    """Return the constants of a calibrated model whose float values are in another file.

    Args:
      model: Any.
      gone: Also those that the graph has lost since.

    Returns:
      ``{initializer: digest}`` (`constant_digest`).

    Raises:
      ModelError: The note is damaged.
    """
    found = _entry(model, REFERENCE)
    for name, digest in found.items():
        if not isinstance(digest, str):
            raise _damaged(REFERENCE, TypeError(f"the digest of {name!r} is no text"))
    return {name: digest for name, digest in found.items() if gone or name in model.initializers}


def float_constants(model: Model, floating: Model) -> dict[str, np.ndarray]:
    """Return the float values of the constants that a calibrated model has others of.

    Args:
      model: A calibrated model with its notes.
      floating: Its float network.
    """
    noted = (*original_constants(model), *absent_constants(model))
    return {name: floating.initializers[name] for name in noted}


def with_owners(model: Model, owners: Mapping[str, str]) -> Model:
    """Return the model with a note of which constants were fitted with which weight.

    Args:
      model: A calibrated model.
      owners: ``{initializer: quantizer of the weight}``, of weights and biases.
    """
    if not owners:
        return model
    note = json.dumps(dict(sorted(owners.items())))
    return dataclasses.replace(model, metadata={**model.metadata, FITTED: note})


def owners_of(model: Model) -> dict[str, str]:
    """Return ``{fitted constant: quantizer of the weight it was fitted with}``.

    What the graph has lost since is left out.

    Raises:
      ModelError: The note is damaged.
    """
    quantizers = {node.name for node in model.nodes if node.is_calibration}
    found = _entry(model, FITTED)
    return {n: str(q) for n, q in found.items() if n in model.initializers and q in quantizers}


def settled(model: Model, types: Mapping[str, str], floats: Mapping[str, np.ndarray]) -> Model:
    """Return the model with the float values of what was fitted to INT8 and is not INT8.

    Args:
      model: A calibrated model.
      types: Of its quantizers.
      floats: Float values of the constants that it has others of.
    """
    back = {
        name: floats[name]
        for name, quantizer in owners_of(model).items()
        if name in floats and types[quantizer] != INT8.name
    }
    return dataclasses.replace(model, initializers={**model.initializers, **back})


def restored(model: Model, floats: Mapping[str, np.ndarray] | None = None) -> Model:
    """Return the model with the constants of the float network, and without the notes.

    Args:
      model: A calibrated model.
      floats: ``{initializer: float32}`` of those that it has only a digest of; they keep the
        values that the model computes with where this is None.
    """
    originals = {**original_constants(model), **(floats or {})}
    metadata = {k: v for k, v in model.metadata.items() if k not in _NOTES}
    return dataclasses.replace(
        model, initializers={**model.initializers, **originals}, metadata=metadata
    )


_NOTES = (ORIGINALS, REFERENCE, FITTED)


def constant_digest(value: np.ndarray) -> str:
    """Return the digest of a constant: of its type, its shape and its content."""
    content = repr(value.tolist()) if value.dtype == np.object_ else value.tobytes()
    return files.digest(str(value.dtype), repr(value.shape), content)


def _is_vector(value: np.ndarray) -> bool:
    """Tell whether at most one axis is longer than 1."""
    return len([length for length in np.shape(value) if length > 1]) <= 1


def _entry(model: Model, key: str) -> dict[str, Any]:
    """Return a note as it is written, without one an empty one."""
    try:
        found = json.loads(model.metadata.get(key, "{}"))
    except (ValueError, RecursionError) as error:
        raise _damaged(key, error) from error
    if not isinstance(found, dict):
        raise _damaged(key, TypeError("it is no table"))
    return found


def _damaged(key: str, error: Exception) -> ModelError:
    return ModelError(
        "the model's note of its float constants is damaged",
        where=f"metadata {key!r}",
        why=str(error),
        hint="calibrate again, or delete the entry: changed constants then count as float",
    )
