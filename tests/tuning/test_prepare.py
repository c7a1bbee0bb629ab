"""Networks that are calibrated from files, or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

import jptq
from jptq.errors import StaticInputError
from jptq.tuning.prepare import Prepared
from tests.graphs import Graph
from tests.tuning.networks import CONFIG


def calibrated(
    folder: Path, proto: onnx.ModelProto, samples: Sequence[Mapping[str, np.ndarray]]
) -> Prepared:
    onnx.save(proto, folder / "model.onnx")
    for i, sample in enumerate(samples):
        for name, array in sample.items():
            (folder / "data" / name).mkdir(parents=True, exist_ok=True)
            np.save(folder / "data" / name / f"{i}.npy", array)
    return jptq.calibrate(folder / "model.onnx", folder / "data", quant_config=CONFIG)


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
