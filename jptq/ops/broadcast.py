"""Binary operators of opset 6 and before, when broadcasting was asked for by attributes."""

from __future__ import annotations

from collections.abc import Callable

from jax import Array

from jptq.ops import elementwise, logic, reach
from jptq.ops.intervals import Reach
from jptq.ops.registry import op
from jptq.ops.traits import Traits

Binary = Callable[[Array, Array], Array]


def align(a: Array, b: Array, axis: int | None) -> Array:
    """Append axes to ``b`` until its first one stands at ``axis`` of ``a``.

    Args:
      a: Any shape.
      b: A shape that is a contiguous part of that of ``a``.
      axis: Where in ``a`` that part begins; if absent, it ends where ``a`` ends.

    Returns:
      ``b`` in a shape that broadcasts against ``a`` as NumPy does.

    Source: ONNX operator specification, Add-6.
    """
    if axis is None:
        return b
    first = axis + a.ndim if axis < 0 else axis
    return b.reshape(b.shape + (1,) * (a.ndim - first - b.ndim))


def _with_attributes(function: Binary) -> Callable[..., Array]:
    """Return ``function`` under the schema of opset 6."""

    def aligned(
        a: Array, b: Array, *, axis: int | None = None, broadcast: int = 0, **_: object
    ) -> Array:
        return function(a, align(a, b, axis) if broadcast else b)

    return aligned


def _pow_1(x: Array, y: Array, *, axis: int | None = None, broadcast: int = 0) -> Array:
    return elementwise.power(x, align(x, y, axis) if broadcast else y)


_OLD: tuple[tuple[str, tuple[int, ...], Binary, Reach | None], ...] = (
    ("Add", (1, 6), elementwise.add, reach.ADDS),
    ("Sub", (1, 6), elementwise.sub, reach.SUBTRACTS),
    ("Mul", (1, 6), elementwise.mul, reach.MULTIPLIES),
    ("Div", (1, 6), elementwise.div, reach.DIVIDES),
    ("Equal", (1,), logic.equal, reach.COMPARES),
    ("Greater", (1,), logic.greater, reach.COMPARES),
    ("Less", (1,), logic.less, reach.COMPARES),
    ("And", (1,), logic.logical_and, None),
    ("Or", (1,), logic.logical_or, None),
    ("Xor", (1,), logic.logical_xor, None),
)
for _name, _since, _function, _reach in _OLD:
    op(_name, since=_since, traits=Traits.compute(reach=_reach))(_with_attributes(_function))
op("Pow", since=(1,), traits=Traits.compute())(_pow_1)
