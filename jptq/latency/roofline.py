"""Modelled times: for each node the slowest of compute, vector work and memory, plus overhead.

    time = max(MACs / MAC rate, vector work / vector rate, bytes / bandwidth) + overhead

Rates depend on the types of the operands, bytes on the types of the tensors. The figures are
estimates from public facts and assumptions; `LatencyTable.constants` says which is which.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

from jptq.ir.model import Model, Node
from jptq.latency.traffic import WIDE_BYTES, Shape, Stream, Traffic
from jptq.ops import Cost, Kind
from jptq.quant.plan import Plan
from jptq.quant.structure import structure_of
from jptq.results import Boundary, LatencyTable, NodeTime
from jptq.results.latency import CANDIDATES
from jptq.targets import Target

INT8, INT16, DUAL_INT16, FLOAT32 = CANDIDATES

RELABELS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
"""Views that give the same memory another shape: the compiler removes them (hmct-spec 6.3)."""

RESIDENT_SHARE = 0.5
"""Share of the on-chip memory that one tensor may take to stay there."""

_IDLE = Cost()
_FEATURE_BYTES = {INT8: 1, INT16: 2, DUAL_INT16: 2, FLOAT32: 4}
_SECOND_BYTES = {INT8: 1, INT16: 1, DUAL_INT16: 2, FLOAT32: 4}

_DEPENDS = {
    "compute": ("peak_int8_tops", "cores"),
    "vector": ("vector_gops",),
    "memory": ("ddr_gbytes_s", "ddr_share", "on_chip_bytes"),
    "overhead": (),
}
_FACTORS = {
    ("compute", INT16): "int16_factor",
    ("compute", DUAL_INT16): "dual_int16_factor",
    ("vector", INT16): "int16_vector_factor",
    ("vector", DUAL_INT16): "int16_vector_factor",
}


def model_latency(
    model: Model, plan: Plan, shapes: Mapping[str, Shape], target: Target
) -> LatencyTable:
    """Return the modelled time of every node under every candidate.

    An operator with a quantizer on an input runs on the accelerator; one without, that is neither
    a view nor fused, runs in float32 on the host CPU. What is fused into a matrix product costs
    the traffic of its other operand only. A tensor that takes at most `RESIDENT_SHARE` of the
    on-chip memory makes no traffic, unless it is constant, a graph input or a graph output.

    Args:
      model: A calibrated graph.
      plan: Its quantizers.
      shapes: ``{tensor: concrete shape}``; constants and quantizers' outputs may be left out.
      target: What is known of the accelerator. One core is modelled.

    Raises:
      ShapeError: A shape is missing.
      UnsupportedOpError: An operator is unknown.
    """
    structure = structure_of(model, epilogues=target.operands.epilogues)
    traffic = Traffic(structure, plan, shapes)
    clock = _Clock(traffic, target)
    nodes, boundaries = [], []
    for node in model.operators():
        nodes.append(clock.node(node))
        boundaries.extend(clock.boundaries(node))
    return LatencyTable(
        target=target.march,
        nodes=tuple(nodes),
        boundaries=tuple(boundaries),
        constants={
            **target.constants(),
            "resident_share": (RESIDENT_SHARE, "assumed: a node's input and output share it"),
        },
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Work:
    """What a node does on the accelerator."""

    cost: Cost
    streams: tuple[Stream, ...]
    overhead_us: float


class _Clock:
    """Times nodes on a target."""

    def __init__(self, traffic: Traffic, target: Target) -> None:
        self._traffic = traffic
        self._target = target
        self._assumed = {*target.assumed(), "resident_share"}

    def node(self, node: Node) -> NodeTime:
        """Return the times of a node."""
        _, second = self._traffic.operands(node)
        kind = self._traffic.structure.traits(node).kind
        if kind is Kind.SHAPE_ONLY or node.op in RELABELS:
            return self._row(node, dict.fromkeys(CANDIDATES, 0.0), source="fused")
        cost = self._cost(node)
        streams = (*self._traffic.read(node), *self._traffic.written(node))
        size = sum(s.elements * _width(s, INT8) for s in streams)
        if self._on_host(node):
            times = dict.fromkeys(CANDIDATES, self._host_us(cost))
            return self._row(
                node, times, cost=cost, size=size, assumed=("cpu_gflops", "cpu_overhead_us")
            )
        work = self._work(node)
        candidates = (INT8, INT16, DUAL_INT16) if second else (INT8, INT16)
        times, depends = {}, set()
        for candidate in candidates:
            limits = self._limits(work, candidate)
            times[candidate] = max(limits.values()) + work.overhead_us
            limit = max(limits, key=limits.__getitem__)
            if limits[limit] > 0:
                depends |= {*_DEPENDS[limit], _FACTORS.get((limit, candidate), "")}
        times[FLOAT32] = max(self._host_us(cost), *times.values())
        limits = {**self._limits(work, INT8), "overhead": work.overhead_us}
        if any(stream.resident for stream in streams):
            depends |= {"on_chip_bytes", "resident_share"}
        if work.overhead_us:
            depends.add("node_overhead_us")
        fused = self._is_fused(node)
        return self._row(
            node,
            times,
            cost=_IDLE if fused else cost,
            size=size,
            source="fused" if fused else "modelled",
            limit=max(limits, key=limits.__getitem__) if times[INT8] > 0 else "",
            assumed=sorted(depends & self._assumed),
        )

    def boundaries(self, node: Node) -> list[Boundary]:
        """Return what it costs a node to write a wider type than it computes in."""
        first, second = self._traffic.operands(node)
        free = node.op in RELABELS or self._is_fused(node) or self._on_host(node)
        if not first or free:
            return []
        operands = (*first, *second)
        work = self._work(node)
        narrow = max(self._limits(work, INT8).values())
        found = []
        for output in self._traffic.written(node):
            if output.calibration is None or output.calibration in operands:
                continue
            wide = max(self._limits(work, INT8, wider=output.tensor).values())
            if wide > narrow:
                found.append(
                    Boundary(first=operands, second=output.calibration, time_us=wide - narrow)
                )
        return found

    def _work(self, node: Node) -> _Work:
        """Return the work of a node; a fused one only reads its other operand."""
        read = tuple(self._traffic.read(node))
        if self._is_fused(node):
            return _Work(cost=_IDLE, streams=read, overhead_us=0.0)
        return _Work(
            cost=self._cost(node),
            streams=(*read, *self._traffic.written(node)),
            overhead_us=self._target.node_overhead_us.value,
        )

    def _limits(self, work: _Work, candidate: str, *, wider: str = "") -> dict[str, float]:
        """Return the microseconds of each resource; the output `wider` is int16."""
        target = self._target
        macs_factor = {
            INT8: 1.0,
            INT16: target.int16_factor.value,
            DUAL_INT16: target.dual_int16_factor.value,
        }[candidate]
        vector_factor = 1.0 if candidate == INT8 else target.int16_vector_factor.value
        resident = target.on_chip_bytes.value * RESIDENT_SHARE
        moved = 0
        for stream in work.streams:
            wide = stream.role == "output" and stream.tensor == wider
            size = stream.elements * _width(stream, INT16 if wide else candidate)
            if not stream.resident or size > resident:
                moved += size
        return {
            "compute": work.cost.macs * macs_factor / target.macs_per_us,
            "vector": work.cost.vector * vector_factor / (target.vector_gops.value * 1e3),
            "memory": moved / target.bytes_per_us,
        }

    def _host_us(self, cost: Cost) -> float:
        operations = 2 * cost.macs + cost.vector
        return operations / (self._target.cpu_gflops.value * 1e3) + (
            self._target.cpu_overhead_us.value
        )

    def _cost(self, node: Node) -> Cost:
        entry = self._traffic.structure.operators[node.name]
        output = self._traffic.shape(next(filter(None, node.outputs), ""))
        if entry.cost is not None:
            inputs = [self._traffic.shape(name) for name in node.inputs]
            return entry.cost(*inputs, output, **node.attributes)
        return Cost(vector=0 if entry.traits.kind is Kind.VIEW else math.prod(output))

    def _is_fused(self, node: Node) -> bool:
        return any(tensor in self._traffic.structure.inner for tensor in node.inputs)

    def _on_host(self, node: Node) -> bool:
        kind = self._traffic.structure.traits(node).kind
        if kind is Kind.FLOAT_ONLY:
            return True
        first, second = self._traffic.operands(node)
        return kind is Kind.COMPUTE and not (first or second) and not self._is_fused(node)

    def _row(
        self,
        node: Node,
        times: Mapping[str, float],
        *,
        cost: Cost = _IDLE,
        size: int = 0,
        source: str = "modelled",
        limit: str = "",
        assumed: Iterable[str] = (),
    ) -> NodeTime:
        first, second = self._traffic.operands(node)
        return NodeTime(
            node=node.name,
            op=node.op,
            first=first,
            second=second,
            macs=cost.macs,
            bytes=size,
            time_us=dict(times),
            source=source,
            limit=limit,
            assumed=tuple(assumed),
        )


def _width(stream: Stream, candidate: str) -> int:
    if stream.role == "wide":
        return WIDE_BYTES
    return (_SECOND_BYTES if stream.role == "second" else _FEATURE_BYTES)[candidate]
