"""Functions of every element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tools.fuzz.builder import FLOAT, Builder, Domain, Rejected, Value
from tools.fuzz.catalogue.registry import ANY, FLOATS, NUMBERS, operator

_DOMAINS: dict[str, Domain] = {
    "Acos": (-0.99, 0.99),
    "Acosh": (1.01, 20.0),
    "Asin": (-0.99, 0.99),
    "Atanh": (-0.95, 0.95),
    "Cosh": (-4.0, 4.0),
    "Exp": (-6.0, 4.0),
    "Log": (0.01, 20.0),
    "Reciprocal": (0.1, 9.0),
    "Sinh": (-4.0, 4.0),
    "Sqrt": (0.0, 20.0),
    "Tan": (-1.4, 1.4),
}
_PLAIN = (
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp",
    "Floor", "HardSwish", "Identity", "Log", "Mish", "Reciprocal", "Relu", "Round", "Sigmoid",
    "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "Neg", "Abs",
)  # fmt: skip
_ACTIVATIONS = (
    "Celu", "Elu", "Gelu", "HardSigmoid", "LeakyRelu", "Selu", "Shrink", "ThresholdedRelu",
)  # fmt: skip


@operator(*_PLAIN, dtypes=FLOATS, empty=True, weight=4.0)
def function(b: Builder, x: Value) -> Sequence[Value]:
    """Add a function without attributes."""
    op = b.draw.pick(_PLAIN)
    if x.dtype == FLOAT:
        x = b.within(x, _DOMAINS.get(op, (-30.0, 30.0)))
    elif op in _DOMAINS:
        raise Rejected("its domain is not all numbers")
    return b.node(op, x)


@operator(*_ACTIVATIONS, dtypes=FLOATS, empty=True, weight=2.0)
def activation(b: Builder, x: Value) -> Sequence[Value]:
    """Add a function with numbers as attributes, or their defaults."""
    op = b.draw.pick(_ACTIVATIONS)
    numbers: dict[str, Any] = {
        "alpha": b.draw.number(0.05, 2.0),
        "beta": b.draw.number(0.1, 0.9),
        "gamma": b.draw.number(0.5, 2.0),
        "bias": b.draw.number(-0.5, 0.5),
        "lambd": b.draw.number(0.1, 1.5),
    }
    given = dict.fromkeys(b.draw.some(list(numbers)))
    text = b.draw.pick(["none", "tanh", None])
    return b.node(op, x, approximate=text, **{name: numbers[name] for name in given})


@operator("Relu", "Abs", "Neg", "Sign", "Identity", dtypes=ANY, empty=True)
def integer_function(b: Builder, x: Value) -> Sequence[Value]:
    """Add a function that integers have too."""
    return b.node(b.draw.pick(["Relu", "Abs", "Neg", "Sign", "Identity"]), x)


@operator("Clip", dtypes=NUMBERS, empty=True, weight=2.0)
def clip(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Clip whose bounds may be absent."""
    low, high = sorted((b.draw.integer(-2, 1), b.draw.integer(0, 6)))
    bounds = [low if b.draw.chance(0.8) else None, high if b.draw.chance(0.8) else None]
    if b.opset < 11:
        return b.node("Clip", x, min=_float(bounds[0]), max=_float(bounds[1]))
    return b.node(
        "Clip", x, *(None if bound is None else b.scalar(bound, x.dtype) for bound in bounds)
    )


def _float(number: int | None) -> float | None:
    return None if number is None else float(number)


