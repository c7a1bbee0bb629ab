"""The unit of cost, and how two programs are timed beside each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
import onnxruntime

Feeds: TypeAlias = Mapping[str, np.ndarray]
Timed: TypeAlias = Callable[[], object]

THREADS = 2
"""Threads inside an operator of onnxruntime."""


def session(model: Path | bytes) -> onnxruntime.InferenceSession:
    """Return onnxruntime as f is defined: its default speed, and no spinning between runs.

    Threads that spin on after a run slow down whatever runs next; spinning switched off altogether
    slows onnxruntime down itself (docs/benchmarks.md).
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def seconds(run: Timed) -> float:
    """Return the time of one run, until what it returns is there and nothing runs on."""
    started = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - started


def interleaved(programs: Mapping[str, Timed], rounds: int, *, warm: int = 2) -> dict[str, Any]:
    """Time programs in turns: every round runs each once, so that all meet the same machine.

    Args:
      programs: What to run, by name.
      rounds: How often.
      warm: Rounds before them that are not counted.

    Returns:
      ``{name: float64[rounds]}`` in seconds.
    """
    for _ in range(warm):
        for run in programs.values():
            seconds(run)
    found: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, run in programs.items():
            found[name].append(seconds(run))
    return {name: np.asarray(values) for name, values in found.items()}


def ratio(times: np.ndarray, unit: np.ndarray) -> dict[str, float]:
    """Return the median and the spread of per-round ratios."""
    values = times / unit
    low, middle, high = np.percentile(values, (10, 50, 90))
    return {"median": float(middle), "p10": float(low), "p90": float(high)}


def forwards(runner: onnxruntime.InferenceSession, samples: Sequence[Feeds]) -> Timed:
    """Return the run of one forward per sample, batch 1: ``len(samples)`` f."""
    return lambda: [runner.run(None, dict(feeds)) for feeds in samples]
