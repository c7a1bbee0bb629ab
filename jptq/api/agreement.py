"""The exported file run in onnxruntime, beside the quantized forward.

onnxruntime is an implementation that is not ours; it is used where it is installed. The file runs
in a default session, as a user runs it, and in one without graph optimisations.

What agrees? Two float32 programs differ in their last bits; a value on a rounding boundary then
falls to either side, which is one step of its quantizer. In a deep network that step moves others,
so no bound holds for all networks. Here a difference is explained by rounding if it is no larger
than a step (of the coarsest type of a feature) of the output's largest value, or than four times
what our own forward moves when all scales move to a neighbour in float32.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jptq import ir
from jptq.metrics import similarity
from jptq.numerics.qtypes import INT8, qtype
from jptq.quant.assign import Assignment, Table
from jptq.quant.export import to_qdq
from jptq.quant.plan import FEATURE
from jptq.results import Agreement, OutputAgreement
from jptq.tuning.compared import comparable
from jptq.tuning.prepare import Prepared, Progress, quiet

SAMPLES = 4
"""Samples that are run: a fault of the file shows on the first."""

_DRAWS = 3
"""Times that our own forward is run with other scales, if there is something to explain."""

_FACTOR = 4.0
"""Of what those runs move; also the margin that tests of networks leave (tests/agreements)."""

_ERRORS_ONLY = 3


def check_export(
    prepared: Prepared,
    assignment: Assignment | None = None,
    *,
    samples: int = SAMPLES,
    progress: Progress = quiet,
) -> Agreement:
    """Run the export of a network in onnxruntime and compare it with the forward.

    Args:
      prepared: The network, and samples of it.
      assignment: Types; None: those that it holds.
      samples: First samples to run.
      progress: ``progress(step, done, total)``.

    Returns:
      What was found. No runtime, and none that can run the file, are findings, not errors.
    """
    runtime = _runtime()
    if runtime is None:
        return Agreement()
    name = f"onnxruntime {runtime.__version__}"
    assignment = prepared.configured if assignment is None else assignment
    exported = to_qdq(prepared.mixed(assignment))
    with tempfile.TemporaryDirectory(prefix="jptq-check-") as folder:
        path = Path(folder) / "qdq_model.onnx"
        ir.save(exported, path)
        pairs = _Pairs(prepared, assignment, samples)
        rows: list[OutputAgreement] = []
        for number, optimized in enumerate((True, False)):
            progress("check the export", number, 2)
            try:
                session = _session(runtime, path, optimized=optimized)
                rows += pairs.compared(session, optimized=optimized)
            except Exception as error:  # whatever a program raises that is not ours
                failure = str(error).strip().splitlines()[0]
                return Agreement(runtime=name, samples=pairs.count, failure=failure)
        progress("check the export", 2, 2)
    return Agreement(
        runtime=name,
        samples=pairs.count,
        outputs=tuple(rows),
        strict=prepared.plan.strict,
    )


class _Pairs:
    """Outputs of our forward beside those of a session, for the first batch of samples."""

    def __init__(self, prepared: Prepared, assignment: Assignment, samples: int) -> None:
        self._prepared = prepared
        # The batch is that of every other run over the samples: its program is there already.
        self._feeds, real = next(iter(prepared.runner.batches(prepared.samples)))
        self.count = min(real, samples)
        self._table = prepared.table(assignment)
        self._mine = self._outputs(self._table)
        features = {c.name for c in prepared.plan.calibrations if c.kind == FEATURE}
        types = {qtype(name) for key, name in assignment.items() if key in features}
        self._step = 1.0 / min((t.upper for t in types if t.quantizes), default=INT8.upper)

    def compared(self, session: Any, *, optimized: bool) -> Iterator[OutputAgreement]:
        """Yield every output of numbers."""
        theirs = {name: np.zeros_like(value) for name, value in self._mine.items()}
        inputs = [value.name for value in session.get_inputs()]
        for index in range(self.count):
            sample = self._prepared.samples[index]
            found = session.run(list(theirs), {name: sample[name] for name in inputs})
            for name, value in zip(theirs, found, strict=True):
                theirs[name][index] = value
        for name, distance in self._distances(theirs).items():
            yield OutputAgreement(
                output=name,
                optimized=optimized,
                cosine=1.0 - distance.angle,
                difference=distance.share,
                steps=self._in_steps(name, distance),
                broken=distance.broken[1],
                broken_here=distance.broken[0],
                explained=self._explained(name, distance),
            )

    def _outputs(self, table: Table) -> dict[str, np.ndarray]:
        runner = self._prepared.runner
        outputs = runner.run(runner.pack(table), self._feeds)
        return {name: np.asarray(outputs[name]) for name in comparable(outputs)}

    def _distances(self, others: Mapping[str, np.ndarray]) -> dict[str, _Distance]:
        return {n: _distance(mine, others[n], self.count) for n, mine in self._mine.items()}

    def _explained(self, name: str, distance: _Distance) -> bool:
        if distance.broken[0] != distance.broken[1]:
            return False
        if distance.share <= self._step:
            return True
        own = self._own[name]
        return distance.share <= _FACTOR * own.share and distance.angle <= _FACTOR * own.angle

    @functools.cached_property
    def _own(self) -> dict[str, _Distance]:
        """How far each output moves when scales move by a last bit: the farthest of some draws."""
        draws = [
            self._distances(self._outputs(_nudged(self._table, seed))) for seed in range(_DRAWS)
        ]
        return {
            name: dataclasses.replace(
                draws[0][name],
                angle=max(draw[name].angle for draw in draws),
                largest=max(draw[name].largest for draw in draws),
            )
            for name in self._mine
        }

    def _in_steps(self, name: str, distance: _Distance) -> float | None:
        node = self._prepared.calibrated.producers.get(name)
        plan = self._prepared.plan
        for index, calibration in enumerate(plan.calibrations):
            if node is not None and calibration.name == node.name and self._table.gate[index]:
                scale = np.asarray(self._table.scale)[plan.offsets[index]]
                return distance.largest / float(scale) if scale else None
        return None


@dataclasses.dataclass(frozen=True)
class _Distance:
    """Between two versions of an output, the worst of any sample.

    Attributes:
      angle: One less the cosine.
      largest: Largest difference.
      size: Largest value.
      broken: NaN and infinite values of both.
    """

    angle: float
    largest: float
    size: float
    broken: tuple[int, int]

    @property
    def share(self) -> float:
        """The largest difference as a share of the largest value."""
        return self.largest / (self.size or 1.0)


def _distance(mine: np.ndarray, other: np.ndarray, count: int) -> _Distance:
    """Return the distance over the first ``count`` samples of two batches."""
    finite = [np.isfinite(a) for a in (mine, other)]
    lost = ~(finite[0] & finite[1])
    if lost.any():  # they are counted, and say nothing of the others
        mine, other = np.where(lost, 0, mine), np.where(lost, 0, other)
    moments = np.asarray(similarity.compare(mine, other))[:count]
    size = int(np.prod(mine.shape[1:]))
    cosine, apart = similarity.evaluate(("cosine-similarity", "chebyshev"), moments, size).T
    here, there = (int((~one[:count]).sum()) for one in finite)
    return _Distance(
        angle=1.0 - float(cosine.min()),
        largest=float(apart.max()),
        size=float(np.abs(mine[:count]).max(initial=0.0)),
        broken=(here, there),
    )


def _nudged(table: Table, seed: int) -> Table:
    """Return the table with every scale moved to one of its two neighbours in float32."""
    scale = np.asarray(table.scale)
    up = np.random.default_rng(seed).integers(0, 2, scale.shape) > 0
    limit = np.where(up, np.float32(np.inf), np.float32(0))
    return dataclasses.replace(table, scale=np.nextafter(scale, limit))


def _runtime() -> Any | None:
    """Return onnxruntime if it is installed."""
    try:
        return importlib.import_module("onnxruntime")
    except ImportError:
        return None


def _session(runtime: Any, path: Path, *, optimized: bool) -> Any:
    """Return a session as a user opens one, or without graph optimisations."""
    options = runtime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    if not optimized:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
