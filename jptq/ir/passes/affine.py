"""Channel-wise scale and shift behind a linear layer is folded into its weight and bias."""

from __future__ import annotations

import dataclasses
import logging
from typing import Final

import numpy as np
import onnx_ir as ir

from jptq.ir.passes import graph as edits

LONE_PREFIX: Final = "UNIT_CONV_FOR_"
"""How the vendor names the convolution that stands for a normalisation (hmct-spec 1.2)."""

_LINEAR: Final = ("Conv", "ConvTranspose", "Gemm")

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Affine:
    """``y = scale * x + shift`` along axis 1.

    Attributes:
      source: x.
      scale: ``float64[C]``, or ``[1]`` for all channels alike.
      shift: Likewise.
    """

    source: ir.Value
    scale: np.ndarray
    shift: np.ndarray


def run(model: ir.Model) -> bool:
    """Fold BatchNormalization and constant Mul, Div, Add, Sub into the layer before them."""
    changed = False
    for node in tuple(model.graph):
        if node.graph is None or node.domain != "":
            continue
        affine = _batch_norm(node) or _arithmetic(node)
        if affine is not None and _fold(affine) and edits.bypass(node, affine.source):
            changed = True
    return changed


def replace_lone_batch_norms(model: ir.Model) -> bool:
    """Write every BatchNormalization that is left as a depthwise convolution of one tap.

    Applies to ``[N, C, *spatial]`` with at least one spatial axis. Runs when nothing else can
    change any more, for a normalisation that an earlier pass uncovers still folds.
    """
    changed = False
    for node in tuple(model.graph):
        affine = _batch_norm(node)
        shape = affine.source.shape if affine is not None else None
        if affine is None or shape is None or shape.rank() < 3 or affine.source.dtype is None:
            continue
        name = f"{LONE_PREFIX}{node.name}"
        dtype = affine.source.dtype.numpy()
        channels = affine.scale.size
        weight = affine.scale.astype(dtype).reshape(channels, *(1,) * (shape.rank() - 1))
        parameters = [
            edits.add_initializer(model.graph, f"{name}_weight", weight),
            edits.add_initializer(model.graph, f"{name}_bias", affine.shift.astype(dtype)),
        ]
        attributes: dict[str, edits.AttributeValue] = {
            "group": channels,
            "kernel_shape": weight.shape[2:],
        }
        edits.substitute(node, "Conv", [affine.source, *parameters], attributes, name=name)
        changed = True
    return changed


def _batch_norm(node: ir.Node) -> Affine | None:
    if node.domain != "" or node.op_type != "BatchNormalization" or len(node.inputs) != 5:
        return None
    trains = edits.number(node, "training_mode", 0) != 0
    per_element = edits.number(node, "spatial", 1) == 0
    if trains or per_element or edits.reads_beyond_first(node):
        _logger.debug("%s is not folded: it normalises with the batch or per element", node.name)
        return None
    arrays = [edits.constant(value) for value in node.inputs[1:]]
    source = node.inputs[0]
    if source is None or any(array is None for array in arrays):
        return None
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + edits.number(node, "epsilon", 1e-5))
        return Affine(source=source, scale=scale, shift=beta - mean * scale)


def _arithmetic(node: ir.Node) -> Affine | None:
    """Read ``x * c``, ``x / c``, ``x + c``, ``x - c``, ``c - x`` with c per channel."""
    if node.op_type not in ("Mul", "Div", "Add", "Sub"):
        return None
    for side in (1, 0):
        array, source = edits.constant(node.inputs[side]), node.inputs[1 - side]
        if array is None or source is None or array.dtype.kind != "f":
            continue
        layer = edits.inner(source, *_LINEAR)
        vector = None if layer is None else _per_channel(array, _rank(layer))
        if vector is None or (node.op_type == "Div" and side == 0):
            return None
        one, zero = np.ones_like(vector), np.zeros_like(vector)
        if node.op_type == "Mul":
            return Affine(source=source, scale=vector, shift=zero)
        if node.op_type == "Div":
            with np.errstate(all="ignore"):
                return Affine(source=source, scale=one / vector, shift=zero)
        if node.op_type == "Add":
            return Affine(source=source, scale=one, shift=vector)
        if side == 0:
            return Affine(source=source, scale=-one, shift=vector)
        return Affine(source=source, scale=one, shift=-vector)
    return None


