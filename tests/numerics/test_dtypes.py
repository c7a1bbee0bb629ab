from __future__ import annotations

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


def test_codes_without_a_counterpart_are_refused() -> None:
    with pytest.raises(KeyError):
        dtypes.from_onnx(onnx.TensorProto.UNDEFINED)


def test_text_is_a_python_object() -> None:
    assert dtypes.from_onnx(onnx.TensorProto.STRING) == np.object_
