"""Scores of thresholds while they are searched for: the placed graph run on some samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from jax import Array

from jptq.calibration import Calibrated, Scores
from jptq.data import SampleSet
from jptq.data.batches import even
from jptq.engine import Packed, Runner
from jptq.metrics import similarity
from jptq.numerics.qtypes import INT16
from jptq.quant.assign import Assignment, Table, accepted, table
from jptq.quant.calibrated import plan_of, thresholds_of
from jptq.quant.config import Config
from jptq.quant.plan import Plan
from jptq.quant.resolve import resolve
from jptq.targets import Target
from jptq.tuning.compared import channel_axis, comparable, parts_of
from jptq.tuning.source import spread


class FirstSample:
    """Compares a network with its float self on one sample (hmct-spec 2.4).

    Args:
      runner: Of the placed graph.
      samples: At least one.
      target: Accelerator.
      config: Decides on the types.
    """

    def __init__(self, runner: Runner, samples: SampleSet, target: Target, config: Config) -> None:
        self._runner = runner
        # A small network repeats the sample: one program then serves all that follows as well.
        count = even(len(samples), runner.batch) if runner.program.small else 1
        sample = samples[0]
        self._feeds = {
            n: np.repeat(np.asarray(sample[n])[None], count, axis=0) for n in runner.program.inputs
        }
        self._target = target
        self._config = config
        self._last: tuple[Calibrated, Plan, Assignment, Mapping[str, np.ndarray]] | None = None

    @cached_property
    def _float(self) -> dict[str, Array]:
        """The float outputs: nobody asks for them where one method is all there is to try."""
        return self._runner.run(self._runner.float_weights, self._feeds)

    def whole(self, found: Calibrated) -> Scores:
        """Return the scores with everything quantized."""
        plan, types, thresholds = self._read(found)
        return self.of(self._runner.pack(table(plan, thresholds, types)))

    def alone(self, found: Calibrated, names: Sequence[str], qtype: str | None = None) -> Scores:
        """Return the scores with some features quantized and all else float."""
        plan, types, thresholds = self._read(found)
        if qtype is not None:
            types = {**types, **{n: accepted(plan.calibration(n), qtype) for n in names}}
        on: Table = table(plan, thresholds, types)
        gate = np.zeros_like(np.asarray(on.gate))
        chosen = [plan.index[name] for name in names]
        gate[chosen] = np.asarray(on.gate)[chosen]
        masked = dataclasses.replace(on, gate=gate)
        return self.of(Packed(self._runner.float_weights.weights, masked))

    def of(self, packed: Packed) -> Scores:
        """Return the scores of the network with these weights and quantizers."""
        outputs = self._runner.run(packed, self._feeds)
        names = tuple(similarity.METRICS)
        rows, perfect = [], None
        for name, value in outputs.items():
            sums = np.asarray(similarity.compare(self._float[name], value))
            size = int(np.prod(self._runner.program.shapes[name]))
            row = similarity.evaluate(names, sums, size)[0]
            # An output that nothing reaches would hide the error of the others (hmct-spec 2.5).
            if sums[0, similarity.FIELDS.index("ee")] > 0:
                rows.append(row)
            else:
                perfect = row
        found = np.mean(rows, axis=0) if rows else perfect
        assert found is not None
        return dict(zip(names, found.tolist(), strict=True))

    def _read(self, found: Calibrated) -> tuple[Plan, Assignment, Mapping[str, np.ndarray]]:
        """Return what the network holds with these thresholds; the last one is remembered."""
        if self._last is None or self._last[0] is not found:
            model = found.write(self._runner.model)
            plan = plan_of(model, self._target)
            types = resolve(self._config, model, plan, self._target, report=False)
            self._last = found, plan, types, thresholds_of(model)
        return self._last[1:]


SAMPLES = 8
"""That methods are judged on, at least, where there are as many."""

VISIBLE = 1e-4
"""Of an output's largest value: a channel that varies less loses nothing by being lost."""


