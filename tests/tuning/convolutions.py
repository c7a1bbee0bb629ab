"""A network of convolutions, in a file with four samples, and calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from jptq.tuning import Prepared, prepare
from tests.graphs import Graph

ACTIVATION = {"calibration_type": "max"}


def network() -> Graph:
    """Return convolutions with and without a bias, two of which share one."""
    g = Graph(seed=5)
    x = g.input("x", (1, 3, 8, 8))
    y = g.add("Relu", g.conv(x, 3, 6, name="stem"), name="stem_relu")
    kernel = g.random(6, 6, 3, 3)
    y = g.add("Conv", y, kernel, pads=[1, 1, 1, 1], name="bare")
    shared = g.random(6, name="shared")
    for name in ("first", "second"):
        y = g.add("Conv", g.add("Relu", y), g.random(6, 6, 1, 1), shared, name=name)
    g.output(g.add("ConvTranspose", y, g.random(6, 4, 2, 2), strides=[2, 2], name="up"))
    return g


def saved(folder: Path) -> Path:
    """Write ``model.onnx`` and ``data/*.npy`` into a folder, and return it."""
    onnx.save(network().proto(), folder / "model.onnx")
    (folder / "data").mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        np.save(folder / "data" / f"{i}.npy", rng.random((1, 3, 8, 8)).astype(np.float32))
    return folder


def prepared(folder: Path, settings: Mapping[str, Any], **options: Any) -> Prepared:
    config = {"model_config": {"activation": ACTIVATION, **settings}}
    return prepare(
        folder / "model.onnx", folder / "data", march="nash-e", quant_config=config, **options
    )
