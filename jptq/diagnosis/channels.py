"""How values are spread in every channel of a tensor: what one threshold for all would cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jptq.diagnosis.walk import Walk, as_float
from jptq.engine.runner import Runner, SampleSet
from jptq.errors import ConfigError
from jptq.quant.assign import Table
from jptq.quant.plan import Calibration

MOST_ELEMENTS = 1 << 24
"""Values that quartiles are taken of, per tensor: 64 MiB. More samples than that holds add
little to a quartile, so that evenly spread ones stand for all."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Channels:
    """The C channels of one tensor.

    Attributes:
      name: Of the quantizer or node that was asked for.
      tensor: The tensor.
      axis: Channel axis, counted without a sample axis.
      quartiles: ``float64[C, 5]``: least, lower quartile, median, upper quartile, largest; linear
        interpolation between values.
      mean: ``float64[C]``.
      samples: How many the values come from; 0 for a constant.
    """

    name: str
    tensor: str
    axis: int
    quartiles: np.ndarray
    mean: np.ndarray
    samples: int

    @property
    def largest(self) -> np.ndarray:
        """``float64[C]``: largest absolute value."""
        return np.asarray(np.maximum(-self.quartiles[:, 0], self.quartiles[:, 4]))


def channels_of(
    runner: Runner,
    table: Table,
    tensors: Mapping[str, str],
    samples: SampleSet,
    *,
    axes: Mapping[str, int],
    limit: int = MOST_ELEMENTS,
) -> tuple[Channels, ...]:
    """Return the spread in the channels of some tensors of the float network.

    Args:
      runner: Of a calibrated graph.
      table: Any; its quantizers are switched off.
      tensors: ``{name: constant, graph input or float output of a node}``.
      samples: To run for what is not constant, evenly spread ones if they hold too many values.
      axes: ``{name: channel axis}``, negative ones from the end.
      limit: Values of one tensor to look at.

    Raises:
      UnknownNameError: A tensor does not exist or is not float.
      ConfigError: A tensor does not have the axis.
    """
    walk = Walk.of(runner)
    constants = walk.constants
    for name, tensor in tensors.items():
        shape = constants[tensor].shape if tensor in constants else None
        shape = runner.program.shapes.get(tensor, ()) if shape is None else shape
        if not -len(shape) <= axes[name] < len(shape):
            raise ConfigError(
                f"axis {axes[name]} does not exist", where=f"{name}, of shape {tuple(shape)}"
            )
    found = {
        n: _spread(n, t, constants[t][np.newaxis], axes[n], 0)
        for n, t in tensors.items()
        if t in constants
    }
    computed = {n: t for n, t in tensors.items() if t not in constants}
    for group, count in _groups(runner, computed, len(samples), limit):
        parts: dict[str, list[np.ndarray]] = {n: [] for n in group}
        picked = _Picked(samples, count)
        reference = as_float(runner, table)
        wanted = {computed[n] for n in group}
        for feeds, real in runner.batches(picked, walk.batch(1)):
            for _, values in walk([reference], feeds, wanted):
                for name in group:
                    if computed[name] in values:
                        parts[name].append(np.asarray(values[computed[name]])[:real])
        for name in group:
            whole = np.concatenate(parts.pop(name))
            found[name] = _spread(name, computed[name], whole, axes[name], count)
    return tuple(found[name] for name in tensors)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ChannelRanges:
    """Absolute values in the C channels of one quantizer's tensor.

    Attributes:
      axis: Channel axis, counted without a sample axis.
      largest: ``float64[C]``.
      least: ``float64[C]``: of those that are not 0; infinite if there are none.
    """

    axis: int
    largest: np.ndarray
    least: np.ndarray


