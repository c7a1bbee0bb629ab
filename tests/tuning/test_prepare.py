"""Networks that are calibrated from files, or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import from_array

import jptq
from jptq.errors import StaticInputError
from jptq.ir import from_bytes, to_proto
from jptq.quant.export import to_qdq
from jptq.tuning.prepare import Prepared
from tests.graphs import Graph
from tests.oracles import relative_error, run_onnx
from tests.tuning.networks import CONFIG


def calibrated(
    folder: Path,
    proto: onnx.ModelProto,
    samples: Sequence[Mapping[str, np.ndarray]],
    config: Mapping[str, Any] = CONFIG,
) -> Prepared:
    onnx.save(proto, folder / "model.onnx")
    for i, sample in enumerate(samples):
        for name, array in sample.items():
            (folder / "data" / name).mkdir(parents=True, exist_ok=True)
            np.save(folder / "data" / name / f"{i}.npy", array)
    return jptq.calibrate(folder / "model.onnx", folder / "data", quant_config=config)


def test_samples_that_differ_in_an_input_that_shapes_hang_on_are_refused(tmp_path: Path) -> None:
    g = Graph()
    x, k = g.input("x", (1, 2, 3, 3)), g.input("k", (1,), onnx.TensorProto.INT64)
    flat = g.add("Reshape", g.conv(x, 2, 2), g.constant([1, -1]))
    g.output(g.add("ReduceSum", g.add("TopK", flat, k, n_outputs=2)))
    image = np.ones((1, 2, 3, 3), np.float32)
    with pytest.raises(StaticInputError, match="'k' differs") as caught:
        calibrated(tmp_path, g.proto(), [{"x": image, "k": np.array([k])} for k in (1, 5)])
    assert caught.value.where == "sample 1"
    assert "--input_value" in caught.value.hint


def test_a_weight_that_is_computed_when_the_network_runs_is_calibrated(tmp_path: Path) -> None:
    g = Graph()
    x = g.input("x", (1, 1000))
    value = np.array([0.25], np.float32)  # too large for the file, so it stays a node
    weight = g.add("ConstantOfShape", g.constant([1000, 1100]), value=from_array(value))
    g.output(g.add("MatMul", g.add("Relu", g.add("MatMul", x, weight)), g.random(1100, 3)))
    samples = [{"x": np.random.default_rng(i).random((1, 1000), np.float32)} for i in range(2)]
    prepared = calibrated(tmp_path, g.proto(), samples)
    (own,) = (c for c in prepared.plan.calibrations if not c.constant and c.tensor == weight)
    assert prepared.thresholds[own.name].tolist() == value.tolist()
    (got,) = prepared.runner.forward(prepared.table(prepared.all("int8")))(samples[0]).values()
    (want,) = run_onnx(to_proto(to_qdq(prepared.calibrated)), samples[0]).values()
    assert relative_error(got, want) < 1e-5  # sums of a thousand products in another order
    for method in ("metric", "probe", "gradient", "hessian"):
        # The first candidate, int8, is one that every node accepts.
        assert np.isfinite(jptq.rank_nodes(prepared, method=method).score[:, 0]).all()


def test_a_network_in_float64_takes_the_time_of_one_in_float32() -> None:
    times = []
    for code, dtype in (
        (onnx.TensorProto.FLOAT, np.float32),
        (onnx.TensorProto.DOUBLE, np.float64),
    ):
        g = Graph()
        x = g.input("x", (1, 2, 3, 3), code)
        g.output(g.add("Relu", g.conv(x, 2, 4)), dtype=code)
        g.constants = {name: value.astype(dtype) for name, value in g.constants.items()}
        times.append(jptq.latency_of(from_bytes(g.proto().SerializeToString())).nodes)
    assert times[0] == times[1]
    assert times[0]


def test_float64_tensors_between_float32_ones_are_quantized_as_float32(tmp_path: Path) -> None:
    g = Graph()
    first = g.conv(g.input("x", (1, 2, 3, 3)), 2, 4, name="first")
    wide = g.add("Cast", first, to=onnx.TensorProto.DOUBLE, name="wide")
    squashed = g.add("Sigmoid", wide, name="squashed")
    gated = g.add("Mul", wide, squashed, name="gated")
    back = g.add("Cast", gated, to=onnx.TensorProto.FLOAT, name="back")
    g.output(g.conv(back, 4, 2, name="second"))
    image = np.random.default_rng(0).standard_normal((1, 2, 3, 3)).astype(np.float32)
    found = calibrated(tmp_path, g.proto(), [{"x": image}])
    tensors = {calibration.tensor for calibration in found.plan.calibrations}
    assert {"x", first, gated} <= tensors
    assert not {wide, squashed, back} & tensors  # casts to itself, the inside of a swish
    (want,) = run_onnx(to_proto(to_qdq(found.calibrated)), {"x": image}).values()
    (got,) = found.runner.forward(found.table(found.configured))({"x": image}).values()
    assert relative_error(got, want) < 1e-5


def test_the_bias_of_a_single_channel_is_corrected(tmp_path: Path) -> None:
    g = Graph()
    kernel = g.constant(np.full((1, 3, 3, 3), 0.1, np.float32))
    g.output(g.add("Conv", g.input("x", (1, 3, 8, 8)), kernel, g.constant(np.zeros(1, np.float32))))
    # The upper tail is clipped: outputs are too small on average.
    image = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32) ** 2
    clipped = {"calibration_type": "max", "max_percentile": 0.9}
    losses = {}
    for correction in ({}, {"weight": {"bias_correction": {"metric": "mse"}}}):
        folder = tmp_path / str(len(correction))
        folder.mkdir()
        config = {"model_config": {"activation": clipped, **correction}}
        found = calibrated(folder, g.proto(), [{"x": image}], config)
        (want,) = run_onnx(g.proto(), {"x": image}).values()
        (float_output,) = found.runner.forward(None)({"x": image}).values()
        assert relative_error(float_output, want) < 1e-5
        (output,) = found.runner.forward(found.table(found.configured))({"x": image}).values()
        losses[len(correction)] = float((want - output).mean())
    assert losses[0] > 0.1
    assert abs(losses[1]) < 1e-4
