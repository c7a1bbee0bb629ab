"""The compiled networks of a process: executors and the debugger run on the same ones.

Precision, thresholds and weights are data to a compiled program. Models that differ in nothing
else share one, so that a script which edits a model and looks again compiles nothing.
"""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np

from jptq import ir
from jptq.engine import Batching, Runner
from jptq.ir import Model, Node
from jptq.quant.plan import Plan

_KEPT = 4
"""Networks that stay in memory: a script compares a few, each holds its weights."""

Feeds = Mapping[str, np.ndarray]


class Engines:
    """Compiled networks, the least recently used ones forgotten."""

    def __init__(self) -> None:
        self._compiled: OrderedDict[str, list[Runner]] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of network structures that are kept."""
        return len(self._compiled)

    def runner(
        self,
        model: Model,
        example: Feeds,
        *,
        plan: Plan | None,
        batching: Batching | None = None,
        floats: Feeds | None = None,
    ) -> Runner:
        """Return a runner of a model, over programs that exist if any fit; arguments as `Runner`.

        Raises:
          ModelError: The graph cannot be lowered.
        """
        key = _structure(model, plan, example, batching)
        found = self._compiled.setdefault(key, [])
        self._compiled.move_to_end(key)
        floats = dict(floats or {})
        for runner in found:
            changed = _changed(runner, model, example)
            if changed is None:
                continue
            if not changed and _same(floats, runner.floats):
                return runner
            return runner.sharing(model, plan=plan, changed=changed, floats=floats)
        runner = Runner(model, example, plan=plan, batching=batching, floats=floats)
        found.append(runner)
        while len(self._compiled) > _KEPT:
            self._compiled.popitem(last=False)
        del found[:-_KEPT]
        return runner


@functools.cache
def engines() -> Engines:
    """Return the compiled networks of this process."""
    return Engines()


def _structure(model: Model, plan: Plan | None, example: Feeds, batching: Batching | None) -> str:
    """Return a digest of all that a compiled program depends on but the values of constants."""
    parts = [
        repr(sorted((name, array.shape, str(array.dtype)) for name, array in example.items())),
        repr((model.output_names, sorted(model.opsets.items()), batching)),
        *(_shown(node) for node in model.nodes),
        repr(sorted((name, str(a.dtype), a.shape) for name, a in model.initializers.items())),
    ]
    if plan is not None:
        parts.append(repr([(c.name, c.axis, c.channels) for c in plan.calibrations]))
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _shown(node: Node) -> str:
    attributes = {} if node.is_calibration else node.attributes
    values = {
        key: (value.dtype, value.shape, value.tobytes())
        if isinstance(value, np.ndarray)
        else ir.to_bytes(value)
        if isinstance(value, Model)
        else value
        for key, value in sorted(attributes.items())
    }
    return repr((node.name, node.domain, node.op, node.inputs, node.outputs, values))


def _changed(runner: Runner, model: Model, example: Feeds) -> dict[str, np.ndarray] | None:
    """Return the weights that differ; None if what differs is part of the program."""
    if runner.program.other_static(example):
        return None
    own = runner.model.initializers
    changed = {n: a for n, a in model.initializers.items() if not _equal(own[n], a)}
    return changed if changed.keys() <= runner.replaceable else None


def _same(a: Feeds, b: Feeds) -> bool:
    return a.keys() == b.keys() and all(_equal(a[name], b[name]) for name in a)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    if a is b or a.dtype == np.object_:
        return a is b or np.array_equal(a, b)
    return a.tobytes() == b.tobytes()  # NaN is equal to itself here
