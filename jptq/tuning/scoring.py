"""Scores of thresholds while they are searched for: the placed graph run on the first sample."""

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
from jptq.quant.assign import Assignment, Table, accepted, table
from jptq.quant.calibrated import plan_of, thresholds_of
from jptq.quant.config import Config
from jptq.quant.plan import Plan
from jptq.quant.resolve import resolve
from jptq.targets import Target


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
