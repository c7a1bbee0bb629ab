"""The calibrated graph as standard ONNX: QuantizeLinear and DequantizeLinear instead of quantizers.

Any runtime reads the result. onnxruntime computes what our forward computes, in its default session
too (design 6). For that a `GUARD` stands behind every pair. Without it, onnxruntime's optimizer

- moves pairs and makes int8 of them uint8, and then, from opset 21 on, refuses its own graph
  (github.com/microsoft/onnxruntime/issues/25526);
- makes integer kernels of pairs and operators. Those round in other places, quantize biases to
  int32, which wraps around where a weight's step is small, and on processors with AVX2 but without
  VNNI saturate sums of two products at 16 bits;
- quantizes what is meant to stay float: the input of a product whose weight is dequantized
  (MatMulNBits), and a float weight between quantized tensors;
- refuses a product by a constant of rank 3 with a zero point per channel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from jptq import files, ir
from jptq.errors import ConfigError, UnsupportedOpError
from jptq.ir.edit import prune, rename, with_nodes
from jptq.ir.expand import expand_units, opset_of_units
from jptq.ir.model import HORIZON, Attribute, Model, Node
from jptq.ir.opset import raise_opset
from jptq.numerics.affine import affine
from jptq.numerics.fake_quant import on_grid
from jptq.numerics.qtypes import FLOAT16, INT16, QType, qtype
from jptq.quant.attributes import OFF, ON, attributes_of
from jptq.quant.originals import absent_constants, constant_digest, restored

GUARD = "Max"
"""The operator behind a DequantizeLinear: of one input, it is that input.

No rewrite of onnxruntime removes or crosses it, as it does with Identity, Reshape or a factor of 1.
"""

_PAIRS, _CASTS, _AXES, _INT16 = 10, 11, 13, 21
"""Opsets that first quantize, clip by inputs, quantize per channel, quantize to int16."""

_SIGNED_BELOW = 21
"""From this opset on, int8 is written as uint8 with a zero point 128 higher.

