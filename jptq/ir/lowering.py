"""A model as an earlier opset spells it, for readers that know no later one.

Since opset 20 most new versions of an operator only admit more types. Such a node is the same in
the earlier opset, word for word; one that is not, and the reason, is told. Source: ONNX operator
changelog, by way of its schemas.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import onnx
import onnx_ir as ir

from jptq.ir.element_types import DType, element_types
from jptq.ir.model import Attribute, Model, Node
from jptq.ir.opset import changes_after
from jptq.ir.versions import VENDOR_OPSET

_DOMAINS = ("", "ai.onnx")


def for_vendor(model: Model) -> Model:
    """Return the model in the latest opset that the vendor's tool reads, or as it is.

    A model of that opset or an earlier one stays, and so does one with nodes that need a later one
    (`beyond`).
    """
    if model.opset("") <= VENDOR_OPSET or beyond(model):
        return model
    return _relabelled(model)


def beyond(model: Model, version: int = VENDOR_OPSET) -> tuple[str, ...]:
    """Return what needs an opset later than ``version``: nodes, each with the reason."""
    if model.opset("") <= version:
        return ()
    return tuple(_reasons(model, model.opset(""), version, {}))


def unread(model: Model) -> str:
    """Return a sentence about a model that the vendor's tool cannot read; empty if it can."""
    found = beyond(model)
    if model.opset("") <= VENDOR_OPSET or not found:
        return ""
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return (
        f"The files for the vendor's tool have opset {model.opset('')}, and HMCT reads "
        f"{VENDOR_OPSET} at most (onnx 1.15): {found[0]}{more}."
    )


def _reasons(graph: Model, old: int, version: int, outer: Mapping[str, DType]) -> Iterator[str]:
    dtypes = {**outer, **element_types(graph, outer)}
    for node in graph.nodes:
        for body in node.subgraphs:
            yield from _reasons(body, old, version, dtypes)
        if node.domain in _DOMAINS:
            why = _reason(node, [dtypes.get(name) for name in node.inputs], old, version)
            if why:
                yield f"node {node.name!r} ({node.op}) {why}"


def _reason(node: Node, dtypes: Sequence[DType], old: int, version: int) -> str:
    try:
        now = onnx.defs.get_schema(node.op, old, "")
    except onnx.defs.SchemaError:
        return f"is not in opset {old}"
    if now.since_version <= version:
        return ""
    try:
        before = onnx.defs.get_schema(node.op, version, "")
    except onnx.defs.SchemaError:
        return f"came with opset {_first(node.op)}"
    if changes_after(node.op, version):
        return f"has another meaning before opset {now.since_version}"
    if not before.min_input <= len(node.inputs) <= before.max_input:
        return f"has {len(node.inputs)} inputs, opset {version} knows {before.max_input}"
    if not before.min_output <= len(node.outputs) <= before.max_output:
        return f"has {len(node.outputs)} outputs, opset {version} knows {before.max_output}"
    for key, value in node.attributes.items():
        if key not in before.attributes and value != _default(now, key):
            return f"has the attribute {key}, which opset {version} does not know"
    for key in now.attributes.keys() & before.attributes.keys() - node.attributes.keys():
        if _default(now, key) != _default(before, key):
            return f"relies on the default of {key}, which is another in opset {version}"
    for index, dtype in enumerate(dtypes):
        allowed = before.inputs[min(index, len(before.inputs) - 1)].types
        if dtype is not None and _type_name(dtype) not in allowed:
            return f"reads {dtype}, which opset {version} does not admit"
    return ""


def _first(op: str) -> int:
    """Return the opset that brought an operator."""
    schemas = onnx.defs.get_all_schemas_with_history()
    return min(s.since_version for s in schemas if s.name == op and s.domain == "")


def _type_name(dtype: DType) -> str:
    names = {"float32": "float", "float64": "double", "object": "string"}
    if dtype is None or dtype.kind == "O":
        return "tensor(string)"
    name = ir.DataType.from_numpy(dtype).name.lower()
    return f"tensor({names.get(name, name)})"


def _default(schema: onnx.defs.OpSchema, key: str) -> Attribute | None:
    value = schema.attributes[key].default_value
    if value.type == onnx.AttributeProto.UNDEFINED:
        return None
    found = onnx.helper.get_attribute_value(value)
    if isinstance(found, bytes):
        return found.decode()
    return tuple(found) if isinstance(found, list) else found


def _relabelled(graph: Model) -> Model:
    nodes = []
    for node in graph.nodes:
        attributes = {
            key: _relabelled(value) if isinstance(value, Model) else value
            for key, value in node.attributes.items()
            if not _is_new(node, key)
        }
        nodes.append(dataclasses.replace(node, attributes=attributes))
    opsets = {domain: v for domain, v in graph.opsets.items() if domain not in _DOMAINS}
    return dataclasses.replace(graph, nodes=tuple(nodes), opsets={"": VENDOR_OPSET, **opsets})


def _is_new(node: Node, key: str) -> bool:
    """Tell whether an attribute of a node came later; it then has its default."""
    if node.domain not in _DOMAINS:
        return False
    return key not in onnx.defs.get_schema(node.op, VENDOR_OPSET, "").attributes
