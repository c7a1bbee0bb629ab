"""From an assignment to the vendor's quant_config that produces it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jptq.errors import ConfigError
from jptq.ir.model import Model
from jptq.numerics.qtypes import DUAL_INT16, INT16, QTYPES
from jptq.quant.assign import Assignment, accepted, finest
from jptq.quant.config import EC, Activation, Config, Weight, load_config
from jptq.quant.pairs import pairs_of
from jptq.quant.plan import Plan, Slots
from jptq.quant.resolve import resolve
from jptq.targets import Target


def quant_config(
    model: Model,
    plan: Plan,
    target: Target,
    assignment: Assignment,
    *,
    activation: Activation | None = None,
    like: Config | None = None,
) -> dict[str, Any]:
    """Return the shortest configuration of the vendor's form that gives an assignment.

    Every node that reads a quantizer of another type than the default is named, so that the
    configuration means the same to a reader that does not share quantizers between nodes. Operators
    that were split in two (`compensate`) get the ``ec`` that splits them.

    Args:
      model: The calibrated model, or the float one.
      plan: Its quantizers.
      target: Knows which operators can be ``dual-int16``.
      assignment: Of every quantizer.
      activation: How the thresholds of features were found.
      like: What the network was calibrated by: it says what was done to weights, biases and
        outputs, and how single features were searched.

    Returns:
      What `load_config` reads; `resolve` gives the assignment back.

    Raises:
      ConfigError: No configuration gives the assignment (int16 weights of nodes whose features
        are int8, for instance); the quantizers are named.
    """
    plan = plan.unpinned
    candidates = [
        _on_top_of(base, model, plan, target, assignment, _calibration(activation, like))
        for base in QTYPES
    ]
    wrong = [
        _differences(resolve(load_config(one), model, plan, target, report=False), assignment)
        for one in candidates
    ]
    fitting = [one for one, differing in zip(candidates, wrong, strict=True) if not differing]
    if not fitting:
        names = min(wrong, key=len)
        raise ConfigError(
            "no quant_config gives this assignment",
            where=", ".join(names[:8]) + (" ..." if len(names) > 8 else ""),
            why="a configuration sets the types of nodes, not of single quantizers",
        )
    return min(fitting, key=lambda one: len(one.get("node_config", {})))


def _on_top_of(
    base: str,
    model: Model,
    plan: Plan,
    target: Target,
    assignment: Assignment,
    calibration: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the configuration that changes what differs from a uniform assignment."""
    model_config: dict[str, Any] = {}
    if base != "int8":
        model_config["all_node_type"] = base
    model_config |= calibration
    config = load_config({"model_config": model_config})
    default = resolve(config, model, plan, target, report=False)
    split = {pair.high.name: pair.index for pair in pairs_of(model)}
    nodes = {}
    for slots in plan.slots:
        compensated = split.get(slots.node)
        others = {i: name for i, name in slots.inputs.items() if i != compensated}
        rest = dataclasses.replace(slots, inputs=others)
        entry = _entry(rest, plan, target, assignment, default)
        if compensated is not None:
            entry[f"input{compensated}"] = EC
        if entry:
            nodes[slots.node] = entry
    parts = {"model_config": model_config, "node_config": nodes}
    return {key: value for key, value in parts.items() if value}


def _calibration(activation: Activation | None, like: Config | None) -> dict[str, Any]:
    """Return the blocks of ``model_config`` that say how quantizers and thresholds were made."""
    activation, like = activation or Activation(), like or Config()
    # It puts quantizers at the outputs: without it they would not be there.
    output = {"model_output_type": like.model_output_type} if like.model_output_type else {}
    weight: dict[str, Any] = {
        field.name: value
        for field in dataclasses.fields(Weight)
        if (value := getattr(like.weight, field.name)) != field.default
    }
    if like.bias_correction is not None:
        weight["bias_correction"] = dataclasses.asdict(like.bias_correction)
    search: dict[str, Any] = {}
    if like.layerwise is not None:
        # The types that it raised are among those of the nodes.
        block = dataclasses.asdict(like.layerwise) | {"qtype": None}
        search["layer"] = {key: value for key, value in block.items() if value is not None}
    parts = {"activation": activation.to_json(), "weight": weight, "search": search}
    return output | {key: value for key, value in parts.items() if value}


def _entry(
    slots: Slots, plan: Plan, target: Target, assignment: Assignment, default: Assignment
) -> dict[str, str]:
    """Return what to say of one node, nothing if its inputs take the default."""
    own = tuple(filter(None, (*slots.calibrations, slots.output)))
    if all(assignment[name] == default[name] for name in own):
        return {}
    duals = (DUAL_INT16,) if slots.op in target.operands.dual_ops else ()
    entries = [_under(qtype, slots, plan, assignment) for qtype in (*QTYPES, *duals)]
    whole = [entry for entry in entries if entry is not None]
    single = {
        f"input{index}": assignment[name]
        for index, name in slots.inputs.items()
        if assignment[name] != default[name] and _takes(plan, name, assignment[name])
    }
    # What single inputs cannot say here is said at another node that shares the quantizer.
    covered = {slots.inputs[int(key.removeprefix("input"))] for key in single}
    if all(assignment[name] == default[name] or name in covered for name in own):
        whole.append(single)
    return min(whole, key=len, default=single)


def _under(
    candidate: str, slots: Slots, plan: Plan, assignment: Assignment
) -> dict[str, str] | None:
    """Return a ``qtype`` entry with the inputs that depart from it, None if that is not enough."""
    dual = candidate == DUAL_INT16
    asked = INT16.name if dual else candidate

    def follows(name: str) -> bool:
        taken = accepted(plan.calibration(name), asked, dual=dual)
        # An operand may be left behind by what is asked of its node, but not run ahead of it.
        return taken == assignment[name] and finest((taken, asked)) == asked

    if slots.output is not None and not follows(slots.output):
        return None
    departing = {i: assignment[name] for i, name in slots.inputs.items() if not follows(name)}
    if not all(_takes(plan, slots.inputs[i], wanted) for i, wanted in departing.items()):
        return None
    return {"qtype": candidate, **{f"input{i}": wanted for i, wanted in departing.items()}}


def _takes(plan: Plan, name: str, wanted: str) -> bool:
    """Tell whether asking one input for a type gives that type."""
    return accepted(plan.calibration(name), wanted) == wanted


def _differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    return [name for name in wanted if found[name] != wanted[name]]
