"""From files to a calibrated graph with everything around it that the later steps need."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jptq import __version__, files, ir, latency
from jptq.calibration import Calibrated, activation_of, bias
from jptq.data import Samples
from jptq.engine import Batching, Runner, lower, memory
from jptq.ir import Model
from jptq.quant.assign import (
    Assignment,
    Table,
    Thresholds,
    accepted,
    finest,
    table,
    uniform,
)
from jptq.quant.calibrated import (
    assignment_of,
    plan_of,
    thresholds_of,
    with_assignment,
)
from jptq.quant.compensate import compensate, compensations
from jptq.quant.config import Activation, Config, load_config
from jptq.quant.export import network_digest
from jptq.quant.originals import float_constants, settled
from jptq.quant.pairs import Pair, pairs_of
from jptq.quant.placement import place
from jptq.quant.plan import Plan
from jptq.quant.remarks import graph_notes
from jptq.quant.resolve import pins, resolve
from jptq.results import Fit, LatencyTable, Limit, MethodTrial, Outlying
from jptq.results.reach import reach_notes
from jptq.targets import Target, load_target
from jptq.tuning.calibrating import thresholds
from jptq.tuning.constants import Constants
from jptq.tuning.deadline import passed
from jptq.tuning.journal import Journal
from jptq.tuning.masks import proven
from jptq.tuning.runners import MakeRunner, same_programs
from jptq.tuning.source import data_notes, load_float
from jptq.tuning.thresholds import load as load_thresholds
from jptq.tuning.thresholds import save as save_thresholds

Progress = Callable[[str, int, int], None]
"""``progress(step, done, total)``; a step is a few words for a person."""


MARCH = "march"
"""Metadata of a calibrated model: the target it was made for. The vendor's tools are not told."""

METHOD = "calibration_method"
"""Metadata of a calibrated model: the tag of the method that found its thresholds."""

UNKNOWN_METHOD = "as in the model"
"""Stands for the method of a calibrated model that does not say."""


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
      plan: Its quantizers; those whose types `config` names are pinned.
      samples: Calibration samples.
      method: Tag of the calibration method.
      latency: Times of all nodes.
      runner: Runs the calibrated graph.
      digest: Of everything above: model, data, configuration, target, version.
      remarks: What a reader has to know of how it came about.
      limits: Thresholds that stop where no reader tells larger values apart, in graph order.
      outlying: Thresholds far above nearly all values, the worst first.
      methods: The calibration methods that were compared; none if there was no choice.
      rivals: Gives the network by those of them that were not taken, by their tags.
      unsplit: `floating` before operators were split for ec; None of a calibrated file.
      fit: What was fitted to the samples; None if nothing was to be, and of a calibrated file.
      fitted: Gives the network with weights and biases fitted; None if they are, or if none are
        to be.
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
    remarks: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    outlying: tuple[Outlying, ...] = ()
    methods: tuple[MethodTrial, ...] = ()
    rivals: Mapping[str, Callable[[], Prepared]] = dataclasses.field(default_factory=dict)
    unsplit: Model | None = None
    fit: Fit | None = None
    fitted: Callable[[], Prepared] | None = None

    @cached_property
    def floats(self) -> Mapping[str, np.ndarray]:
        """Float values of the constants that the calibrated network has others of."""
        return float_constants(self.calibrated, self.floating)

    def mixed(self, assignment: Assignment) -> Model:
        """Return the calibrated network with some types, and the constants that go with them.

        What was fitted to INT8 weights is not for weights of another type.
        """
        model = with_assignment(self.calibrated, assignment)
        return settled(model, assignment_of(model), self.floats)

    @cached_property
    def thresholds(self) -> Thresholds:
        """Thresholds of every calibration."""
        return thresholds_of(self.calibrated)

    @cached_property
    def digests(self) -> dict[str, str]:
        """What a table of this network is about: ``model`` (`network_digest`) and ``data``."""
        return {"model": network_digest(self.calibrated), "data": self.samples.digest}

    @cached_property
    def activation(self) -> Activation:
        """The calibration settings that give these thresholds again, without a search.

        Nothing for a calibrated model that does not say how it was calibrated.
        """
        return Activation() if self.method == UNKNOWN_METHOD else activation_of(self.method)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader has to know of the calibration data and of the graph."""
        said = (*data_notes(self.samples), *graph_notes(self.calibrated))
        return (*said, *reach_notes(self.limits, self.outlying))

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Operators that are compensated by a second one."""
        return pairs_of(self.calibrated)

    @cached_property
    def configured(self) -> Assignment:
        """The types that the configuration asks for; all INT8 if it says nothing."""
        return assignment_of(self.calibrated)

    def all(self, name: str) -> dict[str, str]:
        """Return the assignment that raises everything to a type.

        As far as the target allows, and the configuration, which may name types of its own.
        """
        return uniform(self.plan, name)

    def table(self, assignment: Assignment) -> Table:
        """Return the arrays of an assignment."""
        return table(self.plan, self.thresholds, assignment)


