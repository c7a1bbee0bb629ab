"""What jptq does not start from: networks that are quantized already."""

from __future__ import annotations

from collections import Counter

from jptq.errors import ModelError
from jptq.ir.model import Model, Node

_INTEGER = {"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}
_LINEAR = {"QuantizeLinear", "DequantizeLinear"}


def refuse_quantized(model: Model, *, where: str = "") -> None:
    """Refuse a network that computes in integers or carries quantizers of another tool.

    Args:
      model: The network as loaded.
      where: Its file, for the message.

    Raises:
      ModelError: Counts the operators and names the first nodes.
    """
    found = list(_quantized(model))
    if not found:
        return
    counts = Counter(node.op for node in found)
    listed = ", ".join(f"{count} {op}" for op, count in sorted(counts.items()))
    names = ", ".join(repr(node.name) for node in found[:3]) + (", ..." if len(found) > 3 else "")
    raise ModelError(
        f"the model is quantized already: {len(found)} nodes ({listed})",
        where=f"nodes {names}" + (f" in {where}" if where else ""),
        why="thresholds and precisions are chosen from the float network",
        hint="give the float model, as it was before quantization",
    )


def _quantized(model: Model) -> list[Node]:
    found = []
    for node in model.nodes:
        if node.op in _INTEGER or node.op in _LINEAR or node.op.startswith("QLinear"):
            found.append(node)
        for subgraph in node.subgraphs:
            found.extend(_quantized(subgraph))
    return found
