"""The operators that graphs are made of, by family."""

from tools.fuzz.catalogue import (
    control,
    elementwise,
    indexing,
    integers,
    joining,
    logic,
    normalization,
    products,
    recurrent,
    reduction,
    sampling,
    shapes,
    signal,
    windows,
)
from tools.fuzz.catalogue.registry import OPERATORS, Operator

FAMILIES = (
    control,
    elementwise,
    indexing,
    integers,
    joining,
    logic,
    normalization,
    products,
    recurrent,
    reduction,
    sampling,
    shapes,
    signal,
    windows,
)

__all__ = ["FAMILIES", "OPERATORS", "Operator"]
