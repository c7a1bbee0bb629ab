"""What has to be said beside measured figures: what a cosine hides, where there is no number."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from jptq.diagnosis.nonfinite import Broken, first_broken
from jptq.ir.model import Model
from jptq.quant.assign import Table
from jptq.quant.plan import Plan
from jptq.results import Comparison, Lost, OutputError
from jptq.results.problem import Advice
from jptq.tuning.compared import VARIES, parts_of
from jptq.tuning.journal import Journal
from jptq.tuning.measure import Measurer
from jptq.tuning.prepare import Prepared
from jptq.tuning.source import First, spread

SAMPLES = 4
"""Samples that are run to see where numbers end."""

_NAMED = 4
_HIGH = 0.9
"""Below this a cosine shows by itself that something is lost."""

_RATIO = 8
"""Range of a grid over that of a channel from which on a common grid is the reason: it takes three
of its eight bits."""

_DENOMINATORS = {"Div": 1, "Reciprocal": 0, "HzRsqrt": 0, "Sqrt": 0, "Log": 0}
"""Operators without a number at 0, and the operand that must not be that."""


def remarks(
    prepared: Prepared, table: Table, found: Comparison, *, what: str = ""
) -> tuple[str, ...]:
    """Return a sentence for all that the figures of a configuration do not show.

    Args:
      prepared: The network.
      table: Its types and thresholds.
      found: What was measured under them.
      what: How the configuration is called, such as ``All-INT8``.
    """
    return (
        *undefined(found),
        *constant(found),
        *broken(prepared, table, found, what=what),
        *lost(prepared, table, found, what=what),
    )


def first_sample(prepared: Prepared) -> tuple[str, ...]:
    """Return the remarks on a network's own types over its first sample: one run of each kind."""
    first = dataclasses.replace(prepared, samples=First(prepared.samples, 1))
    found = Measurer(first, None, Journal(None)).compare(prepared.configured)
    return (*undefined(found), *broken(first, prepared.table(prepared.configured), found))


def undefined(found: Comparison) -> tuple[str, ...]:
    """Say where the float network itself has no number."""
    return tuple(
        f"Output {one.output!r} of the float network is NaN in {one.undefined} of {one.elements} "
        "elements: the figures are those of the others."
        for one in found.outputs
        if one.undefined
    )


def constant(found: Comparison) -> tuple[str, ...]:
    """Say which outputs hardly vary, so that their cosine is high whatever happens to them."""
    return tuple(
        f"Output {one.output!r} is constant in float over all samples: its cosine says nothing."
        if one.deviation == 0
        else f"Output {one.output!r} hardly varies in float (a deviation of {one.deviation:.2%} of "
        "its root mean square): its cosine says little."
        for one in found.outputs
        if one.deviation is not None and one.deviation < VARIES
    )


def broken(
    prepared: Prepared, table: Table, found: Comparison, *, what: str = ""
) -> tuple[str, ...]:
    """Say which outputs have no number under a configuration, and where that begins."""
    outputs = [one for one in found.outputs if one.broken]
    if not outputs:
        return ()
    subject = f"{what}: output" if what else "Output"
    said = [
        f"{subject} {one.output!r} is NaN or infinite in {one.broken_share:.2%} of its elements, "
        "where the float network has numbers: it has no cosine and no distance."
        for one in outputs
    ]
    first = origin(prepared, table)
    if first:
        said.append(f"That begins at {_few(told_of(prepared.calibrated, one) for one in first)}.")
    return tuple(said)


def origin(prepared: Prepared, table: Table) -> tuple[Broken, ...]:
    """Return the operators where numbers end under a configuration, over some samples."""
    samples = spread(prepared.samples, SAMPLES)
    found: dict[str, Broken] = {}
    for sample in samples:
        feeds = {name: np.asarray(value)[np.newaxis] for name, value in sample.items()}
        for one in first_broken(prepared.runner, table, feeds):
            known = found.get(one.node)
            if known is None or one.share > known.share:
                found[one.node] = one
    order = {node.name: i for i, node in enumerate(prepared.calibrated.nodes)}
    return tuple(sorted(found.values(), key=lambda one: order[one.node]))


def raisable(prepared: Prepared, node: str) -> tuple[str, ...]:
    """Return the nodes in front of one without numbers whose results decide what it divides by.

    A variance that INT8 rounds to 0 is computed by several of them: all have to be finer.
    """
    model = prepared.calibrated
    behind = {one.outputs[0]: one.inputs[0] for one in model.nodes if one.is_calibration}
    start = model.by_name[node]
    index = _DENOMINATORS.get(start.op)
    if index is None or index >= len(start.inputs):
        return (node,)
    chain, tensor = [node], start.inputs[index]
    while len(chain) < _CHAIN:
        producer = model.producers.get(behind.get(tensor, tensor))
        if producer is None or producer.op not in _SPREADS:
            break
        chain.append(producer.name)
        inputs = [name for name in producer.inputs if name and not _constant(model, name)]
        if len(inputs) < 1:
            break
        tensor = inputs[0]
    return tuple(reversed(chain))


