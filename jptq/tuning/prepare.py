"""From files to a calibrated graph with everything around it that the later steps need."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq import __version__, files, ir, latency
from jptq.calibration import Calibrated, activation_of, calibrate
from jptq.data import Samples
from jptq.engine import Batching, Runner, lower, memory
from jptq.engine.layouts import canonical, convert
from jptq.errors import DataError, ModelError
from jptq.ir import Model
from jptq.metrics import similarity
from jptq.quant.assign import Assignment, Table, Thresholds, table, uniform
from jptq.quant.calibrated import (
    assignment_of,
    plan_of,
    thresholds_of,
    with_assignment,
    with_thresholds,
)
from jptq.quant.config import Activation, Config, load_config
from jptq.quant.export import without_quantizers
from jptq.quant.placement import place
from jptq.quant.plan import Plan
from jptq.quant.resolve import resolve
from jptq.results import LatencyTable
from jptq.targets import Target, load_target
from jptq.tuning.journal import Journal
from jptq.tuning.source import is_calibrated, load_float, samples_of

_log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""``progress(step, done, total)``; a step is a few words for a person."""


def quiet(step: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A calibrated network on a target.

    Attributes:
      name: Of the model file, without suffix.
      target: Accelerator.
      config: The user's quant_config.
      floating: The optimized float graph.
      calibrated: With quantizers, thresholds and the configuration's types.
      plan: Its quantizers.
      samples: Calibration samples.
      method: Tag of the calibration method.
      latency: Times of all nodes.
      runner: Runs the calibrated graph.
      digest: Of everything above: model, data, configuration, target, version.
    """

    name: str
    target: Target
    config: Config
    floating: Model
    calibrated: Model
    plan: Plan
    samples: Samples
    method: str
    latency: LatencyTable
    runner: Runner
    digest: str

    @cached_property
    def thresholds(self) -> Thresholds:
        """Thresholds of every calibration."""
        return thresholds_of(self.calibrated)

    @cached_property
    def activation(self) -> Activation:
        """The calibration settings that give these thresholds again, without a search."""
        return activation_of(self.method)

    @cached_property
    def configured(self) -> Assignment:
        """The types that the configuration asks for; all INT8 if it says nothing."""
        return assignment_of(self.calibrated)

    def all(self, name: str) -> dict[str, str]:
        """Return the assignment that raises everything to a type, as far as the target allows."""
        return uniform(self.plan, name)

    def table(self, assignment: Assignment) -> Table:
        """Return the arrays of an assignment."""
        return table(self.plan, self.thresholds, assignment)


def prepare(
    path: Path,
    data: Path | str,
    *,
    march: str,
    quant_config: Mapping[str, Any] | Path | str | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    limit: int | None = None,
    batching: Batching | None = None,
    measured_latency: Path | None = None,
    journal: Journal | None = None,
    progress: Progress = quiet,
) -> Prepared:
    """Load, optimize, place quantizers, calibrate and model latency.

    Args:
      path: Float ONNX file.
      data: Folder of calibration samples.
      march: Target.
      quant_config: The vendor's configuration, as a dict or file; thresholds and types follow it.
      input_shapes: Of inputs whose shape is open.
      limit: Use the first samples only.
      batching: Bounds the samples of a program run.
      measured_latency: The user's per-node times (CSV or JSON).
      journal: Reuses what an earlier run with the same inputs found.
      progress: Called as work goes on.
    """
    target = load_target(march)
    config = load_config(quant_config)
    progress("load", 0, 1)
    floating, samples = load_float(path, data, input_shapes=input_shapes, limit=limit)
    progress("load", 1, 1)
    identity = files.digest(
        "prepare", __version__, ir.to_bytes(floating), samples.digest, march, repr(config)
    )
    journal = journal or Journal(None)
    example = samples[0]
    program = lower(floating, example)
    floats = {n for n, dtype in program.dtypes.items() if dtype == np.float32}
    placed = place(
        floating, target, floats=floats, quantize_outputs=config.model_output_type is not None
    )
    plan = plan_of(placed, target)
    # Thresholds, types and granularity are data: this one program serves all that follows.
    runner = Runner(placed, example, plan=plan, batching=batching)
    stored = journal.load_arrays("thresholds", identity)
    if stored is None:
        found = _calibrate(runner, samples, target, config, progress)
        memory.release()
        calibrated, method = found.write(placed), found.method
        journal.save_arrays(
            "thresholds",
            identity,
            arrays={f"t:{n}": t for n, t in found.thresholds.items()}
            | {f"a:{n}": np.asarray(True) for n in found.asymmetric}
            | {f"x:{n}": np.asarray(axis) for n, axis in found.axes.items()}
            | {"method": np.asarray(method)},
        )
    else:
        named = {
            kind: {k[2:]: v for k, v in stored.items() if k.startswith(kind)}
            for kind in ("t:", "a:", "x:")
        }
        calibrated = with_thresholds(
            placed,
            named["t:"],
            asymmetric=frozenset(named["a:"]),
            axes={k: int(v) for k, v in named["x:"].items()},
        )
        method = str(stored["method"])
    plan = plan_of(calibrated, target)
    calibrated = with_assignment(calibrated, resolve(config, calibrated, plan, target))
    return _assembled(
        path,
        target,
        config,
        floating,
        calibrated,
        samples,
        method=method,
        batching=batching,
        measured_latency=measured_latency,
        identity=identity,
    )


def from_calibrated(
    path: Path,
    data: Path | str,
    *,
    march: str,
    batching: Batching | None = None,
    measured_latency: Path | None = None,
) -> Prepared:
    """Take up a calibrated model: thresholds and types are those in the file.

    Args:
      path: ``calibrated_model.onnx`` of ours or of the vendor.
      data: Folder of samples.
      march: Target.
      batching: Bounds the samples of a program run.
      measured_latency: The user's per-node times (CSV or JSON).

    Raises:
      ModelError: The file cannot be read or has no quantizers.
      DataError: The samples do not fit it.
    """
    target = load_target(march)
    model = ir.load(path)
    if not is_calibrated(model):
        raise ModelError(
            "the model has no quantizers", where=str(path), hint="jptq calibrate makes them"
        )
    samples = samples_of(model, path, data, {}, None)
    model = ir.fix_inputs(model, {name: value.shape for name, value in samples[0].items()})
    return _assembled(
        path,
        target,
        Config(),
        without_quantizers(model),
        model,
        samples,
        method="as in the model",
        batching=batching,
        measured_latency=measured_latency,
        identity=files.digest(
            "from_calibrated", __version__, ir.to_bytes(model), samples.digest, march
        ),
    )


def _assembled(
    path: Path,
    target: Target,
    config: Config,
    floating: Model,
    calibrated: Model,
    samples: Samples,
    *,
    method: str,
    batching: Batching | None,
    measured_latency: Path | None,
    identity: str,
) -> Prepared:
    plan = plan_of(calibrated, target)
    runner = Runner(calibrated, samples[0], plan=plan, batching=batching)
    times = latency.model_latency(calibrated, plan, runner.program.shapes, target)
    if measured_latency is not None:
        times = latency.with_measured(
            times, latency.read_measured(measured_latency), where=str(measured_latency)
        )
    return Prepared(
        name=path.stem,
        target=target,
        config=config,
        floating=floating,
        calibrated=calibrated,
        plan=plan,
        samples=samples,
        method=method,
        latency=times,
        runner=runner,
        digest=files.digest(identity, repr(times.to_json())),
    )


def _calibrate(
    runner: Runner, samples: Samples, target: Target, config: Config, progress: Progress
) -> Calibrated:
    placed, plan = runner.model, runner.plan
    assert plan is not None
    example = samples[0]
    reference = runner.forward(None)(example)

    def score(found: Calibrated) -> float:
        """Return the mean cosine of the outputs over the first sample (hmct-spec 2.4)."""
        model = found.write(placed)
        own = plan_of(model, target)
        values = table(own, found.thresholds, resolve(config, model, own, target))
        outputs = runner.forward(values)(example)
        return float(np.mean([_cosine(reference[n], outputs[n]) for n in reference]))

    return calibrate(
        observer(runner),
        placed,
        plan,
        samples,
        activation=config.activation,
        weight=config.weight,
        score=score,
        batch_size=runner.batch_for(memory.observed(runner.program)),
        progress=lambda done, total: progress("calibrate", done, total),
    )


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    sums = np.asarray(similarity.jitted(similarity.moments)(jnp.asarray(a), jnp.asarray(b)))
    return float(similarity.evaluate(("cosine-similarity",), sums[None], a.size)[0, 0])


def observer(runner: Runner) -> Callable[[Mapping[str, np.ndarray]], Mapping[str, Array]]:
    """Return the function that calibration observes float tensors with, axes in ONNX's order."""
    program = runner.program
    plan = program.plan
    assert plan is not None
    names = tuple(dict.fromkeys(c.tensor for c in plan.calibrations if not c.constant))

    def observe(packed: Mapping[str, Array], feeds: Mapping[str, Array]) -> dict[str, Array]:
        found = program.run(packed, None, feeds, keep=names)
        return {n: convert(v, program.perms[n], canonical(v.ndim)) for n, v in found.items()}

    compiled = runner.compilations.jit("observe", jax.vmap(observe, in_axes=(None, 0)))
    return lambda feeds: compiled(
        runner.float_weights.weights, {n: feeds[n] for n in program.inputs}
    )


def spread(samples: Samples, count: int) -> Sequence[Mapping[str, np.ndarray]]:
    """Return some samples, evenly taken from the whole set.

    Raises:
      DataError: There are none.
    """
    if not len(samples):
        raise DataError("there are no samples")
    picked = np.unique(
        np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    )
    return [samples[int(i)] for i in picked]
