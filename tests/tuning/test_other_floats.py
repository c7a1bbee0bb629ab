"""Networks of float16, bfloat16 and float64, from their samples to what is exported."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto

from jptq import ir
from jptq.errors import DataError
from jptq.quant.calibrated import assignment_of
from jptq.quant.export import to_qdq
from jptq.tuning import Evaluator, Journal, Measurer, Prepared, prepare
from jptq.tuning.reopen import from_calibrated
from tests.ir.test_float32 import ROUNDING, SHAPE, network, of_type, sample
from tests.oracles import relative_error, run_onnx, run_reference

MAX = {"model_config": {"activation": {"calibration_type": "max"}}}


def saved(folder: Path, code: int) -> onnx.ModelProto:
    proto = of_type(network(opset=22).proto(), code)
    onnx.save(proto, folder / "model.onnx")
    (folder / "data").mkdir()
    return proto


def prepared(folder: Path) -> Prepared:
    return prepare(folder / "model.onnx", folder / "data", march="nash-e", quant_config=MAX)


@pytest.mark.parametrize("code", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_samples_of_the_files_type_and_an_evaluator_that_feeds_it(
    tmp_path: Path, code: int
) -> None:
    proto = saved(tmp_path, code)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(code)
    for i in range(3):
        np.save(tmp_path / "data" / f"{i}.npy", sample(i).astype(dtype))
    found = prepared(tmp_path)
    assert found.samples[0]["x"].dtype == np.float32
    assert set(assignment_of(found.calibrated).values()) == {"int8"}
    seen = []

    def evaluate(forward) -> float:  # type: ignore[no-untyped-def]
        (output,) = forward({"x": sample(0).astype(dtype)}).values()
        seen.append(output)
        return 1.0

    measurer = Measurer(found, Evaluator.of(evaluate), Journal(None))
    measurer("int8", found.all("int8"))
    (reference,) = run_reference(proto, {"x": sample(0).astype(dtype)}).values()
    floating, *_, int8 = seen  # the float network is scored more than once
    assert relative_error(floating, reference.astype(np.float32)) < 4 * ROUNDING[code]

    (exported,) = run_onnx(
        ir.to_proto(to_qdq(found.calibrated)), {"x": sample(0).astype(dtype).astype(np.float32)}
    ).values()
    assert relative_error(int8, exported) < 1e-5
    assert relative_error(int8, reference.astype(np.float32)) > 1e-3

    ir.save(found.calibrated, tmp_path / "calibrated.onnx")
    again = from_calibrated(tmp_path / "calibrated.onnx", tmp_path / "data", march="nash-e")
    np.testing.assert_array_equal(again.samples[1]["x"], found.samples[1]["x"])
    np.save(tmp_path / "data" / "1.npy", sample(1))  # float32 is taken as well
    assert again.samples[1]["x"].dtype == np.float32


def test_samples_of_bfloat16_are_what_numpy_stores_them_as(tmp_path: Path) -> None:
    saved(tmp_path, TensorProto.BFLOAT16)
    small = sample().astype(ml_dtypes.bfloat16)
    np.save(tmp_path / "data" / "0.npy", small)
    small.tofile(tmp_path / "data" / "1.bin")
    sample().tofile(tmp_path / "data" / "2.bin")
    found = prepared(tmp_path).samples
    for i in (0, 1):
        np.testing.assert_array_equal(found[i]["x"], small.astype(np.float32))
    np.testing.assert_array_equal(found[2]["x"], sample())


def test_float64_samples_that_float32_cannot_hold_are_refused_by_name(tmp_path: Path) -> None:
    saved(tmp_path, TensorProto.DOUBLE)
    np.save(tmp_path / "data" / "0.npy", np.full(SHAPE, 1e300))
    with pytest.raises(DataError, match="infinite"):
        prepared(tmp_path)


def test_samples_of_a_third_type_are_refused_with_both_that_do(tmp_path: Path) -> None:
    saved(tmp_path, TensorProto.FLOAT16)
    np.save(tmp_path / "data" / "0.npy", np.zeros(SHAPE, np.float64))
    with pytest.raises(DataError, match="takes float16 or float32, not float64"):
        prepared(tmp_path)