_CHAIN = 8
_SPREADS = (
    *("Sqrt", "Add", "ReduceMean", "ReduceSum", "GlobalAveragePool", "Pow", "Mul", "Max", "Clip"),
    *("Exp", "ReduceL2", "ReduceSumSquare", "Unsqueeze", "Reshape", "Expand"),
)
"""Operators that a variance, a norm or the sum of a softmax is made of."""


def _constant(model: Model, name: str) -> bool:
    while name not in model.initializers:
        producer = model.producers.get(name)
        if producer is None or not producer.is_calibration:
            return False
        name = producer.inputs[0]
    return True


def float_advice(prepared: Prepared, table: Table) -> Advice:
    """Say which nodes have to stay float where INT16 has no number either."""
    found = origin(prepared, table)
    chains = [node for one in found for node in raisable(prepared, one.node)]
    nodes = [repr(name) for name in dict.fromkeys(chains)]
    return Advice(
        kind="float",
        text="With every quantizer INT16, a simulation, outputs are not finite either. Let "
        f"{_few(nodes, most=_CHAIN)} stay float (float16 or float32 in node_config): jptq tune "
        "tries that.",
    )


def told_of(model: Model, one: Broken) -> str:
    """Write an operator where numbers end, and why if that is known."""
    text = f"{one.node!r} ({one.op}, {one.share:.2%} of its output)"
    index = _DENOMINATORS.get(one.op)
    if index is None:
        return text
    operand = model.by_name[one.node].inputs[index]
    return f"{text}: {operand.removesuffix('_calibrated')!r} rounds to 0"


def lost(prepared: Prepared, table: Table, found: Comparison, *, what: str = "") -> tuple[str, ...]:
    """Say which channels of outputs lose their values while the whole looks well."""
    model, shapes = prepared.calibrated, prepared.runner.program.shapes
    parts = parts_of(model, [one.output for one in found.outputs], shapes)
    joined = {name: part.node for name, part in parts.items()}
    return tuple(
        _lost(prepared, table, one, gone, joined.get(one.output, ""), what)
        for one in found.outputs
        if one.cosine.mean >= _HIGH
        for gone in one.lost
    )


def _lost(
    prepared: Prepared, table: Table, output: OutputError, gone: Lost, node: str, what: str
) -> str:
    several = len(gone.channels) > 1
    who = f"{what} loses" if what else "Quantization loses"
    how = (
        f"{'they become' if several else 'it becomes'} constant"
        if gone.correlation == 0
        else f"the correlation with float falls to {gone.correlation:.3f}"
    )
    text = (
        f"{who} channel{'s' if several else ''} {_ranges(gone.channels)} (axis {gone.axis}) of "
        f"output {output.output!r}: {how}. The cosine of the whole, {output.cosine.mean:.6f}, "
        "does not show it."
    )
    slots = prepared.plan.by_node.get(node)
    if slots is None or not gone.magnitude:
        return text
    grid = max(_grid(prepared.plan, table, name) for name in slots.calibrations)
    ratio = grid / gone.magnitude
    if ratio < _RATIO:
        return text
    return (
        f"{text} Concat {node!r} puts all that it joins on one grid, {ratio:.0f} : 1 between the "
        f"grid's range, {grid:.4g}, and the largest of these values, {gone.magnitude:.4g}."
    )


def _grid(plan: Plan, table: Table, name: str) -> float:
    """Return the largest absolute value that a quantizer can give out."""
    index = plan.index[name]
    part = slice(plan.offsets[index], plan.offsets[index + 1])
    scale, offset = np.asarray(table.scale)[part], np.asarray(table.offset)[part]
    # Symmetric thresholds are the upper end; the lower one is a step beyond.
    ends = float(np.asarray(table.upper)[index]), float(np.asarray(table.lower)[index]) + 1
    return float(max(np.abs((end - offset) * scale).max() for end in ends))


def _ranges(indices: Sequence[int]) -> str:
    """Write indices with runs taken together.

    >>> _ranges((4, 5, 6, 9))
    '4-6, 9'
    """
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return _few((str(a) if a == b else f"{a}-{b}" for a, b in runs), most=8)


def _few(words: Iterable[str], most: int = _NAMED) -> str:
    listed = list(words)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
