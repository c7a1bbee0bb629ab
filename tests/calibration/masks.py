"""Attention with masks of all kinds, in memory and in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from jptq.tuning.prepare import Prepared, prepare
from tests.graphs import Graph, Value
from tests.oracles import run_onnx

HEADS, LENGTH, WIDTH = 2, 12, 16
LOWEST = float(np.finfo(np.float32).min)

MAX = {"model_config": {"activation": {"calibration_type": "max"}}}
Feeds = Mapping[str, np.ndarray]


def attention(kind: str, value: float, *, full: bool = False, decomposed: bool = False) -> Graph:
    """Return one layer of attention whose scores are masked.

    Args:
      kind: ``constant`` (causal, added), ``causal where``, ``input`` (added), ``computed`` (from
        a 0-1 input, added), ``where`` (chosen by an input).
      value: What stands for "never".
      full: Of a constant mask, the first two rows keep nothing.
      decomposed: The softmax is written out.
    """
    g = Graph(seed=5)
    x = g.input("x", (1, LENGTH, WIDTH))
    q, k, v = (g.add("MatMul", x, g.random(WIDTH, WIDTH, scale=WIDTH**-0.5)) for _ in range(3))

    def heads(tensor: Value, perm: Sequence[int]) -> Value:
        shape = g.constant([1, LENGTH, HEADS, WIDTH // HEADS])
        return g.add("Transpose", g.add("Reshape", tensor, shape), perm=perm)

    scores = g.add("MatMul", heads(q, [0, 2, 1, 3]), heads(k, [0, 2, 3, 1]))
    scores = g.add("Mul", scores, g.constant(np.float32((WIDTH // HEADS) ** -0.5)), name="scaled")
    scores = _masked(g, scores, kind, np.float32(value), full=full)
    share = _softmax(g, scores) if decomposed else g.add("Softmax", scores, axis=-1, name="soft")
    y = g.add("Transpose", g.add("MatMul", share, heads(v, [0, 2, 1, 3])), perm=[0, 2, 1, 3])
    y = g.add("Reshape", y, g.constant([1, LENGTH, WIDTH]))
    g.output(g.add("MatMul", y, g.random(WIDTH, WIDTH, scale=WIDTH**-0.5)))
    return g


def _masked(g: Graph, scores: Value, kind: str, value: np.float32, *, full: bool) -> Value:
    square = (1, 1, LENGTH, LENGTH)
    if kind in ("constant", "causal where"):
        keep = np.tril(np.ones((LENGTH, LENGTH), bool))
        keep[: 2 * full] = False
        if kind == "causal where":
            condition = g.constant(keep.reshape(square))
            return g.add("Where", condition, scores, g.constant(value), name="masked")
        mask = np.where(keep, np.float32(0), value).reshape(square)
        return g.add("Add", scores, g.constant(mask), name="masked")
    if kind == "input":
        return g.add("Add", scores, g.input("mask", square), name="masked")
    keep = g.input("keep", square)
    if kind == "where":
        chosen = g.add("Cast", keep, to=onnx.TensorProto.BOOL)
        return g.add("Where", chosen, scores, g.constant(value), name="masked")
    gone = g.add("Sub", g.constant(np.float32(1)), keep)
    return g.add("Add", scores, g.add("Mul", gone, g.constant(value)), name="masked")


def _softmax(g: Graph, scores: Value) -> Value:
    largest = g.add("ReduceMax", scores, axes=[-1], name="largest")
    power = g.add("Exp", g.add("Sub", scores, largest, name="below"), name="power")
    return g.add("Div", power, g.add("ReduceSum", power, g.constant([-1])), name="soft")


def samples(kind: str, value: float, *, full: bool = False, count: int = 4) -> list[Feeds]:
    """Return samples of `attention`; the later ones are padded, ``full`` masks two rows wholly."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        feeds = {"x": (2 * rng.standard_normal((1, LENGTH, WIDTH))).astype(np.float32)}
        keep = np.zeros((1, 1, LENGTH, LENGTH), np.float32)
        keep[..., : LENGTH - 1 - i] = 1
        if full:
            keep[:, :, :2] = 0
        if kind == "input":
            feeds["mask"] = np.where(keep > 0, np.float32(0), np.float32(value))
        elif kind in ("computed", "where"):
            feeds["keep"] = keep
        found.append(feeds)
    return found


def calibrated(
    folder: Path, proto: onnx.ModelProto, feeds: Sequence[Feeds], **options: Any
) -> Prepared:
    """Write a network with its samples and calibrate it by the largest values."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, folder / "model.onnx")
    for i, sample in enumerate(feeds):
        for name, array in sample.items():
            (folder / "data" / name).mkdir(parents=True, exist_ok=True)
            np.save(folder / "data" / name / f"{i}.npy", array)
    given = {"march": "nash-e", "quant_config": MAX, **options}
    return prepare(folder / "model.onnx", folder / "data", **given)


def error(
    found: Prepared, proto: onnx.ModelProto, feeds: Sequence[Feeds], rows: slice = slice(None)
) -> float:
    """Return the relative error of all-INT8 outputs, some rows of them, against onnxruntime."""
    forward = found.runner.forward(found.table(found.all("int8")))
    wrong = whole = 0.0
    for sample in feeds:
        (want,) = run_onnx(proto, sample).values()
        (got,) = forward(sample).values()
        wrong += float(np.sum((got - want)[:, rows] ** 2))
        whole += float(np.sum(want[:, rows] ** 2))
    return float(np.sqrt(wrong / whole))


def threshold(found: Prepared, tensor: str) -> float:
    """Return the largest threshold of the quantizer on a tensor."""
    (one,) = (c for c in found.plan.calibrations if c.tensor == tensor)
    return float(np.abs(found.thresholds[one.name]).max())
