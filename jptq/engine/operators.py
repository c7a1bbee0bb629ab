"""Find the operator that a node means; refuse what has no implementation, all of it at once."""

from __future__ import annotations

from jptq import ops
from jptq.engine import subgraphs
from jptq.errors import UnsupportedOpError
from jptq.ir.model import Model, Node
from jptq.ops.not_yet import NOT_YET
from jptq.ops.registry import Op


def find_op(model: Model, node: Node) -> Op | None:
    """Return the operator that a node means under the model's opsets."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    return ops.find(domain, node.op, model.opset(node.domain))


def refuse_unsupported(model: Model) -> None:
    """Name every operator and attribute without an implementation, subgraphs included.

    Raises:
      UnsupportedOpError: There are some.
    """
    missing: dict[str, list[str]] = {}
    reasons: dict[str, str] = {}
    for owner, node in subgraphs.walk(model):
        if node.is_calibration:
            continue
        entry = find_op(owner, node)
        if entry is None:
            if node.domain in ("", "ai.onnx") and node.op in NOT_YET:
                reasons[node.op] = NOT_YET[node.op]
            domain = f"{node.domain}::" if node.domain else ""
            missing.setdefault(f"{domain}{node.op}-{owner.opset(node.domain)}", []).append(
                node.name
            )
            continue
        for name in sorted(set(node.attributes) - set(entry.attributes)):
            if not entry.open_attributes:
                missing.setdefault(f"{node.op} attribute {name!r}", []).append(node.name)
    if missing:
        listed = "; ".join(
            f"{what} ({len(names)}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for what, names in sorted(missing.items())
        )
        raise UnsupportedOpError(
            f"{len(missing)} operator{'s' if len(missing) > 1 else ''} that jptq lacks",
            where=listed,
            why="; ".join(f"{op}: {reason}" for op, reason in sorted(reasons.items())),
            hint="replace them, cut the network before them (onnx.utils.extract_model), or report "
            "the operator",
        )
