"""Which INT8 leftovers of an all-INT16 model to compensate: the vendor's trial, then its config.

A compensated operand comes close to int16 but needs another graph. Setting the operand's own
quantizer to int16, which no device can run, foretells the result without compiling anything
(hmct-spec 8.1: averages agree to 1e-4). Only what the trial found is then built for real.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jptq.numerics.qtypes import INT16
from jptq.quant.assign import Assignment
from jptq.quant.config import EC
from jptq.quant.emit import quant_config
from jptq.quant.leftovers import leftovers
from jptq.quant.pairs import output_quantizer, samples_nearest
from jptq.results import Evaluation
from jptq.tuning.classify import ranked_leftovers
from jptq.tuning.goal import Judge
from jptq.tuning.measure import Measurer
from jptq.tuning.prepare import Prepared, Progress, quiet

THINNING = 12
"""Most operands that are tried to be left out, the least sensitive first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repair:
    """Operands to compensate.

    Attributes:
      ranked: ``{node: input}`` of all operands that can be compensated, the worst first.
      operands: Those of them that the trial took.
      trial: All-INT16 with these operands int16 too: a simulation.
      met: The trial meets the goal.
      quant_config: All-INT16 with ``ec`` on the operands; `prepare` runs it for real.
    """

    ranked: Mapping[str, int]
    operands: Mapping[str, int]
    trial: Evaluation
    met: bool
    quant_config: Mapping[str, Any]


def repair(
    measurer: Measurer, judge: Judge, *, samples: int = 8, progress: Progress = quiet
) -> Repair:
    """Return the fewest of the worst leftovers that meet the goal as int16; all if none do.

    The number is found by bisection, and what the others make needless is left out: every step
    is measured.

    Args:
      measurer: Runs the calibrated network.
      judge: Knows the goal.
      samples: For ranking the leftovers.
      progress: Called before every run.
    """
    prepared = measurer.prepared
    order = _operands(prepared, samples, progress)
    runs: dict[tuple[tuple[str, int], ...], Evaluation] = {}
    most = 1 + len(order).bit_length() + min(THINNING, len(order))

    def run(chosen: Sequence[tuple[str, int]]) -> Evaluation:
        key = tuple(chosen)
        if key not in runs:
            progress("try operands as INT16", len(runs), most)
            runs[key] = measurer(f"{len(key)} leftovers INT16", trial(prepared, key))
        return runs[key]

    low, high = 0, len(order)
    met = judge.meets(run(order))
    while met and low < high:
        middle = (low + high) // 2
        if judge.meets(run(order[:middle])):
            high = middle
        else:
            low = middle + 1
    taken = list(order[:high])
    # The ranking is of nodes: some before the last one, which is needed, may not be.
    for operand in list(reversed(taken[:-1]))[: THINNING if met else 0]:
        fewer = [one for one in taken if one != operand]
        if judge.meets(run(fewer)):
            taken = fewer
    operands = dict(taken)
    base = quant_config(
        prepared.calibrated,
        prepared.plan,
        prepared.target,
        prepared.all(INT16.name),
        activation=prepared.activation,
        like=prepared.config,
    )
    nodes = dict(base.get("node_config", {}))
    for node, index in operands.items():
        nodes[node] = {**nodes.get(node, {}), f"input{index}": EC}
    return Repair(
        ranked=dict(order),
        operands=operands,
        trial=run(taken),
        met=met,
        quant_config={**base, "node_config": nodes} if nodes else base,
    )


def trial(prepared: Prepared, operands: Sequence[tuple[str, int]]) -> Assignment:
    """Return all-INT16 with some int8 operands raised as well, as compensation would.

    Where sampling is nearest the values of the output are those of the operand: they are raised
    with it. Other sampling gives out new values as int8, whatever it takes in.
    """
    model, plan = prepared.calibrated, prepared.plan
    out = prepared.all(INT16.name)
    for name, index in operands:
        out[plan.by_node[name].inputs[index]] = INT16.name
        node = model.by_name[name]
        given = output_quantizer(model, node)
        if given is not None and samples_nearest(model, node):
            out[given.name] = INT16.name
    return out


def _operands(prepared: Prepared, samples: int, progress: Progress) -> list[tuple[str, int]]:
    """Return the operands that can be compensated, those of the worst quantizer first."""
    known = {one.calibration: one for one in leftovers(prepared.plan, prepared.target)}
    ranked = ranked_leftovers(prepared, samples=samples, progress=progress)
    found = (
        operand
        for one in ranked
        for operand, ways in known[one.calibration].repairs.items()
        if EC in ways
    )
    # A node has one operand that takes ec.
    return list(dict(found).items())
