"""Names of a configuration that another graph does not have, with their likeliest counterparts.

Two optimizers name what they make differently. A node is told by more than its name: its operator
type, the types before and behind it, the shapes of its constants, and how many of its type come
before it.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jptq.ir.model import Model, Node
from jptq.quant.compensate import compensations
from jptq.quant.config import Config
from jptq.quant.pairs import LOW
from jptq.targets import Target

_WEIGHTS = {
    "name": 0.25,
    "type": 0.2,
    "constants": 0.2,
    "place": 0.2,
    "producers": 0.1,
    "consumers": 0.1,
}
"""What each kind of evidence counts; a score is their sum over what there is evidence of."""

_LEAST = 0.6
"""Counterparts that score less are not named."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Missing:
    """A name that a graph does not have.

    Attributes:
      name: As the configuration has it.
      where: The key that holds it.
      counterpart: The likeliest node of that graph, None if nothing is like it.
      score: How alike they are, 0 to 1.
      why: What speaks for the counterpart.
    """

    name: str
    where: str
    counterpart: str | None = None
    score: float = 0.0
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return dataclasses.asdict(self)


def missing(
    config: Config, theirs: Model, target: Target, ours: Model | None = None
) -> tuple[Missing, ...]:
    """Return the names of nodes in a configuration that a graph does not have.

    ``<node>_split_low`` counts as present where the configuration compensates the node.

    Args:
      config: What names nodes.
      theirs: Optimized float graph of the tool that is to read the configuration.
      target: Says which operands can be compensated.
      ours: The graph that the configuration was written for: tells of a node's surroundings.
    """
    asked = compensations(config, theirs, target)
    split = {f"{name}{LOW}" for name in asked if name in theirs.by_name}
    present = {node.name for node in theirs.operators()} | split
    # A node that both graphs have is no counterpart of another one.
    taken = set() if ours is None else {node.name for node in ours.operators()}
    free = [node for node in theirs.operators() if node.name not in taken]
    places = tuple({} if model is None else _places(model) for model in (ours, theirs))
    found = []
    for where, name in _names(config):
        if name in present:
            continue
        node = None if ours is None else ours.by_name.get(name)
        op = _guessed(name) if node is None else node.op
        alike = [other for other in free if other.op == op] or free
        ranked = [(*_score(name, node, ours, other, theirs, places), other.name) for other in alike]
        score, why, best = max(ranked, key=lambda one: one[0], default=(0.0, "", ""))
        if score < _LEAST:
            found.append(Missing(name=name, where=where))
        else:
            found.append(
                Missing(name=name, where=where, counterpart=best, score=round(score, 3), why=why)
            )
    return tuple(found)


def _names(config: Config) -> Iterator[tuple[str, str]]:
    for key, subgraph in config.subgraphs.items():
        for name in (*subgraph.inputs, *subgraph.outputs):
            yield f"subgraph_config.{key}", name
    for name in config.nodes:
        yield "node_config", name


def _places(model: Model) -> dict[str, tuple[int, int]]:
    """Return, for each node, how many of its type come before it, and how many there are."""
    of_type: dict[str, list[str]] = {}
    for node in model.operators():
        of_type.setdefault(node.op, []).append(node.name)
    return {name: (i, len(names)) for names in of_type.values() for i, name in enumerate(names)}


def _score(
    name: str,
    node: Node | None,
    ours: Model | None,
    other: Node,
    theirs: Model,
    places: Sequence[Mapping[str, tuple[int, int]]],
) -> tuple[float, str]:
    """Return how alike two nodes are, and in what they agree."""
    alike = {"name": difflib.SequenceMatcher(None, name, other.name, autojunk=False).ratio()}
    notes = {"name": "like name"} if alike["name"] >= 0.8 else {}
    op = _guessed(name) if node is None else node.op
    if op:
        alike["type"] = float(op == other.op)
        notes["type"] = f"same type {other.op}"
    if node is not None and ours is not None:
        (before, count), (other_before, other_count) = places[0][name], places[1][other.name]
        away = abs(before * other_count / count - other_before)
        alike["place"] = float(op == other.op) / (1 + away)
        if away == 0:
            notes["place"] = f"number {other_before + 1} of its type"
        constants = _constants(node, ours)
        if constants or _constants(other, theirs):
            alike["constants"] = float(constants == _constants(other, theirs))
            notes["constants"] = "same constants " + " ".join(
                "x".join(map(str, shape)) for shape in constants
            )
        for side, text, of in (
            ("producers", "behind", _producers),
            ("consumers", "before", _consumers),
        ):
            a, b = of(node, ours), of(other, theirs)
            alike[side] = _overlap(a, b)
            if a and a == b:
                notes[side] = f"{text} {' '.join(sorted(a))}"
    total = sum(_WEIGHTS[kind] for kind in alike)
    score = sum(_WEIGHTS[kind] * value for kind, value in alike.items()) / total
    return score, ", ".join(notes[kind] for kind, value in alike.items() if value and kind in notes)


def _guessed(name: str) -> str:
    """Return the operator type that a name tells of: ``/a/Conv_1`` and ``Conv_12`` are Conv."""
    match = re.fullmatch(r"([A-Z][A-Za-z]*)(?:_\d+)?", name.rsplit("/", 1)[-1])
    return match[1] if match else ""


def _constants(node: Node, model: Model) -> tuple[tuple[int, ...], ...]:
    return tuple(model.initializers[n].shape for n in node.inputs if n in model.initializers)


def _producers(node: Node, model: Model) -> Counter[str]:
    return Counter(model.producers[n].op for n in node.inputs if n in model.producers)


def _consumers(node: Node, model: Model) -> Counter[str]:
    return Counter(user.op for n in node.outputs for user, _ in model.consumers.get(n, ()))


def _overlap(first: Counter[str], second: Counter[str]) -> float:
    """Return the share of two multisets that they have in common; 1 if both are empty."""
    union = (first | second).total()
    return (first & second).total() / union if union else 1.0
