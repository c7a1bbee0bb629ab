"""Optimise a network and compare it with the original in onnxruntime."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx

from jptq.ir import Model, expand_units, load, optimize, to_bytes
from tests.graphs import feeds_for
from tests.oracles import relative_error, run_onnx


def loaded(proto: onnx.ModelProto) -> Model:
    """Return a model by way of a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(proto.SerializeToString())
        return load(path)


def optimized(
    proto: onnx.ModelProto,
    *,
    feeds: dict[str, np.ndarray] | None = None,
    tolerance: float = 2e-6,
    **lengths: int,
) -> Model:
    """Return the optimised network, having seen that it computes what the original does."""
    feeds = feeds_for(proto, **lengths) if feeds is None else feeds
    shapes = {name: array.shape for name, array in feeds.items()}
    result = optimize(loaded(proto), input_shapes=shapes)
    expected = run_onnx(proto, feeds)
    actual = run_onnx(to_bytes(expand_units(result)), feeds)
    assert list(actual) == list(expected)
    for name, array in actual.items():
        assert array.dtype == expected[name].dtype
        assert relative_error(array, expected[name]) <= tolerance, name
    return result


def ops(model: Model) -> list[str]:
    """Return the operator types in graph order."""
    return [node.op for node in model.nodes]
