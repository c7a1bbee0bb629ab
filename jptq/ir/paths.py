"""Which nodes lie before, behind and between others."""

from __future__ import annotations

from collections.abc import Iterable

from jptq.ir.model import Model


def ancestors(model: Model, tensors: Iterable[str]) -> frozenset[str]:
    """Return the names of the nodes that some of the tensors depend on, their writers included."""
    needed = set(tensors)
    found = set()
    for node in reversed(model.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.reads)
            found.add(node.name)
    return frozenset(found)


def descendants(model: Model, tensors: Iterable[str]) -> frozenset[str]:
    """Return the names of the nodes that depend on some of the tensors, their readers included."""
    reached = set(tensors)
    found = set()
    for node in model.nodes:
        if reached.intersection(node.reads):
            reached.update(filter(None, node.outputs))
            found.add(node.name)
    return frozenset(found)


def between(model: Model, first: Iterable[str], last: Iterable[str]) -> tuple[str, ...]:
    """Return the nodes on the paths from some nodes to others, both ends included.

    Args:
      model: The network.
      first: Node names.
      last: Node names.

    Returns:
      Names in graph order of the nodes that are one of `first` or behind it, and one of `last`
      or before it. An end that no path leads to is not among them.

    Source: hmct-spec 4.2.
    """
    starts, ends = set(first), set(last)
    written = [name for node in starts for name in model.by_name[node].outputs if name]
    behind = descendants(model, written) | starts
    before = ancestors(model, (name for node in ends for name in model.by_name[node].outputs))
    both = behind & (before | ends)
    return tuple(node.name for node in model.nodes if node.name in both)
