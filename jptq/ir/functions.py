"""Functions of a file call each other; what they stand for is counted before it is written out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

import onnx

from jptq.errors import ModelError

MOST_NODES: Final = 20_000
"""That the calls of a network stand for: several times what exporters make of any. Finding names
for so many copies takes a minute, and the time grows with the square."""

_Key: TypeAlias = tuple[str, str, str]
"""Domain, name, overload."""


def check_calls(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse functions that call themselves, or whose calls stand for too many nodes.

    Args:
      proto: The parsed file.
      path: Where it came from, for the message.

    Raises:
      ModelError: Names the functions that call each other, or says how many nodes there are.
    """
    bodies = {(f.domain, f.name, f.overload): f for f in proto.functions}
    calls = {key: _calls(body.node, bodies) for key, body in bodies.items()}
    sizes: dict[_Key, int] = {}
    for key in _callees_first(calls, path):
        sizes[key] = _size(calls[key], sizes)
    called = _calls(proto.graph.node, bodies)
    del called[None]
    total = _size(called, sizes)
    if total > MOST_NODES:
        raise ModelError(
            f"the calls of functions in {path} stand for {total} nodes",
            why=f"{MOST_NODES} are the most that are written out",
            hint="simplify the model, or export it without functions",
        )


def _calls(nodes: Iterable[onnx.NodeProto], bodies: Iterable[_Key]) -> Counter[_Key | None]:
    """Count what some nodes call, subgraphs included; None stands for a plain operator."""
    return Counter(
        key if key in bodies else None
        for node in _every(nodes)
        for key in [(node.domain, node.op_type, node.overload)]
    )


def _every(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _every(attribute.g.node)
            for graph in attribute.graphs:
                yield from _every(graph.node)


def _size(calls: Counter[_Key | None], sizes: dict[_Key, int]) -> int:
    return sum(count * (1 if key is None else sizes[key]) for key, count in calls.items())


def _callees_first(calls: dict[_Key, Counter[_Key | None]], path: Path) -> Iterator[_Key]:
    """Yield every function behind those that it calls."""
    done: set[_Key] = set()
    for start in calls:
        under_way: dict[_Key, Iterator[_Key | None]] = {}
        todo = [start]
        while todo:
            key = todo[-1]
            if key in done:
                todo.pop()
                continue
            called = next(
                (k for k in under_way.setdefault(key, iter(calls[key])) if k and k not in done),
                None,
            )
            if called is None:
                done.add(key)
                todo.pop()
                yield key
            elif called in under_way:
                chain = [*todo[todo.index(called) :], called]
                raise ModelError(
                    "a function calls itself",
                    where=" -> ".join(name for _, name, _ in chain) + f" in {path}",
                    why="its calls cannot be written out",
                    hint="export the model without functions",
                )
            else:
                todo.append(called)
