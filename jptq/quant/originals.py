"""Constants of the float network that a calibrated model no longer holds: corrected biases.

The model computes with the corrected ones. What they were is in its metadata, so that the float
reference of a model that is opened again is the network that was given, not one that is neither
float nor quantized. Other tools ignore the entry.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from collections.abc import Mapping

import numpy as np

from jptq.errors import ModelError
from jptq.ir.model import Model

ORIGINALS = "float_constants"
"""Metadata of a calibrated model: JSON ``{initializer: float32, little endian, as base64}``."""


def with_originals(model: Model, originals: Mapping[str, np.ndarray]) -> Model:
    """Return the model with a note of what some of its constants were.

    Args:
      model: A calibrated model.
      originals: ``{initializer: float32}`` of the constants' shapes.
    """
    if not originals:
        return model
    entry = {
        name: base64.b64encode(np.asarray(value, "<f4").tobytes()).decode("ascii")
        for name, value in sorted(originals.items())
    }
    return dataclasses.replace(model, metadata={**model.metadata, ORIGINALS: json.dumps(entry)})


def original_constants(model: Model) -> dict[str, np.ndarray]:
    """Return what constants of a calibrated model were in the float network, where it differs.

    Constants that the graph has lost since, or that have another shape now, are left out.

    Returns:
      ``{initializer: float32}``.

    Raises:
      ModelError: The note is damaged.
    """
    try:
        entry = json.loads(model.metadata.get(ORIGINALS, "{}"))
        found = {
            name: np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
            for name, text in entry.items()
        }
    except (ValueError, AttributeError, TypeError, binascii.Error) as error:
        raise ModelError(
            "the model's note of its float constants is damaged",
            where=f"metadata {ORIGINALS!r}",
            why=str(error),
            hint="calibrate again, or delete the entry: corrected biases then count as float",
        ) from error
    held = model.initializers
    return {
        name: value.reshape(held[name].shape)
        for name, value in found.items()
        if name in held and held[name].size == value.size
    }


def restored(model: Model) -> Model:
    """Return the model with the constants of the float network, and without the note."""
    originals = original_constants(model)
    metadata = {key: value for key, value in model.metadata.items() if key != ORIGINALS}
    return dataclasses.replace(
        model, initializers={**model.initializers, **originals}, metadata=metadata
    )
