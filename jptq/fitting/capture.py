"""What is known of a layer's inputs: sums over the rows of some samples, streamed.

Of each batch the device gives out the mean of its rows and the products of their deviations from
it, in float32; these are joined in float64 (Chan, Golub, LeVeque 1979, "Updating formulae and a
pairwise algorithm for computing sample variances"). A common offset of the inputs, however large,
costs no digits that way, and neither does the number of samples.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.engine import Packed, Runner, memory
from jptq.fitting.layers import Layer, Reader
from jptq.fitting.observed import Observed, key

ROWS = 16384
"""Rows of a layer over all samples that are looked at, evenly spread, where it has more: beyond
that the fit gained nothing (docs/method.md)."""

_LEAST = 64
"""Rows of one sample, however many samples there are."""

_GOLDEN = 0.6180339887498949
"""Steps of this share of a circle cover it evenly, however many there are."""

_CHUNK = 32 * memory.MIB
"""Rows that are there at the same time, in bytes."""

HESSIANS = 128 * memory.MIB
"""What all layers of a pass may take together; one that is larger has a pass of its own."""


@dataclasses.dataclass(kw_only=True, eq=False)
class Moments:
    """Sums over the rows of a layer.

    Attributes:
      scatter: ``float64[G, K, K]``: products of the rows' deviations from their reader's mean,
        summed over readers, each times its factor.
      count: Rows of each reader.
      mean: ``float64[G, K]`` of each reader, times its factor.
    """

    scatter: np.ndarray
    count: list[int]
    mean: list[np.ndarray]

    @classmethod
    def empty(cls, layer: Layer) -> Moments:
        """Return what no rows sum up to."""
        groups, inputs, _ = layer.size
        return cls(
            scatter=np.zeros((groups, inputs, inputs)),
            count=[0] * len(layer.readers),
            mean=[np.zeros((groups, inputs)) for _ in layer.readers],
        )

    def add(self, reader: int, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        """Take in some rows.

        Args:
          reader: Whose.
          count: How many.
          mean: ``[G, K]``.
          scatter: ``[G, K, K]``, about that mean.
        """
        before, after = self.count[reader], self.count[reader] + count
        apart = mean - self.mean[reader]
        self.scatter += scatter
        if before:
            share = before * count / after
            self.scatter += share * apart[:, :, np.newaxis] * apart[:, np.newaxis, :]
        self.mean[reader] = self.mean[reader] + apart * (count / after)
        self.count[reader] = after

    @property
    def rows(self) -> int:
        """Rows of all readers."""
        return sum(self.count)


def bytes_of(layer: Layer) -> int:
    """Return what the sums of a layer take, of one set of samples."""
    groups, inputs, _ = layer.size
    return 8 * groups * inputs * inputs


def passes(layers: Sequence[Layer], sets: int) -> list[list[Layer]]:
    """Return the layers in groups whose sums are held together.

    Args:
      layers: In graph order.
      sets: Sets of samples that are summed over apart.
    """
    found: list[list[Layer]] = []
    room = 0
    for layer in layers:
        size = sets * bytes_of(layer)
        if not found or size > room:
            found.append([])
            room = HESSIANS
        found[-1].append(layer)
        room -= size
    return found


def capture(
    observed: Observed,
    packed: Packed,
    layers: Sequence[Layer],
    sets: Sequence[Sequence[int]],
    *,
    progress: Callable[[int], None] = lambda samples: None,
) -> dict[str, list[Moments]]:
    """Return the sums over the inputs of some layers.

    Args:
      observed: The network.
      packed: What is run: float, or under a table.
      layers: Of one of `passes`.
      sets: Numbers of the samples of each set; the sets are apart.
      progress: Called with the number of samples after each run.

    Returns:
      ``{weight: sums over each set}``.
    """
    found = {layer.weight: [Moments.empty(layer) for _ in sets] for layer in layers}
    order = tuple(number for one in sets for number in one)
    member = np.repeat(np.arange(len(sets)), [len(one) for one in sets])
    readers = [
        (found[layer.weight], i, reader)
        for layer in layers
        for i, reader in enumerate(layer.readers)
    ]
    # One order for all sets: batches of one size, and so one program.
    start = 0
    for feeds, count in observed.batches(order):
        features, _ = observed.run(packed, feeds)
        for moments, i, reader in readers:
            x = features[key(reader.rows.tensor, reader.rows.axis)]
            for number in np.unique(member[start : start + count]):
                inside = np.flatnonzero(member[start : start + count] == number)
                # Sums that are no numbers are looked for when all are there.
                with np.errstate(over="ignore", invalid="ignore"):
                    for part in _summed(observed.runner, reader, x, start, inside, len(order)):
                        moments[number].add(i, *part)
        start += count
        progress(count)
    return found


def _summed(
    runner: Runner, reader: Reader, x: Array, start: int, inside: np.ndarray, total: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield count, mean and scatter of the rows of a batch, in parts that memory has room for.

    Args:
      runner: Compiles.
      reader: Whose rows.
      x: ``[B, S, C]``.
      start: Number of the first sample of the batch.
      inside: Which of the batch are looked at.
      total: Number of all samples.
    """
    rows, groups, batch = reader.rows, reader.rows.form.groups, len(x)
    each = min(rows.count, max(_LEAST, -(-ROWS // total)))
    most = max(1, _CHUNK // (4 * each * x.shape[2] * rows.table[:, 0].size))
    on_host = all(device.platform == "cpu" for device in x.devices())
    run: Callable[..., tuple[Array | np.ndarray, Array | np.ndarray]]
    if on_host:
        # A program per shape would take longer to compile than NumPy takes to sum.
        given: Array | np.ndarray = np.asarray(x)
        run = functools.partial(sums, np, groups=groups)
        parts = [inside[i : i + most] for i in range(0, len(inside), most)]
    else:
        given = x
        run = runner.compilations.once(
            ("fit sums", groups),
            lambda: runner.compilations.jit(
                "fit sums", functools.partial(sums, jnp, groups=groups)
            ),
        )
        size = next(n for n in range(min(most, batch), 0, -1) if batch % n == 0)
        parts = [np.arange(i, i + size) for i in range(0, batch, size)]
    for part in parts:
        real = np.isin(part, inside).astype(np.float32)
        if real.any():
            chosen = picks(rows.count, each, start + part)
            mean, scatter = run(given[part], rows.table, chosen, None if on_host else real)
            yield (
                int(real.sum()) * each,
                reader.factor * np.asarray(mean, np.float64),
                reader.factor**2 * np.asarray(scatter, np.float64),
            )


def picks(count: int, each: int, samples: np.ndarray) -> np.ndarray:
    """Return which rows of some samples are looked at: other ones of every sample, evenly spread.

    Args:
      count: Rows of one sample.
      each: How many of them.
      samples: Numbers of the samples, ``[B]``.

    Returns:
      ``int32[B, each]``, all different within a sample; in order if all are taken.
    """
    if each == count:
        return np.broadcast_to(np.arange(count, dtype=np.int32), (len(samples), count))
    start = max(1, round(count * _GOLDEN))
    step = next(n for n in range(start, start + count) if math.gcd(n, count) == 1)
    numbers = samples[:, np.newaxis].astype(np.int64) * each + np.arange(each)
    return (numbers * step % count).astype(np.int32)


def sums(
    xp: Any,
    x: Array | np.ndarray,
    table: np.ndarray,
    chosen: np.ndarray,
    real: np.ndarray | None,
    *,
    groups: int,
) -> tuple[Array | np.ndarray, Array | np.ndarray]:
    """Return the mean of some rows and the products of their deviations.

    Args:
      xp: `numpy` or `jax.numpy`.
      x: Features, ``[B, S, C]``.
      table: See `Rows`, ``[H, P, T]``.
      chosen: Rows of each sample, ``[B, R]``.
      real: 1 for samples that count, else 0, ``[B]``; None if all do.
      groups: Of channels.

    Returns:
      ``[G, K]`` and ``[G, K, K]``.
    """
    batch, positions, channels = x.shape
    padded = xp.concatenate([x, xp.zeros((batch, 1, channels), x.dtype)], axis=1)
    first = np.arange(batch)[:, np.newaxis, np.newaxis] * (positions + 1)
    places = xp.asarray(table)[:, chosen] + first  # [H, B, R, T]
    seen = xp.take(padded.reshape(-1, channels), places, axis=0)
    if groups > 1:
        split = seen.reshape(*seen.shape[:-1], groups, channels // groups)
        seen = xp.transpose(split, (0, 4, 1, 2, 3, 5))
    rows = seen.reshape(len(table) * groups, chosen.size, -1)
    ones = np.ones(chosen.size, np.float32)
    counted = ones if real is None else xp.repeat(xp.asarray(real), chosen.shape[1])
    mean = xp.matmul(counted / counted.sum(), rows)
    apart = rows - mean[:, np.newaxis]
    if real is not None:
        apart = apart * counted[:, np.newaxis]
    return mean, xp.matmul(xp.swapaxes(apart, 1, 2), apart)
