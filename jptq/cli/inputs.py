"""From flags to what the steps take."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jptq.cli import machine
from jptq.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from absl.flags import FlagValues

    from jptq.cli.progress import Progress
    from jptq.engine import Batching
    from jptq.quant.config import Config
    from jptq.tuning import Evaluator, Prepared

PREPARE = (
    "model",
    "calibration_data",
    "reference",
    "input_shape",
    "input_value",
    "march",
    "quant_config",
    "unmatched",
    "strict_integers",
    "batch_size",
    "memory_limit",
    "device",
    "threads",
)
"""Flags of every command that runs a network over samples."""


def prepared(flags: FlagValues, progress: Progress, *, folder: Path | None = None) -> Prepared:
    """Start JAX and return the calibrated network that the flags of `PREPARE` describe.

    Args:
      flags: Of the command.
      progress: Called as work goes on.
      folder: Of findings that a later run may reuse.
    """
    machine.settle(flags.device, flags.threads)
    from jptq.api import steps
    from jptq.tuning import Journal

    return steps.calibrate(
        flags.model,
        flags.calibration_data,
        march=flags.march,
        quant_config=config(flags),
        input_shapes=shapes(flags.input_shape),
        input_values=values(flags.input_value),
        measured_latency=flags.latency_table if "latency_table" in flags else None,
        strict_integers=flags.strict_integers,
        reference=flags.reference,
        journal=Journal(folder, reuse="resume" not in flags or flags.resume),
        progress=progress,
        batching=batching(flags),
    )


def bound(flags: FlagValues, *, has_evaluator: bool) -> float | None:
    """Return what ``--min_score`` or ``--min_cosine`` asks for, None if neither is given.

    Raises:
      ConfigError: The flag would have no effect, or no output can keep it.
    """
    if flags.min_score is not None and not has_evaluator:
        raise ConfigError(
            "--min_score needs --evaluator", hint="without one, --min_cosine bounds the outputs"
        )
    if flags.min_cosine is not None and has_evaluator:
        raise ConfigError(
            "--min_cosine with --evaluator",
            why="the score decides where there is one",
            hint="leave one of them out",
        )
    if flags.min_cosine is not None and flags.min_cosine > 1:
        raise ConfigError(f"--min_cosine={flags.min_cosine} is above 1")
    asked: float | None = flags.min_score if has_evaluator else flags.min_cosine
    return asked


def evaluator(flags: FlagValues) -> Evaluator | None:
    """Return the user's evaluator, if there is one."""
    from jptq import tuning

    return None if flags.evaluator is None else tuning.Evaluator.load(flags.evaluator)


def config(flags: FlagValues) -> Config | None:
    """Return what ``--quant_config`` says, None without one."""
    from jptq.quant.config import load_config

    if flags.quant_config is None:
        return None
    return load_config(flags.quant_config, unmatched=flags.unmatched)


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
            # Whatever stands between them, the numbers are likely to be meant.
            meant = "x".join(re.findall(r"\d+", lengths)) or "1x3x224x224"
            raise ConfigError(
                f"--input_shape={text} is not NAME:SHAPE",
                hint=f"--input_shape={name or 'images'}:{meant}",
            )
        if name in found:
            raise ConfigError(f"--input_shape names {name!r} twice")
        found[name] = tuple(int(part) for part in parts)
    return found


def values(given: Sequence[str]) -> dict[str, np.ndarray]:
    """Read ``NAME:16000``, ``NAME:1,2,3`` or ``NAME:array.npy``.

    Raises:
      ConfigError: It is not of that form, the file cannot be read, or an input is named twice.
    """
    found: dict[str, np.ndarray] = {}
    for text in given:
        name, _, value = text.rpartition(":")
        array = _array(value, text) if value.endswith(".npy") else _numbers(value)
        if not name or array is None:
            raise ConfigError(
                f"--input_value={text} is not NAME:VALUE",
                hint="--input_value=sr:16000, numbers separated by commas, or an .npy file",
            )
        if name in found:
            raise ConfigError(f"--input_value names {name!r} twice")
        found[name] = array
    return found


def _numbers(text: str) -> np.ndarray | None:
    """Return a number, or a row of numbers; None if it is neither."""
    import numpy as np

    try:
        # JSON tells integers from other numbers, and knows true and false.
        read = json.loads(f"[{text.lower()}]")
        row = np.array(read)
    except (ValueError, OverflowError):
        return None
    if row.ndim != 1 or row.dtype.kind not in "fiub" or not row.size:
        return None
    return row if row.size > 1 else row.reshape(())


def _array(path: str, text: str) -> np.ndarray:
    import numpy as np

    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(
            f"--input_value={text}: the file cannot be read", why=str(error)
        ) from error


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
