"""The graph that a seed means."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from tools.fuzz import oracle
from tools.fuzz.builder import FLOAT, Builder, Rejected, Value
from tools.fuzz.catalogue import OPERATORS, Operator
from tools.fuzz.draw import Draw

OPSETS = tuple(range(7, 24))
SAMPLES = 3
_TRIES = 60
_LONG = 0.05
"""Share of networks among the graphs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A graph, its feeds and what they give.

    Attributes:
      name: Says which one it is.
      model: Its inputs are fed, its constants known.
      samples: Feeds.
      expected: Every output, per sample.
      long: It is a network.
    """

    name: str
    model: onnx.ModelProto
    samples: Sequence[Mapping[str, np.ndarray]]
    expected: Sequence[Mapping[str, np.ndarray]]
    long: bool = False

    @property
    def content(self) -> bytes:
        """The file."""
        return bytes(self.model.SerializeToString())

    @property
    def opset(self) -> int:
        """Version of ONNX's operators."""
        return next(int(one.version) for one in self.model.opset_import if not one.domain)


def case_of(seed: int, index: int) -> Case:
    """Return graph ``index`` of a seed: a network, or one operator."""
    return network(seed, index) if Draw(seed, index, 0).chance(_LONG) else single(seed, index)


def single(seed: int, index: int) -> Case:
    """Return a graph about one operator."""
    for attempt in range(_TRIES):
        draw = Draw(seed, index, 1, attempt)
        entry = draw.pick(list(OPERATORS.values()))
        first = min(map(_first, entry.ops))
        b = Builder(draw, draw.pick([opset for opset in OPSETS if opset >= first]))
        try:
            outputs = entry.add(b, _start(b, entry))
            return finished(b, outputs, f"{seed}:{index} {entry.name}")
        except (Rejected, oracle.Refused):
            continue
    raise AssertionError(f"no graph for seed {seed}, index {index}")


def network(seed: int, index: int) -> Case:
    """Return a graph of 30 to 60 nodes."""
    for attempt in range(_TRIES):
        try:
            return _network(Draw(seed, index, 2, attempt), f"{seed}:{index} network")
        except oracle.Refused:  # what runs node by node may contradict ONNX's shapes as a whole
            continue
    raise AssertionError(f"no network for seed {seed}, index {index}")


def _network(draw: Draw, name: str) -> Case:
    b = Builder(draw, draw.pick(OPSETS), tame=True)
    entries = [entry for entry in OPERATORS.values() if entry.weight > 0]
    weights = [entry.weight for entry in entries]
    lengths = draw.integer(1, 2), draw.integer(2, 6), draw.integer(4, 7), draw.integer(4, 7)
    start = b.input(lengths if draw.chance(0.7) else lengths[:1] + lengths[2:])
    recent: list[Value] = [start]
    size = draw.integer(30, 60)
    for _ in range(8 * size):
        if sum(node.op_type != "Constant" for node in b.nodes) >= size:
            break
        entry = draw.weighted(entries, weights)
        pool = [value for value in recent if entry.takes(value)]
        if not pool:
            continue
        before = _snapshot(b)
        try:
            made = list(entry.add(b, draw.pick(pool[-4:])))
        except Rejected:
            _restore(b, before)
            continue
        recent += [v for v in made if 0 < v.samples[0].size <= 600 and not v.constant]
        recent = recent[-12:]
    read = {name for node in b.nodes for name in node.input}
    ends = [
        value
        for value in b.values.values()
        if value.name not in read and value.name not in b.inputs and not value.constant
    ]
    return finished(b, ends[-6:] or recent[-1:], name, long=True)


@functools.cache
def _first(op: str) -> int:
    """Return the opset that an operator came with."""
    return int(
        min(
            schema.since_version
            for schema in onnx.defs.get_all_schemas_with_history()
            if schema.name == op and not schema.domain
        )
    )


def _start(b: Builder, entry: Operator) -> Value:
    """Return the tensor that a single operator works on."""
    draw = b.draw
    rank, dtype = draw.pick(list(entry.ranks)), draw.pick(list(entry.dtypes))
    low, high = entry.lengths
    if rank > 2:
        shape = (*draw.shape(2), *draw.shape(rank - 2, low=low, high=high, size=80))
    else:
        shape = draw.shape(rank, low=max(low, 1), high=max(high, 1))
    if entry.empty and rank and draw.chance(0.04):
        spot = draw.integer(0, rank - 1)
        shape = (*shape[:spot], 0, *shape[spot + 1 :])
    if draw.chance(0.04) and dtype == FLOAT:
        return b.constant(draw.array(shape, dtype, entry.domain))
    return b.input(shape, dtype, entry.domain)


def _snapshot(b: Builder) -> tuple[list[onnx.NodeProto], dict[str, Value], dict[str, np.ndarray],
                                   dict[str, Value]]:  # fmt: skip
    return list(b.nodes), dict(b.inputs), dict(b.initializers), dict(b.values)


def _restore(
    b: Builder,
    before: tuple[list[onnx.NodeProto], dict[str, Value], dict[str, np.ndarray], dict[str, Value]],
) -> None:
    b.nodes, b.inputs, b.initializers, b.values = before


def finished(b: Builder, outputs: Sequence[Value], name: str, *, long: bool = False) -> Case:
    """Return what was built as a case.

    Raises:
      Refused: Nobody runs the whole of it.
    """
    unique = list({value.name: value for value in outputs}.values())
    known = {value.name: value.samples[0] for value in unique}
    model = b.model(unique, known)
    samples = b.samples()
    content = model.SerializeToString()
    try:
        expected = oracle.onnxruntime(content, samples)
    except oracle.Refused:
        if long:
            raise
        expected = oracle.reference(content, samples)
    return Case(name=name, model=model, samples=samples, expected=expected, long=long)
