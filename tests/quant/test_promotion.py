from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import pytest

from jptq.engine import Batching, Runner
from jptq.quant.assign import promote, table, uniform
from jptq.quant.calibrated import plan_of
from jptq.quant.config import load_config
from jptq.quant.resolve import resolve
from tests.agreements import max_thresholds
from tests.graphs import Graph, feeds_for
from tests.quant.networks import TARGET, attention, branches, placed


@pytest.mark.parametrize("network", [attention, branches])
def test_promoting_every_node_equals_a_model_built_for_int16(network: Callable[[], Graph]) -> None:
    graph = network()
    model = placed(graph)
    plan = plan_of(model, TARGET)
    feeds = feeds_for(graph.proto())
    thresholds = max_thresholds(model, plan, [feeds])
    int8 = uniform(plan, "int8")
    promoted = promote(int8, plan, {slots.node: "int16" for slots in plan.slots})
    config = load_config({"model_config": {"all_node_type": "int16"}})
    built = resolve(config, model, plan, TARGET)
    assert promoted == built != int8
    tables = [table(plan, thresholds, assignment) for assignment in (promoted, built)]
    jax.tree.map(np.testing.assert_array_equal, *tables)
    runner = Runner(model, feeds, plan=plan, batching=Batching(samples=1))
    stacked = {name: array[None] for name, array in feeds.items()}
    first, second = (runner.run(runner.pack(t), stacked) for t in tables)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    other = runner.run(runner.pack(table(plan, thresholds, int8)), stacked)
    assert all((np.asarray(first[name]) != np.asarray(other[name])).any() for name in first)
