"""Small edits of a model; each returns a new one."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jptq.errors import ModelError
from jptq.ir.model import Attribute, Model, Node, Tensor


def with_nodes(
    model: Model,
    nodes: Iterable[Node],
    *,
    initializers: Mapping[str, np.ndarray] | None = None,
    where: str = "",
) -> Model:
    """Return the model with other nodes, in topological order.

    The sort is stable: nodes that are in order stay where they are.

    Args:
      model: Gives inputs, outputs, opsets and, unless `initializers` is given, the constants.
      nodes: All nodes of the result, in any order.
      initializers: All constants of the result.
      where: File named in an error.

    Raises:
      ModelError: A tensor is read but never written, written twice, or depends on itself.
    """
    constants = model.initializers if initializers is None else initializers
    ordered = _sorted(tuple(nodes), {*model.input_names, *constants}, where)
    known = {*model.input_names, *constants, *(name for node in ordered for name in node.outputs)}
    for name in model.output_names:
        if name not in known:
            raise ModelError(
                f"graph output {name!r} is not written by any node", where=where, hint=_DAMAGED
            )
    return dataclasses.replace(model, nodes=ordered, initializers=dict(constants))


def check_bodies(model: Model, *, where: str = "") -> None:
    """Refuse bodies whose nodes are not in order, hang on themselves or write a tensor twice.

    Args:
      model: As loaded.
      where: File named in an error.

    Raises:
      ModelError: Names the body's node.
    """
    for node in model.nodes:
        for body in node.subgraphs:
            outside = {*body.input_names, *body.initializers, *body.captured}
            ordered = _sorted(body.nodes, outside, where)
            if ordered != body.nodes:
                raise ModelError(
                    f"the nodes of a body of {node.op} are not in order",
                    where=f"node {node.name!r}" + _in(where),
                    hint=_DAMAGED,
                )
            check_bodies(body, where=where)


def replace_node(
    model: Model,
    name: str,
    nodes: Sequence[Node],
    *,
    initializers: Mapping[str, np.ndarray] | None = None,
) -> Model:
    """Return the model with node `name` replaced by `nodes`, which take its place in the order.

    Args:
      model: The network.
      name: An existing node.
      nodes: Write every tensor of the old node that is still read.
      initializers: Constants to add.
    """
    at = model.nodes.index(model.by_name[name])
    replaced = (*model.nodes[:at], *nodes, *model.nodes[at + 1 :])
    return with_nodes(model, replaced, initializers={**model.initializers, **(initializers or {})})


def insert_on_tensors(
    model: Model,
    chains: Mapping[str, Sequence[Node]],
    *,
    initializers: Mapping[str, np.ndarray] | None = None,
    graph_outputs: bool = False,
) -> Model:
    """Put nodes between tensors and all their readers.

    Args:
      model: The network.
      chains: For each tensor (activation, graph input or initializer) the nodes to insert, in
        order: the first reads the tensor, the first output of the last replaces it.
      initializers: Constants to add.
      graph_outputs: Where the tensor is a graph output, give the replaced value out under the
        output's name; the tensor itself is then called ``<name>_inner``. Otherwise the graph
        output keeps the original value.

    Returns:
      The model; inserted nodes stand right behind the producer of their tensor.
    """
    replacement = {tensor: nodes[-1].outputs[0] for tensor, nodes in chains.items() if nodes}
    inner: dict[str, str] = {}
    if graph_outputs:
        for tensor in model.output_names:
            if tensor in replacement and tensor not in model.input_names:
                inner[tensor] = unique_name(model, f"{tensor}_inner")

    def entering(tensor: str) -> list[Node]:
        """Return the nodes to insert behind a tensor."""
        nodes = chains.get(tensor, ())
        if tensor not in inner:
            return list(nodes)
        return [_renamed_node(node, inner, {replacement[tensor]: tensor}) for node in nodes]

    reads = {tensor: new for tensor, new in replacement.items() if tensor not in inner}
    result = [
        node for tensor in (*model.input_names, *model.initializers) for node in entering(tensor)
    ]
    for node in model.nodes:
        result.append(_renamed_node(node, reads, inner))
        for name in node.outputs:
            result.extend(entering(name))
    constants = {inner.get(name, name): array for name, array in model.initializers.items()}
    return with_nodes(model, result, initializers={**constants, **(initializers or {})})


def rename(model: Model, tensors: Mapping[str, str]) -> Model:
    """Return the model with tensors renamed everywhere: inputs, outputs, constants, subgraphs."""
    return dataclasses.replace(
        model,
        inputs=tuple(_renamed_tensor(tensor, tensors) for tensor in model.inputs),
        outputs=tuple(_renamed_tensor(tensor, tensors) for tensor in model.outputs),
        nodes=tuple(_renamed_node(node, tensors, tensors) for node in model.nodes),
        initializers={tensors.get(name, name): a for name, a in model.initializers.items()},
    )


def prune(model: Model) -> Model:
    """Return the model without nodes and constants that no output needs; inputs stay."""
    needed = set(model.output_names)
    kept = []
    for node in reversed(model.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.reads)
            kept.append(node)
    return dataclasses.replace(
        model,
        nodes=tuple(reversed(kept)),
        initializers={name: a for name, a in model.initializers.items() if name in needed},
    )


def extract(model: Model, outputs: Sequence[str]) -> Model:
    """Return the part of a model that computes the given tensors.

    Args:
      model: The network.
      outputs: Tensor names, the outputs of the result in this order.

    Returns:
      A model with all the inputs of the original, so that the same feeds run it.

    Raises:
      ModelError: A tensor does not exist.
    """
    described = {tensor.name: tensor for tensor in (*model.inputs, *model.outputs)}
    for name in outputs:
        if name not in described and name not in model.producers and name not in model.initializers:
            raise ModelError(f"there is no tensor {name!r}", hint="give the name of a tensor")
    chosen = tuple(
        described.get(name, Tensor(name=name, dtype=None, shape=None)) for name in outputs
    )
    return prune(dataclasses.replace(model, outputs=chosen))


def unique_name(model: Model, wanted: str) -> str:
    """Return `wanted`, or with a suffix the first name that no node and no tensor has."""
    name, suffix = wanted, 0
    while name in model.names:
        suffix += 1
        name = f"{wanted}_{suffix}"
    return name


_DAMAGED = "the file is damaged or its export was incomplete: export it again"


def _sorted(nodes: tuple[Node, ...], available: set[str], where: str) -> tuple[Node, ...]:
    writers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in filter(None, node.outputs):
            if name in writers or name in available:
                raise ModelError(
                    f"tensor {name!r} is written twice", where=f"node {node.name!r}" + _in(where)
                )
            writers[name] = index
    readers: dict[int, list[int]] = {}
    waiting = [0] * len(nodes)
    for index, node in enumerate(nodes):
        for name in node.reads:
            if name in available:
                continue
            if name not in writers:
                raise ModelError(
                    f"tensor {name!r} is read but never written",
                    where=f"node {node.name!r} ({node.op})" + _in(where),
                    hint=_DAMAGED,
                )
            readers.setdefault(writers[name], []).append(index)
            waiting[index] += 1
    ready = [index for index, count in enumerate(waiting) if count == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers.get(index, ()):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) < len(nodes):
        stuck = next(node for node, count in zip(nodes, waiting, strict=True) if count)
        raise ModelError(
            "the graph has a cycle", where=f"node {stuck.name!r} ({stuck.op})" + _in(where)
        )
    return tuple(nodes[index] for index in order)


def _in(where: str) -> str:
    return f" in {where}" if where else ""


def _renamed_tensor(tensor: Tensor, names: Mapping[str, str]) -> Tensor:
    return dataclasses.replace(tensor, name=names.get(tensor.name, tensor.name))


def _renamed_node(node: Node, reads: Mapping[str, str], writes: Mapping[str, str]) -> Node:
    """Return a node that reads and writes other tensors, inside its subgraphs too."""
    if not (reads.keys() & set(node.reads) or writes.keys() & set(node.outputs)):
        return node
    attributes: dict[str, Attribute] = {
        key: _renamed_captures(value, reads) if isinstance(value, Model) else value
        for key, value in node.attributes.items()
    }
    return dataclasses.replace(
        node,
        inputs=tuple(reads.get(name, name) for name in node.inputs),
        outputs=tuple(writes.get(name, name) for name in node.outputs),
        attributes=attributes,
    )


def _renamed_captures(subgraph: Model, reads: Mapping[str, str]) -> Model:
    outer = {name: reads[name] for name in subgraph.captured if name in reads}
    if not outer:
        return subgraph
    return dataclasses.replace(
        subgraph,
        nodes=tuple(_renamed_node(node, outer, {}) for node in subgraph.nodes),
        outputs=tuple(_renamed_tensor(tensor, outer) for tensor in subgraph.outputs),
    )
