"""From flags to what the steps take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jptq.cli import machine
from jptq.errors import ConfigError

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from jptq.cli.progress import Progress
    from jptq.engine import Batching
    from jptq.tuning import Prepared

PREPARE = (
    "model",
    "calibration_data",
    "input_shape",
    "march",
    "quant_config",
    "batch_size",
    "memory_limit",
    "device",
    "threads",
)
"""Flags of every command that runs a network over samples."""


def prepared(flags: FlagValues, progress: Progress) -> Prepared:
    """Start JAX and return the calibrated network that the flags of `PREPARE` describe."""
    machine.settle(flags.device, flags.threads)
    from jptq.api import steps

    return steps.calibrate(
        flags.model,
        flags.calibration_data,
        march=flags.march,
        quant_config=flags.quant_config,
        input_shapes=shapes(flags.input_shape),
        measured_latency=flags.latency_table if "latency_table" in flags else None,
        progress=progress,
        batching=batching(flags),
    )


def batching(flags: FlagValues) -> Batching:
    """Return what bounds the samples of a program run."""
    from jptq.engine import Batching

    given = {}
    if flags.batch_size is not None:
        given["samples"] = flags.batch_size
    if flags.memory_limit is not None:
        given["memory"] = flags.memory_limit << 20
    return Batching(**given)


def shapes(given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Read ``NAME:1x3x224x224``.

    Raises:
      ConfigError: It is not of that form, or an input is named twice.
    """
    found: dict[str, tuple[int, ...]] = {}
    for text in given:
        # Names of inputs may hold colons ("x:0"), shapes never do.
        name, _, lengths = text.rpartition(":")
        parts = lengths.lower().split("x")
        if not name or not all(part.isdecimal() for part in parts):
            raise ConfigError(
                f"--input_shape={text} is not NAME:SHAPE", hint="--input_shape=images:1x3x224x224"
            )
        if name in found:
            raise ConfigError(f"--input_shape names {name!r} twice")
        found[name] = tuple(int(part) for part in parts)
    return found


def one(flags: FlagValues, name: str) -> str:
    """Return the only value of a flag that takes several elsewhere.

    Raises:
      ConfigError: There are several, or none.
    """
    values: list[str] = flags[name].value or []
    if len(values) != 1:
        raise ConfigError(f"--{name} takes one value here, not {len(values)}")
    return values[0]


def beside(flags: FlagValues, prefix: str) -> Path:
    """Return ``--out``, by default ``<prefix>_<model>`` in the current folder."""
    return Path(flags.out or f"{prefix}_{Path(flags.model).stem}")
