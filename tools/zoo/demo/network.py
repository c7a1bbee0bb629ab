"""The demonstration network as an ONNX graph: a detector and a segmenter on one backbone.

Depthwise and pointwise convolutions, squeeze-and-excitation, one attention block, a feature
pyramid (Resize, Concat), a detection head that is decoded to pixels inside the graph, and a
segmentation head: the parts of the networks that this project is for, 64 pixels small.

One builder writes two graphs with the same constants. The *training* graph feeds
BatchNormalization with the mean and variance of the batch itself, gives them as outputs too, and
stops before the last sigmoids. The *inference* graph is what is shipped.
"""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from tools.zoo.demo.render import CLASSES, MASKS, SIZE
from tools.zoo.graph import Graph, Network

OPSET = 17
STRIDES = (4, 8)
BOX = 4  # centre x, centre y, width, height
ANCHORS = sum((SIZE // stride) ** 2 for stride in STRIDES)
PRIOR = 0.01
"""Probability of every class before training (Lin et al. 2017, arXiv:1708.02002, section 4.1)."""


_TWICE = np.array([1, 1, 2, 2], np.float32)


def anchors() -> tuple[np.ndarray, np.ndarray]:
    """Return the cell centres ``float32[2, ANCHORS]`` (x, y) and strides ``float32[ANCHORS]``.

    Both in the order of the network's output; centres are in units of the cell's own stride.
    """
    centres, strides = [], []
    for stride in STRIDES:
        side = SIZE // stride
        y, x = np.mgrid[:side, :side].reshape(2, -1) + 0.5
        centres.append(np.stack([x, y]))
        strides.append(np.full(side * side, stride))
    return np.concatenate(centres, 1).astype(np.float32), np.concatenate(strides).astype(np.float32)


def build(seed: int = 0, *, training: bool = False) -> Network:
    """Build the network with random weights.

    Args:
      seed: Of the weights.
      training: Build the training graph.

    Returns:
      A network with input ``image`` ``float32[N, 3, SIZE, SIZE]``, RGB from 0 to 1. Outputs for
      inference: ``detections`` ``[N, 4 + classes, ANCHORS]`` (centre x, centre y, width, height
      in pixels, then a probability per class) and ``segmentation`` ``[N, masks, SIZE, SIZE]``
      (probabilities). For training: ``boxes``, ``class_logits``, ``mask_logits`` and the
      statistics of the batch.
    """
    g = _Graph(seed, training)
    x = g.conv("image", "/backbone/stem", 3, 16, kernel=3, stride=2)
    x = g.separable(x, "/backbone/down4", 16, 24, stride=2, act=False)
    fine = g.inverted(x, "/backbone/stage4", 24, 64)
    x = g.separable(fine, "/backbone/down8", 24, 40, stride=2, act=False)
    middle = g.inverted(x, "/backbone/stage8", 40, 112)
    x = g.separable(middle, "/backbone/down16", 40, 64, stride=2, act=False)
    x = g.attention(x, "/backbone/attention", 64, 32)
    coarse = g.feed_forward(x, "/backbone/feed_forward", 64, 112)

    x = g.repeat(coarse, "/neck/up8")
    x = g.node("Concat", "/neck/join8/Concat", [x, middle], axis=1)
    x = g.conv(x, "/neck/mix8", 64 + 40, 48)
    level8 = g.separable(x, "/neck/refine8", 48, 48)
    x = g.repeat(level8, "/neck/up4")
    x = g.node("Concat", "/neck/join4/Concat", [x, fine], axis=1)
    x = g.conv(x, "/neck/mix4", 48 + 24, 40)
    level4 = g.separable(x, "/neck/refine4", 40, 40)

    g.detect([(level4, 40), (level8, 48)])
    g.segment(level4, 40)
    return g.finish()


class _Graph(Graph):
    """The layers of the network."""

    def __init__(self, seed: int, training: bool) -> None:
        super().__init__("demo", seed, opset=OPSET)
        self._training = training
        self.input("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])

    def plain_conv(
        self,
        x: str,
        name: str,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        group: int = 1,
        bias: np.ndarray | None = None,
        gain: float = 1.0,
    ) -> str:
        """A convolution that keeps the size (divided by the stride)."""
        shape = (outputs, inputs // group, kernel, kernel)
        spread = gain * math.sqrt(2 / math.prod(shape[1:]))
        weight = (spread * self.rng.standard_normal(shape)).astype(np.float32)
        tensors = [x, self.constant(f"{name}.weight", weight, trained=True)]
        if bias is not None:
            tensors.append(self.constant(f"{name}.bias", bias.astype(np.float32), trained=True))
        half = kernel // 2
        return self.node(
            "Conv",
            f"{name}/Conv",
            tensors,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[half, half, half, half],
            group=group,
        )

    def conv(
        self,
        x: str,
        name: str,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        group: int = 1,
        act: bool = True,
    ) -> str:
        """Convolution, batch normalization and, if asked for, HardSwish."""
        x = self.plain_conv(x, name, inputs, outputs, kernel=kernel, stride=stride, group=group)
        x = self._normalize(x, name, outputs)
        return self.node("HardSwish", f"{name}/HardSwish", [x]) if act else x

    def _normalize(self, x: str, name: str, channels: int) -> str:
        start = {"gamma": 1, "beta": 0, "mean": 0, "var": 1}
        keys = [
            self.constant(
                f"{name}.{role}",
                np.full(channels, value, np.float32),
                trained=role in ("gamma", "beta"),
            )
            for role, value in start.items()
        ]
        if not self._training:
            return self.node("BatchNormalization", f"{name}/BatchNormalization", [x, *keys])
        moments = self._moments(x, f"{name}/moments", channels)
        for key, output in zip(keys[2:], moments, strict=True):
            self.statistic(key, output, [channels])
        return self.node(
            "BatchNormalization", f"{name}/BatchNormalization", [x, *keys[:2], *moments]
        )

    def _moments(self, x: str, name: str, channels: int) -> list[str]:
        """Return mean and variance per channel, over the batch and the grid."""
        mean = self.node("ReduceMean", f"{name}/mean/ReduceMean", [x], axes=[0, 2, 3])
        deviation = self.node("Sub", f"{name}/Sub", [x, mean])
        square = self.node("Mul", f"{name}/Mul", [deviation, deviation])
        flat = self.constant(f"{name}/flat", np.array([channels]))
        mean = self.node("Reshape", f"{name}/Reshape", [mean, flat])
        var = self.node(
            "ReduceMean", f"{name}/var/ReduceMean", [square], axes=[0, 2, 3], keepdims=0
        )
        return [mean, var]

    def separable(
        self, x: str, name: str, inputs: int, outputs: int, *, stride: int = 1, act: bool = True
    ) -> str:
        """Depthwise 3x3, then pointwise (Howard et al. 2017, arXiv:1704.04861)."""
        x = self.conv(x, f"{name}/depthwise", inputs, inputs, kernel=3, stride=stride, group=inputs)
        return self.conv(x, f"{name}/pointwise", inputs, outputs, act=act)

    def inverted(self, x: str, name: str, channels: int, hidden: int) -> str:
        """Inverted residual with squeeze-and-excitation (Howard et al. 2019, arXiv:1905.02244)."""
        y = self.conv(x, f"{name}/expand", channels, hidden)
        y = self.conv(y, f"{name}/depthwise", hidden, hidden, kernel=3, group=hidden)
        y = self._squeeze_excite(y, f"{name}/se", hidden, hidden // 4)
        y = self.conv(y, f"{name}/project", hidden, channels, act=False)
        return self.node("Add", f"{name}/Add", [x, y])

    def _squeeze_excite(self, x: str, name: str, channels: int, hidden: int) -> str:
        s = self.node("GlobalAveragePool", f"{name}/GlobalAveragePool", [x])
        s = self.plain_conv(s, f"{name}/reduce", channels, hidden, bias=np.zeros(hidden))
        s = self.node("Relu", f"{name}/Relu", [s])
        s = self.plain_conv(s, f"{name}/expand", hidden, channels, bias=np.zeros(channels))
        s = self.node("HardSigmoid", f"{name}/HardSigmoid", [s])
        return self.node("Mul", f"{name}/Mul", [x, s])

    def attention(self, x: str, name: str, channels: int, width: int) -> str:
        """Every cell looks at every cell, one head, with a depthwise position term."""
        side = SIZE // 16
        y = self.conv(x, f"{name}/qkv", channels, 2 * width + channels, act=False)
        flat = self.constant(f"{name}/flat", np.array([0, 2 * width + channels, -1]))
        y = self.node("Reshape", f"{name}/Reshape", [y, flat])
        parts = self.constant(f"{name}/parts", np.array([width, width, channels]))
        self.node("Split", f"{name}/Split", [y, parts], extra=2, axis=1)
        q, k, v = self.outputs_of_last()
        q = self.node("Transpose", f"{name}/Transpose", [q], perm=[0, 2, 1])
        logits = self.node("MatMul", f"{name}/qk/MatMul", [q, k])
        scale = self.constant(f"{name}/scale", np.array(width**-0.5, np.float32))
        logits = self.node("Mul", f"{name}/Mul", [logits, scale])
        weights = self.node("Softmax", f"{name}/Softmax", [logits], axis=-1)
        back = self.node("Transpose", f"{name}/weights/Transpose", [weights], perm=[0, 2, 1])
        y = self.node("MatMul", f"{name}/av/MatMul", [v, back])
        square = self.constant(f"{name}/square", np.array([0, channels, side, side]))
        y = self.node("Reshape", f"{name}/out/Reshape", [y, square])
        v = self.node("Reshape", f"{name}/value/Reshape", [v, square])
        v = self.conv(
            v, f"{name}/position", channels, channels, kernel=3, group=channels, act=False
        )
        y = self.node("Add", f"{name}/position/Add", [y, v])
        y = self.conv(y, f"{name}/project", channels, channels, act=False)
        return self.node("Add", f"{name}/Add", [x, y])

    def feed_forward(self, x: str, name: str, channels: int, hidden: int) -> str:
        y = self.conv(x, f"{name}/expand", channels, hidden)
        y = self.conv(y, f"{name}/project", hidden, channels, act=False)
        return self.node("Add", f"{name}/Add", [x, y])

    def repeat(self, x: str, name: str) -> str:
        """Double rows and columns by repeating them."""
        return self.node(
            "Resize",
            f"{name}/Resize",
            [x, "", self.constant(f"{name}/scales", _TWICE)],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def interpolate(self, x: str, name: str) -> str:
        """Double rows and columns by linear interpolation."""
        scales = self.constant(f"{name}/scales", _TWICE)
        return self.node("Resize", f"{name}/Resize", [x, "", scales], mode="linear")

    def detect(self, levels: list[tuple[str, int]]) -> None:
        """Heads without anchor boxes, decoded to pixels (Ge et al. 2021, arXiv:2107.08430)."""
        rows = BOX + len(CLASSES)
        bias = np.r_[np.zeros(BOX), np.full(len(CLASSES), math.log(PRIOR / (1 - PRIOR)))]
        flat = self.constant("/detect/flat", np.array([0, rows, -1]))
        raw = []
        for (x, channels), stride in zip(levels, STRIDES, strict=True):
            name = f"/detect/stride{stride}"
            x = self.separable(x, f"{name}/hidden", channels, channels)
            x = self.plain_conv(x, f"{name}/predict", channels, rows, bias=bias, gain=0.3)
            raw.append(self.node("Reshape", f"{name}/Reshape", [x, flat]))
        y = self.node("Concat", "/detect/levels/Concat", raw, axis=2)
        parts = self.constant("/detect/parts", np.array([2, 2, len(CLASSES)]))
        self.node("Split", "/detect/Split", [y, parts], extra=2, axis=1)
        offset, extent, logits = self.outputs_of_last()
        centres, strides = anchors()
        cells = self.constant("/detect/cells", centres[None])
        scale = self.constant("/detect/strides", strides[None, None])
        centre = self.node("Add", "/detect/centre/Add", [offset, cells])
        centre = self.node("Mul", "/detect/centre/Mul", [centre, scale])
        extent = self.node("Exp", "/detect/extent/Exp", [extent])
        extent = self.node("Mul", "/detect/extent/Mul", [extent, scale])
        if self._training:
            boxes = self.node("Concat", "/detect/boxes/Concat", [centre, extent], axis=1)
            self.output("boxes", boxes, ["N", BOX, ANCHORS])
            self.output("class_logits", logits, ["N", len(CLASSES), ANCHORS])
            return
        scores = self.node("Sigmoid", "/detect/Sigmoid", [logits])
        joined = self.node("Concat", "/detect/Concat", [centre, extent, scores], axis=1)
        self.output("detections", joined, ["N", rows, ANCHORS])

    def segment(self, x: str, channels: int) -> None:
        x = self.conv(x, "/segment/reduce", channels, 24)
        x = self.interpolate(x, "/segment/up2")
        x = self.separable(x, "/segment/refine", 24, 16)
        x = self.plain_conv(x, "/segment/predict", 16, len(MASKS), bias=np.zeros(len(MASKS)))
        x = self.interpolate(x, "/segment/up1")
        shape: list[int | str] = ["N", len(MASKS), SIZE, SIZE]
        if self._training:
            self.output("mask_logits", x, shape)
        else:
            self.output("segmentation", self.node("Sigmoid", "/segment/Sigmoid", [x]), shape)
