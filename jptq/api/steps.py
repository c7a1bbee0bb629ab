"""What `jptq` offers to programs: the steps of the commands, one call each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jptq import allocation, engine, ir, latency, sensitivity
from jptq.engine import Batching, Forward, Runner, lower
from jptq.errors import ConfigError, UnknownNameError
from jptq.ir import Model, load, save
from jptq.quant.assign import Assignment
from jptq.quant.calibrated import assignment_of, plan_of, with_assignment
from jptq.quant.compensate import compensate
from jptq.quant.config import Config, load_config
from jptq.quant.placement import place
from jptq.quant.plan import Plan
from jptq.quant.resolve import resolve
from jptq.registry import lookup
from jptq.results import Allocation, LatencyTable, SensitivityTable
from jptq.sensitivity import Loss, naive
from jptq.targets import Target, load_target
from jptq.tuning.journal import Journal
from jptq.tuning.prepare import (
    Prepared,
    Progress,
    from_calibrated,
    prepare,
    quiet,
    spread,
)
from jptq.tuning.source import is_calibrated

load_model = load
save_model = save


class Serializable(Protocol):
    """An ``onnx.ModelProto``, or what looks like one."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Return the content of an ONNX file."""


def trace(
    model_or_path: Model | Serializable | Path | str, example_feeds: Mapping[str, np.ndarray]
) -> Forward:
    """Return a network as a pure, jittable, differentiable function of its inputs.

    Args:
      model_or_path: A model, an ``onnx.ModelProto`` or the path of an ONNX file.
      example_feeds: One value per graph input; fixes shapes and dtypes.

    Returns:
      A callable ``{input: array} -> {output: array}``.

    Raises:
      ModelError: The file is damaged, or an operator cannot be traced.

    Example::

        forward = jptq.trace("model.onnx", {"x": np.zeros((1, 3, 32, 32), np.float32)})
        logits = forward({"x": images})["logits"]
    """
    return engine.trace(_model(model_or_path), example_feeds)


def calibrate(
    model: Path | str,
    calibration_data: Path | str,
    *,
    march: str = "nash-e",
    quant_config: Config | Mapping[str, Any] | Path | str | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    batching: Batching | None = None,
    measured_latency: Path | str | None = None,
    journal: Journal | None = None,
    progress: Progress = quiet,
) -> Prepared:
    """Return a network with quantizers and thresholds, ready to be ranked and run.

    Args:
      model: A float ONNX file, or a calibrated one, whose thresholds and types are kept.
      calibration_data: Folder of samples.
      march: Target.
      quant_config: Calibration settings and types; for a calibrated model only with
        ``calibration_type: load``, which keeps its thresholds.
      input_shapes: Of inputs whose shape a float model leaves open.
      batching: Bounds the samples of a program run, by number and by memory.
      measured_latency: Per-node times of the user.
      journal: Keeps thresholds, for resuming.
      progress: ``progress(step, done, total)``.

    Raises:
      JptqError: Bad input, with what to do.
    """
    times = None if measured_latency is None else Path(measured_latency)
    if not is_calibrated(load(model)):
        return prepare(
            Path(model),
            calibration_data,
            march=march,
            quant_config=quant_config,
            input_shapes=input_shapes,
            batching=batching,
            measured_latency=times,
            journal=journal,
            progress=progress,
        )
    config = None if quant_config is None else load_config(quant_config)
    loads = config is not None and config.activation.calibration_type == ("load",)
    if (config is not None and not loads) or input_shapes:
        raise ConfigError(
            f"{'--input_shape' if config is None or loads else '--quant_config'} with a model "
            "that is calibrated already",
            where=str(model),
            why="its thresholds, types and shapes are used as they are",
            hint="give the float model, or a quant_config with calibration_type 'load', which "
            "keeps the thresholds",
        )
    return from_calibrated(
        Path(model),
        calibration_data,
        march=march,
        config=config,
        batching=batching,
        measured_latency=times,
    )


