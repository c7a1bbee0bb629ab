"""Where numbers end: the first operators that give out NaN or infinity for finite inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from jptq.diagnosis.walk import Walk, as_float
from jptq.engine.runner import Runner
from jptq.quant.assign import Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Broken:
    """An operator that only quantization makes give out NaN or infinity.

    Attributes:
      node: Its name.
      op: Operator type.
      tensor: Its output.
      count: Elements that are lost.
      elements: Elements of the tensor.
    """

    node: str
    op: str
    tensor: str
    count: int
    elements: int

    @property
    def share(self) -> float:
        """Share of the tensor's elements."""
        return self.count / self.elements


def first_broken(
    runner: Runner, table: Table, feeds: Mapping[str, np.ndarray]
) -> tuple[Broken, ...]:
    """Return the operators whose output is not finite though all that they read is.

    Elements that the float network makes NaN or infinite too do not count: a mask is no fault.

    Args:
      runner: Of a calibrated graph.
      table: What is quantized and how.
      feeds: Samples ``[S, ...]``.

    Returns:
      In graph order; what such an operator spoils behind it is left out.
    """
    model = runner.model
    walk, lost = Walk.of(runner), dict[str, tuple[int, int]]()
    floats: Mapping[str, np.ndarray] = {}
    for index, values in walk([as_float(runner, table), runner.pack(table)], feeds):
        if index == 0:
            floats = {name: np.isfinite(np.asarray(value)) for name, value in values.items()}
            continue
        for name, value in values.items():
            broken = ~np.isfinite(np.asarray(value)) & floats[name]
            if broken.any():
                lost[name] = int(broken.sum()), broken.size
    behind = {n.outputs[0]: n.inputs[0] for n in model.nodes if n.is_calibration}
    found = []
    for node, name in zip(walk.nodes, walk.tensors, strict=True):
        if name not in lost:
            continue
        producer = model.producers[name]
        if any(behind.get(read, read) in lost for read in producer.reads):
            continue
        count, elements = lost[name]
        found.append(Broken(node=node, op=producer.op, tensor=name, count=count, elements=elements))
    return tuple(found)
