"""Calibration samples on disk or in memory, read one at a time (design 3).

A folder holds one sub-folder per network input with a file per sample, or the files themselves
for a network with one input, or an ``.npz`` per sample with an array per input, or files called
``b<batch>_<input>``. They are taken in the order of their names or batches; inputs pair by order.
``a;b`` names a folder per input, in their order.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from jptq import files
from jptq.data import layout
from jptq.data.arrays import read_archive, read_array, readable
from jptq.data.check import Expected, check_values
from jptq.errors import DataError

Item = TypeVar("Item")


class SampleSet(Protocol):
    """Samples that are read when they are asked for; a list of feeds is one."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int, /) -> Mapping[str, np.ndarray]:
        """Return one sample, an array per network input."""


class Samples(SampleSet, Protocol):
    """Samples whose content is known by a digest."""

    @property
    def digest(self) -> str:
        """Hex digest of the content."""

    def __getitem__(self, index: int, /) -> dict[str, np.ndarray]:
        """Return one sample, an array per network input."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderSamples:
    """Samples in files.

    Attributes:
      inputs: The network inputs.
      paths: For each sample a file per input, or one ``.npz``.
    """

    inputs: tuple[Expected, ...]
    paths: tuple[tuple[Path, ...], ...]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Read one sample.

        Raises:
          DataError: A file cannot be read, or its content does not fit the input.
          IndexError: There is no such sample.
        """
        paths = self.paths[index]
        if paths[0].suffix == ".npz":
            return read_archive(paths[0], self.inputs)
        return {
            expected.name: read_array(path, expected)
            for expected, path in zip(self.inputs, paths, strict=True)
        }

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the samples in order."""
        return (self[index] for index in range(len(self)))

    @cached_property
    def digest(self) -> str:
        """Hex digest of the input names and of the files' content, in order.

        Raises:
          DataError: A file cannot be read.
        """
        names = [expected.name for expected in self.inputs]
        with readable("the samples"):
            return files.digest(*names, *(path for sample in self.paths for path in sample))

    def closed(self) -> FolderSamples:
        """Return the samples with all lengths that the network leaves open those of the first.

        Raises:
          DataError: The first one cannot be read, or does not fit the inputs.
        """
        if not self.paths or not any(expected.is_open for expected in self.inputs):
            return self
        sample, paths = self[0], self.paths[0]
        if len(paths) < len(self.inputs):  # an archive
            paths *= len(self.inputs)
        inputs = tuple(
            expected.closed(sample[expected.name], str(path))
            for expected, path in zip(self.inputs, paths, strict=True)
        )
        return dataclasses.replace(self, inputs=inputs)

    def first(self, count: int | None) -> FolderSamples:
        """Return the first samples, all of them for None.

        Raises:
          DataError: There are fewer.
        """
        return dataclasses.replace(self, paths=_first(self.paths, count))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemorySamples:
    """Samples that a program holds already.

    Attributes:
      feeds: An array per network input and sample.
    """

    feeds: tuple[Mapping[str, np.ndarray], ...]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.feeds)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Return one sample.

        Raises:
          DataError: It holds NaN or an infinite value.
        """
        sample = {name: np.asarray(array) for name, array in self.feeds[index].items()}
        for name, array in sample.items():
            check_values(array, where=f"sample {index}, input {name!r}")
        return sample

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the samples in order."""
        return (self[index] for index in range(len(self)))

    @cached_property
    def digest(self) -> str:
        """Hex digest of names, layouts and content, in order."""
        parts: list[bytes | str | Path] = []
        for sample in self.feeds:
            for name, array in sorted(sample.items()):
                parts += [f"{name} {array.dtype} {array.shape}", array.tobytes()]
        return files.digest(*parts)

    def first(self, count: int | None) -> MemorySamples:
        """Return the first samples, all of them for None.

        Raises:
          DataError: There are fewer.
        """
        return dataclasses.replace(self, feeds=_first(self.feeds, count))


def load_samples(folder: Path | str, inputs: Sequence[Expected]) -> FolderSamples:
    """Find the samples in a folder; their content is read and checked later.

    Args:
      folder: See the module.
      inputs: The network inputs.

    Raises:
      DataError: There are no samples, an input has no folder or takes text, the inputs have
        different numbers of files, or a folder cannot be read.
    """
    folder = Path(folder)
    _refuse_inputs(inputs)
    with readable(folder):
        return FolderSamples(inputs=tuple(inputs), paths=layout.found(folder, inputs))


def _refuse_inputs(inputs: Sequence[Expected]) -> None:
    if not inputs:
        raise DataError(
            "the network takes no input",
            why="every input is a constant, so every output is one",
            hint="leave the inputs that differ from run to run as they are",
        )
    for expected in inputs:
        if expected.dtype.kind == "O":
            raise DataError(
                f"input {expected.name!r} takes text",
                why="text never reaches an accelerator: there is nothing to quantize",
                hint="cut the network behind what reads it (onnx.utils.extract_model)",
            )


def write_samples(folder: Path, samples: Samples) -> None:
    """Write samples as the vendor's compile tool dumps them: ``<input>/<number>.npy``.

    Raises:
      StorageError: The disk is full or the folder cannot be written.
      DataError: An input can have no folder of its own.
    """
    digits = max(2, len(str(len(samples) - 1)))
    for index in range(len(samples)):
        sample = samples[index]
        names = layout.folder_names(sample)
        for name, array in sample.items():
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            path = folder / names[name] / f"{index:0{digits}d}.npy"
            files.write_bytes(path, content.getvalue())


def _first(items: tuple[Item, ...], count: int | None) -> tuple[Item, ...]:
    if count is not None and count > len(items):
        raise DataError(f"there are only {len(items)} samples, but {count} are asked for")
    return items if count is None else items[:count]
