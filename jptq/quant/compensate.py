"""Error compensation: a second operator of the same kind for what an int8 operand leaves over.

With ``ec`` an operand that the accelerator only takes as int8 is written as the sum of two int8
tensors, a high part and the residue on a grid 254 times finer. The operator runs on each, and the
results are added: the precision comes close to int16 (hmct-spec 8.1; the vendor's pass is closed,
this is its reconstruction).

A weight is split while the graph is rewritten::

    x, w --Conv--> y     becomes     x, w_high --Conv-------> +
                                     x, w_low  --split_low--> + --split_add--> y

A feature is split while the network runs. ``HzRequantize`` passes its values; the quantizer behind
it puts them on the int8 grid, and the one behind the subtraction holds the residue::

    x --Resize--> y      becomes     x --split_high--> x_high --Resize-----> +
                                     x - x_high        x_low  --split_low--> + --split_add--> y

All of it is ordinary graph: placement, ranking, latency, gradients and export need no rule of
their own. Without quantizers ``x_low`` is zero and ``w_high + w_low`` is ``w``: the float network
computes what it did.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from jptq import ops
from jptq.errors import ConfigError
from jptq.ir.edit import replace_node, unique_name
from jptq.ir.fused import unknown_node
from jptq.ir.model import HORIZON, Attribute, Model, Node
from jptq.ir.verify import least_inputs
from jptq.numerics.affine import affine, clean_thresholds
from jptq.numerics.fake_quant import on_grid
from jptq.numerics.qtypes import INT8
from jptq.quant.asks import named
from jptq.quant.attributes import attributes_of
from jptq.quant.config import INT16_EC, Config
from jptq.quant.config_keys import Unmatched
from jptq.quant.pairs import (
    LOW,
    Pair,
    output_quantizer,
    pairs_of,
    quantizer,
    samples,
    samples_nearest,
)
from jptq.quant.shortened import in_full
from jptq.targets import Target

HIGH, RESIDUE, TOTAL = "_split_high", "_split_sub", "_split_add"
"""Ends of the names of the other nodes that a split adds."""


def compensate(
    model: Model,
    asked: Mapping[str, int],
    target: Target,
    *,
    unmatched: Unmatched = "error",
    where: str = "quant_config",
) -> Model:
    """Return the float model with some operators split in two.

    Each keeps its name, its bias and the name of its output tensor, which ``<node>_split_add``
    writes now. The weight of the operator lies exactly on its int8 grid.

    Args:
      model: An optimized float model.
      asked: ``{node: index of the input to compensate}``.
      target: Says which operands can be compensated.
      unmatched: ``warn`` passes over nodes that do not exist; `resolve` names them.
      where: What asks for it, for errors.

    Raises:
      UnknownNameError: A node does not exist.
      ConfigError: An operand cannot be compensated.
    """
    for name, index in asked.items():
        if unmatched == "warn" and name not in model.by_name:
            continue
        node = _checked(model, name, index, target, where=f"{where}: node_config.{name}")
        split = _weight if node.inputs[index] in model.initializers else _feature
        model = split(model, node, index)
    return model


def compensations(config: Config, model: Model, target: Target) -> dict[str, int]:
    """Return ``{node: input index}`` of the operands of a model that a configuration compensates.

    ``int16-ec`` of an operator type is for those of its nodes that have such an operand and that
    no more particular rule is about.

    Args:
      config: What asks.
      model: An optimized float model, or one that is split already; names that it does not have
        stay, for `compensate` to refuse.
      target: Says which operands can be compensated.
    """
    config = in_full(config, model)
    asked = config.compensations()
    low = {pair.low.name for pair in pairs_of(model)}
    for name, entry in named(config, model).items():
        if entry.qtype != INT16_EC or 1 in entry.inputs or name in {*asked, *low}:
            continue
        node = model.by_name[name]
        if len(node.inputs) > 1 and target.ec(node.op, 1) and _splits(model, node, 1):
            asked[name] = 1
    return asked


def derived_thresholds(model: Model) -> dict[str, dict[str, Attribute]]:
    """Return the thresholds of split operands that follow from others.

    The grid of a high feature is that of the tensor it is split from, and the residue spans half a
    step of it. Nearest sampling gives out the values that it takes in, on the same grids, so that
    the residue of its output is compensated too; other modes make new values, whose own int8
    rounding remains (hmct-spec 8.1). A split weight keeps the grids that it was split with.

    Args:
      model: A calibrated model.

    Returns:
      ``{calibration: its thresholds, and asymmetric where they are a range}``, of the quantizers
      that have thresholds.
    """
    found: dict[str, dict[str, Attribute]] = {}
    for pair in pairs_of(model):
        high, low = (quantizer(model, n.inputs[pair.index]) for n in (pair.high, pair.low))
        if high is None or low is None or attributes_of(high).thresholds is None:
            continue
        if pair.constant(model):
            found |= _weight_thresholds(model, high, low)
        else:
            found |= _feature_thresholds(model, pair, high, low)
    return found


def _checked(model: Model, name: str, index: int, target: Target, *, where: str) -> Node:
    """Return the node of a request that can be met."""
    if name not in model.by_name:
        raise unknown_node(name, model, where=where)
    node = model.by_name[name]
    if index >= len(node.inputs) or not node.inputs[index] or not target.ec(node.op, index):
        taken = [f"input{i} of {op}" for op, i in target.operands.ec_operands]
        raise ConfigError(
            f"input{index} of {node.op} takes no ec",
            where=where,
            hint=f"{target.march} compensates {', '.join(taken) or 'nothing'}",
        )
    if f"{name}{LOW}" in model.by_name or name.removesuffix(LOW) in model.by_name.keys() - {name}:
        raise ConfigError("the node is one half of a compensated one", where=where)
    if not _splits(model, node, index):
        raise ConfigError(
            f"input{index} is a constant that has no weight's grid",
            where=where,
            hint="leave it out: only float32 weights and computed tensors are compensated",
        )
    return node


def _splits(model: Model, node: Node, index: int) -> bool:
    """Tell whether an operand is computed, or a float32 weight."""
    source = quantizer(model, node.inputs[index])
    name = node.inputs[index] if source is None else source.inputs[0]
    constant = model.initializers.get(name)
    return constant is None or (index in _weights(model, node) and constant.dtype == "float32")


def _weights(model: Model, node: Node) -> Mapping[int, int]:
    """Return ``{input: channel axis}`` of a node's weights."""
    entry = ops.find(node.domain, node.op, model.opset(node.domain))
    return {} if entry is None else entry.traits.weights


