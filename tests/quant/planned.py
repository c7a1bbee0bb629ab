"""Networks with quantizers and their plans, made once."""

from __future__ import annotations

import functools

from jptq.ir.model import Model
from jptq.quant.calibrated import plan_of
from jptq.quant.compensate import compensate
from jptq.quant.placement import place
from jptq.quant.plan import Plan
from tests.quant.networks import TARGET, attention, branches, float_model, floats_of, placed

NAMES = ("attention", "branches", "compensated")


@functools.cache
def network(name: str) -> tuple[Model, Plan]:
    """Return a network of `NAMES`; ``compensated`` is ``branches`` with two split operators."""
    if name == "compensated":
        graph = branches()
        split = compensate(float_model(graph), {"head": 1, "resize": 0}, TARGET)
        floats = floats_of(graph.proto()) | set(split.producers) | set(split.initializers)
        model = place(split, TARGET, floats=floats)
    else:
        model = placed({"attention": attention, "branches": branches}[name]())
    return model, plan_of(model, TARGET)
