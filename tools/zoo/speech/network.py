"""The speech network as an ONNX graph: frames, power spectrum, bands, logarithm, Conv, GRU.

The front end is part of the graph, as where a network is exported together with its spectrogram:
a window, the Fourier transform as two products with constant matrices, squares by Pow, triangular
bands on the mel scale, and a logarithm.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tools.zoo.graph import Graph, Network
from tools.zoo.speech.data import FRAME, FRAMES, RATE, WORDS

OPSET = 16
BANDS = 20
CHANNELS = 32
STATES = 48

_BINS = FRAME // 2 + 1
_STEM = 16
_STEPS = FRAMES // 2
_FEATURES = CHANNELS * BANDS // 4
_LEAST_POWER = 1e-3


def build(seed: int = 0, *, training: bool = False) -> Network:
    """Build the network with random weights.

    Args:
      seed: Of the weights.
      training: Stop before the Softmax and give the mean and deviation of the bands out.

    Returns:
      A network with input ``frames`` ``float32[N, FRAMES, FRAME]``, at most 1. Output for
      inference: ``probabilities`` ``[N, words]``; for training ``logits`` and the statistics.
    """
    g = _Graph(seed, training)
    x = g.spectrum("frames", "/frontend")
    x = g.bands(x, "/frontend")
    x = g.convolutions(x, "/encoder")
    x = g.recurrent(x, "/rnn")
    g.classify(x, "/classifier")
    return g.finish()


def transform() -> tuple[np.ndarray, np.ndarray]:
    """Return the real and the imaginary part of the Fourier transform, ``float32[FRAME, bins]``."""
    angle = 2 * np.pi * np.outer(np.arange(FRAME), np.arange(_BINS)) / FRAME
    return np.cos(angle).astype(np.float32), -np.sin(angle).astype(np.float32)


def mel() -> np.ndarray:
    """Return triangular bands of equal width in mel, ``float32[bins, BANDS]``.

    Source: O'Shaughnessy 1987, Speech Communication, p. 150 (2595 log10(1 + f / 700)).
    """
    highest = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, BANDS + 2) / 2595) - 1)
    frequency = np.linspace(0, RATE / 2, _BINS)[:, None]
    rising = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


class _Graph(Graph):
    """The layers of the network."""

    def __init__(self, seed: int, training: bool) -> None:
        super().__init__("speech", seed, opset=OPSET)
        self._training = training
        self.input("frames", TensorProto.FLOAT, ["N", FRAMES, FRAME])

    def spectrum(self, frames: str, name: str) -> str:
        """Power per frame and bin, ``[N, FRAMES, bins]``."""
        window = self.constant(f"{name[1:]}.window", np.hanning(FRAME).astype(np.float32))
        x = self.node("Mul", f"{name}/Mul", [frames, window])
        squares = []
        for part, matrix in zip(("real", "imag"), transform(), strict=True):
            y = self.constant(f"{name[1:]}.{part}", matrix)
            y = self.node("MatMul", f"{name}/{part}/MatMul", [x, y])
            two = self.scalar(f"{name}/{part}/exponent", 2)
            squares.append(self.node("Pow", f"{name}/{part}/Pow", [y, two]))
        return self.node("Add", f"{name}/Add", squares)

    def bands(self, power: str, name: str) -> str:
        """Logarithm of the power per band, centred and scaled, ``[N, FRAMES, BANDS]``."""
        matrix = self.constant(f"{name[1:]}.mel", mel())
        x = self.node("MatMul", f"{name}/mel/MatMul", [power, matrix])
        x = self.node("Add", f"{name}/mel/Add", [x, self.scalar(f"{name}/eps", _LEAST_POWER)])
        x = self.node("Log", f"{name}/Log", [x])
        mean = self.constant(f"{name[1:]}.mean", np.zeros(BANDS, np.float32))
        scale = self.constant(f"{name[1:]}.deviation", np.ones(BANDS, np.float32))
        if self._training:
            self._moments(x, f"{name}/moments", [mean, scale])
        x = self.node("Sub", f"{name}/Sub", [x, mean])
        return self.node("Div", f"{name}/Div", [x, scale])

    def _moments(self, x: str, name: str, constants: list[str]) -> None:
        mean = self.node("ReduceMean", f"{name}/mean", [x], axes=[0, 1])
        centred = self.node("Sub", f"{name}/Sub", [x, mean])
        square = self.node("Mul", f"{name}/Mul", [centred, centred])
        variance = self.node("ReduceMean", f"{name}/variance", [square], axes=[0, 1], keepdims=0)
        deviation = self.node("Sqrt", f"{name}/Sqrt", [variance])
        flat = self.node("Reshape", f"{name}/Reshape", [mean, self.integers(f"{name}/flat", BANDS)])
        for constant, measured in zip(constants, (flat, deviation), strict=True):
            self.statistic(constant, measured, [BANDS])

    def convolutions(self, x: str, name: str) -> str:
        """Halve time and bands, then bands again; one row of features per step."""
        axis = self.integers(f"{name}/Unsqueeze_axes", 1)
        x = self.node("Unsqueeze", f"{name}/Unsqueeze", [x, axis])
        x = self._conv(x, f"{name}/conv1", (_STEM, 1, 3, 3), strides=[2, 2])
        x = self._conv(x, f"{name}/conv2/depthwise", (_STEM, 1, 3, 3), strides=[1, 1], group=_STEM)
        x = self._conv(x, f"{name}/conv2/pointwise", (CHANNELS, _STEM, 1, 1), strides=[1, 1])
        x = self._conv(
            x, f"{name}/conv3/depthwise", (CHANNELS, 1, 3, 3), strides=[1, 2], group=CHANNELS
        )
        x = self._conv(x, f"{name}/conv3/pointwise", (CHANNELS, CHANNELS, 1, 1), strides=[1, 1])
        x = self.node("Transpose", f"{name}/Transpose", [x], perm=[2, 0, 1, 3])
        shape = self.integers(f"{name}/shape", _STEPS, -1, _FEATURES)
        return self.node("Reshape", f"{name}/Reshape", [x, shape])

    def _conv(
        self, x: str, name: str, shape: tuple[int, ...], *, strides: list[int], group: int = 1
    ) -> str:
        fan_in = int(np.prod(shape[1:]))
        weight = self.weight(f"{name[1:]}.weight", shape, fan_in=fan_in, gain=2**0.5)
        half = shape[-1] // 2
        y = self.node(
            "Conv",
            f"{name}/Conv",
            [x, weight, self.bias(f"{name[1:]}.bias", shape[0])],
            kernel_shape=list(shape[2:]),
            strides=strides,
            pads=[half, half, half, half],
            group=group,
        )
        return self.node("Relu", f"{name}/Relu", [y])

    def recurrent(self, x: str, name: str) -> str:
        """The last state of a GRU as PyTorch defines it, ``[N, STATES]``."""
        inputs = self.weight(f"{name}.W", (1, 3 * STATES, _FEATURES), fan_in=_FEATURES)
        states = self.weight(f"{name}.R", (1, 3 * STATES, STATES), fan_in=STATES)
        bias = self.constant(f"{name}.B", np.zeros((1, 6 * STATES), np.float32), trained=True)
        y = self.node(
            "GRU",
            f"{name}/GRU",
            [x, inputs, states, bias],
            hidden_size=STATES,
            linear_before_reset=1,
        )
        axis = self.integers(f"{name}/Squeeze_axes", 1)
        y = self.node("Squeeze", f"{name}/Squeeze", [y, axis])
        y = self.node("Transpose", f"{name}/Transpose", [y], perm=[1, 0, 2])
        last = self.constant(f"{name}/last", np.array(-1, np.int64))
        return self.node("Gather", f"{name}/Gather", [y, last], axis=1)

    def classify(self, x: str, name: str) -> None:
        """Logits while training, else probabilities."""
        weight = self.weight(f"{name[1:]}.weight", (len(WORDS), STATES), fan_in=STATES)
        bias = self.bias(f"{name[1:]}.bias", len(WORDS))
        x = self.node("Gemm", f"{name}/Gemm", [x, weight, bias], transB=1)
        if self._training:
            self.output("logits", x, ["N", len(WORDS)])
            return
        x = self.node("Softmax", "/Softmax", [x], axis=-1)
        self.output("probabilities", x, ["N", len(WORDS)])
