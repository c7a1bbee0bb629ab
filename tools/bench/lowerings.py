"""Ways to compute a convolution, each alone: the figures behind the choice per operator."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax import Array
from onnx import helper, numpy_helper

from jptq import ops
from jptq.ops import Lowering
from tools.bench import clock
from tools.bench.record import Bench, Column, Row

BATCH = 8
OPSET = 17


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A convolution: ``[8, inputs, size, size] -> [8, outputs, ...]``."""

    name: str
    inputs: int
    outputs: int
    size: int
    kernel: int
    stride: int = 1
    group: int = 1

    @property
    def attributes(self) -> dict[str, Any]:
        """As an ONNX node has them."""
        pad = self.kernel // 2
        return {
            "kernel_shape": (self.kernel,) * 2,
            "pads": (pad,) * 4,
            "strides": (self.stride,) * 2,
            "group": self.group,
        }

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return random features and a kernel."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((BATCH, self.inputs, self.size, self.size), np.float32)
        shape = (self.outputs, self.inputs // self.group, self.kernel, self.kernel)
        return x, rng.standard_normal(shape, np.float32)


KINDS = (
    Kind(name="stem 3x3, stride 2", inputs=3, outputs=16, size=320, kernel=3, stride=2),
    Kind(name="3x3", inputs=64, outputs=64, size=40, kernel=3),
    Kind(name="3x3, stride 2", inputs=32, outputs=64, size=80, kernel=3, stride=2),
    Kind(name="1x1", inputs=128, outputs=128, size=40, kernel=1),
    Kind(name="1x1, stride 2", inputs=64, outputs=128, size=40, kernel=1, stride=2),
    Kind(name="depthwise 3x3", inputs=128, outputs=128, size=40, kernel=3, group=128),
    Kind(name="depthwise 5x5", inputs=128, outputs=128, size=20, kernel=5, group=128),
    Kind(
        name="depthwise 3x3, stride 2", inputs=64, outputs=64, size=80, kernel=3, stride=2, group=64
    ),
    Kind(name="3x3 in 4 groups", inputs=64, outputs=64, size=40, kernel=3, group=4),
)


def run(network: None, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time every way that accepts a convolution, in forwards of onnxruntime of that convolution."""
    del network
    return [_row(kind, options.rounds) for kind in KINDS]


def _row(kind: Kind, rounds: int) -> dict[str, Any]:
    x, w = kind.arrays()
    reference = clock.session(_model(kind, w))
    programs: dict[str, Callable[[], object]] = {
        "onnxruntime": lambda: reference.run(None, {"x": x})
    }
    (expected,) = reference.run(None, {"x": x})
    entry = ops.find("", "Conv", OPSET)
    assert entry is not None
    ways = [Lowering(name="default", function=entry.function)]
    specs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (x, w)]
    ways += [way for way in entry.lowerings if way.when(*specs, **kind.attributes)]
    error = 0.0
    for way in ways:
        program, error_of = _program(way, kind, x, w)
        error = max(error, error_of(expected))
        programs[way.name] = program
    times = clock.interleaved(programs, rounds)
    unit = times.pop("onnxruntime")
    return {
        "kind": kind.name,
        "shape": f"{kind.inputs}>{kind.outputs} @{kind.size}",
        "unit_ms": float(np.median(unit)) * 1e3,
        "rounds": rounds,
        "largest_error": error,
        "ways": {name: clock.ratio(values, unit) for name, values in times.items()},
    }


def _program(
    way: Lowering, kind: Kind, x: np.ndarray, w: np.ndarray
) -> tuple[Callable[[], object], Callable[[np.ndarray], float]]:
    """Return a way's run, and its largest error relative to the largest expected value."""
    features = jnp.asarray(np.moveaxis(x, 1, -1) if way.channels_last else x)
    kernel = way.pack[1](jnp.asarray(w)) if 1 in way.pack else jnp.asarray(w)

    @jax.jit
    def compiled(features: Array, kernel: Array) -> Array:
        found: Array = way.function(features, kernel, **kind.attributes)
        return found

    def error(expected: np.ndarray) -> float:
        found = np.asarray(compiled(features, kernel))
        found = np.moveaxis(found, -1, 1) if way.channels_last else found
        return float(np.abs(found - expected).max() / np.abs(expected).max())

    return lambda: compiled(features, kernel), error


def _model(kind: Kind, w: np.ndarray) -> bytes:
    value = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], **kind.attributes)],
        "conv",
        [helper.make_tensor_value_info("x", value, (BATCH, kind.inputs, kind.size, kind.size))],
        [helper.make_tensor_value_info("y", value, None)],
        [numpy_helper.from_array(w, "w")],
    )
    imports = [helper.make_opsetid("", OPSET)]
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())


def _ways(row: Row) -> str:
    best = min(row["ways"], key=lambda name: row["ways"][name]["median"])
    shown = [
        f"**{name} {value['median']:.1f}**" if name == best else f"{name} {value['median']:.1f}"
        for name, value in row["ways"].items()
    ]
    return ", ".join(shown)


BENCH = Bench(
    name="lowerings",
    run=run,
    per_network=False,
    columns=(
        Column(title="convolution", cell=lambda row: row["kind"]),
        Column(title="channels, size", cell=lambda row: row["shape"]),
        Column(title="onnxruntime, ms", cell=lambda row: f"{row['unit_ms']:.2f}"),
        Column(title="ways, in runs of onnxruntime (batch 8)", cell=_ways),
    ),
)
