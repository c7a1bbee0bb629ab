"""What every operand ends up as, which rule decided it, and why it is not what was asked for."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jptq.ir.model import Model
from jptq.numerics.qtypes import DUAL_INT16
from jptq.quant.asks import OUTPUT, Ask, asks_of
from jptq.quant.assign import Assignment, accepted, fitting
from jptq.quant.config import EC, TYPES, Config
from jptq.quant.pairs import LOW, Pair, halves_of, samples_nearest
from jptq.quant.plan import Calibration, Plan
from jptq.quant.structure import Structure, structure_of
from jptq.targets import Target

APPLIED, LEFTOVER, SHARED, REFUSED = "applied", "leftover", "shared", "refused"
_STATUS = {
    APPLIED: "as asked for",
    SHARED: "shared: the type that another reader of their tensor needs",
    LEFTOVER: "leftover: of a rule for many, which they cannot follow",
    REFUSED: "refused: asked for, but not applied",
}

HELD = "calibrated model"
"""Rule of operands whose types were never asked for: a calibrated model says them itself."""

NO_QUANTIZER = "-"
"""Applied type of an operand that has no quantizer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """One operand of one node.

    Attributes:
      node: Node name.
      op: Its operator type.
      slot: ``input<i>``, ``output``, or empty for a whole node without quantizers.
      kind: ``feature`` or ``weight``; empty if there is no quantizer.
      calibration: Its quantizer, "" if there is none.
      asked: Type that is asked for.
      rule: What asks for it: ``node_config.NAME.input1``, ``all_node_type``, ``default``.
      applied: Type that it has; ``ec`` if a second operator compensates it.
      status: `APPLIED`, `LEFTOVER`, `SHARED` or `REFUSED`.
      cause: A word for the reason, by which reasons are counted; empty if as asked.
      why: The reason; empty if as asked.
    """

    node: str
    op: str
    slot: str
    kind: str = ""
    calibration: str = ""
    asked: str
    rule: str
    applied: str
    status: str = APPLIED
    cause: str = ""
    why: str = ""

    @property
    def differs(self) -> bool:
        """Tell whether another type is applied than is asked for."""
        return self.status != APPLIED

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return dataclasses.asdict(self)


def outcomes(
    config: Config,
    model: Model,
    plan: Plan,
    target: Target,
    asks: Sequence[Ask],
    assignment: Assignment,
) -> tuple[Outcome, ...]:
    """Return what became of every ask, in graph order, then what met no quantizer at all.

    Args:
      config: Whose asks they are.
      model: With quantizers.
      plan: Its quantizers.
      target: Knows what operands accept.
      asks: See `asks_of`.
      assignment: What was decided.
    """
    readers: dict[str, list[Ask]] = {}
    for ask in asks:
        readers.setdefault(ask.calibration, []).append(ask)
    structure, halves = structure_of(model), halves_of(model)
    found = [_outcome(ask, structure, halves, plan, target, readers, assignment) for ask in asks]
    reached = {one.node for one in found if one.applied == one.asked and one.rule != "default"}
    return (
        *(_weighed(one, ask, reached) for one, ask in zip(found, asks, strict=True)),
        *_without_quantizers(config, model, plan),
    )


def held(model: Model, plan: Plan, assignment: Assignment) -> tuple[Outcome, ...]:
    """Return what every operand of a calibrated model has, in graph order; nothing is asked for.

    Args:
      model: With quantizers.
      plan: Its quantizers.
      assignment: Their types.
    """
    halves = halves_of(model)
    return tuple(
        Outcome(
            node=ask.node,
            op=ask.op,
            slot=ask.slot,
            kind=plan.calibration(ask.calibration).kind,
            calibration=ask.calibration,
            asked=assignment[ask.calibration],
            rule=HELD,
            applied=assignment[ask.calibration],
            why=f"one half of {halves[ask.calibration].high.name}"
            if ask.calibration in halves
            else "",
        )
        for ask in asks_of(Config(), model, plan)
    )


def _outcome(
    ask: Ask,
    structure: Structure,
    halves: Mapping[str, Pair],
    plan: Plan,
    target: Target,
    readers: Mapping[str, Sequence[Ask]],
    assignment: Assignment,
) -> Outcome:
    calibration = plan.calibration(ask.calibration)
    applied = assignment[calibration.name]
    if ask.asked == EC and f"{ask.node}{LOW}" in structure.model.by_name:
        applied = EC
    cause, why = "", ""
    if applied != ask.asked:
        cause, why = _reason(
            ask, calibration, structure, halves, target, readers[calibration.name], applied
        )
    return Outcome(
        node=ask.node,
        op=ask.op,
        slot=ask.slot,
        kind=calibration.kind,
        calibration=calibration.name,
        asked=ask.asked,
        rule=ask.rule,
        applied=applied,
        status=REFUSED if cause else APPLIED,
        cause=cause,
        why=why,
    )


