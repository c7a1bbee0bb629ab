from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

from tests.cli.conftest import Ended, Files
from tests.graphs import Graph


def test_a_bias_beyond_int32_is_named_and_can_be_simulated(
    jptq: Callable[..., Ended], files: Files
) -> None:
    g = Graph()
    weight = np.full((2, 2, 1, 1), 1e-8, np.float32)
    bias = g.constant(np.array([5.0, -4.5], np.float32))
    g.output(g.add("Conv", g.input("x", (1, 2, 6, 6)), g.constant(weight), bias, name="faint"))
    onnx.save(g.proto(), files.model)
    config = files.folder / "max.json"
    config.write_text(json.dumps({"model_config": {"activation": {"calibration_type": "max"}}}))
    ended = jptq("calibrate", *files.flags, f"--quant_config={config}", "--out=out")
    assert ended.code == 0, ended.err
    assert "1 bias does not fit int32" in ended.out
    assert "faint" in ended.out
    model = f"--model={Path('out') / 'calibrated_model.onnx'}"
    exact, strict = (
        json.loads(jptq("evaluate", model, files.flags[1], "--json", *flags).out)
        for flags in ((), ("--strict_integers",))
    )
    (named,) = exact["integer_ranges"]["found"]
    assert named["node"] == "faint"
    assert named["channels"] == 2
    # Both saturate at 2^31 steps of the product: 5 / factor, and as much below 0.
    largest = 5 / named["factor"]
    (output,) = strict["model"]["comparison"]["outputs"]
    assert abs(output["l1"]["mean"] - (5 + 4.5 - 2 * largest) / 2) < 1e-4 * largest + 1e-4
    assert exact["model"]["comparison"]["outputs"][0]["l1"]["mean"] < 1e-6
