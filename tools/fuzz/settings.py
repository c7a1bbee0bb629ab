"""What a case is quantized with: compensated operators, thresholds, types."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jptq.engine import lower
from jptq.errors import ConfigError, ModelError
from jptq.ir import Model
from jptq.quant.assign import promote, uniform
from jptq.quant.calibrated import with_thresholds
from jptq.quant.compensate import compensate
from jptq.quant.placement import place
from jptq.quant.plan import Plan
from jptq.targets import load_target
from tools.fuzz.builder import FLOAT
from tools.fuzz.draw import Draw

TARGET = load_target("nash-e")
Arrays = Mapping[str, np.ndarray]


class NothingToQuantizeError(Exception):
    """No operator of a case is one that the target quantizes."""


def placed(model: Model, example: Arrays, everywhere: bool) -> tuple[Model, list[str]]:
    """Return a network with quantizers, and the float tensors that its operators compute."""
    program = lower(model, example)
    floats = {name for name, dtype in program.dtypes.items() if dtype == FLOAT}
    try:
        placed = place(model, TARGET, floats=floats, quantize_outputs=everywhere)
    except ModelError as error:
        if "nothing in the model" in error.what:
            raise NothingToQuantizeError from error
        raise
    if not program.inputs:
        raise NothingToQuantizeError
    computed = {name for step in program.steps for name in step.outputs if name}
    found = {name for name in (*computed, *program.inputs) if name in floats}
    # A quantizer that gives out a graph output takes its name.
    found |= {n.inputs[0] for n in placed.nodes if n.is_calibration and n.outputs[0] in found}
    found -= {n.outputs[0] for n in placed.nodes if n.is_calibration}
    places = {name: i for i, node in enumerate(placed.nodes) for name in node.outputs}
    return placed, sorted(found, key=lambda name: (places.get(name, -1), name))


def seen(model: Model, tensor: str, known: Arrays) -> str:
    """Return the known tensor whose value one has in float; "" for a constant.

    Quantizers pass their tensor in float, and so does the vendor's HzRequantize.
    """
    while tensor not in known:
        node = model.producers.get(tensor)
        if node is None:
            return ""
        tensor = node.inputs[0]
    return tensor


def compensated(model: Model, draw: Draw) -> Model:
    """Return the network, now and then with some operators split in two."""
    asked = {}
    for node in model.nodes:
        ways = [i for i in range(min(2, len(node.inputs))) if TARGET.ec(node.op, i)]
        if ways and draw.chance(0.25):
            asked[node.name] = draw.pick(ways)
    for name, index in asked.items():
        try:
            model = compensate(model, {name: index}, TARGET)
        except ConfigError:
            continue  # a constant that has no weight's grid
    return model


def calibrated(placed: Model, features: Arrays, draw: Draw) -> Model:
    """Return the network with thresholds: of ranges, of channels, too small and too large ones."""
    thresholds: dict[str, np.ndarray] = {}
    asymmetric, axes = [], {}
    for node in placed.nodes:
        if not node.is_calibration:
            continue
        values = features.get(node.name)
        share = np.float32(draw.pick([1.0, 1.0, 0.6, 1.3]))
        if values is None:
            constant = np.abs(placed.initializers[node.inputs[0]])
            axis = node.attributes.get("axis")
            kept = () if not isinstance(axis, int) else (axis % constant.ndim,)
            others = tuple(i for i in range(constant.ndim) if i not in kept)
            found = constant.max(axis=others, initial=0.0)
        elif draw.chance(0.25):
            asymmetric.append(node.name)
            found = np.asarray([values.min(initial=0), values.max(initial=0)], np.float32)
        elif values.ndim > 2 and values.shape[2] > 1 and draw.chance(0.15):
            axes[node.name] = 1
            others = tuple(i for i in range(values.ndim) if i != 2)
            found = np.abs(values).max(axis=others, initial=0.0)
        else:
            found = np.abs(values).max(initial=0.0)
        found = np.reshape(found, -1).astype(np.float32) * share
        empty = np.abs(found).max() == 0 if node.name in asymmetric else found == 0
        thresholds[node.name] = np.where(empty, np.float32(1), found).astype(np.float32)
    return with_thresholds(placed, thresholds, asymmetric=asymmetric, axes=axes)


def assignments(plan: Plan, draw: Draw, runs: int) -> list[dict[str, str]]:
    """Return all INT8, all INT16, and mixtures of what the target allows."""
    found = [uniform(plan, "int8"), uniform(plan, "int16")]
    while len(found) < runs:
        mixed = {}
        for one in plan.calibrations:
            mixed[one.name] = draw.pick([*one.choices, "float32"])
        dual = [slots.node for slots in plan.slots if slots.op in TARGET.operands.dual_ops]
        raised = {node: "dual-int16" for node in dual if draw.chance(0.3)}
        found.append(promote(mixed, plan, raised))
    return found[:runs]
