"""What an array must be to be fed to a network input."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from jptq.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """A network input.

    Attributes:
      name: Of the input.
      dtype: Its element type.
      shape: A length per axis; a name or None where any length will do.
      before: Type that the input had before the network was converted, if it was: arrays of it are
        taken too.
      because: Why a length is what it is, where the network itself leaves it open.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | str | None, ...]
    before: np.dtype | None = None
    because: str = ""

    @property
    def size(self) -> int | None:
        """The elements of one sample, None if a length is open."""
        lengths = [length for length in self.shape if isinstance(length, int)]
        return None if len(lengths) < len(self.shape) else math.prod(lengths)

    @property
    def is_open(self) -> bool:
        """Tell whether any length will do on an axis."""
        return not all(isinstance(length, int) for length in self.shape)

    def closed(self, array: np.ndarray, where: str) -> Expected:
        """Return what all samples look like if one of them is an array; it fits the input.

        Args:
          array: Of the first sample.
          where: Its file.
        """
        if not self.is_open:
            return self
        because = f"the network leaves {_title(self.shape)} open, and the first sample, {where}, "
        because += f"is {_title(array.shape)}: one shape serves all"
        return dataclasses.replace(self, shape=array.shape, because=because)

    @property
    def size_bytes(self) -> int | None:
        """The largest size of one sample, None if a length is open."""
        if self.size is None:
            return None
        return self.size * max(dtype.itemsize for dtype in self.dtypes)

    @property
    def dtypes(self) -> tuple[np.dtype, ...]:
        """Types of arrays that are taken, the usual one first."""
        return (self.dtype,) if self.before is None else (self.before, self.dtype)

    def stored(self, dtype: np.dtype) -> np.dtype:
        """Return what an array's type means: NumPy does not know bfloat16 and stores two bytes."""
        raw = dtype.kind == "V" and dtype.names is None
        if raw and self.before is not None and self.before.itemsize == dtype.itemsize:
            return self.before
        return dtype

    def taken(self, array: np.ndarray) -> np.ndarray:
        """Return an array of one of `dtypes` as the network takes it."""
        stored = self.stored(array.dtype)
        array = array if stored == array.dtype else array.view(stored)
        with np.errstate(over="ignore"):  # infinite values are refused by name
            return array if stored == self.dtype else array.astype(self.dtype)


def check_layout(
    shape: tuple[int, ...], dtype: np.dtype, expected: Expected, *, where: str
) -> None:
    """Refuse another shape or element type than the input has.

    Raises:
      DataError: It differs; the hint says how to convert.
    """
    if expected.stored(dtype) not in expected.dtypes:
        raise DataError(
            f"input {expected.name!r} takes {' or '.join(map(str, expected.dtypes))}, not {dtype}",
            where=where,
            hint=f"save the array with .astype(np.{expected.dtype})",
        )
    fits = len(shape) == len(expected.shape) and all(
        not isinstance(want, int) or have == want
        for have, want in zip(shape, expected.shape, strict=True)
    )
    if not fits:
        without_batch = expected.shape[:1] == (1,) and len(shape) == len(expected.shape) - 1
        hint = "the batch axis is missing: save array[np.newaxis]" if without_batch else ""
        if expected.because and not hint:
            hint = "resize or pad the samples to one shape"
        raise DataError(
            f"input {expected.name!r} takes shape {_title(expected.shape)}, not {_title(shape)}",
            where=where,
            why=expected.because,
            hint=hint,
        )


def check_values(array: np.ndarray, *, where: str) -> None:
    """Refuse values that are not finite.

    Raises:
      DataError: The array holds NaN or an infinity.
    """
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    kind = "NaN" if np.isnan(array).any() else "an infinite value"
    at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    raise DataError(f"a sample holds {kind}", where=where, why=f"the first one is at index {at}")


def _title(shape: tuple[int | str | None, ...]) -> str:
    return "x".join("?" if length is None else str(length) for length in shape) or "()"
