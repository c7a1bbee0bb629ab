"""Types of tensors by ONNX's schemas alone, vendor operators among the nodes or not.

A type is written as a schema writes it: ``tensor(float)``, ``seq(tensor(int64))``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

from jptq.ir.model import HORIZON, Model, Node, Tensor

DType: TypeAlias = np.dtype | None
Type: TypeAlias = str | None
"""None where it is not known."""

Visit: TypeAlias = Callable[[Model, Node, Sequence[Type]], None]
"""``visit(graph, node, types of its inputs)``."""

_CONTAINERS: Final = {"sequence": "seq", "optional": "optional"}
_INT64: Final = "tensor(int64)"
_DEFAULTS: Final = {
    **dict.fromkeys(("ConstantOfShape", "RandomNormal", "RandomUniform"), "tensor(float)"),
    **dict.fromkeys(("BlackmanWindow", "HammingWindow", "HannWindow"), "tensor(float)"),
    "MelWeightMatrix": "tensor(float)",
    "Multinomial": "tensor(int32)",
    "SequenceEmpty": "seq(tensor(float))",
}
"""Of operators whose inputs say nothing, where no attribute does."""

_TYPE_KEYS: Final = ("to", "dtype", "output_datatype", "output_dtype")
_VALUE_KEYS: Final = {
    "value_float": "tensor(float)",
    "value_floats": "tensor(float)",
    "value_int": _INT64,
    "value_ints": _INT64,
    "value_string": "tensor(string)",
    "value_strings": "tensor(string)",
}
_EMPTY: Final = ("SequenceEmpty",)
_LIKE_THE_INPUT: Final = ("Bernoulli", "EyeLike", "RandomNormalLike", "RandomUniformLike")
_WRAPPING: Final = {
    "SequenceMap": "seq",
    "SequenceConstruct": "seq",
    "SplitToSequence": "seq",
    "Optional": "optional",
}
_UNWRAPPING: Final = {
    "SequenceAt": "seq",
    "ConcatFromSequence": "seq",
    "OptionalGetElement": "optional",
}


def element_types(graph: Model, outer: Mapping[str, DType]) -> dict[str, DType]:
    """Return the element type of every tensor that a graph holds; None where it is not known.

    Args:
      graph: A model or the body of a node.
      outer: The types of the graph around it.
    """
    around = {name: None if dtype is None else written(dtype) for name, dtype in outer.items()}
    return {name: _dtype(known) for name, known in types_of(graph, around).items()}


def types_of(
    graph: Model,
    outer: Mapping[str, Type],
    visit: Visit = lambda graph, node, types: None,
    *,
    given: Sequence[Type] = (),
) -> dict[str, Type]:
    """Return the type of every value that a graph holds.

    Args:
      graph: A model, or the body of a node (which has the opsets of the model).
      outer: The types of the graph around it.
      visit: Called for each node, those of bodies included, before the types behind it are found.
      given: Of a body: the types that it is called with; they hold where it declares none.
    """
    passed = [*given, *[None] * (len(graph.inputs) - len(given))]
    known: dict[str, Type] = {
        tensor.name: declared(tensor) or type_
        for tensor, type_ in zip(graph.inputs, passed, strict=False)
    }
    known |= {name: written(array.dtype) for name, array in graph.initializers.items()}
    around: Mapping[str, Type] = ChainMap(known, outer)  # type: ignore[arg-type]  # only read
    for node in graph.nodes:
        inputs = [around.get(name) if name else None for name in node.inputs]
        visit(graph, node, inputs)
        called_with = passed_on(graph, node, inputs) or ()
        results = [_of_body(body, graph, around, visit, called_with) for body in node.subgraphs]
        known |= zip(node.outputs, _of_outputs(graph, node, inputs, results), strict=False)
    return known


def declared(tensor: Tensor) -> Type:
    """Return what a graph says of an input or output."""
    if tensor.dtype is None:
        return None
    kind = written(tensor.dtype)
    for container in reversed(tensor.container):
        kind = f"{_CONTAINERS[container]}({kind})"
    return kind


def written(dtype: np.dtype) -> str:
    """Return the type of a tensor of some elements."""
    text = dtype.kind == "O" or dtype.kind in "US"
    name = "string" if text else ir.DataType.from_numpy(dtype).name.lower()
    return f"tensor({name})"


def passed_on(graph: Model, node: Node, inputs: Sequence[Type]) -> list[Type] | None:
    """Return the types that a node of a graph calls its body with; None if that is not known."""
    known = _CALLS.get(node.op)
    return None if known is None else known(inputs, graph.opset(""))


def results_of(node: Node, count: int) -> int:
    """Return how many results the body of a node with `count` inputs has at least."""
    # A Loop's body says whether to go on, too, and hands on all that is carried.
    carried = count - 2 if node.op in _CARRYING else 0
    return max(carried, len(node.outputs)) + (node.op in _CARRYING)


_CARRYING: Final = ("Loop",)


def _scanned(inputs: Sequence[Type], opset: int) -> list[Type]:
    # Up to opset 8 the lengths of the sequences come first; no body sees them.
    return list(inputs if opset > 8 else inputs[1:])


_CALLS: Final[Mapping[str, Callable[[Sequence[Type], int], list[Type]]]] = {
    "If": lambda inputs, _: [],
    "Loop": lambda inputs, _: [_INT64, "tensor(bool)", *inputs[2:]],
    "Scan": _scanned,
    "SequenceMap": lambda inputs, _: [_inside(type_, "seq") or type_ for type_ in inputs],
}
"""``{operator: types of its inputs, opset -> types that its body gets}``."""


@dataclasses.dataclass(frozen=True)
class Formal:
    """An input or output as a schema has it.

    Attributes:
      name: Its name.
      type: A type, or the name of a type variable.
      alike: All arguments that it stands for have one type.
    """

    name: str
    type: str
    alike: bool


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a schema says of types.

    Attributes:
      inputs: The last one may stand for any number.
      outputs: Likewise.
      allowed: The types of each variable, in the schema's order.
    """

    inputs: tuple[Formal, ...]
    outputs: tuple[Formal, ...]
    allowed: Mapping[str, tuple[str, ...]]

    def input(self, index: int) -> Formal:
        """Return what stands for an input."""
        return self.inputs[min(index, len(self.inputs) - 1)]


