"""What `jptq` offers to programs: the steps of the commands, one call each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jptq import allocation, engine, ir, sensitivity
from jptq.api.timing import Serializable, Timed, model_of
from jptq.engine import Batching, Forward, Runner
from jptq.errors import ConfigError, UnknownNameError
from jptq.ir import Model, load
from jptq.quant.calibrated import plan_of
from jptq.quant.config import Config, load_config
from jptq.quant.plan import Plan
from jptq.registry import lookup
from jptq.results import Allocation, SensitivityTable
from jptq.sensitivity import Loss, naive
from jptq.tuning.journal import Journal
from jptq.tuning.prepare import (
    Prepared,
    Progress,
    prepare,
    quiet,
)
from jptq.tuning.reopen import from_calibrated
from jptq.tuning.source import is_calibrated, spread

load_model = load


def save_model(model: Model, path: Path | str, *, external_data: bool | None = None) -> None:
    """Write a model to an ONNX file that the vendor's tool reads, if its operators allow that.

    That is one of opset 20 or earlier: nodes of a later one that are the same there are written
    so; if others are left, the opset stays as it is.

    Args:
      model: What to write. Metadata are kept.
      path: The file, replaced in one step.
      external_data: Put the constants into ``<path>.data``; None: only if they exceed 2 GB.

    Raises:
      StorageError: The operating system refused to write; what was there before is untouched.
    """
    ir.save(ir.for_vendor(model), path, external_data=external_data)


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
    return engine.trace(model_of(model_or_path), example_feeds)


def calibrate(
    model: Path | str,
    calibration_data: Path | str,
    *,
    march: str = "nash-e",
    quant_config: Config | Mapping[str, Any] | Path | str | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    input_values: Mapping[str, ArrayLike] | None = None,
    batching: Batching | None = None,
    measured_latency: Path | str | None = None,
    strict_integers: bool = False,
    reach: bool = True,
    fit: str = "off",
    reference: Path | str | None = None,
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
      input_values: Of inputs of a float model that become constants; they need no samples.
      batching: Bounds the samples of a program run, by number and by memory.
      measured_latency: Per-node times of the user.
      strict_integers: Whatever is run quantized keeps biases and sums within the target's
        integers, instead of adding exactly; `integer_ranges` tells what leaves them.
      reach: Thresholds stop where no reader of a tensor tells larger values apart; the vendor's
        tool does not do that.
      fit: Fit weights and biases of a float model to the samples: ``auto``, ``off``, ``bias`` or
        ``weights``; only what helps on held-out samples is kept.
      reference: The float network of a calibrated model, where that has other constants (fitted
        weights); ``optimized_float_model.onnx`` beside it if None.
      journal: Keeps thresholds, for resuming.
      progress: ``progress(step, done, total)``.

    Raises:
      JptqError: Bad input, with what to do.
    """
    times = None if measured_latency is None else Path(measured_latency)
    if not is_calibrated(load(model)):
        if reference is not None:
            raise ConfigError(
                "--reference with a float model",
                where=str(model),
                why="a float model is what its quantized form is compared with",
                hint="leave it out, or give a calibrated model",
            )
        return prepare(
            Path(model),
            calibration_data,
            march=march,
            quant_config=quant_config,
            input_shapes=input_shapes,
            input_values=input_values,
            batching=batching,
            measured_latency=times,
            strict_integers=strict_integers,
            reach=reach,
            fit=fit,
            journal=journal,
            progress=progress,
        )
    config = None if quant_config is None else load_config(quant_config)
    loads = config is not None and config.activation.calibration_type == ("load",)
    refused = [
        name
        for name, given in (
            ("--quant_config", config is not None and not loads),
            ("--input_shape", input_shapes),
            ("--input_value", input_values),
        )
        if given
    ]
    if refused:
        raise ConfigError(
            f"{refused[0]} with a model that is calibrated already",
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
        strict_integers=strict_integers,
        reference=reference,
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
    if method == "probe":
        table = sensitivity.rescore(
            table,
            *given,
            used,
            progress=lambda done, total: progress("score the head exactly", done, total),
        )
    notes = table.notes
    if prepared.plan.strict and method != "metric":
        notes = (*notes, f"{method} is about exact sums: a derivative sees none that saturates.")
    return dataclasses.replace(table, digests=prepared.digests, notes=notes)


def default_metrics(method: str, kind: str) -> tuple[str, ...]:
    """Return the scores of a ranking that asks for none: errors that add up for groups."""
    return (
        ("mse",) if kind == "group" and method == "metric" else sensitivity.METRICS_OF[method][:1]
    )


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
      ConfigError: The table is of another network or not of kind ``group``.
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
    if errors.digests.get("model", table.digests["model"]) != table.digests["model"]:
        raise ConfigError(
            "the errors are those of another network",
            why="its operators or constants are not the ones that were ranked",
            hint="rank this network: jptq sensitivity --kind=group --out=FOLDER",
        )
    return allocation.build(network.plan, table, errors, metric=metric or errors.metrics[0])


def _cut(prepared: Prepared, nodes: Sequence[str]) -> tuple[Model, Plan, Runner]:
    """Return the network up to some nodes; all of it if none are given."""
    if not nodes:
        return prepared.calibrated, prepared.plan, prepared.runner
    by_name = {node.name: node for node in prepared.calibrated.operators()}
    for name in nodes:
        if name not in by_name:
            raise ir.unknown_node(name, prepared.calibrated, known=by_name, where="--output_node")
    tensors = [output for name in nodes for output in by_name[name].outputs if output]
    model = ir.extract(prepared.calibrated, tensors)
    plan = plan_of(model, prepared.target, strict_integers=prepared.plan.strict)
    runner = Runner(
        model,
        prepared.samples[0],
        plan=plan,
        batching=prepared.runner.batching,
        floats={n: v for n, v in prepared.floats.items() if n in model.initializers},
    )
    return model, plan, runner
