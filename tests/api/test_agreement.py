from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import jptq
from jptq.api import agreement
from jptq.api.agreement import check_export
from jptq.ir import Model
from jptq.results import Agreement
from tests.graphs import Graph, feeds_for

Build = Callable[[Graph, str], str]


def prepared(folder: Path, build: Build, *, opset: int = 17, samples: int = 3) -> jptq.Prepared:
    """Return a small network, calibrated by the public function."""
    g = Graph(opset)
    g.output(build(g, g.input("x", (1, 4, 6, 6))))
    proto = g.proto()
    onnx.save(proto, folder / "net.onnx")
    (folder / "samples").mkdir()
    for seed in range(samples):
        np.save(folder / "samples" / f"{seed}.npy", feeds_for(proto, seed=seed)["x"])
    config = {"model_config": {"activation": {"calibration_type": "max"}}}
    return jptq.calibrate(folder / "net.onnx", folder / "samples", quant_config=config)


def _pooled(g: Graph, x: str) -> str:
    return g.conv(g.add("MaxPool", g.conv(x, 4, 4), kernel_shape=[2, 2]), 4, 4)


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> jptq.Prepared:
    return prepared(tmp_path_factory.mktemp("pooled"), _pooled)


def test_both_sessions_agree(pooled: jptq.Prepared) -> None:
    found = check_export(pooled)
    assert found.agrees
    assert found.samples == 3
    assert found.runtime.startswith("onnxruntime ")
    assert [row.optimized for row in found.outputs] == [True, False]
    for row in found.outputs:
        assert row.cosine > 0.999999
        assert row.difference < 1e-5
    assert "agrees with the quantized forward over 3 samples" in found.sentence
    assert json.loads(json.dumps(found.to_json()))["agrees"] is True


def test_types_that_are_asked_for_are_checked(pooled: jptq.Prepared) -> None:
    assert check_export(pooled, pooled.all("int16"), samples=1).agrees


def test_a_file_that_computes_something_else_is_told(
    pooled: jptq.Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model: Model) -> Model:
        exported = original(model)
        name = next(
            name for name in exported.initializers if name.endswith("x_HzCalibration/scale")
        )
        constants = {**exported.initializers, name: exported.initializers[name] * np.float32(2)}
        return dataclasses.replace(exported, initializers=constants)

    original = agreement.to_qdq
    monkeypatch.setattr(agreement, "to_qdq", wrong)
    found = check_export(pooled)
    assert found.agrees is False
    assert "differs from" in found.sentence
    assert "Rounding does not explain that" in found.sentence
    strict = dataclasses.replace(found, strict=True)
    assert "The file adds exactly" in strict.sentence
    assert "Rounding" not in strict.sentence


def test_without_onnxruntime_that_is_said(
    pooled: jptq.Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = check_export(pooled)
    assert found == Agreement()
    assert found.agrees is None
    assert found.sentence == (
        "qdq_model.onnx was not run: onnxruntime is not installed: pip install onnxruntime"
    )


def test_a_file_that_onnxruntime_cannot_run_is_a_finding(
    pooled: jptq.Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unheard(model: Model) -> Model:
        exported = original(model)
        nodes = [
            dataclasses.replace(node, op="Unheard") if node.op == "MaxPool" else node
            for node in exported.nodes
        ]
        return dataclasses.replace(exported, nodes=tuple(nodes))

    original = agreement.to_qdq
    monkeypatch.setattr(agreement, "to_qdq", unheard)
    found = check_export(pooled)
    assert found.agrees is False
    assert "Unheard" in found.failure
    assert found.sentence.startswith(f"{found.runtime} cannot run qdq_model.onnx: ")


def test_nan_is_told_where_onnxruntime_hides_it(tmp_path: Path) -> None:
    """It quantizes NaN to the least value of a grid; infinities saturate in both."""

    def build(g: Graph, x: str) -> str:
        power = g.add("Exp", g.add("Mul", x, g.constant(4.0)))  # int8 makes most of it zero
        return g.conv(g.add("Div", power, power), 4, 2, 1)

    found = check_export(prepared(tmp_path, build))
    assert found.agrees is False
    assert all(row.broken == 0 < row.broken_here for row in found.outputs)
    assert "onnxruntime quantizes NaN to the least value of a grid" in found.sentence
