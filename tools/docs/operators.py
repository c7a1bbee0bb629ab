"""``python -m tools.docs.operators``: write ``docs/operators.md`` from the registry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from jptq import files
from jptq.ops import Kind, Op, registered
from jptq.ops.not_yet import NOT_YET

PAGE = Path("docs/operators.md")

_HEAD = """\
# Operators

*Generated from the registry by `make docs`.*

An operator is a function whose signature is its ONNX schema. It stands for the schema versions that
are listed; a node of an opset in between means the version before it. How it treats a grid of
quantized values:

| kind | meaning |
| --- | --- |
"""

_KINDS = {
    Kind.COMPUTE: "makes new values: own thresholds in and out",
    Kind.VIEW: "moves, selects or repeats values: input and output share one grid",
    Kind.FUSABLE: "keeps values and may join its producer (Relu, Clip)",
    Kind.FLOAT_ONLY: "runs in float, is never quantized",
    Kind.SHAPE_ONLY: "works on shapes, indices or booleans",
}

_REACH = """\

*Tells apart* says which values of its first input, of the grid for GridSample, of all inputs for
Add and its like, an operator's output still tells apart, within half an INT16 step: a threshold
[stops there](method.md#where-thresholds-stop). Where the column is empty it is all of them. Views
hand on what their own readers tell apart.

"""

_DIFFERENCES = """\
## Where others differ

Outputs are compared with the node cases that ONNX ships, with its reference evaluator and
with onnxruntime. What differs, and why it stays:

| operator | difference |
| --- | --- |
| AffineGrid, expanded | Its size is needed inside an If: refused, by name. |
| Attention in bfloat16 | Sums are float32; the evaluator rounds every addition: a step (0.0078). |
| Cast to float8_e8m0 | Special and subnormal values follow ONNX's table, the evaluator does not. |
| Equal and others, of text | Refused: networks are computed with numbers alone. |
| If under a computed condition | Branches that give other shapes or structures are refused. |
| LogSoftmax | Far below the maximum it is finite; the evaluator's quotient underflows to -inf. |
| MaxPool, AveragePool, LpPool | `auto_pad=VALID` with `ceil_mode=1` counts the partial window, as \
ONNX's shape inference and onnxruntime do; the text of VALID does not. |
| Resize, `align_corners` | Sizes of scales are whole, as in ONNX's text and onnxruntime; the \
evaluator divides by the fractional length. |
| Poolings, SAME with dilations | Pads follow ONNX's text; onnxruntime leaves the dilation out. |
| RNN with ThresholdedRelu | Its alpha is ONNX's 1 if absent; onnxruntime has 0. |

"""

_NOT_YET = """\
## Not here

A network with one of these is refused, with the names of all such nodes at once.

| operator | why |
| --- | --- |
"""


def page() -> str:
    """Return the page."""
    kinds = _rows((kind.value, meaning) for kind, meaning in _KINDS.items())
    text = [_HEAD + kinds + _REACH.rstrip() + "\n"]
    families: dict[str, list[Op]] = defaultdict(list)
    for entry in registered():
        families[entry.function.__module__.rpartition(".")[2]].append(entry)
    for family in sorted(families):
        table = "| operator | versions | kind | tells apart | CPU lowerings |\n"
        table += "| --- | --- | --- | --- | --- |\n"
        rows = sorted(map(_row, families[family]))
        text.append(f"## {family.replace('_', ' ').capitalize()}\n\n{table}{_rows(rows)}")
    text.append(_DIFFERENCES.rstrip() + "\n")
    text.append(_NOT_YET + _rows(sorted(NOT_YET.items())))
    return "\n".join(text)


def _row(entry: Op) -> tuple[str, ...]:
    name = f"{entry.domain}::{entry.name}" if entry.domain else entry.name
    versions = ", ".join(map(str, sorted(entry.since)))
    lowerings = ", ".join(way.name for way in entry.lowerings)
    reach = entry.traits.reach
    told = "" if reach is None or (entry.traits.kind is Kind.VIEW and reach.passes) else reach.told
    return name, versions, entry.traits.kind.value, told, lowerings


def _rows(rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    files.write_text(PAGE, page())
