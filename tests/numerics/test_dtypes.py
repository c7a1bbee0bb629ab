from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest

from jptq.numerics import dtypes

NUMERIC = [
    code
    for code in onnx.TensorProto.DataType.values()
    if code not in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING) and code <= 22
]


@pytest.mark.parametrize("code", NUMERIC)
def test_codes_mean_what_onnx_says(code: int) -> None:
    assert dtypes.from_onnx(code) == onnx.helper.tensor_dtype_to_np_dtype(code)


@pytest.mark.parametrize("code", [*NUMERIC, onnx.TensorProto.STRING])
def test_a_code_survives_the_round_trip(code: int) -> None:
    assert dtypes.to_onnx(dtypes.from_onnx(code)) == code


def test_codes_without_a_counterpart_are_refused() -> None:
    with pytest.raises(KeyError):
        dtypes.from_onnx(onnx.TensorProto.UNDEFINED)
    with pytest.raises(KeyError):
        dtypes.to_onnx(np.dtype("datetime64[s]"))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_quantizers_sit_on_floats(kind: type) -> None:
    assert dtypes.is_float(kind)


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.bool_, np.complex64, ml_dtypes.bfloat16])
def test_quantizers_sit_on_nothing_else(kind: type) -> None:
    assert not dtypes.is_float(kind)
