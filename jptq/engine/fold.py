"""Evaluate operators on the host while lowering: shape arithmetic and constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jptq.ops.registry import Op


def fold(
    entry: Op, values: Sequence[np.ndarray | None], attributes: Mapping[str, Any]
) -> tuple[np.ndarray, ...]:
    """Return the outputs of an operator whose inputs are all known.

    64-bit types are on inside: shape arithmetic is int64 in ONNX.
    """
    with jax.enable_x64(True), jax.ensure_compile_time_eval(), jax.default_device(_host()):
        operands: list[Any] = [
            None if v is None else (v if entry.is_static(i) else jax.numpy.asarray(v))
            for i, v in enumerate(values)
        ]
        result = entry.function(*operands, **attributes)
        results = result if isinstance(result, tuple) else (result,)
        return tuple(np.asarray(r) for r in results)


def _host() -> jax.Device:
    return jax.local_devices(backend="cpu")[0]
