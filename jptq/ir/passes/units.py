"""Activations spelled out in elementary operators become one node of the vendor's set.

A unit carries the name of its last node (hmct-spec 1.2). Only float32 is fused, and only where
nothing else reads what lies inside.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from typing import Final

import onnx_ir as ir

from jptq.ir.model import HORIZON
from jptq.ir.passes import graph as edits

_TOLERANCE: Final = 1e-6
_MAX_POWER: Final = 3
_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """What a spelled-out activation is.

    Attributes:
      op: Operator type of the unit.
      source: Its input.
      attributes: Its attributes.
      domain: "" for ONNX's own operators.
    """

    op: str
    source: ir.Value
    attributes: Mapping[str, edits.AttributeValue] = dataclasses.field(default_factory=dict)
    domain: str = HORIZON


@dataclasses.dataclass(frozen=True, kw_only=True)
class Product:
    """A value as a constant times other values, in whatever order the file multiplies them."""

    constant: float
    factors: tuple[ir.Value, ...]


def run(model: ir.Model) -> bool:
    """Fuse the units; inner ones first, because the graph is in topological order."""
    changed = False
    for node in tuple(model.graph):
        if node.graph is None or node.domain != "":
            continue
        unit = next(filter(None, (match(node) for match in _MATCHERS)), None)
        if unit is None:
            continue
        shape = edits.static_shape(unit.source)
        if not edits.is_float32(unit.source) or shape != edits.static_shape(node.outputs[0]):
            _logger.debug("%s is not fused: not float32, or a constant widens it", node.name)
            continue
        if shape is None:
            _logger.debug("%s is not fused: its shape is unknown", node.name)
            continue
        edits.substitute(node, unit.op, [unit.source], unit.attributes, domain=unit.domain)
        changed = True
    return changed


def _is_close(number: float | None, expected: float) -> bool:
    return number is not None and math.isclose(number, expected, rel_tol=_TOLERANCE)


def _product(node: ir.Node) -> Product | None:
    """Flatten a tree of Mul, Div by a constant and small powers."""
    if node.op_type not in ("Mul", "Div"):
        return None
    constant, factors = 1.0, []
    pending: list[tuple[ir.Value | None, bool]] = [
        (node.inputs[1], node.op_type == "Div"),
        (node.inputs[0], False),
    ]
    while pending:
        value, divides = pending.pop()
        number = edits.scalar(value)
        if number is not None:
            if divides and number == 0.0:
                return None
            constant = constant / number if divides else constant * number
            continue
        if value is None or divides:
            return None
        factor = edits.inner(value, "Mul", "Div", "Pow")
        if factor is None:
            factors.append(value)
        elif factor.op_type == "Pow":
            factors.extend(_power(factor) or [value])
        elif factor.op_type == "Mul" or edits.scalar(factor.inputs[1]) is not None:
            pending += [(factor.inputs[1], factor.op_type == "Div"), (factor.inputs[0], False)]
        else:
            factors.append(value)
    return Product(constant=constant, factors=tuple(factors))


def _power(node: ir.Node) -> list[ir.Value] | None:
    """Return ``[x, x]`` or ``[x, x, x]`` if a Pow is a small whole power of x."""
    base, exponent = node.inputs[0], edits.scalar(node.inputs[1])
    if base is None or exponent is None or exponent not in range(2, _MAX_POWER + 1):
        return None
    return [base] * int(exponent)


def _as_product(value: ir.Value | None) -> Product | None:
    """Return the product that an inner value is, or None; a power counts."""
    node = edits.inner(value, "Mul", "Div", "Pow")
    if node is None:
        return None
    if node.op_type != "Pow":
        return _product(node)
    factors = _power(node)
    return None if factors is None else Product(constant=1.0, factors=tuple(factors))


def _plus(value: ir.Value | None, number: float) -> ir.Value | None:
    """Return x if the value is an inner ``x + number``."""
    node = edits.inner(value, "Add")
    shift, source = _shifted(node)
    return source if _is_close(shift, number) else None


def _shifted(node: ir.Node | None) -> tuple[float | None, ir.Value | None]:
    """Return the constant and the other operand of an Add; twice None if it has no constant."""
    for constant, other in (node.inputs, node.inputs[::-1]) if node is not None else ():
        number = edits.scalar(constant)
        if number is not None:
            return number, other
    return None, None


def _clipped_shift(value: ir.Value | None) -> ir.Value | None:
    """Return x if the value is an inner ``clip(x + 3, 0, 6)``."""
    clip = edits.inner(value, "Clip")
    if clip is None:
        return None
    low, high = (
        edits.number(clip, name, math.nan)
        if name in clip.attributes
        else edits.scalar(clip.inputs[index] if index < len(clip.inputs) else None)
        for index, name in ((1, "min"), (2, "max"))
    )
    return _plus(clip.inputs[0], 3.0) if low == 0.0 and high == 6.0 else None


def _hard_sigmoid(node: ir.Node) -> Unit | None:
    """``clip(x + 3, 0, 6) / 6``."""
    product = _product(node)
    if product is None or len(product.factors) != 1 or not _is_close(product.constant, 1 / 6):
        return None
    source = _clipped_shift(product.factors[0])
    if source is None:
        return None
    return Unit(
        op="HardSigmoid", source=source, attributes={"alpha": 1 / 6, "beta": 0.5}, domain=""
    )


def _gated(node: ir.Node) -> Unit | None:
    """``x * gate(x)`` for the gates that the vendor has a unit for."""
    product = _product(node)
    if product is None or len(product.factors) != 2:
        return None
    for source, gate in (product.factors, product.factors[::-1]):
        for match in _GATES:
            unit = match(source, gate, product.constant)
            if unit is not None:
                return unit
    return None


def _swish(source: ir.Value, gate: ir.Value, constant: float) -> Unit | None:
    sigmoid = edits.inner(gate, "Sigmoid")
    if sigmoid is None or sigmoid.inputs[0] is not source or constant != 1.0:
        return None
    return Unit(op="HzSwish", source=source)


def _hard_swish(source: ir.Value, gate: ir.Value, constant: float) -> Unit | None:
    unit = Unit(op="HzHardSwish", source=source)
    if _clipped_shift(gate) is source and _is_close(constant, 1 / 6):
        return unit
    native = edits.inner(gate, "HardSigmoid")
    if native is None or native.inputs[0] is not source or constant != 1.0:
        return None
    slope, offset = edits.number(native, "alpha", 0.2), edits.number(native, "beta", 0.5)
    return unit if _is_close(slope, 1 / 6) and _is_close(offset, 0.5) else None


def _mish(source: ir.Value, gate: ir.Value, constant: float) -> Unit | None:
    tanh = edits.inner(gate, "Tanh")
    softplus = edits.inner(tanh.inputs[0], "Softplus") if tanh is not None else None
    if softplus is None or softplus.inputs[0] is not source or constant != 1.0:
        return None
    return Unit(op="HzMish", source=source)


def _gelu(source: ir.Value, gate: ir.Value, constant: float) -> Unit | None:
    """``0.5 * x * (1 + erf(x / sqrt(2)))``, or its approximation by tanh."""
    bend = edits.inner(_plus(gate, 1.0), "Erf", "Tanh") if _is_close(constant, 0.5) else None
    if bend is None:
        return None
    if bend.op_type == "Tanh":
        if not _is_gelu_cubic(bend.inputs[0], source):
            return None
        return Unit(op="HzGelu", source=source, attributes={"approximate": "tanh"})
    argument = _as_product(bend.inputs[0])
    if argument is None or argument.factors != (source,):
        return None
    if not _is_close(argument.constant, math.sqrt(0.5)):
        return None
    return Unit(op="HzGelu", source=source, attributes={"approximate": "none"})


def _is_gelu_cubic(value: ir.Value | None, source: ir.Value) -> bool:
    """Tell whether a value is ``sqrt(2 / pi) * (x + 0.044715 * x**3)``, factored out or not."""
    product = _as_product(value)
    if product is None or not _is_close(product.constant, math.sqrt(2 / math.pi)):
        return False

    def is_power(candidate: ir.Value | None, exponent: int) -> bool:
        power = _as_product(candidate)
        return (
            power is not None
            and power.factors == (source,) * exponent
            and _is_close(power.constant, 0.044715)
        )

    if len(product.factors) == 1:
        total = edits.inner(product.factors[0], "Add")
        sides = (total.inputs, total.inputs[::-1]) if total is not None else ()
        return any(first is source and is_power(second, 3) for first, second in sides)
    others = [factor for factor in product.factors if factor is not source]
    return len(product.factors) == 2 and len(others) == 1 and is_power(_plus(others[0], 1.0), 2)


def _rsqrt(node: ir.Node) -> Unit | None:
    """``1 / sqrt(x + eps)`` or ``1 / (sqrt(x) + eps)``, by Reciprocal or Div."""
    if node.op_type == "Reciprocal":
        denominator = node.inputs[0]
    elif node.op_type == "Div" and edits.scalar(node.inputs[0]) == 1.0:
        denominator = node.inputs[1]
    else:
        return None
    root = edits.inner(denominator, "Sqrt")
    if root is not None:
        epsilon, source = _shifted(edits.inner(root.inputs[0], "Add"))
        source = source if source is not None else root.inputs[0]
    else:
        epsilon, shifted = _shifted(edits.inner(denominator, "Add"))
        outer = edits.inner(shifted, "Sqrt")
        source = outer.inputs[0] if outer is not None else None
    if source is None:
        return None
    attributes = {"epsilon": epsilon or 0.0, "is_sqrt_add_reciprocal": int(root is None)}
    return Unit(op="HzRsqrt", source=source, attributes=attributes)


_GATES: Final[tuple[Callable[[ir.Value, ir.Value, float], Unit | None], ...]] = (
    _swish,
    _hard_swish,
    _mish,
    _gelu,
)
_MATCHERS: Final[tuple[Callable[[ir.Node], Unit | None], ...]] = (_hard_sigmoid, _gated, _rsqrt)