def _weight(model: Model, node: Node, index: int) -> Model:
    """Split a weight: into what its int8 grid holds, and the rest."""
    name = node.inputs[index]
    weight = model.initializers[name]
    axis = _weights(model, node)[index]
    channels = None if axis < 0 and weight.ndim < 2 else axis % weight.ndim
    grid = affine(_largest(weight, channels), INT8)
    scale = grid.scale.reshape([-1 if i == channels else 1 for i in range(weight.ndim)])
    high = on_grid(weight, grid, channels) * scale
    # Another reader of the constant keeps the whole of it.
    shared = len(model.consumers[name]) > 1
    names = (unique_name(model, f"{name}_high") if shared else name, f"{name}{LOW}")
    parts = (names[0], unique_name(model, names[1]))
    return replace_node(
        model,
        node.name,
        _split(model, node, index, parts),
        initializers={parts[0]: high.astype(np.float32), parts[1]: weight - high},
    )


def _feature(model: Model, node: Node, index: int) -> Model:
    """Split a feature: the quantizers that placement adds later make the parts differ."""
    source = node.inputs[index]
    high = unique_name(model, f"{node.name}{HIGH}_output")
    low = unique_name(model, f"{node.name}{RESIDUE}_output")
    requantize = Node(
        name=f"{node.name}{HIGH}",
        op="HzRequantize",
        domain=HORIZON,
        inputs=(source,),
        outputs=(high,),
    )
    residue = Node(name=f"{node.name}{RESIDUE}", op="Sub", inputs=(source, high), outputs=(low,))
    nodes = (requantize, residue, *_split(model, node, index, (high, low)))
    opened = dataclasses.replace(model, opsets={HORIZON: 1, **model.opsets})
    return replace_node(opened, node.name, nodes)