def _reason(
    ask: Ask,
    calibration: Calibration,
    structure: Structure,
    halves: Mapping[str, Pair],
    target: Target,
    readers: Sequence[Ask],
    applied: str,
) -> tuple[str, str]:
    """Return a word and a clause that say why a quantizer is not what one operand asks for."""
    if ask.asked == EC:
        return "no split", (
            f"the calibrated model has no {ask.node}{LOW}; calibrate the float model with this "
            "quant_config"
        )
    if accepted(calibration, ask.asked, dual=ask.dual) != applied:
        return "shared", "shared with " + _first(
            f"{other.node}, which asks for {other.asked}"
            for other in readers
            if other.node != ask.node and other.explicit
        )
    if calibration.name in halves:
        pair = halves[calibration.name]
        return "half", (
            f"one of the two int8 halves that ec makes of {pair.high.name}.input{pair.index}, "
            "together about as fine as int16"
        )
    # Several may refuse what is asked; the reason is who takes no more than what is applied.
    if fitting(_types(ask, target), ask.asked) == applied:
        return "operand", _limit(ask, target)
    source = structure.source(calibration.tensor)
    if source is not None and fitting(target.given_out(source.op), ask.asked) == applied:
        given = f"{source.name} ({source.op}) gives out {_list(target.given_out(source.op))} only"
        nearest = target.ec(source.op, 0) and samples_nearest(structure.model, source)
        return "source", f"{given} (ec of its input0 would raise it)" if nearest else given
    return "reader", "shared with " + _first(
        f"{other.node}, whose {other.slot} accepts {_list(_types(other, target))} only"
        for other in readers
        if fitting(_types(other, target), ask.asked) == applied
    )


def _weighed(outcome: Outcome, ask: Ask, reached: Collection[str]) -> Outcome:
    """Return an outcome with the weight of its difference.

    A type for a whole node, subgraph or model means every operand that can take it (hmct-spec
    4.1). So it is refused only if it was meant for this operand, or if no operand took it.
    """
    if outcome.status == APPLIED:
        return outcome
    raised = not ask.explicit and TYPES.index(outcome.applied) > TYPES.index(ask.asked)
    if not ask.explicit and (outcome.cause == "shared" or raised):
        return dataclasses.replace(outcome, status=SHARED)
    wide = not ask.rule.startswith(("node_config", "op_config")) or ask.node in reached
    if outcome.cause in ("operand", "reader", "source", "half") and wide and not ask.own:
        return dataclasses.replace(outcome, status=LEFTOVER)
    return outcome


def _without_quantizers(config: Config, model: Model, plan: Plan) -> Iterator[Outcome]:
    """Yield the nodes and inputs that a configuration names, but that have no quantizer."""
    for name, entry in config.nodes.items():
        if name not in model.by_name:
            continue  # only warned of
        node, slots = model.by_name[name], plan.by_node.get(name)
        rule = f"node_config.{name}"
        if slots is None and entry.qtype is not None:
            yield Outcome(
                node=name,
                op=node.op,
                slot="",
                asked=entry.qtype,
                rule=f"{rule}.qtype",
                applied=NO_QUANTIZER,
                status=REFUSED,
                cause="no quantizer",
                why="no quantizer stands before it: it is fused, or does not compute on numbers",
            )
        for index, asked in entry.inputs.items():
            if slots is None or index not in slots.inputs:
                yield Outcome(
                    node=name,
                    op=node.op,
                    slot=f"input{index}",
                    asked=asked,
                    rule=f"{rule}.input{index}",
                    applied=NO_QUANTIZER,
                    status=REFUSED,
                    cause="no quantizer",
                    why="this input has no quantizer",
                )


def summary(found: Sequence[Outcome]) -> str:
    """Return a line that counts the outcomes; that nothing is refused is said too."""
    counts = Counter(one.status for one in found)
    parts = (
        f"{counts[status]} {text}"
        for status, text in _STATUS.items()
        if counts[status] or status == REFUSED
    )
    return f"{len(found)} operands; " + "; ".join(parts)


def refusals(found: Sequence[Outcome]) -> Iterator[str]:
    """Yield a line for each kind of reason why something is not applied.

    That both halves of a compensated operand are int8 is as it should be.
    """
    for status, text in ((REFUSED, "is not applied to"), (LEFTOVER, "does not reach")):
        kept = [one for one in found if one.status == status]
        kept = [one for one in kept if (status, one.cause) != (LEFTOVER, "half")]
        for cause in dict.fromkeys(one.cause for one in kept):
            group = [one for one in kept if one.cause == cause]
            first = group[0]
            at = f"{first.node} {first.slot}".strip()
            more = f"; {len(group) - 1} more alike" if len(group) > 1 else ""
            yield (
                f"{first.asked} of {first.rule} {text} {at}: {first.why}{more}; "
                "jptq config explain --only=differences lists all"
            )


def _types(ask: Ask, target: Target) -> tuple[str, ...]:
    """Return the types that an operand accepts, or that an operator gives out."""
    if ask.slot == OUTPUT:
        return target.given_out(ask.op)
    return target.allowed(ask.op, ask.index)


def _limit(ask: Ask, target: Target) -> str:
    """Say what an operand accepts, and what would make it finer after all."""
    if ask.slot == OUTPUT:
        return f"{ask.op} gives out {_list(_types(ask, target))} only"
    types = f"{ask.slot} of {ask.op} accepts {_list(_types(ask, target))} only"
    ways = [EC] if target.ec(ask.op, ask.index) else []
    ways += [DUAL_INT16] if target.dual(ask.op, ask.index) else []
    return f"{types} ({' or '.join(ways)} would raise it)" if ways else f"{types} on {target.march}"


def _list(words: Iterable[str]) -> str:
    return " and ".join(words)


def _first(clauses: Iterable[str]) -> str:
    found = list(dict.fromkeys(clauses))
    more = f"; {len(found) - 1} more" if len(found) > 1 else ""
    return (found[0] if found else "another reader") + more
