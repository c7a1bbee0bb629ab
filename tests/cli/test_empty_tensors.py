"""Tensors without elements, as exporters write for "no extra classes": nothing special."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from jptq.cli.debugger import main as debugger
from tests.cli.conftest import Ended, Files
from tests.graphs import Graph

Jptq = Callable[..., Ended]

pytestmark = [pytest.mark.filterwarnings("error::RuntimeWarning"), pytest.mark.slow]


def network() -> onnx.ModelProto:
    """Return a network whose second branch and second output are empty; input ``x``."""
    g = Graph()
    x = g.input("x", (1, 2, 6, 6))
    y = g.conv(x, 2, 4, name="stem")
    one = g.constant([1])
    nothing = g.add("Mul", g.add("Slice", y, one, one, one), g.constant(2.0), name="doubled")
    kernel = g.constant(np.zeros((4, 0, 1, 1), np.float32))
    constant = g.add("Conv", nothing, kernel, name="of nothing")
    more = g.add("Relu", g.add("MatMul", nothing, g.random(6, 6), name="product"))
    joined = g.add("Concat", y, more, axis=1, name="join")
    g.output(g.conv(joined, 4, 3, name="head"), more, g.add("Add", y, constant, name="sum"))
    return g.proto()


@pytest.fixture
def empty(files: Files) -> Files:
    """Return the network in the place of the tiny one, with its samples."""
    onnx.save(network(), files.model)
    return files


def test_empty_tensors_are_calibrated_exported_and_debugged(
    jptq: Jptq, empty: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    made = jptq("calibrate", *empty.flags, "--out=c", "--quant_config=" + str(every(empty.folder)))
    assert (made.code, made.out.count("written to")) == (0, 1), made.err
    model = "c/calibrated_model.onnx"
    exported = jptq("export", f"--model={model}", "--out=q")
    assert exported.code == 0, exported.err
    nodes = "[doubled,of nothing,product,join,sum]"
    for command in ("get-channelwise-data-distribution", "plot-distribution", "tensor-analysis"):
        assert debugger([command, model, str(empty.data), "-n", nodes, "-s", "d"]) == 0, command
    assert "nan" not in capsys.readouterr().out


def every(folder: Path) -> Path:
    """Write a configuration that tries both methods and keeps channels apart."""
    path = folder / "config.json"
    path.write_text(
        '{"model_config": {"activation": {"calibration_type": ["max", "kl"], '
        '"max_percentile": 0.9999, "per_channel": true, "asymmetric": true}}}'
    )
    return path


@pytest.mark.parametrize("method", ["metric", "probe", "gradient", "hessian"])
def test_an_empty_branch_costs_nothing_by_any_method(jptq: Jptq, empty: Files, method: str) -> None:
    ended = jptq("sensitivity", *empty.flags, f"--method={method}", "--json")
    assert ended.code == 0, ended.err
    assert "NaN" not in ended.out
