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
from jptq.diagnosis.walk import Walk, off
from jptq.errors import DataError
from jptq.hmct.quantizer.debugger import loading
from jptq.hmct.quantizer.debugger.loading import ArgumentError, ModelOrFile
from jptq.metrics import similarity
from jptq.numerics.fake_quant import fake_quant
from jptq.quant.assign import Table
from jptq.quant.plan import Plan
from jptq.report.vendor_tables import NodeRow
from jptq.results import Comparison
from jptq.tuning import Journal, Measurer, Prepared
from jptq.tuning.source import First, expected_of

COSINE = "cosine-similarity"


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
    model, where = loading.model_of(model_or_file)
    inputs = expected_of(model, where)
    network = loading.loaded(model_or_file, _sample(inputs, data, seed))
    measurer = Measurer(network, None, Journal(None))
    return ModelInfo(
        nodes=tuple(_rows(network, node_cosines(network))),
        outputs=measurer.compare(network.configured),
    )


def node_cosines(network: Prepared) -> dict[str, float]:
    """Return the cosine similarity of every float node output, all quantizers at work.

    An output that carries a quantizer is taken behind it.

    Args:
      network: Its first sample is run.

    Returns:
      ``{tensor: cosine}``; NaN where there is none.
    """
    runner, plan = network.runner, network.plan
    table = network.table(network.configured)
    behind = {c.tensor: i for i, c in enumerate(plan.calibrations) if not c.constant}
    feeds = {name: value[np.newaxis] for name, value in network.samples[0].items()}
    cosines: dict[str, float] = {}
    floats: Mapping[str, Array] = {}
    for index, values in Walk.of(runner)([runner.pack(off(table)), runner.pack(table)], feeds):
        if index == 0:
            floats = values
            continue
        for name, value in values.items():
            grid = _grid(plan, table, behind.get(name), runner.program.shapes[name])
            cosines[name] = _cosine(np.asarray(floats[name]), np.asarray(value), grid)
    return cosines


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Grid:
    """What a tensor is rounded to: ``float32``, a value per element or one for all."""

    scale: np.ndarray
    offset: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    gate: np.ndarray


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
    # Zeros change no cosine: tensors are filled up, so that few lengths have to be compiled for.
    length = 1 << max(found.size - 1, 0).bit_length()

    def filled(values: np.ndarray, fill: float = 0.0) -> np.ndarray:
        row = np.full((1, length), fill, np.float32)
        row[0, : found.size] = values.ravel()
        return row

    with jax.enable_x64(True):  # sums are float64
        sums = _compared()(
            filled(floating),
            filled(found),
            filled(grid.scale, 1.0),
            filled(grid.offset),
            grid.lower,
            grid.upper,
            grid.gate,
        )
    return float(similarity.evaluate((COSINE,), np.asarray(sums)[None], found.size)[0, 0])


@functools.cache
def _compared() -> Callable[..., Array]:
    """Return the comparison of a float row with one that is rounded to a grid."""
    return jax.jit(lambda a, b, *grid: similarity.moments(a, fake_quant(b, *grid)))


def _rows(network: Prepared, cosines: Mapping[str, float]) -> list[NodeRow]:
    rows = []
    for node in network.calibrated.operators():
        slots = network.plan.by_node.get(node.name)
        name = None if slots is None else slots.inputs.get(0)
        if name is None:
            continue
        cosine = cosines.get(node.outputs[0], float("nan"))
        rows.append(
            NodeRow(
                node=node.name,
                op=node.op,
                cosine=None if np.isnan(cosine) else cosine,
                threshold=float(network.thresholds[name][0]),
                qtype=network.configured[name],
            )
        )
    return rows


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
    except (OSError, ValueError, EOFError) as error:
        raise DataError("not an .npy file", where=str(path), why=str(error)) from error
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
