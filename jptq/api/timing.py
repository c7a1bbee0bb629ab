"""Networks whose quantizers are placed and whose nodes are timed, without any data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from jptq import ir, latency
from jptq.engine import lower
from jptq.errors import ConfigError
from jptq.ir import Model, load
from jptq.quant.assign import Assignment
from jptq.quant.attributes import with_sound_quantizers
from jptq.quant.calibrated import assignment_of, plan_of, with_assignment
from jptq.quant.compensate import compensate, compensations
from jptq.quant.config import Config, load_config
from jptq.quant.export import network_digest
from jptq.quant.placement import place
from jptq.quant.plan import Plan
from jptq.quant.resolve import pins, resolve
from jptq.results import LatencyTable
from jptq.targets import Target, load_target
from jptq.tuning.source import is_calibrated


class Serializable(Protocol):
    """An ``onnx.ModelProto``, or what looks like one."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Return the content of an ONNX file."""


def model_of(given: Model | Serializable | Path | str) -> Model:
    """Return a network, read if it is not in memory yet."""
    if isinstance(given, Model):
        return given
    if isinstance(given, str | Path):
        return load(given)
    return ir.from_bytes(given.SerializeToString())


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
    input_values: Mapping[str, ArrayLike] | None = None,
    measured_latency: Path | str | None = None,
) -> Timed:
    """Place quantizers and model the time of every node; neither samples nor thresholds are needed.

    Args:
      model: Float or calibrated.
      march: Target.
      quant_config: Types; those of the model if None.
      input_shapes: Of inputs whose shape the model leaves open.
      input_values: Of inputs that become constants.
      measured_latency: Per-node times of the user.

    Raises:
      JptqError: Bad input, with what to do.
    """
    target = load_target(march)
    config = load_config(quant_config)
    given = model_of(model)
    graph = placed(given, config, target, input_shapes=input_shapes, input_values=input_values)
    plan = plan_of(graph, target)
    if quant_config is not None or not is_calibrated(given):
        graph = with_assignment(graph, resolve(config, graph, plan, target))
        plan = plan.pinned(pins(config, graph, plan, target))
    program = lower(graph, _example(graph), plan=plan)
    table = dataclasses.replace(
        latency.model_latency(graph, plan, program.shapes, target),
        digests={"model": network_digest(graph)},
    )
    if measured_latency is not None:
        read = latency.read_measured(Path(measured_latency))
        table = latency.with_measured(table, read, where=str(measured_latency), model=graph)
    return Timed(
        model=graph, plan=plan, target=target, assignment=assignment_of(graph), table=table
    )


def placed(
    model: Model | Path | str,
    config: Config,
    target: Target,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    input_values: Mapping[str, ArrayLike] | None = None,
) -> Model:
    """Return a network with quantizers, without thresholds unless it has them already.

    Args:
      model: Float or calibrated; a calibrated one stays as it is.
      config: Error compensation and output quantizers follow it, types do not.
      target: Accelerator.
      input_shapes: Of inputs whose shape the model leaves open.
      input_values: Of inputs that become constants.
    """
    given = model_of(model)
    ir.refuse_quantized(given)
    shapes = dict(input_shapes or {})
    if is_calibrated(given):
        if input_values:
            raise ConfigError(
                "--input_value with a model that is calibrated already",
                why="its quantizers were placed and measured with that input",
                hint="give the float model",
            )
        return ir.fix_inputs(with_sound_quantizers(given), shapes)
    fixed = ir.fix_values(given, input_values or {})
    graph = ir.optimize(fixed, input_shapes=shapes, float32=True)
    graph = compensate(
        graph,
        compensations(config, graph, target),
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
    input_values: Mapping[str, ArrayLike] | None = None,
    measured_latency: Path | str | None = None,
) -> LatencyTable:
    """Return the modelled time of every node under every type; arguments as `timed`."""
    return timed(
        model,
        march=march,
        input_shapes=input_shapes,
        input_values=input_values,
        measured_latency=measured_latency,
    ).table


def _example(graph: Model) -> dict[str, np.ndarray]:
    """Return zeros for the inputs, in the memory of one number each."""
    return {t.name: np.broadcast_to(np.zeros((), t.dtype), _fixed(t.shape)) for t in graph.inputs}


def _fixed(shape: tuple[int | str | None, ...] | None) -> tuple[int, ...]:
    """`ir.fix_inputs` has refused all others."""
    return tuple(length for length in shape or () if isinstance(length, int))
