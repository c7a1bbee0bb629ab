"""How many samples one program run may take under a memory limit (design 2, invariant 9).

Estimates from shapes, so that the same inputs give the same batches on every machine.
"""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import math
import os
import sys
from collections.abc import Iterable

import jax
import numpy as np

from jptq.engine.program import Program

_logger = logging.getLogger(__name__)

MIB = 2**20

FIXED = 900 * MIB
"""Python, JAX and the network's programs while they are compiled: 700 to 900 MiB measured."""

COPIES = 4
"""Times that the weights are held: file, device, packed in float and under a table."""

TEMPORARIES = 3
"""Largest program memory over the tensors that are alive between two steps, on XLA:CPU."""

OBSERVED = 2.5
"""Memory of returning many tensors over their own size: each is there in two axis orders."""

KEPT = 1.25
"""Memory of a backward pass over the tensors that it has to keep (103 to 350 MiB measured where
these are 80 to 260)."""

REFERENCES = 256 * MIB
"""Float tensors to compare with are kept up to this size, and computed again beyond it."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h
_HOLD = {_M_TRIM_THRESHOLD: 2**31 - 1, _M_MMAP_MAX: 0, _M_ARENA_MAX: 1}
"""One heap that never shrinks by itself. Threads with heaps of their own could not share what is
free, and theirs are too small for such blocks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batching:
    """What bounds the samples of a program run.

    Attributes:
      samples: Most samples of one run: larger batches gain nothing on XLA:CPU
        (docs/benchmarks.md).
      memory: Bytes that the process should stay below. One sample is run however small it is.
    """

    samples: int = 8
    memory: int = 1400 * MIB

    def of(self, per_sample: float, weights: float) -> int:
        """Return the samples of a run.

        Args:
          per_sample: Bytes that each sample adds.
          weights: Bytes of the network's weights.
        """
        return max(1, min(self.samples, math.floor(self.room(weights) / max(per_sample, 1.0))))

    def room(self, weights: float) -> float:
        """Return the bytes that the samples of a run may take; arguments as `of`."""
        return self.memory - FIXED - COPIES * weights


def warn_of_too_little(program: Program, batching: Batching) -> None:
    """Say where not even one sample can be run below the memory limit."""
    weights = sum(w.nbytes for w in program.weights.values())
    least = FIXED + COPIES * weights + forward(program)
    if batching.memory < least:
        _logger.warning(
            "a memory limit of %d MiB cannot be held: this network may take up to %d MiB, one "
            "sample at a time",
            batching.memory // MIB,
            -(-least // MIB),
        )


def hold() -> None:
    """Keep freed memory for the next program run, where the allocator gives it back otherwise.

    glibc maps large blocks anew every time, and each page of them is a fault and has to be cleared:
    up to half of the time of a sweep. It is a setting of the whole process: for commands, not for
    a library. A user's own settings win.
    """
    own = ("MALLOC_", "GLIBC_TUNABLES")
    if sys.platform == "linux" and not any(name.startswith(own) for name in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            for option, value in _HOLD.items():
                mallopt(option, value)


def release() -> None:
    """Give memory that is free back to the system, where the allocator keeps it otherwise.

    glibc keeps freed blocks below larger ones that are in use: after calibration that is several
    hundred MiB, which the programs that are compiled next would come on top of.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def size(program: Program, names: Iterable[str]) -> float:
    """Return the bytes of some tensors of one sample."""

    def width(dtype: np.dtype) -> int:
        return jax.dtypes.canonicalize_dtype(dtype).itemsize

    return float(
        sum(math.prod(program.shapes[n]) * width(program.dtypes[n]) for n in dict.fromkeys(names))
    )


def peak(program: Program) -> float:
    """Return the most bytes that are alive between two steps, for one sample."""
    return max((size(program, names) for names in program.live), default=0.0)


def forward(program: Program) -> float:
    """Return the bytes of a forward, for one sample."""
    return TEMPORARIES * peak(program)


def keeps(program: Program, names: Iterable[str], samples: int) -> bool:
    """Tell whether some tensors of all samples are kept, not computed again when asked for."""
    return samples * size(program, names) <= REFERENCES


def backward(program: Program, candidates: int, vectors: int) -> float:
    """Return the bytes of a backward pass that keeps all tensors, for one sample.

    Args:
      program: The network.
      candidates: Directions that are kept per quantizer.
      vectors: Output directions that are pulled back together.
    """
    kept = size(program, (n for step in program.steps for n in step.outputs if n))
    return KEPT * (kept + candidates * _features(program)) + vectors * forward(program)


def observed(program: Program, also: Iterable[str] = ()) -> float:
    """Return the bytes of a forward that returns what calibration looks at, for one sample.

    Args:
      program: The network.
      also: Tensors that are looked at beside the features.
    """
    features = () if program.plan is None else program.plan.calibrations
    named = [c.tensor for c in features if not c.constant]
    return OBSERVED * size(program, [*named, *(n for n in also if n in program.shapes)])


def _features(program: Program) -> float:
    if program.plan is None:
        return 0.0
    return size(program, (c.tensor for c in program.plan.calibrations if not c.constant))
