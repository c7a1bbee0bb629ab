"""From what a configuration asks of nodes to the type of every quantizer."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence

from jptq.errors import ConfigError, UnknownNameError
from jptq.ir.fused import unknown_node
from jptq.ir.model import Model
from jptq.ir.paths import between
from jptq.numerics.qtypes import DUAL_INT16
from jptq.quant.asks import DEFAULT, OUTPUT, Ask, asks_of
from jptq.quant.assign import Assignment, accepted, finest
from jptq.quant.compensate import compensations
from jptq.quant.config import EC, INT16_EC, Config, Subgraph
from jptq.quant.config_keys import unknown
from jptq.quant.explain import Outcome, outcomes, refusals
from jptq.quant.pairs import LOW
from jptq.quant.plan import Plan
from jptq.quant.shortened import in_full
from jptq.targets import Target

_logger = logging.getLogger(__name__)


def resolve(
    config: Config, model: Model, plan: Plan, target: Target, *, report: bool = True
) -> Assignment:
    """Return the type of every quantizer under a configuration.

    A node's type comes from the most particular level that names it: node, subgraph, operator,
    model. A quantizer that several operands share follows those that are named before those that
    take the default, and then the finest type asked for. A type that the operand does not accept
    becomes the finest coarser one that it does (hmct-spec 4.1: int8 weights stay int8). What is
    not applied as asked is logged, one warning for each kind of reason.

    Args:
      config: What is asked.
      model: The calibrated model, or the float one: only names and paths are read. Error
        compensation has been written into it.
      plan: Its quantizers.
      target: Knows which operators can be ``dual-int16``.
      report: Log what is not applied; off where the same configuration is resolved many times.

    Returns:
      ``{calibration: type}`` of the whole plan.

    Raises:
      UnknownNameError: A node does not exist.
      ConfigError: A type, an input or a path is impossible; or error compensation is asked for
        that the model does not have.
    """
    asks, assignment = _resolved(config, model, plan.unpinned, target, report=report)
    _refuse_unsplit(config, model, target)
    if report:
        for line in refusals(outcomes(config, model, plan, target, asks, assignment)):
            _logger.warning("%s%s", f"{config.where}: " if config.where else "", line)
    return assignment


def explain(config: Config, model: Model, plan: Plan, target: Target) -> tuple[Outcome, ...]:
    """Return what becomes of every operand under a configuration; arguments as `resolve`."""
    asks, assignment = _resolved(config, model, plan.unpinned, target, report=True)
    return outcomes(config, model, plan, target, asks, assignment)


def pins(config: Config, model: Model, plan: Plan, target: Target) -> dict[str, str]:
    """Return what a search has to leave alone: the types that a configuration names for nodes.

    Those are the types that ``node_config``, ``subgraph_config``, ``op_config`` and
    ``model_output_type`` give; ``all_node_type`` names none. Arguments as `resolve`.

    Returns:
      ``{calibration: type}``.
    """
    asks, assignment = _resolved(config, model, plan.unpinned, target, report=False)
    # A compensated operand is int8 by its nature, not by a choice.
    named = {ask.calibration for ask in asks if ask.explicit and ask.asked != EC}
    # The output of a node of which single inputs are named takes the type that they leave it.
    owned = {ask.node for ask in asks if ask.own}
    named |= {ask.calibration for ask in asks if ask.slot == OUTPUT and ask.node in owned}
    return {name: kind for name, kind in assignment.items() if name in named}


def _resolved(
    config: Config, model: Model, plan: Plan, target: Target, *, report: bool
) -> tuple[tuple[Ask, ...], dict[str, str]]:
    level = logging.WARNING if report else logging.DEBUG
    if config.march not in (None, target.march):
        _logger.log(level, "%s is for %s, not %s", config.where, config.march, target.march)
    config = _matched(in_full(config, model), model, target, level=level)
    _check(config, model, target)
    asks = asks_of(config, model, plan)
    return asks, _decided(config, plan, asks)


def _decided(config: Config, plan: Plan, asks: Sequence[Ask]) -> dict[str, str]:
    by_name: dict[str, list[Ask]] = {calibration.name: [] for calibration in plan.calibrations}
    for ask in asks:
        by_name[ask.calibration].append(ask)
    out = {}
    for calibration in plan.calibrations:
        found = by_name[calibration.name] or [
            Ask(
                node="",
                op="",
                slot=OUTPUT,
                calibration=calibration.name,
                asked=config.all_node_type,
                rule=DEFAULT,
            )
        ]
        out[calibration.name] = finest(
            accepted(calibration, ask.qtype, dual=ask.dual)
            for ask in [ask for ask in found if ask.explicit] or found
        )
    return out


def _refuse_unsplit(config: Config, model: Model, target: Target) -> None:
    """Refuse error compensation that was not built in before the quantizers were placed."""
    for name in compensations(config, model, target):
        if f"{name}{LOW}" not in model.by_name and name in model.by_name:
            raise ConfigError(
                f"ec of {name!r} cannot be built into a calibrated model",
                where=config.where,
                why="it adds an operator, whose quantizers and thresholds only calibration gives",
                hint="give the float model with this quant_config, or leave the ec out",
            )


def _matched(config: Config, model: Model, target: Target, *, level: int) -> Config:
    """Return the configuration without names that do not exist, if these are only to be warned of.

    Raises:
      ConfigError: A name does not exist and is not to be ignored.
    """
    nodes = {node.name: node for node in model.operators()}
    present = {node.op for node in nodes.values()}
    for op_type in config.ops:
        if op_type not in present:
            # The vendor's own published configurations name types that are not there.
            error = UnknownNameError("operator type", op_type, sorted(present))
            hint = f"; {error.hint}" if error.hint else ""
            _logger.log(
                level,
                "%sop_config names %s, which the model does not have%s",
                f"{config.where}: " if config.where else "",
                op_type,
                hint,
            )

    def missing(error: ConfigError) -> None:
        unknown(error, config.unmatched, level=level)

    subgraphs = {}
    for key, subgraph in config.subgraphs.items():
        where = f"{config.where}: subgraph_config.{key}"
        absent = [n for n in (*subgraph.inputs, *subgraph.outputs) if n not in nodes]
        for name in absent:
            missing(_unknown(name, model, target, where=where))
        if not absent:
            subgraphs[key] = subgraph
    entries = {}
    for name, entry in config.nodes.items():
        where = f"{config.where}: node_config.{name}"
        if name not in nodes:
            missing(_unknown(name, model, target, where=where))
            continue
        count = len(nodes[name].inputs)
        beyond = [index for index in entry.inputs if index >= count]
        for index in beyond:
            why = f"the node has {count}"
            missing(ConfigError(f"there is no input {index}", where=where, why=why))
        inputs = {i: qtype for i, qtype in entry.inputs.items() if i not in beyond}
        entries[name] = dataclasses.replace(entry, inputs=inputs)
    return dataclasses.replace(config, subgraphs=subgraphs, nodes=entries)


def _unknown(name: str, model: Model, target: Target, *, where: str) -> ConfigError:
    nodes = model.by_name
    base = name.removesuffix(LOW)
    operands = dict(target.operands.ec_operands)
    if base != name and base in nodes and nodes[base].op in operands:
        return ConfigError(
            f"unknown node {name!r}",
            where=where,
            why=f"only error compensation of {base!r} makes it",
            hint=f'"{base}": {{"input{operands[nodes[base].op]}": "ec"}} in the same node_config',
        )
    operators = [node.name for node in model.operators()]
    return unknown_node(name, model, known=operators, where=where)


def _check(config: Config, model: Model, target: Target) -> None:
    """Refuse types that an operator cannot have and subgraphs without a path."""
    duals = set(target.operands.dual_ops)
    for op_type, entry in config.ops.items():
        if entry.qtype in (DUAL_INT16, INT16_EC) and op_type not in duals:
            where = f"{config.where}: op_config.{op_type}"
            raise _not_a_product(op_type, entry.qtype, duals, where=where)
    for key, subgraph in config.subgraphs.items():
        _check_paths(model, subgraph, where=f"{config.where}: subgraph_config.{key}")
    for name, entry in config.nodes.items():
        where = f"{config.where}: node_config.{name}"
        op_type = model.by_name[name].op
        if entry.qtype in (DUAL_INT16, INT16_EC) and op_type not in duals:
            raise _not_a_product(op_type, entry.qtype, duals, where=where)
        if entry.compensated is not None and not target.ec(op_type, entry.compensated):
            taken = [f"input{index} of {op}" for op, index in target.operands.ec_operands]
            raise ConfigError(
                f"input{entry.compensated} of {op_type} takes no ec",
                where=where,
                hint=f"{target.march} compensates {', '.join(taken) or 'nothing'}",
            )


def _check_paths(model: Model, subgraph: Subgraph, *, where: str) -> None:
    for name in subgraph.inputs:
        if not between(model, (name,), subgraph.outputs):
            raise ConfigError(f"no path leads from {name!r} to the outputs", where=where)
    for name in subgraph.outputs:
        if not between(model, subgraph.inputs, (name,)):
            raise ConfigError(f"no path leads from the inputs to {name!r}", where=where)


def _not_a_product(
    op_type: str, qtype: str | None, products: Iterable[str], *, where: str
) -> ConfigError:
    return ConfigError(
        f"{op_type} has no {qtype}",
        where=where,
        hint=f"only {', '.join(sorted(products))}, which multiply two operands, have; use int16",
    )
