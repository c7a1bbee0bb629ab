"""Where INT16 has no number either: nodes that stay float, as few as give the outputs numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from jptq.ir.model import Model
from jptq.numerics.qtypes import FLOAT16, FLOAT32, INT16
from jptq.quant.assign import Assignment
from jptq.quant.config import Config
from jptq.quant.resolve import resolve
from jptq.results import Evaluation
from jptq.tuning import findings
from jptq.tuning.goal import Judge, told
from jptq.tuning.measure import Measurer
from jptq.tuning.prepare import Prepared, Progress, quiet

ROUNDS = 4
"""How often nodes are added: behind one that is mended the next may have no number."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exempted:
    """A network of which some nodes stay float.

    Attributes:
      measurer: Runs it.
      config: Of the network: with the nodes' types.
      nodes: In graph order.
      note: What a reader has to know.
    """

    measurer: Measurer
    config: Config
    nodes: tuple[str, ...]
    note: str


def exempted(
    measurer: Measurer,
    judge: Judge,
    again: Callable[[Config], Prepared],
    *,
    progress: Progress = quiet,
) -> Exempted | None:
    """Return the network with the nodes float where all-INT16 gives out NaN or infinity.

    A decomposed LayerNorm is the usual case: the variance of quiet tokens beside loud ones rounds
    to 0, also on the grid of INT16, and the division has no number. Types are first tried on the
    network as it is, float16 before float32, which no accelerator computes; every trial is run.

    Args:
      measurer: Runs the network as it is.
      judge: Knows the goal.
      again: Prepares the network by another configuration.
      progress: Called as work goes on.

    Returns:
      None if there is no need, or if float nodes do not help.
    """
    prepared = measurer.prepared
    if not judge.goal.has_quality or judge.meets(measurer("all-INT8", prepared.all("int8"))):
        return None
    int16 = prepared.all(INT16.name)
    before = measurer("all-INT16", int16)
    if judge.meets(before) or not _broken(before):
        return None
    first = findings.origin(prepared, prepared.table(int16))
    best: tuple[Evaluation, Config, tuple[str, ...]] | None = None
    for qtype in (FLOAT16.name, FLOAT32.name):
        assignment: Assignment = int16
        nodes: tuple[str, ...] = ()
        for number in range(ROUNDS):
            progress(f"try nodes as {qtype}", number, ROUNDS)
            found = findings.origin(prepared, prepared.table(assignment))
            more = _chains(prepared, (one.node for one in found), alike=number > 0)
            if not set(more) - set(nodes):
                break
            nodes = _ordered(prepared.calibrated, (*nodes, *more))
            config = prepared.config.typing(nodes, qtype)
            assignment = _resolved(prepared, config)
            tried = measurer(f"all-INT16, {len(nodes)} nodes {qtype}", assignment)
            if not _broken(tried):
                if best is None or tried.quality > best[0].quality:
                    best = tried, config, nodes
                break
        if best is not None and judge.meets(best[0]):
            break
    if best is None:
        return None
    reached, config, nodes = best
    qtype = str(config.nodes[nodes[0]].qtype)
    listed = ", ".join(repr(name) for name in nodes[:_NAMED])
    more_text = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
    place = ", ".join(findings.told_of(prepared.calibrated, one) for one in first[:_NAMED])
    return Exempted(
        measurer=measurer.on(again(config)),
        config=config,
        nodes=nodes,
        note=f"All-INT16 has no number for {told(before).removesuffix(' not finite')}: that begins "
        f"at {place}. So {listed}{more_text} {'run' if len(nodes) > 1 else 'runs'} as {qtype} in "
        f"every row; all else INT16, that gives {told(reached)} (measured).",
    )


_NAMED = 8


def _broken(evaluation: Evaluation) -> bool:
    found = evaluation.comparison
    return found is not None and any(one.broken for one in found.outputs)


def _chains(prepared: Prepared, starts: Iterable[str], *, alike: bool) -> list[str]:
    """Return the nodes that compute what others have no number for.

    Args:
      prepared: The network.
      starts: Where numbers end.
      alike: Take all nodes of the network that are computed by the same operators.
    """
    model = prepared.calibrated
    found = {name: findings.raisable(prepared, name) for name in starts}
    forms = {tuple(model.by_name[node].op for node in chain) for chain in found.values()}
    if alike:
        for node in model.operators():
            if node.name in found or not any(node.op == form[-1] for form in forms):
                continue
            chain = findings.raisable(prepared, node.name)
            if tuple(model.by_name[one].op for one in chain) in forms:
                found[node.name] = chain
    named = prepared.config.nodes
    return [node for chain in found.values() for node in chain if node not in named]


def _ordered(model: Model, nodes: Iterable[str]) -> tuple[str, ...]:
    wanted = set(nodes)
    return tuple(node.name for node in model.operators() if node.name in wanted)


def _resolved(prepared: Prepared, config: Config) -> Assignment:
    """Return all-INT16 with the types that a configuration names."""
    raised = dataclasses.replace(config, all_node_type=INT16.name)
    return resolve(raised, prepared.calibrated, prepared.plan, prepared.target, report=False)
