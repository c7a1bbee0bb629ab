"""What ``hmct-info`` shows of a calibrated model: every node's and every output's similarity."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jax import Array

from jptq.data import MemorySamples, Samples
from jptq.data.check import Expected, check_layout, check_values
from jptq.data.samples import load_samples
from jptq.diagnosis.walk import Walk, as_float
from jptq.errors import DataError
from jptq.hmct.quant_info import node_rows
from jptq.hmct.quantizer.debugger import loading
from jptq.hmct.quantizer.debugger.loading import ArgumentError, ModelOrFile
from jptq.metrics import similarity
from jptq.numerics.fake_quant import fake_quant
from jptq.quant.assign import Table
from jptq.quant.plan import Plan
from jptq.report.vendor_tables import NodeRow
from jptq.results import Comparison
from jptq.tuning import Journal, Measurer, Prepared
from jptq.tuning.compared import Compared
from jptq.tuning.source import First, expected_of

COSINE = "cosine-similarity"

_CHUNK = 1 << 16
"""Elements that are compared at a time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A calibrated model on one sample.

    Attributes:
      nodes: With a quantizer at input 0, in graph order.
      outputs: Every output against float.
    """

    nodes: tuple[NodeRow, ...]
    outputs: Comparison


def model_info(
    model_or_file: ModelOrFile, data: Sequence[Path] = (), *, seed: int = 0
) -> ModelInfo:
    """Run one sample through a calibrated model and its float form.

    Args:
      model_or_file: A calibrated model.
      data: A file per graph input, in their order; a folder stands for its first sample. One
        folder may hold the samples of all inputs. Without any, the sample is random.
      seed: Of a random sample.

    Raises:
      ArgumentError: The number of files is not that of the inputs.
      JptqError: The model or the data cannot be used.

    Source: hmct-spec 3.3, "hmct-info".
    """
    model, where = loading.calibrated_of(model_or_file)
    inputs = expected_of(model, where)
    network = loading.loaded(model_or_file, _sample(inputs, data, seed))
    found = examined(network)
    return ModelInfo(nodes=node_rows(network, found.cosines), outputs=found.outputs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examined:
    """A calibrated network against float on one sample, all quantizers at work.

    Attributes:
      cosines: ``{tensor: cosine}`` of every float operator output, taken behind the quantizer that
        it carries; NaN where there is none.
      outputs: Every output against float.
    """

    cosines: Mapping[str, float]
    outputs: Comparison


def examined(network: Prepared) -> Examined:
    """Run the first sample of a network through one program that shows every tensor.

    Outputs that it cannot show (of integers, or constant) take the network's own programs.
    """
    runner, plan = network.runner, network.plan
    program, walk = runner.program, Walk.of(runner)
    table = network.table(network.configured)
    behind = {c.tensor: i for i, c in enumerate(plan.calibrations) if not c.constant}
    quantized = {c.output: c.tensor for c in plan.calibrations}
    floating = [n for n in program.outputs if np.issubdtype(program.dtypes[n], np.floating)]
    shown = {quantized.get(name, name): name for name in floating}
    feeds = {name: value[np.newaxis] for name, value in network.samples[0].items()}
    cosines: dict[str, float] = {}
    sums, seen = Compared(program.shapes, channelwise=False), set[str]()
    floats: Mapping[str, Array] = {}
    for index, values in walk([as_float(runner, table), runner.pack(table)], feeds):
        if index == 0:
            floats = values
            continue
        for name, value in values.items():
            exact, rough = np.asarray(floats[name]), np.asarray(value)
            grid = _grid(plan, table, behind.get(name), program.shapes[name])
            cosines[name] = _cosine(exact, rough, grid)
            if name in shown:
                output = shown[name]
                value = grid.rounded(value) if output in quantized else value
                sums.add(output, floats[name], value, 1)
                seen.add(output)
    if floating and seen == set(floating):
        outputs = sums.comparison(floating)
    else:
        first = dataclasses.replace(network, samples=First(network.samples, 1))
        outputs = Measurer(first, None, Journal(None)).compare(network.configured)
    return Examined(cosines=cosines, outputs=outputs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Grid:
    """What a tensor is rounded to: ``float32``, a value per element or one for all."""

    scale: np.ndarray
    offset: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    gate: np.ndarray

    def rounded(self, values: Array) -> Array:
        """Return float32 values of the tensor's shape on the grid."""
        return _rounded()(values, self.scale, self.offset, self.bounds, self.gate)

    @property
    def bounds(self) -> np.ndarray:
        """Least and largest integer, ``float32[2]``."""
        return np.stack([self.lower, self.upper])


