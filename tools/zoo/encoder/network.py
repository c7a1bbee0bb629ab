"""The encoder as an ONNX graph: what an exporter writes of a small BERT.

Source: Devlin et al. 2019, arXiv:1810.04805; the operators are those of exports of opset 16 and
below: LayerNormalization and Gelu are written out, and the attention mask, 0 or the lowest
``float32``, is computed from an input and added to the scores of every layer.
"""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from tools.zoo.encoder.data import CLASSES, LENGTH, VOCABULARY
from tools.zoo.graph import Graph, Network

OPSET = 14
LAYERS = 2
WIDTH = 48
HEADS = 4
HIDDEN = 192

_EPSILON = 1e-12
_HEAD = WIDTH // HEADS


def build(seed: int = 0) -> Network:
    """Build the network with random weights.

    Args:
      seed: Of the weights.

    Returns:
      A network with inputs ``input_ids`` and ``attention_mask`` ``int64[N, LENGTH]`` and output
      ``logits`` ``float32[N, CLASSES]``.
    """
    g = _Graph(seed)
    for name in ("input_ids", "attention_mask"):
        g.input(name, TensorProto.INT64, ["N", LENGTH])
    penalty = g.penalty("attention_mask")
    x = g.embeddings("input_ids", "/embeddings")
    for number in range(LAYERS):
        x = g.layer(x, penalty, f"/encoder/layer.{number}")
    g.output("logits", g.head(x), ["N", CLASSES])
    return g.finish()


