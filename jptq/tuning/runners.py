"""Who gives the runner of a calibrated network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from jptq.engine import Batching, Runner
from jptq.ir import Model
from jptq.quant.plan import Plan

Feeds = Mapping[str, np.ndarray]
"""One sample."""


class MakeRunner(Protocol):
    """What gives the runner of a calibrated network; arguments as `Runner`."""

    def __call__(
        self,
        model: Model,
        example: Feeds,
        /,
        *,
        plan: Plan,
        batching: Batching | None,
        floats: Feeds,
    ) -> Runner:
        """Return a runner."""


def same_programs(runner: Runner, changed: Feeds) -> MakeRunner:
    """Return what gives runners that share a runner's programs where its plan serves them.

    Args:
      runner: Of the placed graph.
      changed: Initializers that take the place of the graph's own.
    """

    def make(
        model: Model,
        example: Feeds,
        /,
        *,
        plan: Plan,
        batching: Batching | None,
        floats: Feeds,
    ) -> Runner:
        if runner.serves(plan):
            return runner.sharing(model, plan=plan, changed=changed, floats=floats)
        return Runner(model, example, plan=plan, batching=batching, floats=floats)

    return make