def broadcast_shape(b: Builder, shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape that broadcasts with another, perhaps of another rank."""
    draw = b.draw
    if draw.chance(0.4):
        return tuple(shape)
    kept = [length if draw.chance(0.6) else 1 for length in shape]
    kept = kept[draw.integer(0, len(kept)) :] if draw.chance(0.4) else kept
    longer = [draw.integer(1, 3), *kept] if draw.chance(0.15) and len(kept) < 5 else kept
    return tuple(longer)


def expanded(b: Builder, x: Value) -> Value:
    """Return the other operand of an elementwise operator, which may be the larger one."""
    shape = broadcast_shape(b, x.shape)
    if not b.tame and b.draw.chance(0.2):
        shape = tuple(b.draw.integer(2, 4) if length == 1 else length for length in shape)
    return b.operand(shape, x.dtype)


@operator("Add", "Sub", "Mul", "Div", "Max", "Min", dtypes=NUMBERS, empty=True, weight=6.0)
def binary(b: Builder, x: Value) -> Sequence[Value]:
    """Add an operator on two tensors that broadcast."""
    op = b.draw.pick(["Add", "Add", "Sub", "Mul", "Mul", "Div", "Max", "Min"])
    y = expanded(b, x)
    if op in ("Max", "Min") and b.opset < 8 and y.shape != x.shape:
        raise Rejected("no broadcasting yet")
    if op == "Div":
        if x.dtype.kind in "iu":
            y = b.constant(b.draw.array(broadcast_shape(b, x.shape), x.dtype, (1, 4)))
        else:
            y = b.operand(broadcast_shape(b, x.shape), x.dtype, (0.3, 4.0))
    pair = [x, y] if op == "Div" or b.draw.chance(0.6) else [y, x]
    return b.node(op, *pair)


@operator("Add", "Mul", weight=2.0)
def with_itself(b: Builder, x: Value) -> Sequence[Value]:
    """Add an operator that reads a tensor twice."""
    return b.node(b.draw.pick(["Add", "Mul", "Sub", "Max"]), x, x)


@operator("Sum", "Mean", "Max", "Min", dtypes=FLOATS, empty=True)
def variadic(b: Builder, x: Value) -> Sequence[Value]:
    """Add an operator on one to four tensors."""
    others = [
        b.operand(broadcast_shape(b, x.shape) if b.opset >= 8 else x.shape, x.dtype)
        for _ in range(b.draw.integer(0, 3))
    ]
    return b.node(b.draw.pick(["Sum", "Mean", "Max", "Min"]), *b.draw.shuffled([x, *others]))


@operator("Pow", dtypes=NUMBERS)
def power(b: Builder, x: Value) -> Sequence[Value]:
    """Add a power; exponents of another type from opset 12 on."""
    if x.dtype.kind in "iu":
        return b.node("Pow", x, b.scalar(b.draw.integer(0, 3), x.dtype))
    if b.draw.chance(0.5):
        return b.node("Pow", x, b.scalar(b.draw.pick([2.0, 3.0, 1.0, 0.0]), x.dtype))
    if x.dtype == FLOAT:
        x = b.within(x, (0.05, 9.0))
    if b.opset >= 12 and b.draw.chance(0.3):
        return b.node("Pow", x, b.constant(b.draw.array((), np.dtype(np.int64), (-2, 3))))
    return b.node("Pow", x, b.operand(broadcast_shape(b, x.shape), x.dtype, (-1.5, 2.5)))


@operator("Mod", dtypes=NUMBERS)
def modulo(b: Builder, x: Value) -> Sequence[Value]:
    """Add a remainder: of the divisor's sign for integers, of the dividend's for numbers."""
    is_float = x.dtype.kind == "f"
    divisor = b.draw.array(
        broadcast_shape(b, x.shape), x.dtype, (1, 4) if x.dtype.kind == "u" else (0.5, 3.0)
    )
    if not is_float:
        divisor = np.maximum(divisor, 1).astype(x.dtype)
    if x.dtype.kind in "if" and b.draw.chance(0.4):
        divisor = -divisor
    return b.node("Mod", x, b.constant(divisor), fmod=1 if is_float else b.draw.pick([0, 1, None]))


@operator("PRelu", ranks=(1, 2, 3, 4), dtypes=FLOATS, weight=1.5)
def prelu(b: Builder, x: Value) -> Sequence[Value]:
    """Add a PRelu with a slope for all, for each channel or for each element."""
    if x.rank < 2 or b.draw.chance(0.3):
        shape = b.draw.pick([(1,), x.shape])
    else:
        shape = (x.shape[1], *(1,) * (x.rank - 2))
    return b.node("PRelu", x, b.constant(b.draw.array(shape, x.dtype, (-0.5, 1.0))))


@operator("Mul", weight=1.5)
def unit(b: Builder, x: Value) -> Sequence[Value]:
    """Add what exporters write for Swish, HardSwish, Gelu and Mish."""
    kind = b.draw.integer(0, 3)
    x = b.within(x, (-9.0, 9.0))
    if kind == 0:
        return b.node("Mul", x, *b.node("Sigmoid", x))
    if kind == 1:
        (shifted,) = b.node("Add", x, b.scalar(3.0))
        if b.opset < 11:
            (clipped,) = b.node("Clip", shifted, min=0.0, max=6.0)
        else:
            (clipped,) = b.node("Clip", shifted, b.scalar(0.0), b.scalar(6.0))
        (product,) = b.node("Mul", x, clipped)
        return b.node("Div", product, b.scalar(6.0))
    if kind == 2:
        (scaled,) = b.node("Div", x, b.scalar(2.0**0.5))
        (erf,) = b.node("Erf", scaled)
        (one,) = b.node("Add", erf, b.scalar(1.0))
        (product,) = b.node("Mul", x, one)
        return b.node("Mul", product, b.scalar(0.5))
    (soft,) = b.node("Softplus", x)
    return b.node("Mul", x, *b.node("Tanh", soft))
