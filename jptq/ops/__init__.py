"""Operators: each ONNX operator is a function whose signature is its schema.

Importing this package registers every family.
"""

from jptq.ops import (  # noqa: F401
    activation,
    attention,
    broadcast,
    cast,
    control_flow,
    convolution,
    deconvolution,
    deformable,
    detection,
    elementwise,
    generator,
    horizon,
    indexing,
    joining,
    linear_attention,
    logic,
    matmul,
    maxima,
    normalization,
    pooling,
    quantized,
    random,
    recurrent,
    reduce,
    resize,
    sampling,
    sequence,
    shape,
    signal,
    training,
)
from jptq.ops.registry import Lowering, Op, find, lowering, op, registered
from jptq.ops.traits import BIAS, Cost, Kind, Layout, Traits

__all__ = [
    "BIAS",
    "Cost",
    "Kind",
    "Layout",
    "Lowering",
    "Op",
    "Traits",
    "find",
    "lowering",
    "op",
    "registered",
]
