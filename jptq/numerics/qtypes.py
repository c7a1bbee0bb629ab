"""The types that a quantizer can hold: integer grids, float16, and float32 for none.

Source: hmct-spec 2.1. Ranges are the full two's complement ones; the scale divides the threshold
by the largest positive integer, as the vendor's does.
"""

from __future__ import annotations

import dataclasses

from jptq.registry import lookup


@dataclasses.dataclass(frozen=True, kw_only=True)
class QType:
    """A grid.

    Attributes:
      name: As written in configs.
      bits: Width, 0 for types without a grid.
      lower: Least integer.
      upper: Largest integer; also the divisor of the threshold.
    """

    name: str
    bits: int

    @property
    def lower(self) -> int:
        """Least integer of the grid."""
        return -(1 << (self.bits - 1)) if self.bits else 0

    @property
    def upper(self) -> int:
        """Largest integer of the grid."""
        return (1 << (self.bits - 1)) - 1 if self.bits else 0

    @property
    def quantizes(self) -> bool:
        """Tell whether the type is a grid of integers."""
        return self.bits > 0


INT8 = QType(name="int8", bits=8)
INT16 = QType(name="int16", bits=16)
FLOAT16 = QType(name="float16", bits=0)
FLOAT32 = QType(name="float32", bits=0)

QTYPES = {qtype.name: qtype for qtype in (INT8, INT16, FLOAT16, FLOAT32)}
"""What a quantizer may hold, from coarse to fine."""

DUAL_INT16 = "dual-int16"
"""A node's candidate: both operands int16 (Conv, ConvTranspose, MatMul, Gemm)."""


def qtype(name: str, *, where: str = "") -> QType:
    """Return the grid called ``name``.

    Raises:
      UnknownNameError: There is no such type.
    """
    return lookup(QTYPES, name, "qtype", where=where)
