"""Which nodes add up products of two quantized operands, and the bias that goes with each."""

from __future__ import annotations

from collections.abc import Sequence

from jptq.ir.model import Model, Node
from jptq.ops import BIAS
from jptq.quant.plan import Calibration, Slots, Sum
from jptq.quant.structure import Structure, is_bias, structure_of
from jptq.targets import Target

_CHANNELS = 1
"""Axis of a convolution's result that its weights' channels become."""


def sums_of(
    model: Model, calibrations: Sequence[Calibration], slots: Sequence[Slots], target: Target
) -> tuple[Sum, ...]:
    """Return the matrix products whose operands both carry a quantizer, in graph order.

    Left out are products whose weights have scales along another axis than that of the result's
    channels: no common unit makes integers of them.

    Args:
      model: A calibrated model.
      calibrations: Its quantizers, in graph order.
      slots: Which of them each node's inputs show.
      target: Says which additions a product takes in.
    """
    structure = structure_of(model, epilogues=target.operands.epilogues)
    index = {calibration.name: k for k, calibration in enumerate(calibrations)}
    found = []
    for one in slots:
        node = model.by_name[one.node]
        if not structure.traits(node).sums_products or not {0, 1} <= set(one.inputs):
            continue
        k, w = (index[one.inputs[i]] for i in (0, 1))
        weights = calibrations[w]
        if weights.channels > 1 and not _along_channels(structure, node, weights):
            continue
        own = node.inputs[BIAS] if len(node.inputs) > BIAS else ""
        adder, addend = ("", "") if own else _adder(structure, node)
        group = int(_number(node, "group"))
        kernel_axis = structure.traits(node).weights[1]
        found.append(
            Sum(
                node=node.name,
                op=node.op,
                features=k,
                weights=w,
                kernel_axis=kernel_axis,
                axis=None if weights.channels == 1 else _CHANNELS if kernel_axis >= 0 else -1,
                # The kernel of a transposed convolution holds the channels of one group.
                groups=group if kernel_axis == 1 else 1,
                depthwise=group > 1 and calibrations[k].channels == group,
                factor=_number(node, "alpha"),
                bias=own or addend,
                bias_factor=_number(node, "beta"),
                adder=adder,
            )
        )
    return tuple(found)


def _along_channels(structure: Structure, node: Node, weights: Calibration) -> bool:
    """Tell whether the scales of a constant weight are those of the result's channels."""
    constant = structure.model.initializers.get(weights.tensor)
    if constant is None or weights.axis is None:
        return False
    return weights.axis % constant.ndim == structure.traits(node).weights[1] % constant.ndim


def _adder(structure: Structure, node: Node) -> tuple[str, str]:
    """Return the fused addition that adds a product's bias, and the bias; "" if there is none."""
    tensor = node.outputs[0]
    if tensor not in structure.inner:
        return "", ""
    ((reader, index),) = structure.model.consumers[tensor]  # a fused tensor has one
    other = 1 - index
    if len(reader.inputs) != 2 or not is_bias(structure, reader, other):
        return "", ""
    return reader.name, reader.inputs[other]


def _number(node: Node, name: str) -> float:
    value = node.attributes.get(name, 1)
    assert isinstance(value, int | float)
    return float(value)
