"""Find the operator that a node means; refuse what has no implementation, all of it at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jptq import ops
from jptq.engine import subgraphs
from jptq.engine.arrange import Spec
from jptq.errors import UnsupportedOpError
from jptq.ir.model import Model, Node
from jptq.ops.not_yet import NOT_YET
from jptq.ops.registry import Lowering, Op


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


def refuse_text(node: Node, tensors: Sequence[str]) -> None:
    """Refuse a node that reads text.

    Args:
      node: Is lowered.
      tensors: Those of its inputs that are text.

    Raises:
      UnsupportedOpError: There are some.
    """
    if tensors:
        raise UnsupportedOpError(
            f"{node.op} of text",
            where=f"node {node.name!r}, tensors {', '.join(map(repr, tensors))}",
            why="networks are computed with numbers alone: text never reaches an accelerator",
            hint="cut the network behind this node and feed what it gives",
        )


def choose(
    entry: Op,
    specs: Sequence[Spec | None],
    static: Mapping[int, np.ndarray],
    attributes: Mapping[str, Any],
    platform: str,
    prefer: Mapping[str, str],
) -> Lowering | None:
    """Return the lowering that computes a node; None for the operator's own function.

    Args:
      entry: Its operator.
      specs: Shape and dtype of each operand; None where absent.
      static: Values of operands that are known and needed while tracing.
      attributes: Of the node.
      platform: Where it runs.
      prefer: ``{operator: lowering}`` to force.
    """
    wanted = prefer.get(entry.name)
    if wanted == "default":
        return None
    shown = [static.get(i, s) for i, s in enumerate(specs)]
    for lowering in entry.lowerings:
        if lowering.platform not in ("", platform) or wanted not in (None, lowering.name):
            continue
        if lowering.when(*shown, **attributes):
            return lowering
    return None


def cost_of(
    entry: Op,
    specs: Sequence[Spec | None],
    results: Sequence[Spec],
    attributes: Mapping[str, Any],
) -> tuple[int, int]:
    """Return the MACs and the elementary operations of a node; arguments as of `choose`."""
    size = int(np.prod(results[0].shape)) if results else 0
    if entry.cost is None:
        return 0, size
    shapes = [tuple(s.shape) if s is not None else () for s in specs]
    cost = entry.cost(
        *shapes,
        tuple(results[0].shape),
        **{k: v for k, v in attributes.items() if k != "n_outputs"},
    )
    return cost.macs, cost.vector