def rank_nodes(
    prepared: Prepared,
    *,
    kind: str = "node",
    method: str = "metric",
    metrics: Sequence[str] = (),
    samples: int = 8,
    seed: int = 0,
    loss: Loss | None = None,
    output_nodes: Sequence[str] = (),
    sweep: str = "fast",
    progress: Progress = quiet,
) -> SensitivityTable:
    """Return how much the outputs suffer if only one thing is quantized.

    Args:
      prepared: A calibrated network; what holds another type than INT8 is ranked with that type.
      kind: ``node``, ``weight``, ``activation``, or ``group``: what changes its type together,
        scored as INT8 and as INT16, which is what `allocate` needs.
      method: A key of `jptq.sensitivity.METHODS`.
      metrics: Scores, the first decides the order; the method's first one if empty.
      samples: How many, evenly taken from the set.
      seed: Of ``probe`` and ``hessian``.
      loss: For ``gradient`` and ``hessian``; the error of the outputs if None.
      output_nodes: Compare at the outputs of these nodes instead of the network's.
      sweep: ``fast``, or ``naive``: one whole forward per row; only for ``metric``.
      progress: ``progress(step, done, total)``.

    Raises:
      UnknownNameError: A kind, method, metric or node that does not exist.
      ConfigError: Options that the method does not have.
    """
    rank = lookup(sensitivity.METHODS, method, "method", where="--method")
    known = (*sensitivity.METRICS_OF[method], *(("nsr",) if method == "metric" else ()))
    for name in metrics:
        if name not in known:
            raise UnknownNameError(f"metric of method {method!r}", name, known, where="--metric")
    if loss is not None and method not in ("gradient", "hessian"):
        raise ConfigError(f"method {method!r} takes no --loss", hint="gradient and hessian do")
    if sweep == "naive" and method != "metric":
        raise ConfigError(f"method {method!r} does not sweep", hint="--method=metric")
    model, plan, runner = _cut(prepared, output_nodes)
    rows = sensitivity.rows_of(
        model, plan, kind, **({"candidates": ("int8", "int16")} if kind == "group" else {})
    )
    options: dict[str, Any] = {}
    if method in ("probe", "hessian"):
        options["seed"] = seed
    if loss is not None:
        options["loss"] = loss
    given = (runner, prepared.thresholds, prepared.configured, rows)
    used = spread(prepared.samples, samples)
    table = (naive.rank if sweep == "naive" else rank)(
        *given,
        used,
        metrics=tuple(metrics) or default_metrics(method, kind),
        progress=lambda done, total: progress(f"rank by {method}", done, total),
        **options,
    )
    if method != "probe":
        return table
    return sensitivity.rescore(
        table,
        *given,
        used,
        progress=lambda done, total: progress("score the head exactly", done, total),
    )


