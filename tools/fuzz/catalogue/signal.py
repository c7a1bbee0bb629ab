"""Spectra and losses: functions of ONNX that no accelerator has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tools.fuzz.builder import INT64, Builder, Rejected, Value
from tools.fuzz.catalogue.registry import INT32, operator


@operator("DFT", ranks=(3, 4), lengths=(1, 6), weight=0.2)
def dft(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Fourier transform of real or complex numbers, forth or back, cut or filled."""
    draw = b.draw
    if x.shape[-1] > 2:
        raise Rejected("the last axis holds real and imaginary part")
    axis = draw.integer(1, x.rank - 2)
    inverse = draw.integer(0, 1)
    onesided = draw.integer(0, 1) if x.shape[-1] == 1 and not inverse else 0
    length = b.constant(np.asarray(draw.integer(2, 7), INT64)) if draw.chance(0.5) else None
    keywords: dict[str, Any] = {"inverse": inverse, "onesided": onesided}
    if b.opset < 20:
        return b.node("DFT", x, length, axis=axis, **keywords)
    given = b.constant(np.asarray(draw.signed_axis(axis, x.rank), INT64))
    return b.node("DFT", x, length, given, **keywords)


@operator("STFT", "HannWindow", "HammingWindow", "BlackmanWindow", ranks=(3,), weight=0.1)
def stft(b: Builder, x: Value) -> Sequence[Value]:
    """Add spectra of frames, perhaps behind a window."""
    draw = b.draw
    b.since("STFT")
    signal = b.input((x.shape[0], draw.integer(8, 20), 1))
    size, step = draw.integer(3, 8), draw.integer(1, 4)
    window = None
    if draw.chance(0.6):
        op = draw.pick(["HannWindow", "HammingWindow", "BlackmanWindow"])
        length = b.constant(np.asarray(size, INT64))
        (window,) = b.node(op, length, periodic=draw.integer(0, 1))
        if op == "BlackmanWindow":  # its ends are rounding alone
            (window,) = b.node("Add", window, b.scalar(1.0))
    operands = [b.constant(np.asarray(step, INT64)), window, b.constant(np.asarray(size, INT64))]
    return b.node("STFT", signal, *operands, onesided=draw.integer(0, 1))


@operator(
    "NegativeLogLikelihoodLoss",
    "SoftmaxCrossEntropyLoss",
    ranks=(2, 3, 4),
    lengths=(1, 4),
    weight=0.1,
)
def loss(b: Builder, x: Value) -> Sequence[Value]:
    """Add a loss of classes, weighted or not, some places ignored."""
    draw = b.draw
    op = draw.pick(["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
    classes = x.shape[1]
    dtype = draw.pick([INT32, INT64])
    target = b.input((x.shape[0], *x.shape[2:]), dtype, (0, classes - 1))
    weight = b.weight((classes,), (0.1, 1.0)) if draw.chance(0.5) else None
    keywords: dict[str, Any] = {
        "reduction": draw.pick(["none", "mean", "sum"]),
        "ignore_index": draw.integer(0, classes - 1) if draw.chance(0.3) else None,
    }
    outputs = 2 if op == "SoftmaxCrossEntropyLoss" and draw.chance(0.3) else 1
    return b.node(op, x, target, weight, outputs=outputs, **keywords)
