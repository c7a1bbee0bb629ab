"""The compile tool's YAML names network, samples and target where no flag does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from jptq.ir import load
from tests.cli.conftest import Ended, Files
from tests.graphs import Graph

Jptq = Callable[..., Ended]

pytestmark = pytest.mark.slow

TEXT = """
model_parameters:
  onnx_model: {model}
  march: nash-m
  debug_mode: "{debug}"
calibration_parameters:
  cal_data_dir: {data}
  calibration_type: max
"""


def compile_file(files: Files, *, debug: str = "", data: str = "./data/x") -> Path:
    path = files.folder / "compile.yaml"
    path.write_text(TEXT.format(model="tiny.onnx", debug=debug, data=data))
    return path


def test_the_file_alone_is_enough_and_its_paths_may_be_relative_to_it(
    jptq: Jptq, files: Files
) -> None:
    out = files.folder / "out"
    ended = jptq("calibrate", f"--quant_config={compile_file(files)}", f"--out={out}", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["samples"] == 4
    assert json.loads(ended.out)["method"] == "max"
    assert load(out / "calibrated_model.onnx").metadata["march"] == "nash-m"
    assert not (out / "calibration_data").exists()


def test_samples_are_dumped_as_the_vendors_tool_lays_them_out(jptq: Jptq, files: Files) -> None:
    out = files.folder / "out"
    file = compile_file(files, debug="dump_calibration_data")
    assert jptq("calibrate", f"--quant_config={file}", f"--out={out}").code == 0
    dumped = sorted((out / "calibration_data" / "x").iterdir())
    assert [path.name for path in dumped] == ["00.npy", "01.npy", "02.npy", "03.npy"]
    for path, given in zip(dumped, sorted((files.data / "x").iterdir()), strict=True):
        np.testing.assert_array_equal(np.load(path), np.load(given))
    model = out / "calibrated_model.onnx"
    again = jptq("evaluate", f"--model={model}", f"--calibration_data={out / 'calibration_data'}")
    assert again.code == 0, again.err


def test_flags_win_over_the_file(jptq: Jptq, files: Files) -> None:
    file = compile_file(files, data="./nowhere")
    out = files.folder / "out"
    ended = jptq(
        "calibrate",
        f"--quant_config={file}",
        f"--calibration_data={files.data}",
        "--march=nash-e",
        f"--out={out}",
    )
    assert ended.code == 0, ended.err
    assert load(out / "calibrated_model.onnx").metadata["march"] == "nash-e"
    assert "compile.yaml is for nash-m, not nash-e" in ended.err


def test_what_neither_names_is_missing(jptq: Jptq, files: Files) -> None:
    file = files.folder / "compile.yaml"
    file.write_text("calibration_parameters: {calibration_type: max}\n")
    ended = jptq("calibrate", f"--quant_config={file}")
    assert ended.code == 2
    assert "--model is missing" in ended.err


def test_a_file_without_samples_says_what_that_means(jptq: Jptq, files: Files) -> None:
    file = files.folder / "compile.yaml"
    file.write_text(f"model_parameters: {{onnx_model: {files.model}}}\n")
    ended = jptq("calibrate", f"--quant_config={file}")
    assert ended.code == 2
    assert "--calibration_data is missing" in ended.err
    assert "compile.yaml has no cal_data_dir: the compile tool would take random data" in ended.err


def test_the_order_of_the_folders_is_that_of_the_files_own_names(jptq: Jptq, files: Files) -> None:
    g = Graph()
    a, b = g.input("a", ("n", 4)), g.input("b", (1, 4))
    g.output(g.add("Gemm", g.add("Add", a, b), g.random(4, 3)))
    onnx.save(g.proto(), files.model)
    for name, value in (("first", 1.0), ("second", 2.0)):
        (files.folder / name).mkdir()
        np.save(files.folder / name / "0.npy", np.full((1, 4), value, np.float32))
    file = files.folder / "compile.yaml"
    file.write_text(
        f"model_parameters: {{onnx_model: {files.model}, debug_mode: dump_calibration_data}}\n"
        "input_parameters: {input_name: b;a, input_shape: 1x4;1x4}\n"
        "calibration_parameters: {cal_data_dir: ./first;./second, calibration_type: max}\n"
    )
    out = files.folder / "out"
    ended = jptq("calibrate", f"--quant_config={file}", f"--out={out}")
    assert ended.code == 0, ended.err
    for name, value in (("b", 1.0), ("a", 2.0)):
        (dumped,) = (out / "calibration_data" / name).iterdir()
        assert (np.load(dumped) == value).all()
