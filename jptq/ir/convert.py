"""Between the library's graph, which passes edit in place, and our immutable `Model`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from jptq.errors import ModelError
from jptq.ir.model import HORIZON, Attribute, Dimension, Model, Node, Tensor
from jptq.ir.versions import OLDEST_IR, ir_version

TensorFactory = Callable[[str, np.ndarray], ir.TensorProtocol]

_EXACT_SCALARS = {ir.AttributeType.INT, ir.AttributeType.STRING}
_EXACT_LISTS = {ir.AttributeType.INTS, ir.AttributeType.STRINGS}
_TYPES = {
    onnx.defs.OpSchema.AttrType.FLOATS: ir.AttributeType.FLOATS,
    onnx.defs.OpSchema.AttrType.STRINGS: ir.AttributeType.STRINGS,
}
_LISTS = {
    int: ir.AttributeType.INTS,
    float: ir.AttributeType.FLOATS,
    str: ir.AttributeType.STRINGS,
}
_CONTAINERS: Mapping[str, type[ir.SequenceType] | type[ir.OptionalType]] = {
    "sequence": ir.SequenceType,
    "optional": ir.OptionalType,
}


def freeze(model: ir.Model) -> Model:
    """Return a library model as immutable data.

    Arrays are views of the model's memory (or of its mapped external data), read-only.

    Raises:
      ModelError: An attribute has a type that `Node` does not hold.
    """
    opsets = {"" if domain == "ai.onnx" else domain: v for domain, v in model.opset_imports.items()}
    frozen = _freeze_graph(model.graph, opsets, max(model.ir_version or 0, OLDEST_IR))
    return dataclasses.replace(frozen, metadata=dict(model.metadata_props))


def thaw(model: Model, *, tensor: TensorFactory | None = None) -> ir.Model:
    """Return a model as a library graph with use-def chains; the inverse of `freeze`.

    Args:
      model: A model in topological order.
      tensor: Makes the tensor of an initializer of the main graph (to write its bytes elsewhere).
    """
    opsets = dict(model.opsets)
    if _has_horizon(model):
        opsets.setdefault(HORIZON, 1)
    graph = _thaw_graph(model, {}, tensor or to_tensor)
    graph.opset_imports.update(opsets)
    return ir.Model(
        graph,
        ir_version=ir_version(model.opset(""), given=model.ir_version),
        producer_name="jptq",
        metadata_props=dict(model.metadata),
    )


def to_tensor(name: str, array: np.ndarray) -> ir.TensorProtocol:
    """Return an array as a library tensor; object arrays hold text."""
    if array.dtype == np.object_:
        encoded = [str(text).encode("utf-8", "surrogateescape") for text in array.ravel()]
        return ir.StringTensor(encoded, shape=ir.Shape(array.shape), name=name)
    return ir.Tensor(array, name=name)


def to_array(tensor: ir.TensorProtocol) -> np.ndarray:
    """Return the values of a library tensor; text becomes an object array of ``str``."""
    if tensor.dtype == ir.DataType.STRING:
        array = np.empty(tensor.shape.numpy(), dtype=np.object_)
        array.ravel()[:] = [
            bytes(text).decode("utf-8", "surrogateescape") for text in tensor.numpy().ravel()
        ]
    else:
        array = tensor.numpy().view()
    array.flags.writeable = False
    return array


def _freeze_graph(graph: ir.Graph, opsets: Mapping[str, int], version: int) -> Model:
    constants = {
        name: to_array(value.const_value)
        for name, value in graph.initializers.items()
        if value.const_value is not None
    }
    return Model(
        name=graph.name or "graph",
        inputs=tuple(_freeze_value(v) for v in graph.inputs if v.name not in constants),
        outputs=tuple(_freeze_value(v) for v in graph.outputs),
        nodes=tuple(_freeze_node(node, opsets, version) for node in graph),
        initializers=constants,
        opsets=dict(opsets),
        ir_version=version,
    )


def _freeze_node(node: ir.Node, opsets: Mapping[str, int], version: int) -> Node:
    def attribute(attr: ir.Attr) -> Attribute:
        # A file holds float32: what was made in memory is rounded as saving would round it.
        if attr.type == ir.AttributeType.FLOAT:
            return float(np.float32(attr.value))
        if attr.type == ir.AttributeType.FLOATS:
            return tuple(np.asarray(attr.value, np.float32).tolist())
        if attr.type in _EXACT_SCALARS:
            scalar: int | str = attr.value
            return scalar
        if attr.type in _EXACT_LISTS:
            return tuple(attr.value)
        if attr.type == ir.AttributeType.TENSOR:
            return to_array(attr.as_tensor())
        if attr.type == ir.AttributeType.TYPE_PROTO:
            described: ir.TypeAndShape = attr.value
            return _freeze_value(ir.Value(type=described.type, shape=described.shape))
        if attr.type == ir.AttributeType.GRAPH:
            return _freeze_graph(attr.as_graph(), opsets, version)
        raise ModelError(
            f"attribute {attr.name!r} of type {attr.type.name} is not supported",
            where=f"node {node.name!r} ({node.op_type})",
        )

    return Node(
        name=node.name or "",
        op=node.op_type,
        domain=node.domain,
        inputs=tuple((value.name or "") if value is not None else "" for value in node.inputs),
        outputs=_named_outputs(node, opsets),
        attributes={name: attribute(attr) for name, attr in node.attributes.items()},
    )


def _named_outputs(node: ir.Node, opsets: Mapping[str, int]) -> tuple[str, ...]:
    """Return the outputs without the optional ones at the end that have no name: they are absent.

    How many there are tells an operator what to compute, training for one.
    """
    names = [value.name or "" for value in node.outputs]
    if all(names):
        return tuple(names)
    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        formal = onnx.defs.get_schema(node.op_type, opsets.get(domain, 1), domain).outputs
    except onnx.defs.SchemaError:
        return tuple(names)
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    while names and not names[-1] and formal[min(len(names), len(formal)) - 1].option == optional:
        names.pop()
    return tuple(names)


def _freeze_value(value: ir.Value) -> Tensor:
    container: list[str] = []
    kind = value.type
    while isinstance(kind, (ir.SequenceType, ir.OptionalType)):
        container.append("sequence" if isinstance(kind, ir.SequenceType) else "optional")
        kind = kind.elem_type
    unknown = kind is None or kind.dtype == ir.DataType.UNDEFINED
    shape: tuple[Dimension, ...] | None = None
    if value.shape is not None:
        lengths = [dim if isinstance(dim, int) else dim.value for dim in value.shape]
        # Some exporters write -1 for a length that is not fixed.
        shape = tuple(None if isinstance(n, int) and n < 0 else n for n in lengths)
    return Tensor(
        name=value.name or "",
        dtype=None if unknown or kind is None else np.dtype(kind.dtype.numpy()),
        shape=shape,
        container=tuple(container),
    )


def _thaw_graph(model: Model, outer: Mapping[str, ir.Value], tensor: TensorFactory) -> ir.Graph:
    inputs = [_thaw_value(described) for described in model.inputs]
    constants = [
        ir.Value(name=name, const_value=tensor(name, array))
        for name, array in model.initializers.items()
    ]
    scope: dict[str, ir.Value] = dict(outer)
    scope.update((value.name or "", value) for value in (*inputs, *constants))
    nodes = []
    for node in model.nodes:
        outputs = [ir.Value(name=name) for name in node.outputs]
        nodes.append(
            ir.Node(
                node.domain,
                node.op,
                [scope[name] if name else None for name in node.inputs],
                [
                    _thaw_attribute(node, key, value, model, scope)
                    for key, value in node.attributes.items()
                ],
                outputs=outputs,
                name=node.name,
            )
        )
        scope.update((value.name, value) for value in outputs if value.name)
    results = []
    for described in model.outputs:
        value = scope[described.name]
        results.append(value)
        if value in inputs:  # the input says more than the output that it also is
            continue
        typed = _thaw_value(described)
        value.type, value.shape = typed.type, typed.shape
    return ir.Graph(inputs, results, nodes=nodes, initializers=constants, name=model.name)


def _thaw_attribute(
    node: Node, name: str, value: Attribute, model: Model, scope: Mapping[str, ir.Value]
) -> ir.Attr:
    if isinstance(value, Model):
        return ir.AttrGraph(name, _thaw_graph(value, scope, to_tensor))
    if isinstance(value, np.ndarray):
        return ir.AttrTensor(name, to_tensor("", value))
    if isinstance(value, Tensor):
        typed = _thaw_value(value)
        assert typed.type is not None
        return ir.AttrTypeProto(name, ir.TypeAndShape(typed.type, typed.shape))
    if value == ():
        # An empty list does not show its type; the operator's schema does.
        return ir.Attr(name, _schema_type(node, name, model), ())
    # The library tells lists apart by what protocols they fulfil, a tenth of the time of a save.
    kinds = {type(one) for one in value} if isinstance(value, tuple) else set()
    listed = _LISTS.get(kinds.pop()) if len(kinds) == 1 else None
    return ir.convenience.convert_attribute(name, value, listed)


def _schema_type(node: Node, attribute: str, model: Model) -> ir.AttributeType:
    try:
        schema = onnx.defs.get_schema(node.op, model.opset(node.domain), node.domain)
        return _TYPES.get(schema.attributes[attribute].type, ir.AttributeType.INTS)
    except (onnx.defs.SchemaError, KeyError):
        return ir.AttributeType.INTS


def _thaw_value(described: Tensor) -> ir.Value:
    kind: ir.TypeProtocol | None = None
    if described.dtype is not None or described.container:
        dtype = ir.DataType.UNDEFINED
        if described.dtype is not None:
            text = described.dtype == np.object_
            dtype = ir.DataType.STRING if text else ir.DataType.from_numpy(described.dtype)
        kind = ir.TensorType(dtype)
        for container in reversed(described.container):
            kind = _CONTAINERS[container](kind)
    shape = None if described.shape is None else ir.Shape(described.shape)
    return ir.Value(name=described.name, type=kind, shape=shape)


def _has_horizon(model: Model) -> bool:
    return any(
        node.domain == HORIZON or any(map(_has_horizon, node.subgraphs)) for node in model.nodes
    )
