"""Calibration samples on disk or in memory, read one at a time (design 3).

A folder holds one sub-folder per network input with a file per sample, or the files themselves
for a network with one input, or an ``.npz`` per sample with an array per input. Files are taken
in the order of their names; inputs pair by order. ``a;b`` names a folder per input, in their order.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from jptq import files
from jptq.data.arrays import read_archive, read_array, readable
from jptq.data.check import Expected, check_values
from jptq.errors import DataError

Item = TypeVar("Item")

ARRAYS = (".npy", ".bin", ".raw")
"""Suffixes of files that hold one array; all but ``.npy`` are the bare bytes."""

_FORBIDDEN = '/\\:*?"<>|'


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


def folder_name(input_name: str) -> str:
    """Return the name of the folder of a network input.

    Characters that a file system forbids become ``_``.

    Raises:
      DataError: No folder inside another one can have the name.
    """
    name = "".join("_" if character in _FORBIDDEN else character for character in input_name)
    if name in ("", ".", "..") or "\0" in name:
        raise DataError(
            f"input {input_name!r} cannot have a folder of its own",
            why="no file system has such a name",
            hint="rename the input, or give an .npz file per sample",
        )
    return name


def folder_names(inputs: Iterable[str]) -> dict[str, str]:
    """Return ``{input: folder}``.

    Raises:
      DataError: An input can have no folder, or two have the same.
    """
    found: dict[str, str] = {}
    for name in inputs:
        own = folder_name(name)
        for other, taken in found.items():
            if taken == own:
                raise DataError(
                    f"inputs {other!r} and {name!r} have one folder, {own!r}",
                    why="characters that a file system forbids become _",
                    hint="give an .npz file per sample, or a folder per input, in their order: "
                    "--calibration_data='one;other'",
                )
        found[name] = own
    return found


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
        return _found(folder, inputs)


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


def _found(folder: Path, inputs: Sequence[Expected]) -> FolderSamples:
    if not folder.is_dir():
        parts = [Path(part.strip()) for part in str(folder).split(";") if part.strip()]
        if len(parts) > 1:
            return _paired(inputs, _one_each(parts, inputs), where=str(folder))
        raise DataError("the calibration data is not a folder", where=str(folder))
    archives = _listed(folder, (".npz",))
    if archives:
        return FolderSamples(inputs=tuple(inputs), paths=tuple((path,) for path in archives))
    if len(inputs) == 1 and (direct := _listed(folder, ARRAYS)):
        return FolderSamples(inputs=tuple(inputs), paths=tuple((path,) for path in direct))
    names = folder_names(one.name for one in inputs)
    columns = [_column(folder, folder / names[one.name], one) for one in inputs]
    return _paired(inputs, columns, where=str(folder))


def write_samples(folder: Path, samples: Samples) -> None:
    """Write samples as the vendor's compile tool dumps them: ``<input>/<number>.npy``.

    Raises:
      StorageError: The disk is full or the folder cannot be written.
      DataError: An input can have no folder of its own.
    """
    digits = max(2, len(str(len(samples) - 1)))
    for index in range(len(samples)):
        sample = samples[index]
        names = folder_names(sample)
        for name, array in sample.items():
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            path = folder / names[name] / f"{index:0{digits}d}.npy"
            files.write_bytes(path, content.getvalue())


def _one_each(folders: Sequence[Path], inputs: Sequence[Expected]) -> list[list[Path]]:
    """Return the files of folders that are named input by input."""
    if len(folders) != len(inputs):
        raise DataError(
            f"{len(folders)} folders of calibration data for {len(inputs)} inputs",
            where=";".join(map(str, folders)),
            why="inputs: " + ", ".join(expected.name for expected in inputs),
        )
    columns = []
    for folder, expected in zip(folders, inputs, strict=True):
        if not folder.is_dir():
            raise DataError("the calibration data is not a folder", where=str(folder))
        columns.append(_listed(folder, ARRAYS))
        if not columns[-1]:
            raise _no_samples(folder, expected)
    return columns


def _paired(
    inputs: Sequence[Expected], columns: Sequence[Sequence[Path]], *, where: str
) -> FolderSamples:
    """Return samples from the files of each input."""
    counts = {len(column) for column in columns}
    if len(counts) > 1:
        raise DataError(
            "the inputs have different numbers of samples",
            where=where,
            why=", ".join(
                f"{expected.name}: {len(column)}"
                for expected, column in zip(inputs, columns, strict=True)
            ),
        )
    return FolderSamples(inputs=tuple(inputs), paths=tuple(zip(*columns, strict=True)))


def _column(folder: Path, own: Path, expected: Expected) -> list[Path]:
    """Return the files of one input, from its own folder."""
    if not own.is_dir():
        present = sorted(path.name for path in folder.iterdir() if path.is_dir())
        if not present and not _listed(folder, ARRAYS):
            raise _no_samples(folder, expected)
        raise DataError(
            f"there is no folder for input {expected.name!r}",
            where=str(own),
            why="folders here: " + (", ".join(present) or "none"),
        )
    found = _listed(own, ARRAYS)
    if not found:
        raise _no_samples(own, expected)
    return found


def _no_samples(folder: Path, expected: Expected) -> DataError:
    others = sorted({path.suffix or path.name for path in folder.iterdir() if path.is_file()})
    return DataError(
        f"there are no samples of input {expected.name!r}",
        where=str(folder),
        why="the files here are " + ", ".join(others) if others else "the folder is empty",
        hint="a sample is an array as the network takes it, saved as "
        + ", ".join((*ARRAYS, ".npz")),
    )


def _listed(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in suffixes and not path.name.startswith(".") and path.is_file()
    )


def _first(items: tuple[Item, ...], count: int | None) -> tuple[Item, ...]:
    if count is not None and count > len(items):
        raise DataError(f"there are only {len(items)} samples, but {count} are asked for")
    return items if count is None else items[:count]
