"""What a ranking scores: rows of quantizers, and the table that their scores end in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from jptq.errors import ConfigError, UnknownNameError
from jptq.ir.model import Model
from jptq.metrics import similarity
from jptq.numerics.qtypes import DUAL_INT16, FLOAT32, INT8, INT16
from jptq.quant.assign import Assignment, Table, Thresholds, table
from jptq.quant.plan import FEATURE, WEIGHT, Calibration, Plan
from jptq.results.sensitivity import SensitivityTable

CURRENT = "current"
"""Candidate: what each calibration holds at the moment."""

_MOST_NAMED = 8
"""Rows that a note names."""

KINDS = ("node", "weight", "activation", "group")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """N rows under Q candidates.

    Attributes:
      names: Of nodes or calibrations.
      kind: One of `KINDS`.
      members: Calibrations that each row switches on.
      candidates: Types to try.
      accepted: ``bool[N, Q]``: whether a row's quantizers differ under the candidate.
      reached: Outputs that each row's quantizers can change.
      outputs: Outputs to compare, in graph order.
    """

    names: tuple[str, ...]
    kind: str
    members: tuple[tuple[str, ...], ...]
    candidates: tuple[str, ...]
    accepted: np.ndarray
    reached: tuple[frozenset[str], ...]
    outputs: tuple[str, ...]

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """The (row, candidate) pairs to score."""
        return [(int(i), int(q)) for i, q in np.argwhere(self.accepted)]

    def indices(self, plan: Plan) -> list[tuple[int, ...]]:
        """Return each row's positions in the plan."""
        return [tuple(plan.index[name] for name in row) for row in self.members]

    @cached_property
    def averaged(self) -> np.ndarray:
        """``int64[N]``: the number of outputs that each row's score is a mean of.

        A ranking looks at the outputs that a row can change, as the vendor does. Errors of groups
        are added up: all of them are means over all outputs.
        """
        if self.kind == "group":
            return np.full(len(self.names), len(self.outputs))
        return np.asarray([len(reached) for reached in self.reached])

    def take(self, indices: Sequence[int]) -> Rows:
        """Return some of the rows."""
        keep = list(indices)
        return dataclasses.replace(
            self,
            names=tuple(self.names[i] for i in keep),
            members=tuple(self.members[i] for i in keep),
            accepted=self.accepted[keep],
            reached=tuple(self.reached[i] for i in keep),
        )

    def derivable(self, score: np.ndarray, method: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return scores by derivatives, NaN where there is none, and a note on those that lack.

        Args:
          score: ``float64[N, Q, M]``. NaN or infinite: no finite derivative leads from the row to
            the outputs.
          method: For the note.
        """
        missing = self.accepted & ~np.isfinite(score).all(axis=2)
        kept = np.where((self.accepted & ~missing)[..., None], score, np.nan)
        names = [name for name, lacks in zip(self.names, missing.any(axis=1), strict=True) if lacks]
        if not names:
            return kept, ()
        listed = ", ".join(map(repr, names[:_MOST_NAMED])) + ", ..." * (len(names) > _MOST_NAMED)
        note = (
            f"No finite derivative leads from {len(names)} of {len(self.names)} rows to the "
            f"outputs: {listed}. The {method} method has no score for them; the exact one has."
        )
        return kept, (note,)

    def tables(self, plan: Plan, thresholds: Thresholds, base: Assignment) -> list[Table]:
        """Return, per candidate, the table in which every calibration has its type."""
        return [
            table(
                plan,
                thresholds,
                {c.name: member_type(c, candidate, self.kind, base) for c in plan.calibrations},
            )
            for candidate in self.candidates
        ]


def member_type(calibration: Calibration, candidate: str, kind: str, base: Assignment) -> str:
    """Return the type that a candidate means for one calibration.

    ``current`` is what it holds; one that is off at the moment counts as int8 (design 2,
    invariant 2). ``int16`` on a node leaves second operands int8 if the target wants that; on a
    group it means the calibration itself, through ``dual-int16`` if need be.
    """
    if candidate == CURRENT:
        held = base[calibration.name]
        return INT8.name if held == FLOAT32.name else held
    if candidate == INT16.name:
        free = INT16.name in calibration.allowed or (kind == "group" and calibration.dual)
        return INT16.name if free else INT8.name
    if candidate == DUAL_INT16:
        return INT16.name if INT16.name in calibration.allowed or calibration.dual else INT8.name
    return candidate


def rows_of(
    model: Model,
    plan: Plan,
    kind: str = "node",
    *,
    candidates: Sequence[str] = (CURRENT,),
    only: Sequence[Sequence[str]] | None = None,
) -> Rows:
    """Return the rows of a ranking.

    Args:
      model: Calibrated graph; its outputs are compared.
      plan: Its quantizers.
      kind: ``node`` (feature and weight calibrations of each node, hmct-spec 3.2), ``weight``,
        ``activation``, or ``group`` (`Plan.groups`).
      candidates: Types to try.
      only: Nodes to score instead of all; several in one list are scored jointly.

    Raises:
      UnknownNameError: A kind or node that does not exist.
    """
    if kind not in KINDS:
        raise UnknownNameError("kind of row", kind, KINDS)
    if kind == "node":
        if only is None:
            named = [(s.node, s.calibrations) for s in plan.slots if s.calibrations]
        else:
            named = [
                (
                    "+".join(nodes),
                    tuple(dict.fromkeys(c for n in nodes for c in plan.of_node(n).calibrations)),
                )
                for nodes in only
            ]
    elif kind == "group":
        named = [(members[0], members) for members in plan.groups]
    else:
        wanted = WEIGHT if kind == "weight" else FEATURE
        named = [(c.name, (c.name,)) for c in plan.calibrations if c.kind == wanted]
    return _rows(model, plan, kind, named, candidates)


def quantizer_rows(model: Model, plan: Plan, quantizers: Sequence[str]) -> Rows:
    """Return a row for each of some quantizers, of features and weights alike.

    Args:
      model: Calibrated graph; its outputs are compared.
      plan: Its quantizers.
      quantizers: Names.
    """
    return _rows(model, plan, "node", [(name, (name,)) for name in quantizers], (CURRENT,))


def _rows(
    model: Model,
    plan: Plan,
    kind: str,
    named: Sequence[tuple[str, tuple[str, ...]]],
    candidates: Sequence[str],
) -> Rows:
    """Return the rows that reach outputs."""
    reach = reachable_outputs(model)
    kept = []
    for name, members in named:
        reached = frozenset().union(
            *(reach.get(plan.calibration(m).output, frozenset()) for m in members)
        )
        if reached:
            kept.append((name, tuple(members), reached))
    if not kept:
        raise ConfigError(
            "no node with quantizers reaches the outputs", hint="choose other outputs"
        )
    accepted = np.ones((len(kept), len(candidates)), bool)
    if kind == "group":
        for q, candidate in enumerate(candidates):
            if candidate == INT16.name:
                accepted[:, q] = [
                    any(
                        INT16.name in plan.calibration(m).allowed or plan.calibration(m).dual
                        for m in members
                    )
                    for _, members, _ in kept
                ]
    outputs = tuple(n for n in model.output_names if any(n in r for _, _, r in kept))
    return Rows(
        names=tuple(name for name, _, _ in kept),
        kind=kind,
        members=tuple(members for _, members, _ in kept),
        candidates=tuple(candidates),
        accepted=accepted,
        reached=tuple(reached for _, _, reached in kept),
        outputs=outputs,
    )


def reachable_outputs(model: Model) -> dict[str, frozenset[str]]:
    """Return the graph outputs that each tensor can change."""
    reach: dict[str, frozenset[str]] = {name: frozenset((name,)) for name in model.output_names}
    for node in reversed(model.nodes):
        below = frozenset().union(*(reach.get(name, frozenset()) for name in node.outputs))
        for name in node.inputs:
            if name:
                reach[name] = reach.get(name, frozenset()) | below
    return reach


def assemble(
    rows: Rows,
    means: Mapping[tuple[int, int], Mapping[str, np.ndarray]],
    metrics: Sequence[str],
    *,
    method: str,
    samples: int,
    seconds: float,
    cost: Mapping[str, float],
    notes: tuple[str, ...] = (),
) -> SensitivityTable:
    """Return the table of metrics: per output, mean over samples, then over outputs.

    `Rows.averaged` says over how many outputs; one that a row cannot change has no error.

    Args:
      rows: What was scored.
      means: ``{(row, candidate): {output: float64[M]}}``, see `similarity.Means`.
      metrics: M names.
      method: Stands in the table.
      samples: S.
      seconds: Wall time.
      cost: For comparing methods.
      notes: What a reader has to know.
    """
    score = np.full((len(rows.names), len(rows.candidates), len(metrics)), np.nan)
    untouched = similarity.evaluate(metrics, similarity.EQUAL, 1)[0]
    for (row, q), by_output in means.items():
        per_output = list(by_output.values())
        per_output += [untouched] * (int(rows.averaged[row]) - len(per_output))
        score[row, q] = similarity.mean(np.stack(per_output))
    return SensitivityTable(
        rows=rows.names,
        kind=rows.kind,
        members=rows.members,
        candidates=rows.candidates,
        metrics=tuple(metrics),
        score=score,
        stderr=np.zeros_like(score),
        outputs=rows.outputs,
        method=method,
        samples=samples,
        seconds=seconds,
        notes=notes,
        cost=cost,
    )


def broken_notes(
    rows: Rows, means: Mapping[tuple[int, int], Mapping[str, similarity.Means]]
) -> tuple[str, ...]:
    """Say which rows make outputs NaN or infinite; their scores only stand for that."""
    found: dict[str, int] = {}
    for (row, _), by_output in sorted(means.items()):
        count = sum(one.broken for one in by_output.values())
        if count:
            found[rows.names[row]] = max(found.get(rows.names[row], 0), count)
    if not found:
        return ()
    listed = ", ".join(f"{name!r} ({count})" for name, count in list(found.items())[:_NAMED])
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return (
        f"Quantizing these alone makes elements of the outputs NaN or infinite: {listed}{more}. "
        "Their scores stand for the largest errors, they are none that was measured.",
    )


_NAMED = 6