It is the same grid. onnxruntime makes uint8 of int8 on most processors, and copies the type of an
int8 pair that it has moved into an attribute that it then forgets.
"""

_ONNX_FLOAT, _ONNX_FLOAT16 = 1, 10


def to_qdq(model: Model) -> Model:
    """Return a calibrated model in ONNX's own operators.

    A quantizer of a feature becomes a pair QuantizeLinear, DequantizeLinear with a zero point of
    its type; one of a constant becomes an integer initializer with a DequantizeLinear. Quantizers
    that are off, or float32, vanish; float16 is a saturated cast there and back. The vendor's
    float units are written out. The DequantizeLinear has the quantizer's name, the `GUARD` behind
    it the quantizer's output, so that a tensor of both models is the same thing. Names of graph
    inputs and outputs stay.

    Args:
      model: With thresholds in every quantizer that is on.

    Returns:
      A model of the model's own opset, or of the first that has what it contains: 21 with an int16
      quantizer, 13 with scales per channel, 10 with others.

    Raises:
      ConfigError: A quantizer has no thresholds.
      ModelError: A node does not exist in the opset.
      UnsupportedOpError: A vendor operator cannot be written in ONNX's.
    """
    raised = raise_opset(model, opset_needed(model))
    standard = without_quantizers(expand_units(raised), idle=True)
    constants: dict[str, np.ndarray] = {}
    nodes: list[Node] = []
    for node in standard.nodes:
        if node.is_calibration:
            constants.update(_pair(node, standard, nodes))
        else:
            nodes.append(node)
    left = sorted({f"{node.name!r} ({node.op})" for node in _vendor_nodes(nodes)})
    if left:
        raise UnsupportedOpError(
            f"{len(left)} vendor operators cannot be written in ONNX's", where=", ".join(left)
        )
    opsets = {domain: version for domain, version in model.opsets.items() if domain != HORIZON}
    exported = with_nodes(
        dataclasses.replace(standard, opsets={**opsets, "": standard.opset("")}),
        nodes,
        initializers={**standard.initializers, **constants},
    )
    return prune(exported)


def opset_needed(model: Model) -> int:
    """Return the first opset that can express what `to_qdq` makes of a model; 0: any can."""
    needed = [opset_of_units(model)]
    for node in model.nodes:
        if not node.is_calibration or not _active(node):
            continue
        if (kind := _kind(node)) is FLOAT16:
            needed.append(_CASTS)
        elif kind is INT16:
            needed.append(_INT16)
        else:
            needed.append(_AXES if attributes_of(node).per_channel else _PAIRS)
    return max(needed)


def without_quantizers(
    model: Model, *, idle: bool = False, floats: Mapping[str, np.ndarray] | None = None
) -> Model:
    """Return the float model under a calibrated one, with the constants that it had.

    Args:
      model: With quantizers.
      idle: Take away only those that pass their tensor as it is, and leave all constants.
      floats: Values of the constants that the model has only digests of (`originals.restored`).
    """
    bypass: dict[str, str] = {}
    nodes = []
    for node in model.nodes:
        if not node.is_calibration or (idle and _active(node)):
            nodes.append(node)
        elif node.outputs[0] in model.output_names:
            nodes.append(dataclasses.replace(node, op="Identity", domain="", attributes={}))
        else:
            source = node.inputs[0]
            bypass[node.outputs[0]] = bypass.get(source, source)
    bare = rename(dataclasses.replace(model, nodes=tuple(nodes)), bypass)
    return bare if idle else restored(bare, floats)


def network_digest(model: Model) -> str:
    """Return the digest of the float network under a model, calibrated or not.

    Constants count by their digests, so that it is known of a model too that holds others.
    """
    bare = without_quantizers(model)
    absent = absent_constants(model)
    digests = {n: absent.get(n) or constant_digest(v) for n, v in bare.initializers.items()}
    constants = {n: np.frombuffer(bytes.fromhex(one), np.uint8) for n, one in digests.items()}
    # Shapes of outputs follow from the rest; not every model says them.
    outputs = tuple(dataclasses.replace(tensor, shape=None) for tensor in bare.outputs)
    nodes = dataclasses.replace(bare, initializers=constants, metadata={}, outputs=outputs)
    return files.digest(ir.to_bytes(nodes))


def _active(node: Node) -> bool:
    kind = _kind(node)
    return node.attributes.get("switch", ON) != OFF and (kind.quantizes or kind is FLOAT16)


def _kind(node: Node) -> QType:
    return qtype(str(node.attributes.get("qtype", "int8")), where=node.name)


def _pair(node: Node, model: Model, nodes: list[Node]) -> dict[str, np.ndarray]:
    """Add what replaces a quantizer to ``nodes``; return the constants that this reads."""
    if _kind(node) is FLOAT16:
        return _casts(node, nodes)
    held = attributes_of(node)
    if held.thresholds is None:
        raise ConfigError(
            "a calibration has no thresholds",
            where=node.name,
            hint="calibrate the model first: jptq calibrate",
        )
    grid = affine(held.thresholds, _kind(node), asymmetric=held.asymmetric)
    axis = held.axis if held.per_channel else None
    attributes: dict[str, Attribute] = {} if axis is None else {"axis": axis}
    source = model.initializers.get(node.inputs[0])
    dtype, shift = np.dtype(_kind(node).name), 0
    if source is None and dtype == np.int8 and model.opset("") >= _SIGNED_BELOW:
        dtype, shift = np.dtype(np.uint8), 128
    # One scale is a scalar: ONNX reads a vector, even of one, along a channel axis.
    shape = (-1,) if attributes else ()
    scale, zero, integers = (f"{node.name}/{part}" for part in ("scale", "zero_point", "quantized"))
    constants = {
        scale: grid.scale.reshape(shape),
        zero: (grid.offset + shift).astype(dtype).reshape(shape),
    }
    if source is not None:
        constants[integers] = on_grid(source, grid, axis).astype(dtype)
    else:
        nodes.append(
            Node(
                name=f"{node.name}/QuantizeLinear",
                op="QuantizeLinear",
                inputs=(node.inputs[0], scale, zero),
                outputs=(integers,),
                attributes=attributes,
            )
        )
    dequantized = f"{node.name}/dequantized"
    nodes += [
        Node(
            name=node.name,
            op="DequantizeLinear",
            inputs=(integers, scale, zero),
            outputs=(dequantized,),
            attributes=attributes,
        ),
        Node(name=f"{node.name}/guard", op=GUARD, inputs=(dequantized,), outputs=node.outputs),
    ]
    return constants


def _casts(node: Node, nodes: list[Node]) -> dict[str, np.ndarray]:
    """Add a saturated cast to float16 and back; return the constants that it reads."""
    low, high, clip, cast = (f"{node.name}/{part}" for part in ("low", "high", "Clip", "Cast"))
    clipped, rounded = (f"{name}:0" for name in (clip, cast))
    to_half, back = ({"to": dtype} for dtype in (_ONNX_FLOAT16, _ONNX_FLOAT))
    nodes += [
        Node(name=clip, op="Clip", inputs=(node.inputs[0], low, high), outputs=(clipped,)),
        Node(name=cast, op="Cast", inputs=(clipped,), outputs=(rounded,), attributes=to_half),
        Node(name=node.name, op="Cast", inputs=(rounded,), outputs=node.outputs, attributes=back),
    ]
    largest = np.float32(np.finfo(np.float16).max)
    return {low: np.asarray(-largest), high: np.asarray(largest)}


def _vendor_nodes(nodes: list[Node]) -> Iterator[Node]:
    for node in nodes:
        if node.domain == HORIZON:
            yield node
        for subgraph in node.subgraphs:
            yield from _vendor_nodes(list(subgraph.nodes))
