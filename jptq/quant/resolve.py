"""From what a configuration asks of nodes to the type of every quantizer."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable

from jptq.errors import ConfigError, UnknownNameError
from jptq.ir.model import Model
from jptq.ir.paths import between
from jptq.numerics.qtypes import DUAL_INT16, INT16
from jptq.quant.assign import Assignment, accepted, finest
from jptq.quant.config import Config, NodeTypes, Subgraph
from jptq.quant.plan import Plan
from jptq.targets import Target

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ask:
    """What one operand wants of the quantizer that it reads.

    Attributes:
      explicit: It was named; a default gives way to it.
      qtype: The type.
      dual: It is the second operand of a ``dual-int16`` node.
    """

    explicit: bool
    qtype: str
    dual: bool = False


def resolve(config: Config, model: Model, plan: Plan, target: Target) -> Assignment:
    """Return the type of every quantizer under a configuration.

    A node's type comes from the most particular level that names it: node, subgraph, operator,
    model. A quantizer that several operands share follows those that are named before those that
    take the default, and then the finest type asked for. A type that the operand does not accept
    becomes the finest coarser one that it does (hmct-spec 4.1: int8 weights stay int8).

    Args:
      config: What is asked.
      model: The calibrated model, or the float one: only names and paths are read.
      plan: Its quantizers.
      target: Knows which operators can be ``dual-int16``.

    Returns:
      ``{calibration: type}`` of the whole plan.

    Raises:
      UnknownNameError: A node does not exist.
      ConfigError: A type, an input or a path is impossible.
    """
    _check(config, model, target)
    named = _named(config, model)
    asks: dict[str, list[_Ask]] = {calibration.name: [] for calibration in plan.calibrations}
    for slots in plan.slots:
        entry = named.get(slots.node)
        for index, name in slots.inputs.items():
            asks[name].append(_input_ask(config, entry, index))
        if slots.output is not None:
            asks[slots.output].append(_output_ask(config, entry))
    out = {}
    for calibration in plan.calibrations:
        found = asks[calibration.name] or [_Ask(explicit=False, qtype=config.all_node_type)]
        first = [ask for ask in found if ask.explicit] or found
        out[calibration.name] = finest(
            accepted(calibration, ask.qtype, dual=ask.dual) for ask in first
        )
    return out


def _input_ask(config: Config, entry: NodeTypes | None, index: int) -> _Ask:
    if entry is None:
        return _Ask(explicit=False, qtype=config.all_node_type)
    if index in entry.inputs:
        return _Ask(explicit=True, qtype=entry.inputs[index])
    if entry.qtype is None:
        return _Ask(explicit=False, qtype=config.all_node_type)
    if entry.qtype == DUAL_INT16:
        return _Ask(explicit=True, qtype=INT16.name, dual=True)
    return _Ask(explicit=True, qtype=entry.qtype)


def _output_ask(config: Config, entry: NodeTypes | None) -> _Ask:
    if entry is not None and entry.qtype is not None:
        qtype = INT16.name if entry.qtype == DUAL_INT16 else entry.qtype
        return _Ask(explicit=True, qtype=qtype)
    if config.model_output_type is not None:
        return _Ask(explicit=True, qtype=config.model_output_type)
    return _Ask(explicit=False, qtype=config.all_node_type)


def _named(config: Config, model: Model) -> dict[str, NodeTypes]:
    """Return what the levels below the model say of each node, the most particular one winning."""
    out: dict[str, NodeTypes] = {}
    for node in model.operators():
        if node.op in config.ops:
            out[node.name] = NodeTypes(qtype=config.ops[node.op])
    for subgraph in config.subgraphs.values():
        for name in between(model, subgraph.inputs, subgraph.outputs):
            out[name] = NodeTypes(qtype=subgraph.qtype)
    for name, entry in config.nodes.items():
        base = out.get(name, NodeTypes())
        out[name] = NodeTypes(qtype=entry.qtype or base.qtype, inputs=entry.inputs)
    return out


def _check(config: Config, model: Model, target: Target) -> None:
    """Refuse names that do not exist and types that an operator cannot have."""
    nodes = {node.name: node for node in model.operators()}
    present = {node.op for node in nodes.values()}
    duals = set(target.operands.dual_ops)
    for op_type, qtype in config.ops.items():
        if op_type not in present:
            # The vendor's own published configurations name types that are not there.
            _logger.warning("op_config names %s, which the model does not have", op_type)
        if qtype == DUAL_INT16 and op_type not in duals:
            raise _not_dual(op_type, duals, where=f"{config.where}: op_config.{op_type}")
    for key, subgraph in config.subgraphs.items():
        where = f"{config.where}: subgraph_config.{key}"
        for name in (*subgraph.inputs, *subgraph.outputs):
            if name not in nodes:
                raise UnknownNameError("node", name, nodes, where=where)
        _check_paths(model, subgraph, where=where)
    for name, entry in config.nodes.items():
        where = f"{config.where}: node_config.{name}"
        if name not in nodes:
            raise UnknownNameError("node", name, nodes, where=where)
        if entry.qtype == DUAL_INT16 and nodes[name].op not in duals:
            raise _not_dual(nodes[name].op, duals, where=where)
        for index in entry.inputs:
            if index >= len(nodes[name].inputs):
                raise ConfigError(
                    f"there is no input {index}",
                    where=where,
                    why=f"the node has {len(nodes[name].inputs)}",
                )


def _check_paths(model: Model, subgraph: Subgraph, *, where: str) -> None:
    for name in subgraph.inputs:
        if not between(model, (name,), subgraph.outputs):
            raise ConfigError(f"no path leads from {name!r} to the outputs", where=where)
    for name in subgraph.outputs:
        if not between(model, subgraph.inputs, (name,)):
            raise ConfigError(f"no path leads from the inputs to {name!r}", where=where)


def _not_dual(op_type: str, duals: Iterable[str], *, where: str) -> ConfigError:
    return ConfigError(
        f"{op_type} has no {DUAL_INT16}",
        where=where,
        hint=f"only {', '.join(sorted(duals))} multiply two int16 operands; use int16",
    )
