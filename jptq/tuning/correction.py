"""Bias correction of a calibrated network: the runs that `jptq.calibration.bias` asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax import Array

from jptq.calibration import bias
from jptq.calibration.bias import Biases, Corrected
from jptq.data import Samples
from jptq.engine import Runner, TableQuantizer, memory
from jptq.engine.layouts import canonical, convert
from jptq.metrics import similarity
from jptq.quant.assign import Table
from jptq.quant.config import BiasCorrection
from jptq.tuning.scoring import FirstSample


def corrected(
    runner: Runner,
    wanted: Table,
    samples: Samples,
    scorer: FirstSample,
    settings: BiasCorrection,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Corrected:
    """Return the biases that make up for what quantization shifts.

    Args:
      runner: Of a graph made by `bias.with_biases` and then placed.
      wanted: Its types and thresholds.
      samples: The first ``num_sample`` are used; the outputs are compared on the first.
      scorer: Compares the outputs.
      settings: Of the configuration.
      progress: Called with the nodes done and their number.
    """
    program, plan = runner.program, runner.plan
    assert plan is not None
    tensors = tuple(node.outputs[0] for node in bias.convolutions(runner.model) if node.outputs[0])

    def kept(values: Mapping[str, Array]) -> dict[str, Array]:
        return {n: convert(v, program.perms[n], canonical(v.ndim)) for n, v in values.items()}

    def in_float(weights: Mapping[str, Array], feeds: Mapping[str, Array]) -> dict[str, Array]:
        return kept(program.run(weights, None, feeds, keep=tensors))

    def quantized(
        weights: Mapping[str, Array], table: Table, feeds: Mapping[str, Array]
    ) -> dict[str, Array]:
        return kept(program.run(weights, TableQuantizer(plan, table), feeds, keep=tensors))

    jit = runner.compilations.jit
    float_run = jit("float convolutions", jax.vmap(in_float, in_axes=(None, 0)))
    quantized_run = jit("quantized convolutions", jax.vmap(quantized, in_axes=(None, None, 0)))
    count = min(settings.num_sample, len(samples))
    feeds = [samples[i] for i in range(count)]
    singles = [{n: one[n][None] for n in program.inputs} for one in feeds]

    plain = runner.float_weights.weights
    kept_floats = memory.keeps(program, tensors, count)
    floats = [float_run(plain, one) for one in singles] if kept_floats else []

    def floating(tensor: str) -> np.ndarray:
        found = floats or (float_run(plain, one) for one in singles)
        return np.concatenate([np.asarray(outputs[tensor]) for outputs in found])

    def run(biases: Biases, tensor: str) -> np.ndarray:
        packed = runner.pack(wanted, biases)
        found = (quantized_run(packed.weights, packed.table, one) for one in singles)
        return np.concatenate([np.asarray(outputs[tensor]) for outputs in found])

    def whole(biases: Biases) -> Mapping[str, float]:
        return scorer.of(runner.pack(wanted, biases))

    return bias.correct(
        runner.model,
        floating,
        run,
        _comparison(),
        whole,
        metric=settings.metric,
        progress=progress,
    )


def _comparison() -> Callable[[np.ndarray, np.ndarray], Mapping[str, float]]:
    """Return the scores of ``[S, *shape]``, mean over samples."""
    names = tuple(similarity.METRICS)

    def padded(values: np.ndarray) -> np.ndarray:
        # Zeros add no error; few lengths are few programs.
        flat = values.reshape(len(values), -1)
        length = 1 << max(8, (flat.shape[1] - 1).bit_length())
        return np.pad(flat, ((0, 0), (0, length - flat.shape[1])))

    def compare(one: np.ndarray, other: np.ndarray) -> Mapping[str, float]:
        sums = np.asarray(similarity.compare(padded(one), padded(other)))
        found = similarity.mean(similarity.evaluate(names, sums, one[0].size))
        return dict(zip(names, found.tolist(), strict=True))

    return compare
