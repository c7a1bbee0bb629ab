"""Every quantizable operator between two neighbours, as branches of a few graphs.

What onnxruntime's optimizer does to a pair depends on the operators around it; so each operator
stands before and behind each neighbour. A branch is ``input, neighbour, operator, neighbour``. One
graph holds all branches of a neighbour: it costs one session and one program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tests.graphs import Graph

Build = Callable[[Graph, str], str]

CHANNELS, SIZE = 8, 6
SHAPE = (1, CHANNELS, SIZE, SIZE)
"""Of what an operator reads, and mostly of what it gives out."""


def _plain(op: str, **attributes: object) -> Build:
    return lambda g, x: g.add(op, x, **attributes)


def _positive(op: str, low: float = 0.5, **attributes: object) -> Build:
    """An operator of numbers above a bound: the operator in front of it is Abs, then Add."""
    return lambda g, x: g.add(op, g.add("Add", g.add("Abs", x), g.constant(low)), **attributes)


def _inside(op: str) -> Build:
    """An operator of numbers within -1 and 1."""
    return lambda g, x: g.add(op, g.add("Mul", g.add("Tanh", x), g.constant(0.9)))


def _with_itself(op: str) -> Build:
    return lambda g, x: g.add(op, x, g.add("Sigmoid", x))


def _with_constant(op: str) -> Build:
    return lambda g, x: g.add(
        op, x, g.constant((1.5 + np.arange(CHANNELS) / 8).astype(np.float32).reshape(1, -1, 1, 1))
    )


def _reduced(op: str, *, opset: int, guard: float | None = None) -> Build:
    def build(g: Graph, x: str) -> str:
        if guard is not None:
            x = g.add("Add", g.add("Abs", x), g.constant(guard))
        if opset >= 18 or op == "ReduceSum":
            return g.add(op, x, g.constant([2]), keepdims=1)
        return g.add(op, x, axes=[2], keepdims=1)

    return build


def _flat(build: Build, *shape: int) -> Build:
    """An operator of another rank: reshaped before and behind."""

    def built(g: Graph, x: str) -> str:
        y = build(g, g.add("Reshape", x, g.constant(list(shape))))
        return g.add("Reshape", y, g.constant([1, CHANNELS, -1, SIZE]))

    return built


def _compared(op: str) -> Build:
    def build(g: Graph, x: str) -> str:
        return g.add("Where", g.add(op, x, g.constant(0.1)), x, g.add("Neg", x))

    return build


def _gemm(g: Graph, x: str) -> str:
    return g.add("Gemm", x, g.random(SIZE, SIZE), g.random(SIZE), name=f"gemm_{len(g.nodes)}")


def _gemm_turned(g: Graph, x: str) -> str:
    return g.add("Gemm", x, g.random(SIZE, SIZE), g.random(SIZE), transB=1, alpha=0.5)


def _normalized(g: Graph, x: str) -> str:
    return g.batch_norm(x, CHANNELS)


def _split(g: Graph, x: str) -> str:
    first = g.add("Split", x, g.constant([3, 5]), axis=1, n_outputs=2)
    return g.add("Concat", first.replace(":0", ":1"), first, axis=1)


def _scatter(g: Graph, x: str) -> str:
    return g.add("ScatterND", x, g.constant(np.array([[0, 1], [0, 5]])), _first(g, x))


def _first(g: Graph, x: str) -> str:
    return g.add("Slice", g.add("Squeeze", x, g.constant([0])), g.constant([0]), g.constant([2]))


def _top(g: Graph, x: str) -> str:
    return g.add("TopK", x, g.constant([4]), axis=3, n_outputs=2)


def _largest(g: Graph, x: str) -> str:
    where = g.add("ArgMax", x, axis=2)
    least = g.add("ArgMin", x, axis=2)
    return g.add("Cast", g.add("Sub", where, least), to=1)


def _attention_at_once(g: Graph, x: str) -> str:
    return g.add("Attention", x, x, x)


def _rotated(g: Graph, x: str) -> str:
    angles = [g.constant(g.rng.random((1, SIZE, SIZE // 2)).astype(np.float32)) for _ in range(2)]
    return g.add("RotaryEmbedding", x, *angles)


def _warped(g: Graph, x: str) -> str:
    theta = g.add("Reshape", g.add("ReduceMax", x, g.constant([1]), keepdims=0), g.constant([-1]))
    part = g.add("Slice", g.add("Tanh", theta), g.constant([0]), g.constant([6]), g.constant([0]))
    where = g.add(
        "AffineGrid",
        g.add("Reshape", part, g.constant([1, 2, 3])),
        g.constant([1, CHANNELS, SIZE, SIZE]),
    )
    return g.add("GridSample", x, where)


def _sampled(g: Graph, x: str) -> str:
    where = g.rng.uniform(-1, 1, (1, SIZE, SIZE, 2)).astype(np.float32)
    return g.add("GridSample", x, g.constant(where))


def _resized(mode: str) -> Build:
    scales = np.array([1, 1, 2, 2], np.float32)
    return lambda g, x: g.add("Resize", x, "", g.constant(scales), mode=mode)


def _recurrent(op: str, gates: int) -> Build:
    def build(g: Graph, x: str) -> str:
        w, r = g.random(1, gates * SIZE, SIZE), g.random(1, gates * SIZE, SIZE, scale=0.3)
        return g.add(op, x, w, r, g.random(1, 2 * gates * SIZE, scale=0.1), hidden_size=SIZE)

    return build


def _layer_norm(g: Graph, x: str) -> str:
    return g.add("LayerNormalization", x, g.random(SIZE), g.random(SIZE), axis=-1)


def _products(g: Graph, x: str) -> str:
    return g.add("MatMul", x, g.random(CHANNELS, SIZE, SIZE))


def _attention(g: Graph, x: str) -> str:
    scores = g.add("MatMul", x, g.add("Transpose", x, perm=[0, 1, 3, 2]))
    return g.add("MatMul", g.add("Softmax", scores, axis=-1), x)


def _rounded_parts(g: Graph, x: str) -> str:
    return g.add("Pad", x, g.constant([0, 0, 1, 1, 0, 0, 1, 1]))


def _transposed_conv(g: Graph, x: str) -> str:
    w = g.random(CHANNELS, CHANNELS, 2, 2, scale=0.2)
    return g.add("ConvTranspose", x, w, g.random(CHANNELS), strides=[2, 2])


def _where(g: Graph, x: str) -> str:
    mask = g.constant(np.arange(CHANNELS).reshape(1, -1, 1, 1) % 2 == 0)
    return g.add("Where", mask, x, g.add("Tanh", x))


def _clipped(g: Graph, x: str) -> str:
    return g.clip(x, -0.4, 0.7)


def _with_indices(op: str, **attributes: object) -> Build:
    def build(g: Graph, x: str) -> str:
        return g.add(op, x, g.constant(np.array([0, 2, 1, 5, 4, 3, 7, 6])), **attributes)

    return build


def _elements(g: Graph, x: str) -> str:
    where = g.constant(g.rng.integers(0, CHANNELS, SHAPE))
    return g.add("GatherElements", x, where, axis=1)


def _scattered_elements(g: Graph, x: str) -> str:
    where = np.argsort(g.rng.random(SHAPE), axis=1)
    return g.add("ScatterElements", x, g.constant(where), g.add("Tanh", x), axis=1)


def _cast(g: Graph, x: str) -> str:
    return g.add("CastLike", x, g.constant(0.0))


def _cells(op: str) -> Build:
    return lambda g, x: g.add(
        op,
        g.add(
            "SpaceToDepth" if op != "SpaceToDepth" else "Relu",
            x,
            **({"blocksize": 2} if op != "SpaceToDepth" else {}),
        ),
        blocksize=2,
    )


def _turn(g: Graph, x: str) -> str:
    return g.add("ReverseSequence", x, g.constant([3]), batch_axis=0, time_axis=1)


def _boxes(g: Graph, x: str) -> str:
    rois = g.constant(np.array([[0, 0, 4, 4]], np.float32))
    return g.add(
        "RoiAlign", x, rois, g.constant([0]), output_height=4, output_width=SIZE, sampling_ratio=2
    )


def _deformed(g: Graph, x: str) -> str:
    offset = g.constant(g.rng.uniform(-1, 1, (1, 18, SIZE, SIZE)).astype(np.float32))
    w = g.random(CHANNELS, CHANNELS, 3, 3, scale=0.1)
    return g.add("DeformConv", x, w, offset, pads=[1, 1, 1, 1])


_PLAIN = (
    *("Abs", "Atan", "Asinh", "Ceil", "Celu", "Cos", "Cosh", "Dropout", "Elu", "Erf", "Exp"),
    *("Floor", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "HardSigmoid", "HardSwish"),
    *("Identity", "LeakyRelu", "LogSoftmax", "LpNormalization", "Max", "Mean", "Neg", "Relu"),
    *("Round", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softmax", "Softplus", "Softsign"),
    *("Sum", "Tanh", "ThresholdedRelu"),
)
"""Of one input, without attributes."""

OPERATORS: dict[int, dict[str, Build]] = {
    17: {
        **{op: _plain(op) for op in _PLAIN},
        **{op: _inside(op) for op in ("Acos", "Asin", "Atanh", "Tan")},
        **{op: _positive(op) for op in ("Log", "Sqrt", "Reciprocal")},
        **{op: _with_itself(op) for op in ("Add", "Sub", "Mul", "Min")},
        **{f"{op} constant": _with_constant(op) for op in ("Add", "Sub", "Mul", "Div", "PRelu")},
        **{op: _compared(op) for op in ("Greater", "Less", "GreaterOrEqual", "LessOrEqual")},
        **{
            op: _reduced(op, opset=17)
            for op in ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
        },
        **{
            op: _reduced(op, opset=17, guard=0.5)
            for op in ("ReduceL1", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")
        },
        "Acosh": _positive("Acosh", 1.5),
        "ReduceProd": _reduced("ReduceProd", opset=17, guard=0.5),
        "Div": lambda g, x: g.add("Div", x, g.add("Add", g.add("Abs", x), g.constant(1.0))),
        "Pow": lambda g, x: g.add("Pow", x, g.constant(2.0)),
        "Mod": lambda g, x: g.add("Mod", x, g.constant(0.7), fmod=1),
        "Equal": lambda g, x: g.add("Where", g.add("Equal", x, g.constant(0.0)), x, x),
        "Clip": _clipped,
        "Shrink": _plain("Shrink", lambd=0.2, bias=0.1),
        "Hardmax": _plain("Hardmax", axis=1),
        "AveragePool": _plain("AveragePool", kernel_shape=[3, 3], strides=[1, 1]),
        "padded AveragePool": _plain(
            "AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
        ),
        "LpPool": _plain("LpPool", kernel_shape=[2, 2], strides=[2, 2]),
        "MaxPool": _plain("MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
        "LRN": _plain("LRN", size=3),
        "BatchNormalization": _normalized,
        "InstanceNormalization": lambda g, x: g.add(
            "InstanceNormalization", x, g.random(CHANNELS), g.random(CHANNELS)
        ),
        "MeanVarianceNormalization": _plain("MeanVarianceNormalization"),
        "LayerNormalization": _layer_norm,
        "elementary LayerNormalization": lambda g, x: g.layer_norm(x, SIZE),
        "Conv": lambda g, x: g.conv(x, CHANNELS, CHANNELS, 1),
        "depthwise Conv": lambda g, x: g.conv(x, CHANNELS, CHANNELS, group=CHANNELS),
        "Conv without bias": lambda g, x: g.conv(x, CHANNELS, CHANNELS, bias=False),
        "Conv, Relu": lambda g, x: g.add("Relu", g.conv(x, CHANNELS, CHANNELS)),
        "Conv, Add": lambda g, x: g.add("Add", g.conv(x, CHANNELS, CHANNELS, 1), x),
        "ConvTranspose": _transposed_conv,
        "Gemm": _flat(_gemm, -1, SIZE),
        "turned Gemm": _flat(_gemm_turned, -1, SIZE),
        "MatMul": lambda g, x: g.add("MatMul", x, g.random(SIZE, SIZE)),
        "MatMul, Add": lambda g, x: g.add(
            "Add", g.add("MatMul", x, g.random(SIZE, SIZE)), g.random(SIZE)
        ),
        "MatMul, Relu, MatMul": lambda g, x: g.add(
            "MatMul", g.add("Relu", g.add("MatMul", x, g.random(SIZE, 32))), g.random(32, SIZE)
        ),
        "MatMul by many": _products,
        "MatMul of two": _attention,
        "Einsum": lambda g, x: g.add("Einsum", x, g.random(SIZE, SIZE), equation="nchw,wv->nchv"),
        "CumSum": lambda g, x: g.add("CumSum", x, g.constant(np.int64(3))),
        "Where": _where,
        "GridSample": _sampled,
        "linear Resize": _resized("linear"),
        "nearest Resize": _resized("nearest"),
        "RoiAlign": _boxes,
        "TopK": _top,
        "GRU": _flat(_recurrent("GRU", 3), CHANNELS, SIZE, SIZE),
        "LSTM": _flat(_recurrent("LSTM", 4), CHANNELS, SIZE, SIZE),
        "RNN": _flat(_recurrent("RNN", 1), CHANNELS, SIZE, SIZE),
        "Cast": _cast,
        "Compress": lambda g, x: g.add("Compress", x, g.constant(np.arange(6) % 2 == 0), axis=2),
        "Concat": lambda g, x: g.add("Concat", x, g.add("Neg", x), axis=2),
        "Concat of constants": lambda g, x: g.add(
            "Concat", x, g.constant(np.full((1, CHANNELS, 1, SIZE), 0.3, np.float32)), axis=2
        ),
        "DepthToSpace": _cells("DepthToSpace"),
        "SpaceToDepth": lambda g, x: g.add(
            "Reshape", g.add("SpaceToDepth", x, blocksize=2), g.constant([1, CHANNELS, -1, SIZE])
        ),
        "Expand": lambda g, x: g.add(
            "Expand", g.add("ReduceMax", x, axes=[3], keepdims=1), g.constant(list(SHAPE))
        ),
        "Flatten": _flat(_plain("Flatten", axis=1), *SHAPE),
        "Gather": _with_indices("Gather", axis=1),
        "GatherElements": _elements,
        "GatherND": lambda g, x: g.add(
            "GatherND", x, g.constant(np.arange(CHANNELS)[None, ::-1, None].copy()), batch_dims=1
        ),
        "Pad": _rounded_parts,
        "ReverseSequence": _turn,
        "ScatterElements": _scattered_elements,
        "ScatterND": _scatter,
        "Slice": lambda g, x: g.add(
            "Slice", x, g.constant([0, 1]), g.constant([4, 6]), g.constant([2, 3])
        ),
        "Split": _split,
        "Squeeze": _flat(lambda g, x: g.add("Squeeze", x, g.constant([0])), *SHAPE),
        "Unsqueeze": _flat(lambda g, x: g.add("Unsqueeze", x, g.constant([0])), *SHAPE),
        "Tile": lambda g, x: g.add("Tile", x, g.constant([1, 1, 2, 1])),
        "Transpose": _plain("Transpose", perm=[0, 1, 3, 2]),
        "Reshape": lambda g, x: g.add("Reshape", x, g.constant([1, CHANNELS, 4, 9])),
        "Trilu": _plain("Trilu"),
        "ArgMax": _largest,
        "swish": lambda g, x: g.swish(x),
        "hard swish": lambda g, x: g.hard_swish(x),
        "gelu": lambda g, x: g.gelu(x),
        "mish": lambda g, x: g.mish(x),
        "squeeze and excite": lambda g, x: g.squeeze_excite(x, CHANNELS),
    },
    22: {
        "Conv": lambda g, x: g.conv(x, CHANNELS, CHANNELS, 1),
        "Gelu": _plain("Gelu"),
        "Mish": _plain("Mish"),
        "CenterCropPad": lambda g, x: g.add("CenterCropPad", x, g.constant([4, 8]), axes=[2, 3]),
        "DeformConv": _deformed,
        "GroupNormalization": lambda g, x: g.add(
            "GroupNormalization", x, g.random(CHANNELS), g.random(CHANNELS), num_groups=2
        ),
        "AveragePool": _plain("AveragePool", kernel_shape=[3, 3], strides=[1, 1]),
        "MatMul by many": _products,
        "MatMul of two": _attention,
        "ReduceMean": _reduced("ReduceMean", opset=22),
        "ReduceL1": _reduced("ReduceL1", opset=22),
        "Sigmoid": _plain("Sigmoid"),
        "Col2Im": lambda g, x: g.add(
            "Col2Im",
            g.add("Reshape", x, g.constant([1, CHANNELS * 4, 9])),
            g.constant([6, 6]),
            g.constant([2, 2]),
            strides=[2, 2],
        ),
    },
    24: {
        "AffineGrid": _warped,
        "Attention": _attention_at_once,
        "RMSNormalization": lambda g, x: g.add("RMSNormalization", x, g.random(SIZE)),
        "RotaryEmbedding": _rotated,
        "Swish": _plain("Swish"),
        "TensorScatter": lambda g, x: g.add(
            "TensorScatter", x, g.add("Tanh", x), g.constant(np.zeros(1, np.int64))
        ),
        "Conv": lambda g, x: g.conv(x, CHANNELS, CHANNELS, 1),
    },
    26: {
        "CumProd": lambda g, x: g.add("CumProd", g.add("Tanh", x), g.constant(np.int64(3))),
        "Conv": lambda g, x: g.conv(x, CHANNELS, CHANNELS, 1),
    },
}
"""``{opset: {name: operator}}``; each is called on a tensor of `SHAPE`."""

ABSENT = {
    "And": "of booleans since opset 7",
    "Or": "of booleans since opset 7",
    "Xor": "of booleans since opset 7",
    "SwiGLU": "onnxruntime 1.32 has none",
    "Scatter": "is ScatterElements since opset 11",
    "Upsample": "is Resize since opset 10",
}
"""Quantizable operators without a branch, and why."""


def _concat(g: Graph, x: str) -> str:
    return g.add("Concat", x, g.add("Neg", x), axis=1)


def _before(g: Graph, neighbour: str) -> str:
    if neighbour == "Conv":
        return g.conv("x", CHANNELS, CHANNELS)
    if neighbour == "MaxPool":
        return g.add("MaxPool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    if neighbour == "Transpose":
        return g.add("Transpose", "x", perm=[0, 1, 3, 2])
    if neighbour == "Reshape":
        return g.add("Reshape", "flat", g.constant(list(SHAPE)))
    return g.add("Concat", "left", "right", axis=1)


def _behind(g: Graph, neighbour: str, y: str, channels: int) -> str:
    if neighbour == "Conv":
        return g.conv(y, channels, 4, 1)
    if neighbour == "MaxPool":
        return g.add("MaxPool", y, kernel_shape=[2, 1], pads=[1, 0, 0, 0])
    if neighbour == "Transpose":
        return g.add("Transpose", y, perm=[0, 2, 3, 1])
    if neighbour == "Reshape":
        return g.add("Reshape", y, g.constant([1, -1]))
    return _concat(g, y)


NEIGHBOURS = ("Conv", "MaxPool", "Transpose", "Reshape", "Concat")


def network(neighbour: str, opset: int = 17) -> Graph:
    """Return the branches of all operators of an opset between neighbours of one kind.

    A last operator reads what the neighbour behind gives out, so that a quantizer stands there.
    """
    g = _start(neighbour, opset)
    for name, build in OPERATORS[opset].items():
        y = build(g, _before(g, neighbour))
        g.output(g.add("Mul", _behind(g, neighbour, y, CHANNELS), g.constant(0.5), name=name))
    return g


def alone(opset: int) -> Graph:
    """Return the branches of all operators of an opset without neighbours: a smaller program."""
    g = _start("", opset)
    for name, build in OPERATORS[opset].items():
        g.output(g.add("Identity", build(g, "x"), name=name))
    return g


def split(neighbour: str, branches: Mapping[str, int]) -> tuple[Graph, dict[str, int]]:
    """Return some branches of `network`, and which input of which node is theirs.

    Args:
      neighbour: Around each.
      branches: ``{name: index of an input of its main operator}``.
    """
    g, asked = _start(neighbour, 17), {}
    for name, index in branches.items():
        x = _before(g, neighbour)
        start = len(g.nodes)
        y = OPERATORS[17][name](g, x)
        (main,) = (node for node in g.nodes[start:] if node.op_type in name.split())
        asked[main.name] = index
        g.output(g.add("Mul", _behind(g, neighbour, y, CHANNELS), g.constant(0.5), name=name))
    return g, asked


def _start(neighbour: str, opset: int) -> Graph:
    """Return a graph with the inputs of its branches."""
    g = Graph(opset)
    if neighbour == "Reshape":
        g.input("flat", (CHANNELS, SIZE * SIZE))
    elif neighbour == "Concat":
        for half in ("left", "right"):
            g.input(half, (1, CHANNELS // 2, SIZE, SIZE))
    else:
        g.input("x", SHAPE)
    return g