def channel_axis(calibration: Calibration, rank: int, *, constant: bool) -> int:
    """Return the axis along which a quantizer's tensor has channels (hmct-spec 3.1).

    Args:
      calibration: The quantizer.
      rank: Axes of its tensor.
      constant: Its tensor is a weight: the quantizer's own axis, else 0. Features: 1.
    """
    if constant:
        return 0 if calibration.axis is None else calibration.axis % rank
    return min(1, max(rank - 1, 0))


def channel_ranges_of(
    runner: Runner, table: Table, names: Sequence[str], samples: SampleSet
) -> dict[str, ChannelRanges]:
    """Return the ranges in every channel of some quantizers' tensors, over all samples.

    Args:
      runner: Of a calibrated graph.
      table: Any; its quantizers are switched off.
      names: Calibrations.
      samples: To run for what is not constant.

    Raises:
      UnknownNameError: A name is no calibration.
    """
    walk = Walk.of(runner)
    chosen = [walk.plan.calibration(name) for name in names]
    found: dict[str, ChannelRanges] = {}

    def see(calibration: Calibration, values: np.ndarray, constant: bool) -> None:
        axis = channel_axis(calibration, values.ndim - 1, constant=constant)
        others = tuple(i for i in range(values.ndim) if i != axis + 1)
        size = np.abs(values)
        largest = size.max(others, initial=0.0).astype(np.float64)
        least = size.min(others, initial=np.inf, where=size > 0).astype(np.float64)
        if (old := found.get(calibration.name)) is not None:
            largest, least = np.maximum(largest, old.largest), np.minimum(least, old.least)
        found[calibration.name] = ChannelRanges(axis=axis, largest=largest, least=least)

    features = [c for c in chosen if c.tensor not in walk.constants]
    for calibration in chosen:
        if calibration.tensor in walk.constants:
            see(calibration, walk.constants[calibration.tensor][np.newaxis], True)
    reference = as_float(runner, table)
    wanted = {c.tensor for c in features}
    for feeds, count in runner.batches(samples if features else (), walk.batch(1)):
        for _, values in walk([reference], feeds, wanted):
            for calibration in features:
                if calibration.tensor in values:
                    see(calibration, np.asarray(values[calibration.tensor])[:count], False)
    return found


def _groups(
    runner: Runner, tensors: Mapping[str, str], samples: int, limit: int
) -> list[tuple[list[str], int]]:
    """Return tensors that are looked at together, and for how many samples.

    Tensors of a group hold at most ``limit`` values together, or it is one tensor.
    """
    sizes = {n: max(int(np.prod(runner.program.shapes.get(t, ()))), 1) for n, t in tensors.items()}
    counts = {n: max(1, min(samples, limit // size)) for n, size in sizes.items()}
    groups: list[tuple[list[str], int]] = []
    held = 0
    for name in tensors:
        size = sizes[name] * counts[name]
        if groups and groups[-1][1] == counts[name] and held + size <= limit:
            groups[-1][0].append(name)
            held += size
        else:
            groups.append(([name], counts[name]))
            held = size
    return groups


class _Picked:
    """Evenly spread samples of a set."""

    def __init__(self, samples: SampleSet, count: int) -> None:
        self._samples = samples
        self._indices = np.linspace(0, len(samples) - 1, count).round().astype(int)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Mapping[str, np.ndarray]:
        return self._samples[int(self._indices[index])]


def _spread(name: str, tensor: str, values: np.ndarray, axis: int, samples: int) -> Channels:
    """Return the spread of ``[S, *shape]`` along an axis of the shape."""
    axis %= values.ndim - 1
    channels = values.shape[axis + 1]
    rows = np.moveaxis(values, axis + 1, 0).reshape(channels, values.size // max(channels, 1))
    # A channel without elements counts as zero.
    rows = rows.astype(np.float64) if rows.shape[1] else np.zeros((channels, 1))
    return Channels(
        name=name,
        tensor=tensor,
        axis=axis,
        quartiles=np.quantile(rows, (0.0, 0.25, 0.5, 0.75, 1.0), axis=1).T,
        mean=rows.mean(1),
        samples=samples,
    )
