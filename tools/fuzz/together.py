"""Many small programs compiled as one: a compilation costs 20 ms, an operator in it 3."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

_FAST_TO_COMPILE: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
_WHERE_KNOWN: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False}
"""XLA of jaxlib 0.12 has no such option."""

Function = Callable[..., Any]


@functools.cache
def _options() -> dict[str, Any]:
    """Return what makes compilations fast, as far as this XLA has it."""
    try:
        jax.jit(lambda: np.float32(0), compiler_options=_WHERE_KNOWN)()
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return _FAST_TO_COMPILE
    return {**_FAST_TO_COMPILE, **_WHERE_KNOWN}


def run_together(
    functions: Sequence[Function],
    arguments: Sequence[Sequence[Sequence[Any]]],
    *,
    fast: bool = True,
) -> list[list[Any] | Exception]:
    """Compile functions as one program and run each of them several times.

    Args:
      functions: Of arrays.
      arguments: For each of them, the arguments of its runs, of the same shapes and types.
      fast: Compile with few optimizations: half of the time; else as a user's programs are.

    Returns:
      Per function its results, one for each run, as NumPy arrays; or what it raised.
    """
    if not functions:
        return []
    raised: dict[int, Exception] = {}

    def every(given: Sequence[Sequence[Any]]) -> list[Any]:
        out: list[Any] = []
        for i, (function, own) in enumerate(zip(functions, given, strict=True)):
            try:
                out.append(function(*own))
            except Exception as error:  # a fault of one of them, to be reported as such
                raised[i] = error
                out.append(())
        return out

    turns = max(len(runs) for runs in arguments)
    results: list[list[Any]] = [[] for _ in functions]
    try:
        compiled = jax.jit(every, compiler_options=_options() if fast else None)
        for turn in range(turns):
            given = [runs[min(turn, len(runs) - 1)] for runs in arguments]
            found = jax.tree.map(np.asarray, compiled(given))
            for i, result in enumerate(found):
                if turn < len(arguments[i]):
                    results[i].append(result)
    except Exception as error:
        if len(functions) == 1:
            return [error]
        middle = len(functions) // 2
        return [
            *run_together(functions[:middle], arguments[:middle], fast=fast),
            *run_together(functions[middle:], arguments[middle:], fast=fast),
        ]
    return [raised.get(i, result) for i, result in enumerate(results)]
