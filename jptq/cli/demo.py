"""Tune the network that comes with jptq: no data of yours is needed.

A small detector with a segmentation head on rendered street scenes. All-INT8 loses too much of
its score; the search finds the few nodes that have to run finer. Takes a few minutes on a laptop.
Writes to --out (default: tuned_demo).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jptq.cli import tune
from jptq.errors import StorageError
from jptq.targets.folder import configs

if TYPE_CHECKING:
    from absl.flags import FlagValues

FLAGS = (*tune.GOAL, "march", *tune.SEARCH)
REQUIRED = ()


def run(flags: FlagValues) -> int:
    """Tune the demonstration network."""
    folder = configs("demo")
    if not (folder / "model.onnx").is_file():
        raise StorageError(
            "the demonstration network is not installed",
            where=str(folder),
            hint="install jptq from a wheel or a full checkout",
        )
    return tune.tuned(
        flags,
        model=folder / "model.onnx",
        calibration_data=folder / "calibration_data",
        evaluator=str(folder / "evaluate.py"),
        out=Path(flags.out or "tuned_demo"),
    )