def default_metrics(method: str, kind: str) -> tuple[str, ...]:
    """Return the scores of a ranking that asks for none: errors that add up for groups."""
    return (
        ("mse",) if kind == "group" and method == "metric" else sensitivity.METRICS_OF[method][:1]
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timed:
    """A network's quantizers and times, without thresholds.

    Attributes:
      model: With quantizers in place.
      plan: Its quantizers.
      target: Accelerator.
      assignment: The types it holds.
      table: Modelled times.
    """

    model: Model
    plan: Plan
    target: Target
    assignment: Assignment
    table: LatencyTable


def timed(
    model: Model | Path | str,
    *,
    march: str = "nash-e",
    quant_config: Config | Mapping[str, Any] | Path | str | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    measured_latency: Path | str | None = None,
) -> Timed:
    """Place quantizers and model the time of every node; neither samples nor thresholds are needed.

    Args:
      model: Float or calibrated.
      march: Target.
      quant_config: Types; those of the model if None.
      input_shapes: Of inputs whose shape the model leaves open.
      measured_latency: Per-node times of the user.

    Raises:
      JptqError: Bad input, with what to do.
    """
    target = load_target(march)
    config = load_config(quant_config)
    given = _model(model)
    graph = placed(given, config, target, input_shapes=input_shapes)
    plan = plan_of(graph, target)
    if quant_config is not None or not is_calibrated(given):
        graph = with_assignment(graph, resolve(config, graph, plan, target))
    program = lower(graph, _example(graph), plan=plan)
    table = latency.model_latency(graph, plan, program.shapes, target)
    if measured_latency is not None:
        read = latency.read_measured(Path(measured_latency))
        table = latency.with_measured(table, read, where=str(measured_latency))
    return Timed(
        model=graph, plan=plan, target=target, assignment=assignment_of(graph), table=table
    )


def placed(
    model: Model | Path | str,
    config: Config,
    target: Target,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Model:
    """Return a network with quantizers, without thresholds unless it has them already.

    Args:
      model: Float or calibrated; a calibrated one stays as it is.
      config: Error compensation and output quantizers follow it, types do not.
      target: Accelerator.
      input_shapes: Of inputs whose shape the model leaves open.
    """
    given = _model(model)
    ir.refuse_quantized(given)
    shapes = dict(input_shapes or {})
    if is_calibrated(given):
        return ir.fix_inputs(given, shapes)
    graph = compensate(
        ir.optimize(given, input_shapes=shapes),
        config.compensations(),
        target,
        unmatched=config.unmatched,
        where=config.where,
    )
    program = lower(graph, _example(graph))
    return place(
        graph,
        target,
        floats={n for n, dtype in program.dtypes.items() if dtype == np.float32},
        quantize_outputs=config.model_output_type is not None,
    )


def latency_of(
    model: Model | Path | str,
    *,
    march: str = "nash-e",
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    measured_latency: Path | str | None = None,
) -> LatencyTable:
    """Return the modelled time of every node under every type; arguments as `timed`."""
    return timed(
        model, march=march, input_shapes=input_shapes, measured_latency=measured_latency
    ).table


def allocate(
    network: Prepared | Timed,
    errors: SensitivityTable,
    *,
    budget_us: float,
    metric: str | None = None,
    solver: str = "milp",
) -> Allocation:
    """Return the types that cause the least predicted error within a latency budget.

    Args:
      network: Its quantizers and times.
      errors: Of kind ``group`` (`rank_nodes`).
      budget_us: Largest modelled latency.
      metric: Column of `errors` to add up; its first if None.
      solver: A key of `jptq.allocation.SOLVERS`.

    Returns:
      A prediction: `Allocation.status` tells whether there is any; `jptq.tune` runs what it finds.

    Raises:
      ConfigError: The table does not fit the network or is not of kind ``group``.
    """
    solve = lookup(allocation.SOLVERS, solver, "solver")
    return solve(problem(network, errors, metric=metric), budget_us)


def problem(
    network: Prepared | Timed, errors: SensitivityTable, *, metric: str | None = None
) -> allocation.Problem:
    """Return the choice that `allocate` solves."""
    if errors.kind != "group":
        raise ConfigError(
            f"a sensitivity table of kind {errors.kind!r} cannot be allocated by",
            why="its rows are not what changes its type together",
            hint="jptq sensitivity --kind=group --out=FOLDER",
        )
    table = network.table if isinstance(network, Timed) else network.latency
    return allocation.build(network.plan, table, errors, metric=metric or errors.metrics[0])


def _model(given: Model | Serializable | Path | str) -> Model:
    if isinstance(given, Model):
        return given
    if isinstance(given, str | Path):
        return load(given)
    return ir.from_bytes(given.SerializeToString())


def _example(graph: Model) -> dict[str, np.ndarray]:
    return {t.name: np.zeros(_fixed(t.shape), t.dtype) for t in graph.inputs}


def _fixed(shape: tuple[int | str | None, ...] | None) -> tuple[int, ...]:
    """`ir.fix_inputs` has refused all others."""
    return tuple(length for length in shape or () if isinstance(length, int))


def _cut(prepared: Prepared, nodes: Sequence[str]) -> tuple[Model, Plan, Runner]:
    """Return the network up to some nodes; all of it if none are given."""
    if not nodes:
        return prepared.calibrated, prepared.plan, prepared.runner
    by_name = {node.name: node for node in prepared.calibrated.operators()}
    for name in nodes:
        if name not in by_name:
            raise UnknownNameError("node", name, by_name, where="--output_node")
    tensors = [output for name in nodes for output in by_name[name].outputs if output]
    model = ir.extract(prepared.calibrated, tensors)
    plan = plan_of(model, prepared.target)
    runner = Runner(model, prepared.samples[0], plan=plan, batching=prepared.runner.batching)
    return model, plan, runner