class _Graph(Graph):
    """The layers of the network."""

    def __init__(self, seed: int) -> None:
        super().__init__("encoder", seed, opset=OPSET)

    def penalty(self, mask: str) -> str:
        """What is added to scores, ``[N, 1, 1, LENGTH]``: the lowest float where the mask is 0."""
        for name in ("/Unsqueeze", "/Unsqueeze_1"):
            mask = self.node("Unsqueeze", name, [mask, self.integers(f"{name}_axes", 1)])
        kept = self.node("Cast", "/Cast", [mask], to=TensorProto.FLOAT)
        dropped = self.node("Sub", "/Sub", [self.scalar("/Constant_output_0", 1), kept])
        lowest = float(np.finfo(np.float32).min)
        return self.node("Mul", "/Mul", [dropped, self.scalar("/Constant_1_output_0", lowest)])

    def embeddings(self, ids: str, name: str) -> str:
        """Embed tokens, add the positions (a constant, as exporters fold them), normalize."""
        path = name[1:]
        words = self.weight(f"{path}.word_embeddings.weight", (VOCABULARY, WIDTH), fan_in=1)
        places = self.weight(f"{name}/position_embeddings/Gather_output_0", (1, LENGTH, WIDTH))
        x = self.node("Gather", f"{name}/word_embeddings/Gather", [words, ids])
        return self.normalize(self.node("Add", f"{name}/Add", [x, places]), f"{name}/LayerNorm")

    def layer(self, x: str, penalty: str, name: str) -> str:
        """Attention and feed-forward, each added to its input and then normalized."""
        y = self._attention(x, penalty, f"{name}/attention/self")
        y = self.dense(y, f"{name}/attention/output/dense", WIDTH, WIDTH)
        y = self.node("Add", f"{name}/attention/output/Add", [y, x])
        x = self.normalize(y, f"{name}/attention/output/LayerNorm")
        y = self.dense(x, f"{name}/intermediate/dense", WIDTH, HIDDEN)
        y = self._gelu(y, f"{name}/intermediate/intermediate_act_fn")
        y = self.dense(y, f"{name}/output/dense", HIDDEN, WIDTH)
        y = self.node("Add", f"{name}/output/Add", [y, x])
        return self.normalize(y, f"{name}/output/LayerNorm")

    def head(self, x: str) -> str:
        """Pool the first token and classify it."""
        first = self.constant("/pooler/Constant_output_0", np.array(0, np.int64))
        x = self.node("Gather", "/pooler/Gather", [x, first], axis=1)
        x = self._gemm(x, "/pooler/dense", WIDTH)
        x = self.node("Tanh", "/pooler/activation/Tanh", [x])
        return self._gemm(x, "/classifier", CLASSES)

    def dense(self, x: str, name: str, inputs: int, outputs: int) -> str:
        """A linear layer over the last of three axes: MatMul, then the bias."""
        path = _path(name)
        y = self.node(
            "MatMul", f"{name}/MatMul", [x, self.weight(f"{path}.weight", (inputs, outputs))]
        )
        return self.node("Add", f"{name}/Add", [self.bias(f"{path}.bias", outputs), y])

    def normalize(self, x: str, name: str) -> str:
        """LayerNormalization, written out."""
        path = _path(name)
        mean = self.node("ReduceMean", f"{name}/ReduceMean", [x], axes=[-1])
        centred = self.node("Sub", f"{name}/Sub", [x, mean])
        square = self.node("Pow", f"{name}/Pow", [centred, self.scalar(f"{name}/exponent", 2)])
        variance = self.node("ReduceMean", f"{name}/ReduceMean_1", [square], axes=[-1])
        shifted = self.node("Add", f"{name}/Add", [variance, self.scalar(f"{name}/eps", _EPSILON)])
        deviation = self.node("Sqrt", f"{name}/Sqrt", [shifted])
        y = self.node("Div", f"{name}/Div", [centred, deviation])
        gain = self.constant(f"{path}.weight", np.ones(WIDTH, np.float32), trained=True)
        y = self.node("Mul", f"{name}/Mul", [y, gain])
        return self.node("Add", f"{name}/Add_1", [y, self.bias(f"{path}.bias", WIDTH)])

    def _attention(self, x: str, penalty: str, name: str) -> str:
        def heads(role: str, perm: list[int]) -> str:
            y = self.dense(x, f"{name}/{role}", WIDTH, WIDTH)
            shape = self.integers(f"{name}/{role}/shape", 0, LENGTH, HEADS, _HEAD)
            y = self.node("Reshape", f"{name}/{role}/Reshape", [y, shape])
            return self.node("Transpose", f"{name}/{role}/Transpose", [y], perm=perm)

        query = heads("query", [0, 2, 1, 3])
        key = heads("key", [0, 2, 3, 1])
        value = heads("value", [0, 2, 1, 3])
        scores = self.node("MatMul", f"{name}/MatMul", [query, key])
        root = self.scalar(f"{name}/Constant_output_0", math.sqrt(_HEAD))
        scores = self.node("Div", f"{name}/Div", [scores, root])
        scores = self.node("Add", f"{name}/Add", [scores, penalty])
        shares = self.node("Softmax", f"{name}/Softmax", [scores], axis=-1)
        y = self.node("MatMul", f"{name}/MatMul_1", [shares, value])
        y = self.node("Transpose", f"{name}/Transpose", [y], perm=[0, 2, 1, 3])
        return self.node(
            "Reshape", f"{name}/Reshape", [y, self.integers(f"{name}/shape", 0, LENGTH, WIDTH)]
        )

    def _gelu(self, x: str, name: str) -> str:
        """Half of ``x (1 + erf(x / sqrt(2)))``."""
        y = self.node("Div", f"{name}/Div", [x, self.scalar(f"{name}/root", math.sqrt(2))])
        y = self.node("Erf", f"{name}/Erf", [y])
        y = self.node("Add", f"{name}/Add", [y, self.scalar(f"{name}/one", 1)])
        y = self.node("Mul", f"{name}/Mul", [x, y])
        return self.node("Mul", f"{name}/Mul_1", [y, self.scalar(f"{name}/half", 0.5)])

    def _gemm(self, x: str, name: str, outputs: int) -> str:
        path = _path(name)
        weight = self.weight(f"{path}.weight", (outputs, WIDTH), fan_in=WIDTH)
        bias = self.bias(f"{path}.bias", outputs)
        return self.node("Gemm", f"{name}/Gemm", [x, weight, bias], transB=1)


def _path(name: str) -> str:
    """Return the name of a module's parameters: what exporters keep of it."""
    return name[1:].replace("/", ".")
