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