def prepare(
    path: Path,
    data: Path | str,
    *,
    march: str,
    quant_config: Config | Mapping[str, Any] | Path | str | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    input_values: Mapping[str, ArrayLike] | None = None,
    limit: int | None = None,
    batching: Batching | None = None,
    measured_latency: Path | None = None,
    strict_integers: bool = False,
    documented_search: bool = False,
    fit: str = "off",
    reach: bool = True,
    fit_later: bool = False,
    journal: Journal | None = None,
    deadline: float | None = None,
    progress: Progress = quiet,
) -> Prepared:
    """Load, optimize, place quantizers, calibrate and model latency.

    Args:
      path: Float ONNX file.
      data: Folder of calibration samples.
      march: Target.
      quant_config: The vendor's configuration, as a dict or file; thresholds and types follow it.
      input_shapes: Of inputs whose shape is open.
      input_values: Of inputs that become constants; they need no samples.
      limit: Use the first samples only.
      batching: Bounds the samples of a program run.
      measured_latency: The user's per-node times (CSV or JSON).
      strict_integers: Whatever is run quantized keeps biases and sums within the target's
        integers, instead of adding exactly.
      documented_search: Calibration methods are compared as the vendor's tool does it, by the
        first sample.
      fit: What of weights and biases is fitted to the samples (`jptq.fitting.MODES`).
      reach: Thresholds stop where no reader of a tensor tells larger values apart (the vendor's
        do not).
      fit_later: Nothing is fitted yet: `Prepared.fitted` does it.
      journal: Reuses what an earlier run with the same inputs found.
      deadline: `time.monotonic` value after which no further calibration method is compared.
      progress: Called as work goes on.
    """
    target = load_target(march)
    config = load_config(quant_config)
    progress("load", 0, 1)
    unsplit, samples = load_float(
        path, data, input_shapes=input_shapes, input_values=input_values, limit=limit
    )
    progress("load", 1, 1)
    progress("prepare", 0, 0)
    journal = journal or Journal(None)
    constants = Constants(samples, target, fit, journal, progress)
    if config.bias_correction is not None or constants.fits:
        unsplit = bias.with_biases(unsplit)
    floating = compensate(
        unsplit,
        compensations(config, unsplit, target),
        target,
        unmatched=config.unmatched,
        where=config.where,
    )
    identity = files.digest(
        "prepare",
        __version__,
        ir.to_bytes(floating),
        samples.digest,
        target.digest,
        repr(config),
        *(("strict integers",) if strict_integers else ()),
        *(("documented search",) if documented_search else ()),
        *(("whole ranges",) if not reach else ()),
    )
    example = samples[0]
    program = lower(floating, example)
    floats = {n for n, dtype in program.dtypes.items() if dtype == np.float32}
    placed = place(
        floating, target, floats=floats, quantize_outputs=config.model_output_type is not None
    )
    plan = plan_of(placed, target, strict_integers=strict_integers)
    # Thresholds, types and granularity are data: this one program serves all that follows.
    runner = Runner(placed, example, plan=plan, batching=batching)
    found = load_thresholds(journal, identity)
    if found is None:
        found = thresholds(
            runner,
            samples,
            target,
            config,
            documented=documented_search,
            reach=reach,
            enough=lambda: passed(deadline),
            progress=lambda done, total: progress("calibrate", done, total),
        )
        memory.release()
        if passed(deadline):
            # Other thresholds than those of a whole search: nothing may be found under its name.
            identity, journal = files.digest(identity, "cut short", found.method), Journal(None)
        save_thresholds(journal, identity, found)

    network = files.digest(ir.to_bytes(floating), samples.digest)

    def by(found: Calibrated, config: Config, identity: str, *, fitted: bool) -> Prepared:
        """Return the network by some thresholds: one program serves them all."""
        calibrated = found.write(placed)
        plan = plan_of(calibrated, target, strict_integers=strict_integers)
        types = dict(resolve(config, calibrated, plan, target))
        for name, wanted in found.types.items():
            types[name] = finest([types[name], accepted(plan.calibration(name), wanted)])
        calibrated = with_assignment(calibrated, types)
        changed: dict[str, np.ndarray] = {}
        if fitted or config.bias_correction is not None:
            make = same_programs(runner, {})
            plain = make(calibrated, example, plan=plan, batching=batching, floats={})
            of = network if fitted else None
            changed = constants.of(plain, types, config, identity, network=of)
        changed = {**proven(runner, samples, found.constants), **changed}
        calibrated = constants.written(calibrated, changed)
        calibrated = dataclasses.replace(
            calibrated, metadata={**calibrated.metadata, MARCH: target.march, METHOD: found.method}
        )

        made = assembled(
            path,
            target,
            config,
            floating,
            calibrated,
            samples,
            method=found.method,
            batching=batching,
            measured_latency=measured_latency,
            strict_integers=strict_integers,
            identity=constants.digest(identity) if fitted else identity,
            make=same_programs(runner, changed),
        )
        return dataclasses.replace(
            made,
            limits=tuple(found.limited.values()),
            outlying=found.outlying,
            unsplit=unsplit,
            fit=constants.report if fitted else None,
        )

    def rival(other: Calibrated, *, fitted: bool) -> Callable[[], Prepared]:
        named = config.calibrated_by(activation_of(other.method))
        return lambda: by(other, named, files.digest(identity, other.method), fitted=fitted)

    def whole(*, fitted: bool) -> Prepared:
        return dataclasses.replace(
            by(found, config, identity, fitted=fitted),
            methods=found.compared,
            rivals={other.method: rival(other, fitted=fitted) for other in found.rivals},
        )

    if not fit_later or not constants.fits:
        return whole(fitted=constants.fits)
    return dataclasses.replace(whole(fitted=False), fitted=lambda: whole(fitted=True))


def assembled(
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
    strict_integers: bool = False,
    identity: str,
    make: MakeRunner,
) -> Prepared:
    """Return a calibrated network with its runner and its times.

    Args:
      path: Its file, or a name that stands for one.
      target: Accelerator.
      config: What the types follow.
      floating: The optimized float graph.
      calibrated: With quantizers, thresholds and types.
      samples: Fit its inputs.
      method: Tag of the calibration method.
      batching: Bounds the samples of a program run.
      measured_latency: The user's per-node times (CSV or JSON).
      strict_integers: Sums and biases are kept within the target's integers.
      identity: Digest of what the network was made of.
      make: Gives the runner.
    """
    plan = plan_of(calibrated, target, strict_integers=strict_integers)
    plan = plan.pinned(pins(config, calibrated, plan, target))
    runner = make(
        calibrated,
        samples[0],
        plan=plan,
        batching=batching,
        floats=float_constants(calibrated, floating),
    )
    times = dataclasses.replace(
        latency.model_latency(calibrated, plan, runner.program.shapes, target),
        digests={"model": network_digest(calibrated)},
    )
    if measured_latency is not None:
        read, name = latency.read_measured(measured_latency), str(measured_latency)
        times = latency.with_measured(times, read, where=name, model=calibrated)
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