def _split(model: Model, node: Node, index: int, parts: tuple[str, str]) -> tuple[Node, ...]:
    """Return the two operators and their sum."""
    first = unique_name(model, f"{node.outputs[0]}_high")
    second = unique_name(model, f"{node.outputs[0]}{LOW}")

    def reading(tensor: str, inputs: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(tensor if i == index else name for i, name in enumerate(inputs))

    # What is added to the result, a bias or the value beside an image, is added once.
    bare = node.inputs[:2] if 1 in _weights(model, node) else node.inputs
    attributes = {k: v for k, v in node.attributes.items() if k != "extrapolation_value"}
    if len(bare) < least_inputs(model, node):  # a Gemm before opset 11 has an addend
        bare, attributes = node.inputs, {**attributes, "beta": 0.0}
    return (
        dataclasses.replace(node, inputs=reading(parts[0], node.inputs), outputs=(first,)),
        dataclasses.replace(
            node,
            name=f"{node.name}{LOW}",
            inputs=reading(parts[1], bare),
            outputs=(second,),
            attributes=attributes,
        ),
        Node(
            name=f"{node.name}{TOTAL}", op="Add", inputs=(first, second), outputs=node.outputs[:1]
        ),
    )


def _largest(values: np.ndarray, axis: int | None) -> np.ndarray:
    """Return usable thresholds ``float32[C]`` of a constant, per channel if it has any."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    return clean_thresholds(np.abs(values).max(axis=others, initial=0.0).reshape(-1), where="")


def _weight_thresholds(model: Model, high: Node, low: Node) -> dict[str, dict[str, Attribute]]:
    """Return the thresholds of a split weight."""
    coarse, fine = (model.initializers[node.inputs[0]] for node in (high, low))
    axis = high.attributes.get("axis")
    axis = axis if isinstance(axis, int) else None
    # The sum is the weight to the last bit, so that its grid is that of the split.
    return {
        high.name: {"thresholds": tuple(_largest(coarse + fine, axis).tolist())},
        low.name: {"thresholds": tuple(_largest(fine, axis).tolist())},
    }


def _feature_thresholds(
    model: Model, pair: Pair, high: Node, low: Node
) -> dict[str, dict[str, Attribute]]:
    """Return the thresholds of a split feature and of what is sampled from it."""
    requantize = model.producers.get(high.inputs[0])
    source = None if requantize is None else quantizer(model, requantize.inputs[0])
    given = None if source is None else attributes_of(source)
    held = attributes_of(high) if given is None or given.thresholds is None else given
    assert held.thresholds is not None
    whole: dict[str, Attribute] = {"thresholds": tuple(held.thresholds.tolist())}
    if held.asymmetric:
        whole["asymmetric"] = 1
    step = affine(held.thresholds, INT8, asymmetric=held.asymmetric).scale
    rest: dict[str, Attribute] = {"thresholds": tuple((step / np.float32(2)).tolist())}
    found = {high.name: whole, low.name: rest}
    behind = output_quantizer(model, pair.high)
    if behind is not None and samples_nearest(model, pair.high):
        found[behind.name] = whole
    behind = output_quantizer(model, pair.low)
    if behind is not None and samples(model, pair.low):
        found[behind.name] = rest
    return found