@functools.cache
def signature(op: str, version: int, domain: str) -> Signature | None:
    """Return what ONNX says of an operator's types; None where it knows no such operator."""
    try:
        schema = onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        return None
    inputs, outputs = (
        tuple(Formal(f.name, f.type_str, f.is_homogeneous) for f in formals)
        for formals in (schema.inputs, schema.outputs)
    )
    return Signature(
        inputs,
        outputs,
        {c.type_param_str: tuple(c.allowed_type_strs) for c in schema.type_constraints},
    )


def signature_of(graph: Model, node: Node) -> Signature | None:
    """Return the signature of a node of a graph that has opsets."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    return signature(node.op, graph.opset(domain), domain)


def _of_body(
    body: Model, graph: Model, outer: Mapping[str, Type], visit: Visit, given: Sequence[Type]
) -> list[Type]:
    """Return the types of a body's results."""
    whole = dataclasses.replace(body, opsets=graph.opsets)
    known = types_of(whole, outer, visit, given=given)
    return [known.get(t.name, outer.get(t.name)) or declared(t) for t in body.outputs]


def _of_outputs(
    graph: Model, node: Node, inputs: Sequence[Type], bodies: Sequence[Sequence[Type]]
) -> list[Type]:
    count = len(node.outputs)
    if bodies:
        # A Loop's first result says whether to go on and is not handed out.
        results = list(bodies[0][-count:])
        wrapper = _WRAPPING.get(node.op)
        return results if wrapper is None else [_wrapped(t, wrapper) for t in results]
    if node.domain == HORIZON:
        return [inputs[0] if inputs else None] * count  # the vendor's operators keep the type
    known = signature_of(graph, node)
    if known is None:
        return [None] * count
    by_operator = _by_operator(node, inputs)
    if by_operator is not None:
        return [by_operator] * count
    taken = {
        known.input(index).type: type_
        for index, type_ in reversed(list(enumerate(inputs)))
        if type_ is not None and known.inputs
    }
    names = [known.outputs[min(i, len(known.outputs) - 1)].type for i in range(count)]
    return [taken.get(name) or _only(name, known.allowed) for name in names]


def _by_operator(node: Node, inputs: Sequence[Type]) -> Type:
    """Return the type of results that an attribute gives, or the operator by itself."""
    first = inputs[0] if inputs else None
    if node.op in _WRAPPING and inputs:
        return _wrapped(first, _WRAPPING[node.op])
    if node.op in _UNWRAPPING:
        return _inside(first, _UNWRAPPING[node.op])
    value = node.attributes.get("value")
    if isinstance(value, np.ndarray):
        return written(value.dtype)
    code = next((node.attributes[key] for key in _TYPE_KEYS if key in node.attributes), None)
    if isinstance(code, int) and code and code not in list(ir.DataType):
        return None
    if isinstance(code, int) and code:
        found = f"tensor({ir.DataType(code).name.lower()})"
        return f"seq({found})" if node.op in _EMPTY else found
    if node.op in _LIKE_THE_INPUT:
        return first
    given = (type_ for key, type_ in _VALUE_KEYS.items() if key in node.attributes)
    return next(given, _DEFAULTS.get(node.op))


def _wrapped(type_: Type, wrapper: str) -> Type:
    return None if type_ is None else f"{wrapper}({type_})"


def _inside(type_: Type, wrapper: str) -> Type:
    """Return what a container holds; None where it is none of that kind."""
    if type_ is None or not type_.startswith(f"{wrapper}("):
        return None
    return type_.removeprefix(f"{wrapper}(").removesuffix(")")


def _only(name: str, allowed: Mapping[str, Sequence[str]]) -> Type:
    """Return the type that a name stands for if there is no choice."""
    if name not in allowed:
        return name
    return allowed[name][0] if len(allowed[name]) == 1 else None


def _dtype(type_: Type) -> DType:
    name = _inside(type_, "tensor")
    if name is None:
        return None
    if name == "string":
        return np.dtype(object)
    return np.dtype(ir.DataType[name.upper()].numpy())