def _grid(plan: Plan, table: Table, index: int | None, shape: tuple[int, ...]) -> _Grid:
    """Return the grid of a quantizer, spread over its tensor; None leaves values as they are."""
    if index is None:
        one, zero = np.ones(shape, np.float32), np.zeros((), np.float32)
        return _Grid(scale=one, offset=0 * one, lower=zero, upper=zero, gate=zero)
    start, stop = plan.offsets[index], plan.offsets[index + 1]
    axis = plan.calibrations[index].axis
    lengths = [stop - start if i == axis else 1 for i in range(len(shape))]

    def spread(values: Array | np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.asarray(values)[start:stop].reshape(lengths), shape)

    return _Grid(
        scale=spread(table.scale),
        offset=spread(table.offset),
        lower=np.asarray(table.lower)[index],
        upper=np.asarray(table.upper)[index],
        gate=np.asarray(table.gate)[index],
    )


def _cosine(floating: np.ndarray, found: np.ndarray, grid: _Grid) -> float:
    """Return the cosine of two tensors, the second one rounded; sums are float64."""
    fills = ((floating, 0.0), (found, 0.0), (grid.scale, 1.0), (grid.offset, 0.0))
    rows = [_chunks(values, fill) for values, fill in fills]
    with jax.enable_x64(True):
        parts = [
            np.asarray(_compared()(*(row[i] for row in rows), grid.bounds, grid.gate))
            for i in range(len(rows[0]))
        ]
    # The largest error is no sum; the cosine does not need it.
    return float(similarity.evaluate((COSINE,), np.sum(parts, axis=0)[None], found.size)[0, 0])


def _chunks(values: np.ndarray, fill: float) -> np.ndarray:
    """Return the elements of a tensor in rows of `_CHUNK`, filled up.

    A network has a hundred shapes, and each would be a compilation. Zeros change no cosine.
    """
    rows = np.full((max(-(-values.size // _CHUNK), 1), _CHUNK), fill, np.float32)
    rows.ravel()[: values.size] = values.ravel()
    return rows


@functools.cache
def _compared() -> Callable[..., Array]:
    """Return the comparison of a float row with one that is rounded to a grid."""

    def compared(
        a: Array, b: Array, scale: Array, offset: Array, bounds: Array, gate: Array
    ) -> Array:
        rounded = fake_quant(b, scale, offset, bounds[0], bounds[1], gate)
        return similarity.moments(a[None], rounded[None])

    return jax.jit(compared)


@functools.cache
def _rounded() -> Callable[..., Array]:
    return jax.jit(lambda x, s, o, bounds, gate: fake_quant(x, s, o, bounds[0], bounds[1], gate))


def _sample(inputs: Sequence[Expected], data: Sequence[Path], seed: int) -> Samples:
    if not data:
        return MemorySamples(feeds=(_random(inputs, seed),))
    if len(data) == 1 and data[0].is_dir():
        return First(load_samples(data[0], inputs), 1)
    if len(data) != len(inputs):
        raise ArgumentError(
            f"{len(data)} files of calibration data for {len(inputs)} inputs",
            why="inputs: " + ", ".join(one.name for one in inputs),
            hint="-c once per input, in this order",
        )
    feed = {}
    for expected, path in zip(inputs, data, strict=True):
        if path.is_dir():
            feed[expected.name] = load_samples(path, [expected])[0][expected.name]
        else:
            feed[expected.name] = _array(path, expected)
    return MemorySamples(feeds=(feed,))


def _array(path: Path, expected: Expected) -> np.ndarray:
    try:
        array = np.asarray(np.load(path, allow_pickle=False))
    except OSError as error:
        raise DataError(f"cannot read {path}", why=error.strerror or str(error)) from error
    except (ValueError, EOFError) as error:
        raise DataError(
            "not an .npy file", where=str(path), hint="numpy.save writes one"
        ) from error
    check_layout(array.shape, array.dtype, expected, where=str(path))
    check_values(array, where=str(path))
    return array


def _random(inputs: Sequence[Expected], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    feed = {}
    for one in inputs:
        shape = [length for length in one.shape if isinstance(length, int)]
        if len(shape) < len(one.shape):
            raise ArgumentError(
                f"input {one.name!r} has an open shape",
                why="there is no sample to take it from",
                hint="-c FILE.npy",
            )
        feed[one.name] = (
            rng.standard_normal(shape) if one.dtype.kind == "f" else np.zeros(shape)
        ).astype(one.dtype)
    return feed