def _rank(layer: ir.Node) -> int:
    """Return the rank of a linear layer's output, which is that of its weight; 0 if unknown."""
    weight = edits.constant(layer.inputs[1])
    return 0 if weight is None else weight.ndim


def _per_channel(array: np.ndarray, rank: int) -> np.ndarray | None:
    """Return a constant as a vector along axis 1 of a tensor of this rank, if it is one."""
    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(length != 1 for axis, length in enumerate(shape) if axis != 1):
        return None
    return array.reshape(-1).astype(np.float64)


def _fold(affine: Affine) -> bool:
    """Change weight and bias of the layer that writes ``affine.source``; False if it cannot be."""
    layer = edits.inner(affine.source, *_LINEAR)
    if layer is None:
        return False
    if not (np.isfinite(affine.scale).all() and np.isfinite(affine.shift).all()):
        _logger.debug("%s takes no affine: it is not finite", layer.name)
        return False
    if any(edits.number(layer, name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return False
    weight = edits.constant(layer.inputs[1])
    has_bias = len(layer.inputs) > 2 and layer.inputs[2] is not None
    bias = edits.constant(layer.inputs[2]) if has_bias else None
    if weight is None or weight.dtype.kind != "f" or (has_bias and bias is None):
        _logger.debug("%s takes no affine: its weights are computed", layer.name)
        return False
    groups = int(edits.number(layer, "group", 1))
    channels = _out_channels(layer, weight, groups)
    # The bias of a Gemm may also have a number per row: [M, 1] or [M, N].
    old_bias = np.zeros(1) if bias is None else _per_channel(bias, 2)
    if old_bias is None or {affine.scale.size, old_bias.size} - {1, channels}:
        return False
    scale = np.broadcast_to(affine.scale, channels)
    new_bias = np.broadcast_to(old_bias * scale + affine.shift, channels)
    if not np.array_equal(scale, np.ones(channels)):
        scaled = _scaled(layer, weight.astype(np.float64), scale, groups)
        edits.set_constant(layer, 1, scaled.astype(weight.dtype), f"{layer.name}_weight")
    edits.set_constant(layer, 2, new_bias.astype(weight.dtype), f"{layer.name}_bias")
    return True


def _out_channels(layer: ir.Node, weight: np.ndarray, groups: int) -> int:
    if layer.op_type == "Conv":
        return int(weight.shape[0])
    if layer.op_type == "ConvTranspose":
        return int(weight.shape[1]) * groups
    return int(weight.shape[0 if edits.number(layer, "transB", 0) else 1])


def _scaled(layer: ir.Node, weight: np.ndarray, scale: np.ndarray, groups: int) -> np.ndarray:
    """Return the weight with every output channel multiplied by its scale."""
    factor = scale
    if layer.op_type == "Conv":
        factor = scale.reshape(-1, *(1,) * (weight.ndim - 1))
    elif layer.op_type == "ConvTranspose":
        # [C, M / group, *kernel]: a group of inputs sees its own slice of the outputs.
        per_group = scale.reshape(groups, 1, -1)
        spread = np.broadcast_to(per_group, (groups, weight.shape[0] // groups, weight.shape[1]))
        factor = spread.reshape(*weight.shape[:2], *(1,) * (weight.ndim - 2))
    elif edits.number(layer, "transB", 0):
        factor = scale[:, None]
    scaled: np.ndarray = weight * factor
    return scaled
