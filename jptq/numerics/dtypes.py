"""ONNX element types and their NumPy counterparts."""

from __future__ import annotations

import ml_dtypes
import numpy as np

# Source: ONNX, onnx.proto, TensorProto.DataType.
_TABLE: tuple[tuple[int, str, type], ...] = (
    (1, "float32", np.float32),
    (2, "uint8", np.uint8),
    (3, "int8", np.int8),
    (4, "uint16", np.uint16),
    (5, "int16", np.int16),
    (6, "int32", np.int32),
    (7, "int64", np.int64),
    (8, "string", np.object_),
    (9, "bool", np.bool_),
    (10, "float16", np.float16),
    (11, "float64", np.float64),
    (12, "uint32", np.uint32),
    (13, "uint64", np.uint64),
    (14, "complex64", np.complex64),
    (15, "complex128", np.complex128),
    (16, "bfloat16", ml_dtypes.bfloat16),
    (17, "float8_e4m3fn", ml_dtypes.float8_e4m3fn),
    (18, "float8_e4m3fnuz", ml_dtypes.float8_e4m3fnuz),
    (19, "float8_e5m2", ml_dtypes.float8_e5m2),
    (20, "float8_e5m2fnuz", ml_dtypes.float8_e5m2fnuz),
    (21, "uint4", ml_dtypes.uint4),
    (22, "int4", ml_dtypes.int4),
)
_FROM_CODE = {code: np.dtype(kind) for code, _, kind in _TABLE}
_TO_CODE = {dtype: code for code, dtype in _FROM_CODE.items()}


def from_onnx(code: int) -> np.dtype:
    """Return the NumPy dtype of a ``TensorProto.DataType`` code.

    Raises:
      KeyError: The code has no NumPy counterpart.
    """
    return _FROM_CODE[code]


def to_onnx(dtype: np.dtype | type) -> int:
    """Return the ``TensorProto.DataType`` code of a NumPy dtype.

    Raises:
      KeyError: The dtype has no ONNX counterpart.
    """
    return _TO_CODE[np.dtype(dtype)]


def is_float(dtype: np.dtype | type) -> bool:
    """Tell whether a quantizer may sit on tensors of this dtype."""
    return np.dtype(dtype) in (np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.float64))
