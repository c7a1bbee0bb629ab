"""Calibration of a placed graph: what it is observed with and what scores its thresholds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import jax
import numpy as np
from jax import Array

from jptq.calibration import Calibrated, Scope, calibrate
from jptq.data import Samples
from jptq.engine import Runner, memory
from jptq.engine.layouts import canonical, convert
from jptq.quant.config import Config
from jptq.targets import Target
from jptq.tuning.scoring import FirstSample, SeveralSamples


def thresholds(
    runner: Runner,
    samples: Samples,
    target: Target,
    config: Config,
    *,
    documented: bool = False,
    reach: bool = True,
    enough: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None],
) -> Calibrated:
    """Return the thresholds that a configuration asks for.

    Args:
      runner: Of the placed graph.
      samples: At least one.
      target: Accelerator.
      config: Methods and searches; its types are what a search scores.
      documented: Several methods are compared as the vendor's tool does it, by the first sample;
        else by what several samples lose at INT8 and at INT16.
      reach: Thresholds stop where no reader of a tensor tells larger values apart.
      enough: Tells that no further method is to be compared.
      progress: Called with the samples done and their number.
    """
    placed, plan = runner.model, runner.plan
    assert plan is not None
    scope = scope_of(runner) if reach else None
    also = () if scope is None else scope.tensors
    return calibrate(
        observer(runner, also),
        placed,
        plan,
        runner.fitting(samples),
        activation=config.activation,
        weight=config.weight,
        modelwise=config.modelwise,
        layerwise=config.layerwise,
        scorer=FirstSample(runner, samples, target, config),
        panel=None if documented else SeveralSamples(runner, samples, target, config),
        scope=scope,
        batch_size=runner.batch_for(memory.observed(runner.program, also)),
        enough=enough,
        progress=progress,
    )


def scope_of(runner: Runner) -> Scope:
    """Return the network of a runner for the analysis of what its tensors are read for."""
    return Scope(model=runner.model, shapes=runner.program.shapes, dtypes=runner.program.dtypes)


def observer(
    runner: Runner, also: Collection[str] = ()
) -> Callable[[Mapping[str, np.ndarray]], Mapping[str, Array | np.ndarray]]:
    """Return the function that calibration observes float tensors with, axes in ONNX's order.

    Tensors that hang on no input were computed while tracing: one value stands for all samples.

    Args:
      runner: Of the placed graph.
      also: Further tensors; those that no program computes are left out.
    """
    program = runner.program
    plan = program.plan
    assert plan is not None
    known = [n for n in also if n in program.perms or n in program.weights]
    names = tuple(dict.fromkeys([*(c.tensor for c in plan.calibrations if not c.constant), *known]))
    fixed = {n: program.weights[n][np.newaxis] for n in names if n not in program.perms}
    running = tuple(n for n in names if n not in fixed)

    def observe(packed: Mapping[str, Array], feeds: Mapping[str, Array]) -> dict[str, Array]:
        found = program.run(packed, None, feeds, keep=running)
        return {n: convert(v, program.perms[n], canonical(v.ndim)) for n, v in found.items()}

    # Runners of one graph share it, whatever the weights.
    compiled = runner.compilations.once(
        ("observe", running),
        lambda: runner.compilations.jit("observe", jax.vmap(observe, in_axes=(None, 0))),
    )

    def observed(feeds: Mapping[str, np.ndarray]) -> dict[str, Array | np.ndarray]:
        given = {n: feeds[n] for n in program.inputs}
        return {**compiled(runner.float_weights.weights, given), **fixed}

    return observed
