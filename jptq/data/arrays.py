"""Files that hold the arrays of a sample: what is read is what the network takes."""

from __future__ import annotations

import contextlib
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from jptq.data.check import Expected, check_layout, check_values
from jptq.errors import DataError

_HEADER_BYTES = 1 << 16
_DAMAGED = (
    *(OSError, ValueError, EOFError, RuntimeError, SyntaxError, OverflowError, MemoryError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
"""What NumPy and zipfile raise for a file that is none of theirs, damaged or encrypted."""


def read_array(path: Path, expected: Expected) -> np.ndarray:
    """Return the array of a file: ``.npy``, or the bare bytes.

    Raises:
      DataError: The file cannot be read, or does not fit the input.
    """
    if path.suffix != ".npy":
        return _read_bytes(path, expected)
    try:
        # The header is checked before anything of its size is allocated.
        _refuse_negative(path)
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except _DAMAGED as error:
        raise DataError("not an .npy file", where=str(path), why=str(error)) from error
    if not isinstance(mapped, np.ndarray):
        mapped.close()
        raise DataError("not an .npy file", where=str(path), why="it is an archive: call it .npz")
    check_layout(mapped.shape, mapped.dtype, expected, where=str(path))
    array = expected.taken(np.array(mapped, order="C"))
    check_values(array, where=str(path))
    return array


def _refuse_negative(path: Path) -> None:
    """Refuse an array of which an axis is shorter than nothing: mapped, it has the wrong size."""
    with path.open("rb") as stream:
        if stream.read(6) != np.lib.format.MAGIC_PREFIX:
            return  # NumPy says what it is
        stream.seek(0)
        shape, _ = _header(stream)
    if any(length < 0 for length in shape):
        raise ValueError(f"its header says shape {shape}")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Read the shape and type that an ``.npy`` file begins with."""
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
        version, np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(stream)
    return shape, dtype


def _read_bytes(path: Path, expected: Expected) -> np.ndarray:
    size = expected.size
    if size is None:
        raise DataError(
            f"bare bytes for input {expected.name!r}, whose shape is not fixed",
            where=str(path),
            hint="save .npy files",
        )
    with readable(path):
        found = path.stat().st_size
        dtype = next((one for one in expected.dtypes if found == size * one.itemsize), None)
        if dtype is None:
            wanted = " or ".join(str(size * one.itemsize) for one in expected.dtypes)
            raise DataError(
                f"{found} bytes where {wanted} are needed",
                where=str(path),
                why=f"input {expected.name!r} is {' or '.join(map(str, expected.dtypes))} of shape "
                f"{expected.shape}",
            )
        array = expected.taken(np.fromfile(path, dtype))
    shape = tuple(length for length in expected.shape if isinstance(length, int))
    array = array.reshape(shape)
    check_values(array, where=str(path))
    return array


def read_archive(path: Path, inputs: Sequence[Expected]) -> dict[str, np.ndarray]:
    """Return the array of every input from an ``.npz`` file.

    Raises:
      DataError: The file cannot be read, lacks an input or does not fit one.
    """
    sample = {}
    try:
        with zipfile.ZipFile(path) as packed:
            entries = {entry.filename: entry for entry in packed.infolist()}
            for expected in inputs:
                entry = entries.get(f"{expected.name}.npy")
                if entry is None:
                    held = ", ".join(name.removesuffix(".npy") for name in entries)
                    raise DataError(
                        f"there is no array for input {expected.name!r}",
                        where=str(path),
                        why=f"arrays here: {held or 'none'}",
                    )
                sample[expected.name] = _unpacked(packed, entry, expected, where=str(path))
    except _DAMAGED as error:
        raise DataError("not an .npz file", where=str(path), why=str(error)) from error
    return sample


def _unpacked(
    packed: zipfile.ZipFile, entry: zipfile.ZipInfo, expected: Expected, *, where: str
) -> np.ndarray:
    """Return an array of an archive; its header is checked before its size is allocated."""
    where = f"{where}, array {expected.name!r}"
    if expected.size_bytes is not None and entry.file_size > expected.size_bytes + _HEADER_BYTES:
        raise DataError(
            f"{entry.file_size} bytes where {expected.size_bytes} are needed",
            where=where,
            why=f"input {expected.name!r} has shape {expected.shape}",
        )
    with packed.open(entry) as stream:
        shape, dtype = _header(stream)
    if any(length < 0 for length in shape):
        raise ValueError(f"its header says shape {shape}")
    if dtype.hasobject:
        raise ValueError("it holds pickled objects")
    check_layout(shape, dtype, expected, where=where)
    size = math.prod(shape) * dtype.itemsize
    if not size <= entry.file_size <= size + _HEADER_BYTES:
        raise DataError(
            f"{entry.file_size} bytes where {size} are needed",
            where=where,
            why=f"the array is {dtype} of shape {shape}",
        )
    with packed.open(entry) as stream:
        array = np.asarray(np.lib.format.read_array(stream, allow_pickle=False), order="C")
    array = expected.taken(array)
    check_values(array, where=where)
    return array


@contextlib.contextmanager
def readable(path: Path | str) -> Iterator[None]:
    """Say which file or folder it is that cannot be read.

    Args:
      path: Named where the system names none.

    Raises:
      DataError: The operating system refused.
    """
    try:
        yield
    except OSError as error:
        where = getattr(error, "filename", None) or path
        why = getattr(error, "strerror", None) or str(error)
        raise DataError("cannot read calibration data", where=str(where), why=why) from error
