"""Nodes that a network's file has and its optimized graph does not: what they are part of now.

Configurations name nodes of the optimized graph; who reads names off the file finds others there.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Final

from jptq.errors import ConfigError, UnknownNameError
from jptq.ir.model import Model

FUSED: Final = "jptq_fused_nodes"
"""Metadata of an optimized model: a JSON object ``{node of the file: node that computes it}``."""


def with_fused(model: Model, fused: Mapping[str, str]) -> Model:
    """Return the model with a note of what its nodes have taken up.

    Args:
      model: As optimized.
      fused: ``{node: what took it up}``, which may have been taken up later itself.
    """
    found = {**fused_into(model), **fused}
    kept = {name: into for name in sorted(found) if (into := _last(name, found, model)) is not None}
    if not kept:
        return model
    return dataclasses.replace(
        model, metadata={**model.metadata, FUSED: json.dumps(kept, ensure_ascii=False)}
    )


def fused_into(model: Model) -> dict[str, str]:
    """Return ``{node that is no more: node that it is part of}``; any program may write there."""
    try:
        content = json.loads(model.metadata.get(FUSED, "{}"))
    except ValueError:
        return {}
    if not isinstance(content, dict):
        return {}
    return {name: into for name, into in content.items() if isinstance(into, str)}


def unknown_node(
    name: str,
    model: Model,
    *,
    known: Iterable[str] | None = None,
    kind: str = "node",
    where: str = "",
) -> ConfigError:
    """Return what to say of a name that no node has.

    Args:
      name: As it was given.
      model: Does not have it.
      known: Names that could be meant; those of all nodes if None.
      kind: What the name should have named.
      where: What holds it.
    """
    into = fused_into(model).get(name)
    if into is None or into not in model.by_name:
        return UnknownNameError(kind, name, model.by_name if known is None else known, where=where)
    return ConfigError(
        f"node {name!r} is fused into {into!r}",
        where=where,
        why=f"the target runs them as one unit, {model.by_name[into].op}",
        hint=f"name {into!r} instead",
    )


def _last(name: str, fused: Mapping[str, str], model: Model) -> str | None:
    """Return the node that has taken a node up in the end; None if it is there, or nothing has."""
    seen = {name}
    if name in model.by_name:
        return None
    while (name := fused.get(name, "")) not in model.by_name:
        if not name or name in seen:
            return None
        seen.add(name)
    return name
