"""Types of operands against ONNX's schemas: what no program could run is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from jptq.errors import ModelError
from jptq.ir.element_types import (
    Type,
    declared,
    passed_on,
    results_of,
    signature_of,
    types_of,
)
from jptq.ir.model import Model, Node

_MOST_TYPES: Final = 6
"""Types of a long list that are shown."""

_INSERTING: Final = ("SequenceInsert",)
"""Put their second input into their first."""

_Fault = tuple[str, str, str]
"""What, where, why."""


def check_types(model: Model, *, where: str = "") -> None:
    """Refuse nodes whose operands have types that their operators do not take.

    Bodies are looked at, too. What has no schema, or hangs on something that has none, is not.

    Args:
      model: As loaded.
      where: Its file, for the message.

    Raises:
      ModelError: Names the first such node and operand, and how many more there are.
    """
    faults: list[_Fault] = []

    def visit(graph: Model, node: Node, inputs: Sequence[Type]) -> None:
        faults.extend(_of_operands(graph, node, inputs) or _of_calls(graph, node, inputs))

    known = types_of(model, {}, visit)
    for tensor in model.outputs:
        asked, found = declared(tensor), known.get(tensor.name)
        if asked is not None and found is not None and asked != found:
            faults.append(
                (
                    f"graph output {tensor.name!r} is {_short(found)}",
                    "",
                    f"the file declares it {_short(asked)}",
                )
            )
    if not faults:
        return
    what, node, why = faults[0]
    more = f"; {len(faults) - 1} more faults of this kind" if len(faults) > 1 else ""
    raise ModelError(
        what,
        where=" in ".join(filter(None, (node, where))),
        why=why + more,
        hint="the file is no valid ONNX (onnxruntime refuses it, too): mend its export",
    )


def _of_operands(graph: Model, node: Node, inputs: Sequence[Type]) -> list[_Fault]:
    known = signature_of(graph, node)
    if known is None or not known.inputs:
        return []
    where = f"node {node.name!r} ({node.op})"
    first: dict[str, tuple[str, str]] = {}
    for index, (name, found) in enumerate(zip(node.inputs, inputs, strict=True)):
        formal = known.input(index)
        if found is None:
            continue
        allowed = known.allowed.get(formal.type, (formal.type,))
        if found not in allowed:
            return [
                (
                    f"{node.op} does not take {_short(found)} as {formal.name!r}",
                    f"tensor {name!r} at {where}",
                    f"it takes {_listed(allowed)}",
                )
            ]
        if not formal.alike:
            continue
        other, type_ = first.setdefault(formal.type, (name, found))
        if type_ != found:
            return [
                (
                    f"{node.op} does not take {_short(type_)} and {_short(found)} together",
                    f"tensors {other!r} and {name!r} at {where}",
                    "both have to be of one type",
                )
            ]
    if node.op in _INSERTING and None not in inputs[:2] and inputs[0] != f"seq({inputs[1]})":
        what = f"{node.op} does not take {_short(str(inputs[1]))} into {inputs[0]}"
        return [(what, f"tensor {node.inputs[1]!r} at {where}", "a sequence is of one type")]
    return []


def _of_calls(graph: Model, node: Node, inputs: Sequence[Type]) -> list[_Fault]:
    """Return where a body is called with another number of values, or other types."""
    given, least = passed_on(graph, node, inputs), results_of(node, len(inputs))
    if given is None:
        return []
    for body in node.subgraphs:
        asked = len(body.inputs)
        if asked != len(given) or len(body.outputs) < least:
            return [
                (
                    f"{node.op} needs a body of {len(given)} inputs and at least {least} outputs",
                    f"node {node.name!r}",
                    f"its body has {asked} and {len(body.outputs)}",
                )
            ]
    return [
        (
            f"{node.op} calls its body with {_short(passed)}",
            f"node {node.name!r}, input {tensor.name!r} of the body",
            f"the body declares it {_short(wanted)}",
        )
        for body in node.subgraphs
        for tensor, passed in zip(body.inputs, given, strict=True)
        for wanted in [declared(tensor)]
        if wanted is not None and passed is not None and wanted != passed
    ]


def _short(type_: str) -> str:
    """Write the type of a tensor as its elements' type."""
    return type_.removeprefix("tensor(").removesuffix(")") if type_[:7] == "tensor(" else type_


def _listed(types: Sequence[str]) -> str:
    short = [_short(type_) for type_ in types]
    kept = short if len(short) <= _MOST_TYPES else [*short[:_MOST_TYPES], "..."]
    return ", ".join(kept)
