"""What the passes share: reading constants, checking uses, replacing nodes."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import onnx_ir as ir

from jptq.ir.convert import to_array

AttributeValue = int | float | str | Sequence[int] | Sequence[float]

_logger = logging.getLogger(__name__)

_names: WeakKeyDictionary[ir.Graph, set[str]] = WeakKeyDictionary()


def producer(value: ir.Value | None, *ops: str) -> ir.Node | None:
    """Return the node that writes a value if it is one of these ONNX operators, else None."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.domain == "" and node.op_type in ops else None


def inner(value: ir.Value | None, *ops: str) -> ir.Node | None:
    """Return the writer of a value that a fusion may swallow: one of `ops`, read only once."""
    node = producer(value, *ops)
    return node if node is not None and sole_reader(node.outputs[0]) is not None else None


def sole_reader(value: ir.Value) -> ir.Node | None:
    """Return the node that alone reads a value; None if several do or it is a graph output."""
    uses = tuple(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    reader = uses[0].node
    # A reader in a subgraph may run any number of times.
    return reader if reader.graph is value.graph else None


def forget(body: ir.Graph) -> None:
    """Stop a subgraph that never runs from counting as a reader of outer tensors."""
    for node in body.all_nodes():
        for index in range(len(node.inputs)):
            node.replace_input_with(index, None)


def reads_beyond_first(node: ir.Node) -> bool:
    """Tell whether anything needs another output of a node than the first."""
    return any(output.uses() or output.is_graph_output() for output in node.outputs[1:])


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return the array of an initializer, or None."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return to_array(value.const_value)


def scalar(value: ir.Value | None) -> float | None:
    """Return the number in a float initializer of one element, or None."""
    array = constant(value)
    if array is None or array.size != 1 or array.dtype.kind != "f":
        return None
    return float(array.item())


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """Return a value's shape if every length is known, else None."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(value.shape.numpy())


def is_float32(value: ir.Value | None) -> bool:
    """Tell whether a value is known to be float32."""
    return value is not None and value.dtype == ir.DataType.FLOAT


def number(node: ir.Node, name: str, default: float) -> float:
    """Return an int or float attribute as a float."""
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.value)


def ints(node: ir.Node, name: str) -> tuple[int, ...] | None:
    """Return an integer list attribute, or None where the node has none."""
    attribute = node.attributes.get(name)
    return None if attribute is None else tuple(attribute.as_ints())


def add_initializer(graph: ir.Graph, wanted: str, array: np.ndarray) -> ir.Value:
    """Add a constant under a name that nothing in the graph has yet."""
    taken = tensor_names(graph)
    name = free_name(wanted, taken)
    taken.add(name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        const_value=ir.Tensor(array, name=name),
    )
    graph.register_initializer(value)
    return value


def tensor_names(graph: ir.Graph) -> set[str]:
    """Return the names that tensors of a graph have, or had; whoever makes a tensor adds its own.

    They are collected once: doing so for every constant that is added takes as long as the square
    of the nodes.
    """
    if graph not in _names:
        _names[graph] = set(ir.convenience.create_value_mapping(graph))
    return _names[graph]


def free_name(wanted: str, taken: Container[str]) -> str:
    """Return `wanted`, or with a suffix the first name that is not taken."""
    name, suffix = wanted, 0
    while name in taken:
        suffix += 1
        name = f"{wanted}_{suffix}"
    return name


def set_constant(node: ir.Node, index: int, array: np.ndarray, wanted: str) -> None:
    """Give a node other values in a constant input; other readers of the constant keep theirs.

    Args:
      node: The node.
      index: Which input; may be one past the last or absent.
      array: The new values.
      wanted: Name for the constant where a new one is needed.
    """
    graph = node.graph
    old = node.inputs[index] if index < len(node.inputs) else None
    if graph is None:
        return
    if old is not None and sole_reader(old) is node and old.name:
        old.const_value = ir.Tensor(array, name=old.name)
        old.shape = ir.Shape(array.shape)
        old.dtype = ir.DataType.from_numpy(array.dtype)
        return
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, add_initializer(graph, wanted, array))


def substitute(
    root: ir.Node,
    op: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, AttributeValue] | None = None,
    *,
    domain: str = "",
    name: str | None = None,
) -> ir.Node:
    """Put one node in the place of `root` and of whatever then feeds nothing any more.

    The new node writes the tensor of `root`'s first output and, unless `name` is given, has its
    name.
    """
    old = root.outputs[0]
    new = ir.Node(
        domain,
        op,
        inputs,
        ir.convenience.convert_attributes(attributes or {}),
        name=root.name if name is None else name,
        outputs=[ir.Value(name=old.name, shape=old.shape, type=old.type)],
    )
    graph = root.graph
    if not isinstance(graph, ir.Graph):
        raise TypeError(f"{root.name!r} is not part of a graph")
    graph.insert_before(root, new)
    old.replace_all_uses_with(new.outputs[0], replace_graph_outputs=True)
    if domain:
        graph.opset_imports.setdefault(domain, 1)
    _take_up(graph, remove_unread(root), new)
    return new


def bypass(node: ir.Node, value: ir.Value) -> bool:
    """Let the readers of a node's only used output read `value` instead, and drop the node.

    A graph output keeps its name: `value` takes it over, unless it is a graph input, a constant
    or an output itself; then the node must stay.

    Returns:
      Whether the node is gone.
    """
    output, graph = node.outputs[0], node.graph
    if output.is_graph_output():
        if value.producer() is None or value.is_graph_output() or value.graph is not output.graph:
            _logger.debug("%s stays: it names a graph output", node.name)
            return False
        name, shape, kind = output.name, output.shape, output.type
        output.replace_all_uses_with(value, replace_graph_outputs=True)
        removed = remove_unread(node)
        value.name, value.shape, value.type = name, shape, kind
    else:
        output.replace_all_uses_with(value)
        removed = remove_unread(node)
    _take_up(graph, removed, value.producer())
    return node.graph is None


def remove_unread(node: ir.Node) -> list[str]:
    """Remove a node if nothing reads it, then its producers likewise; return their names."""
    if any(output.uses() or output.is_graph_output() for output in node.outputs):
        return []
    before = [value.producer() for value in node.inputs if value is not None]
    graph = node.graph
    if graph is None:
        return []
    graph.remove(node, safe=True)
    removed = [node.name] if node.name else []
    for writer in before:
        if writer is not None:
            removed += remove_unread(writer)
    return removed


_FUSED = "fused"


def _take_up(graph: object, removed: Sequence[str], node: ir.Node | None) -> None:
    """Note which node computes what others did; those of subgraphs have no place of their own."""
    if isinstance(graph, ir.Graph) and node is not None and node.name:
        fused = graph.meta.setdefault(_FUSED, {})
        fused.update({name: node.name for name in removed if name != node.name})


def fused(graph: ir.Graph) -> Mapping[str, str]:
    """Return ``{node that is gone: node that took it up}`` of all that the passes have fused."""
    return dict(graph.meta.get(_FUSED, {}))