class SeveralSamples:
    """Tells what samples lose by thresholds: per channel, so that large ones hide nothing.

    Args:
      runner: Of the placed graph.
      samples: At least one; some are taken, evenly spread.
      target: Accelerator.
      config: Decides on the types that are asked for.
    """

    def __init__(self, runner: Runner, samples: SampleSet, target: Target, config: Config) -> None:
        self._runner = runner
        self._samples = samples
        self._target = target
        self._config = config
        parts = parts_of(runner.model, runner.program.outputs, runner.program.shapes)
        self._whole = frozenset(name for name, one in parts.items() if one.whole)

    @cached_property
    def _batches(self) -> list[tuple[dict[str, np.ndarray], int]]:
        # Whole batches of the size that everything after this runs in.
        size = even(len(self._samples), self._runner.batch)
        count = -(-SAMPLES // size) * size if self._runner.program.small else SAMPLES
        return list(self._runner.batches(spread(self._samples, count), size))

    @cached_property
    def _float(self) -> list[dict[str, np.ndarray]]:
        """The float outputs of the samples, batch by batch."""
        packed = self._runner.float_weights
        return [self._outputs(packed, feeds, count) for feeds, count in self._batches]

    @cached_property
    def _levels(self) -> dict[str, np.ndarray]:
        """By output, ``float64[C]``: variance of each channel over the samples.

        Below `VISIBLE` it does not count.
        """
        found = {}
        for name in self._float[0]:
            joined = np.concatenate([outputs[name] for outputs in self._float])
            known = np.isfinite(joined)
            values = np.where(known, joined, 0.0)
            axes, number = (0, 2), np.maximum(known.sum((0, 2)), 1)
            mean = values.sum(axes) / number
            apart = np.where(known, values - mean[:, None], 0.0)
            least = VISIBLE * np.abs(values).max(initial=0.0)
            found[name] = (apart * apart).sum(axes) / number + least * least
        return found

    def losses(self, found: Calibrated) -> tuple[np.ndarray, np.ndarray]:
        """Return what each sample loses at the types asked for, and with everything INT16.

        That of a channel is its squared error over the sum of this and the channel's variance; of
        a sample the mean over channels and outputs. A sample with elements that only quantization
        makes NaN or infinite loses all of the output.

        Returns:
          Two ``float64[S]``, 0 to 1.
        """
        model = found.write(self._runner.model)
        plan, thresholds = plan_of(model, self._target), thresholds_of(model)
        raised = dataclasses.replace(self._config, all_node_type=INT16.name)
        asked, finest = (
            resolve(config, model, plan, self._target, report=False)
            for config in (self._config, raised)
        )
        asked = {**asked, **found.types}
        lost = self._lost(table(plan, thresholds, asked))
        return lost, lost if asked == finest else self._lost(table(plan, thresholds, finest))

    def _lost(self, wanted: Table) -> np.ndarray:
        packed = self._runner.pack(wanted)
        rows = []
        for (feeds, count), floats in zip(self._batches, self._float, strict=True):
            outputs = self._outputs(packed, feeds, count)
            rows.append(
                np.mean(
                    [lost_share(floats[n], v, self._levels[n]) for n, v in outputs.items()], axis=0
                )
            )
        return np.concatenate(rows)

    def _outputs(
        self, packed: Packed, feeds: Mapping[str, np.ndarray], count: int
    ) -> dict[str, np.ndarray]:
        """Return outputs ``float64[S, C, N]``: samples, channels, elements."""
        out = {}
        outputs = self._runner.run(packed, feeds)
        for name in comparable(outputs) or outputs:
            values = np.asarray(outputs[name])[:count].astype(np.float64)
            axis = None if name in self._whole else channel_axis(values.shape[1:])
            moved = values[:, None] if axis is None else np.moveaxis(values, axis + 1, 1)
            out[name] = moved.reshape(count, moved.shape[1], -1)
        return out


def lost_share(floating: np.ndarray, quantized: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return the share of an output that each sample loses.

    Args:
      floating: ``float64[S, C, N]``: samples, channels, elements.
      quantized: The same shape.
      variance: ``float64[C]`` of the channels over many samples.

    Returns:
      ``float64[S]``, 0 to 1: the mean over channels of e / (e + v), e the mean squared error.
    """
    known = np.isfinite(floating)
    broken = (known & ~np.isfinite(quantized)).any((1, 2))
    both = known & np.isfinite(quantized)
    with np.errstate(over="ignore", invalid="ignore"):
        errors = np.where(both, floating - quantized, 0.0)
        squared = (errors * errors).sum(2) / np.maximum(known.sum(2), 1)
        shares = np.where(squared > 0, squared / (squared + variance), 0.0)
    shares = np.where(np.isnan(shares), 1.0, shares)
    return np.where(broken, 1.0, shares.mean(1) if shares.shape[1] else 0.0)
