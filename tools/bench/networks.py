"""The networks that are measured: folders with a model, samples and an evaluator."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jptq.engine.cache import enable_compilation_cache
from jptq.errors import DataError
from jptq.ir import Model, load
from jptq.tuning import Prepared, load_float, prepare

MARCH = "nash-e"
SAMPLES = 8
LARGEST_VALUE = {"model_config": {"activation": {"calibration_type": "max"}}}
"""Thresholds that need no search: rankings are compared under them."""


class Network:
    """One folder: ``model.onnx``, ``calibration_data/``, ``evaluate.py``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name

    @property
    def model(self) -> Path:
        """The float ONNX file."""
        return self.folder / "model.onnx"

    @property
    def data(self) -> Path:
        """The folder of calibration samples."""
        return self.folder / "calibration_data"

    @property
    def evaluator(self) -> Path:
        """The file that scores a forward."""
        return self.folder / "evaluate.py"

    def floating(self, samples: int) -> tuple[Model, list[dict[str, np.ndarray]]]:
        """Return the optimized float graph and the first samples."""
        model, found = load_float(self.model, self.data)
        return model, [found[i] for i in range(min(samples, len(found)))]

    @functools.cached_property
    def prepared(self) -> Prepared:
        """The network calibrated by the largest value of each tensor."""
        enable_compilation_cache()
        return prepare(self.model, self.data, march=MARCH, quant_config=LARGEST_VALUE)

    def resized(self, height: int, width: int, folder: Path) -> Network | None:
        """Write the network with samples of another size; None if its input has a fixed one.

        Args:
          height: Of the samples, by nearest neighbours.
          width: The same.
          folder: Where the new network goes.
        """
        (entry,) = load(self.model).inputs
        shape = entry.shape or ()
        if len(shape) != 4 or any(isinstance(length, int) for length in shape[2:]):
            return None
        target = folder / f"{self.name} {height}x{width}"
        for file in sorted(self.data.rglob("*.npy"))[:SAMPLES]:
            image = np.load(file)
            rows = np.arange(height) * image.shape[-2] // height
            columns = np.arange(width) * image.shape[-1] // width
            written = target / self.data.name / file.relative_to(self.data)
            written.parent.mkdir(parents=True, exist_ok=True)
            np.save(written, image[..., rows[:, None], columns])
        (target / self.model.name).symlink_to(self.model.resolve())
        return Network(target)


def find(folders: Sequence[Path], names: Sequence[str] = ()) -> list[Network]:
    """Return the networks of folders; a folder may be a network itself.

    Raises:
      DataError: There is none, or none of that name.
    """
    found = [network for folder in folders for network in _inside(folder)]
    chosen = [network for network in found if not names or network.name in names]
    if not chosen:
        known = ", ".join(network.name for network in found) or "none"
        raise DataError(
            f"no such network in {', '.join(map(str, folders))}",
            why=f"found: {known}",
            hint="give a folder of folders that hold model.onnx and calibration_data/",
        )
    return chosen


def _inside(folder: Path) -> list[Network]:
    if (folder / "model.onnx").is_file():
        return [Network(folder)]
    return [Network(path.parent) for path in sorted(folder.glob("*/model.onnx"))]
