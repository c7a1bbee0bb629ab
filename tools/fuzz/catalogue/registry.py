"""The table of operators that graphs are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from tools.fuzz.builder import FLOAT, WIDE, Builder, Domain, Value

Add = Callable[[Builder, Value], Sequence[Value]]

FLOAT16: np.dtype = np.dtype(np.float16)
FLOAT64: np.dtype = np.dtype(np.float64)
INT8: np.dtype = np.dtype(np.int8)
UINT8: np.dtype = np.dtype(np.uint8)
INT32: np.dtype = np.dtype(np.int32)
INT64: np.dtype = np.dtype(np.int64)
BOOL: np.dtype = np.dtype(np.bool_)

ONLY_FLOAT = (FLOAT,)
FLOATS = (FLOAT, FLOAT, FLOAT, FLOAT, FLOAT16, FLOAT64)
NUMBERS = (FLOAT, FLOAT, FLOAT, FLOAT, INT32, INT64, FLOAT16, FLOAT64)
INTEGERS = (INT32, INT64, INT8, UINT8)
ANY = (FLOAT, FLOAT, FLOAT, FLOAT, INT32, INT64, BOOL, FLOAT16, UINT8, INT8)
ANY_RANK = (0, 1, 2, 3, 4, 4, 5)
SOME_RANK = (1, 2, 3, 4, 4, 5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operator:
    """A way to add an operator to a graph.

    Attributes:
      name: Of the function.
      ops: ONNX types of the nodes that it is about.
      add: Adds it behind a tensor and returns what comes out.
      ranks: Of the tensors that it takes.
      dtypes: Of the tensors that it takes, from which a graph of it alone draws.
      lengths: Bounds of the axes of a tensor made for it.
      domain: Values of a tensor made for it.
      empty: It takes tensors without elements.
      weight: How often a network draws it.
    """

    name: str
    ops: tuple[str, ...]
    add: Add
    ranks: Sequence[int]
    dtypes: Sequence[np.dtype]
    lengths: tuple[int, int]
    domain: Domain
    empty: bool
    weight: float

    def takes(self, value: Value) -> bool:
        """Tell whether a tensor of a network can be given to it."""
        return (
            value.rank in self.ranks
            and value.dtype in self.dtypes
            and (self.empty or value.samples[0].size > 0)
            and all(length >= self.lengths[0] for length in value.shape[2:])
        )


OPERATORS: dict[str, Operator] = {}


def operator(
    *ops: str,
    ranks: Sequence[int] = ANY_RANK,
    dtypes: Sequence[np.dtype] = ONLY_FLOAT,
    lengths: tuple[int, int] = (1, 5),
    domain: Domain = WIDE,
    empty: bool = False,
    weight: float = 1.0,
) -> Callable[[Add], Add]:
    """Register a function that adds one of some operators."""

    def register(function: Add) -> Add:
        name = function.__name__
        assert name not in OPERATORS, name
        OPERATORS[name] = Operator(
            name=name,
            ops=ops,
            add=function,
            ranks=ranks,
            dtypes=dtypes,
            lengths=lengths,
            domain=domain,
            empty=empty,
            weight=weight,
        )
        return function

    return register
