"""Decide in which order of axes one operator takes its operands and gives its outputs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jptq.engine import layouts
from jptq.engine.layouts import Perm
from jptq.ops.registry import Lowering, Op
from jptq.ops.traits import Layout

Spec = jax.ShapeDtypeStruct


@dataclasses.dataclass(kw_only=True)
class Arrangement:
    """The decision for one node.

    Attributes:
      outputs: Order of each output.
      wants: Order in which computed operands are taken; canonical if not named.
      prepare: Applied to operands on the way in: packing, broadcasting to the full rank.
      static: Values of static inputs, axis numbers turned to match.
      attributes: The node's, axis numbers turned to match.
    """

    outputs: list[Perm]
    wants: dict[int, Perm] = dataclasses.field(default_factory=dict)
    prepare: dict[int, Callable[..., Any]] = dataclasses.field(default_factory=dict)
    static: dict[int, np.ndarray]
    attributes: dict[str, Any]


def arrange(
    entry: Op,
    chosen: Lowering | None,
    have: Sequence[Perm | None],
    specs: Sequence[Spec | None],
    results: Sequence[Spec],
    static: Mapping[int, np.ndarray],
    attributes: Mapping[str, Any],
) -> Arrangement:
    """Return the arrangement of a node.

    Args:
      entry: Its operator.
      chosen: The lowering that computes it, or None for the operator's own function.
      have: Order of each operand that an earlier step computes; None for constants.
      specs: Canonical shape and dtype of each operand; None where absent.
      results: The same of each output.
      static: Values of operands that are known and needed while tracing.
      attributes: Of the node.
    """
    out = Arrangement(
        outputs=[layouts.canonical(len(spec.shape)) for spec in results],
        static=dict(static),
        attributes=dict(attributes),
    )
    flowing = [i for i, perm in enumerate(have) if perm is not None and i not in static]
    if chosen is not None:
        if chosen.channels_last and specs[0] is not None:
            out.wants[0] = layouts.channels_last(len(specs[0].shape))
            if have[0] is None:  # a constant lies in ONNX's order
                out.prepare[0] = functools.partial(
                    layouts.broadcast, rank=len(specs[0].shape), want=out.wants[0]
                )
            out.outputs = [layouts.channels_last(len(spec.shape)) for spec in results]
        out.prepare.update({i: f for i, f in chosen.pack.items() if i < len(specs) and specs[i]})
    elif not flowing:
        pass
    elif entry.traits.layout is Layout.ELEMENTWISE and len(results) == 1:
        _elementwise(out, have, specs, len(results[0].shape), flowing)
    elif entry.traits.layout is Layout.AXES:
        _along_axes(out, entry, have, specs, results, flowing)
    elif entry.traits.layout is Layout.PERMUTE:
        _permute(out, have[0])
    return out


def _is_last(perm: Perm | None, rank: int) -> bool:
    return rank >= 3 and perm == layouts.channels_last(rank)


def _elementwise(
    out: Arrangement,
    have: Sequence[Perm | None],
    specs: Sequence[Spec | None],
    rank: int,
    flowing: Sequence[int],
) -> None:
    """Follow channels last if any full operand is; smaller ones are broadcast to match."""
    if not any(_is_last(have[i], rank) for i in flowing):
        return
    if any(spec is not None and len(spec.shape) > rank for spec in specs):
        return  # it lends no more than its type (CastLike)
    out.outputs = [layouts.channels_last(rank)]
    for i, spec in enumerate(specs):
        if spec is None or i in out.static:
            continue
        if i in flowing and len(spec.shape) == rank:
            out.wants[i] = out.outputs[0]
        elif i in flowing or int(np.prod(spec.shape)) != 1:
            out.prepare[i] = functools.partial(layouts.broadcast, rank=rank, want=out.outputs[0])


def _along_axes(
    out: Arrangement,
    entry: Op,
    have: Sequence[Perm | None],
    specs: Sequence[Spec | None],
    results: Sequence[Spec],
    flowing: Sequence[int],
) -> None:
    """Follow channels last with axis numbers turned to match, if the outputs allow it."""
    first = specs[flowing[0]]
    rank = 0 if first is None else len(first.shape)
    if not any(_is_last(have[i], rank) for i in flowing):
        return
    perm = layouts.channels_last(rank)
    static, attributes, named = _renumbered(entry, perm, out.static, out.attributes)
    outputs = _left_over(perm, named, {len(spec.shape) for spec in results})
    if outputs is None:
        return
    out.static, out.attributes = static, attributes
    out.outputs = [outputs] * len(results)
    for i, spec in enumerate(specs):
        if spec is None or i in static or len(spec.shape) != rank:
            continue
        out.wants[i] = perm
        if i not in flowing:
            out.prepare[i] = functools.partial(layouts.broadcast, rank=rank, want=perm)


def _renumbered(
    entry: Op, perm: Perm, static: dict[int, np.ndarray], attributes: dict[str, Any]
) -> tuple[dict[int, np.ndarray], dict[str, Any], tuple[int, ...] | None]:
    """Return static inputs and attributes in physical numbering, and the logical axes named."""
    rank = len(perm)
    logical: tuple[int, ...] | None = None
    for name in entry.traits.axes:
        if name in entry.attributes:
            given = attributes.get(name, entry.default(name))
            if given is None:
                continue
            many = isinstance(given, tuple)
            logical = tuple(a % rank for a in (given if many else (given,)))
            moved = tuple(layouts.axis_position(a, perm) for a in logical)
            attributes = {**attributes, name: moved if many else moved[0]}
        else:
            index = entry.inputs.index(name)
            if index not in static:
                continue
            value = static[index]
            logical = tuple(int(a) % rank for a in value.ravel())
            moved = tuple(layouts.axis_position(a, perm) for a in logical)
            static = {**static, index: np.asarray(moved, value.dtype).reshape(value.shape)}
    return static, attributes, logical


def _left_over(perm: Perm, named: tuple[int, ...] | None, ranks: set[int]) -> Perm | None:
    """Return the order of outputs of such ranks; None if it is none that the engine works in."""
    if ranks == {len(perm)}:
        return perm
    if ranks == {0}:
        return ()
    if named is None:
        return None
    left = layouts.after_removal(perm, named)
    known = (layouts.canonical(len(left)), layouts.channels_last(len(left)))
    return left if ranks == {len(left)} and left in known else None


def _permute(out: Arrangement, have: Perm | None) -> None:
    """Compose a transposition with the order in memory: often nothing has to move."""
    assert have is not None
    rank = len(have)
    perm = tuple(out.attributes.get("perm") or range(rank - 1, -1, -1))
    out.wants[0] = have
    # Logical axis j of the output is axis perm[j] of the input.
    natural = tuple(perm.index(axis) for axis in have)
    if natural in (layouts.canonical(rank), layouts.channels_last(rank)):
        out.outputs = [natural]
        out.attributes["perm"] = tuple(range(rank))
    else:
        where = layouts.inverse(have)
        out.attributes["perm"] = tuple(where[axis] for axis in perm)
