"""Networks of other floating-point types in float32: what is calibrated, compared and written."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Final

import ml_dtypes
import numpy as np

from jptq.ir.model import Attribute, Model, Node, Tensor

_logger = logging.getLogger(__name__)

_FLOAT32: Final = 1
_OTHERS: Final = {
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
    16: np.dtype(ml_dtypes.bfloat16),
}
"""ONNX codes of the types that are converted."""

_CODES: Final = ("to", "dtype", "output_datatype", "stash_type", "softmax_precision")
"""Attributes that hold such a code."""

_WORDS: Final = {
    "float16": "values of float16 constants stay, what float16 arithmetic rounds is left out",
    "bfloat16": "values of bfloat16 constants stay, what bfloat16 arithmetic rounds is left out",
    "float64": "float64 constants are rounded",
}

TYPES = "jptq_types_before_float32"
"""Metadata of a converted model: a JSON list of the types that it had besides float32."""

INPUTS = "jptq_inputs_before_float32"
"""Metadata of a converted model: a JSON object of the types of its inputs that were converted."""


def has_others(model: Model) -> bool:
    """Tell whether a network has tensors, constants or casts of a type that is converted."""
    counts: Counter[np.dtype] = Counter()
    _converted(model, counts)
    return bool(counts)


def other_inputs(model: Model) -> dict[str, np.dtype]:
    """Return the types of the inputs that are converted, before they are."""
    return {
        tensor.name: tensor.dtype
        for tensor in model.inputs
        if tensor.dtype is not None and tensor.dtype in _OTHERS.values()
    }


def in_float32(model: Model) -> Model:
    """Return a network in which float16, bfloat16 and float64 are float32, inputs and outputs too.

    Constants of 16 bits keep their values; float64 is rounded, and what is beyond float32 becomes
    its largest number. A cast between two of these types becomes one that does nothing. What
    arithmetic of 16 bits rounds or overflows between the constants is therefore not in the result.
    That it was done is logged and stands in the metadata; a network without such types is returned
    as it is.

    Args:
      model: A float network.
    """
    counts: Counter[np.dtype] = Counter()
    inputs = other_inputs(model)
    converted = _converted(model, counts)
    if not counts:
        return model
    types = sorted(str(dtype) for dtype in counts)
    _logger.warning(
        "%s of the network is computed and written as float32 (%s)%s",
        " and ".join(types),
        "; ".join(_WORDS[name] for name in types),
        "; samples may be of either type" if inputs else "",
    )
    return dataclasses.replace(
        converted,
        metadata={
            **model.metadata,
            TYPES: json.dumps(types),
            **({INPUTS: json.dumps({n: str(d) for n, d in inputs.items()})} if inputs else {}),
        },
    )


def types_before(model: Model) -> tuple[str, ...]:
    """Return the types that a model had besides float32 before it was converted, as told."""
    stored = _read(model, TYPES)
    return tuple(name for name in stored if name in _WORDS) if isinstance(stored, list) else ()


def note(model: Model) -> str:
    """Return what a reader has to know of the conversion, "" if there was none."""
    types = types_before(model)
    if not types:
        return ""
    words = "; ".join(_WORDS[name] for name in types)
    return (
        f"The network has {' and '.join(types)}, computed and written here as float32 ({words}): "
        "the float model that everything is compared with is that one. Give the vendor's tools "
        "optimized_float_model.onnx."
    )


def inputs_before(model: Model) -> dict[str, np.dtype]:
    """Return the types that converted inputs had: data of them is still taken."""
    known = {str(dtype): dtype for dtype in _OTHERS.values()}
    stored = _read(model, INPUTS)
    if not isinstance(stored, dict):
        return {}
    return {n: known[d] for n, d in stored.items() if n in model.input_names and d in known}


def taken(model: Model, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Return feeds in which arrays of the types that inputs had are of those that they have."""
    return {
        **feeds,
        **{
            name: np.asarray(feeds[name]).astype(np.float32)
            for name, dtype in inputs_before(model).items()
            if name in feeds and np.asarray(feeds[name]).dtype == dtype
        },
    }


def _read(model: Model, key: str) -> object:
    """Return what stands in the metadata, None if it is no JSON: any program may write there."""
    try:
        return json.loads(model.metadata.get(key, "null"))
    except ValueError:
        return None


def _converted(model: Model, counts: Counter[np.dtype]) -> Model:
    """Return a graph converted; count what was found."""

    def array(value: np.ndarray) -> np.ndarray:
        if value.dtype not in _OTHERS.values():
            return value
        counts[value.dtype] += 1
        if value.dtype == np.float64:
            limit = np.finfo(np.float32).max
            finite = np.isfinite(value)
            value = np.where(finite, np.clip(value, -limit, limit), value)
        return value.astype(np.float32)

    def tensor(described: Tensor) -> Tensor:
        if described.dtype is None or described.dtype not in _OTHERS.values():
            return described
        counts[described.dtype] += 1
        return dataclasses.replace(described, dtype=np.dtype(np.float32))

    def attribute(node: Node, name: str, value: Attribute) -> Attribute:
        if isinstance(value, Model):
            return _converted(value, counts)
        if isinstance(value, np.ndarray):
            return array(value)
        coded = node.domain in ("", "ai.onnx") and name in _CODES
        if coded and isinstance(value, int) and value in _OTHERS:
            counts[_OTHERS[value]] += 1
            return _FLOAT32
        return value

    return dataclasses.replace(
        model,
        inputs=tuple(tensor(one) for one in model.inputs),
        outputs=tuple(tensor(one) for one in model.outputs),
        initializers={name: array(value) for name, value in model.initializers.items()},
        nodes=tuple(
            dataclasses.replace(
                node,
                attributes={k: attribute(node, k, v) for k, v in node.attributes.items()},
            )
            if node.attributes
            else node
            for node in model.nodes
        ),
    )
