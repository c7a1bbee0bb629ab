"""Networks, calibrated and ready to be compared: in our programs, in float64, in onnxruntime.

Thresholds are the largest absolute values that onnxruntime computes. onnxruntime runs one operator
at a time, graph optimisations off, unless said otherwise.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import jax
import numpy as np
import onnxruntime as ort

from jptq import ir
from jptq.engine import Batching, Packed, Runner, lower
from jptq.ir import Model, Tensor
from jptq.numerics.affine import clean_thresholds
from jptq.quant import placement
from jptq.quant.assign import Table, table, uniform
from jptq.quant.calibrated import plan_of, with_assignment, with_thresholds
from jptq.quant.export import to_qdq
from jptq.quant.plan import Plan
from jptq.targets import load_target

Arrays: TypeAlias = dict[str, np.ndarray]
_ERRORS_ONLY = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A calibrated network with samples.

    Attributes:
      name: Of its folder.
      model: As in the file.
      calibrated: Optimised, with quantizers and thresholds.
      plan: Its quantizers.
      thresholds: Of every quantizer.
      samples: Feeds.
      runner: Of the calibrated graph.
    """

    name: str
    model: Model
    calibrated: Model
    plan: Plan
    thresholds: Mapping[str, np.ndarray]
    samples: Sequence[Arrays]
    runner: Runner

    def table(self, qtype: str) -> Table:
        """Return the table in which every quantizer holds a type, as far as it accepts it."""
        return table(self.plan, self.thresholds, uniform(self.plan, qtype))

    @functools.cached_property
    def double(self) -> Network:
        """The network with weights and samples in float64, to be used under `in_double`.

        Thresholds, hence grids, are the same. Two programs of it differ in float64's last bit, so
        what lies on a rounding boundary of float32 falls to the same side in both.
        """
        with in_double():
            weights = {name: _wide(a) for name, a in self.calibrated.initializers.items()}
            calibrated = dataclasses.replace(self.calibrated, initializers=weights)
            samples = [{name: _wide(a) for name, a in feeds.items()} for feeds in self.samples]
            runner = Runner(calibrated, samples[0], plan=self.plan, batching=self.runner.batching)
        narrow = [name for name, dtype in runner.program.dtypes.items() if dtype == np.float32]
        if narrow:
            raise AssertionError(f"still float32: {', '.join(narrow)}")
        return dataclasses.replace(self, calibrated=calibrated, samples=samples, runner=runner)

    def qdq(self, assignment: Mapping[str, str]) -> Model:
        """Return the export under an assignment."""
        return to_qdq(with_assignment(self.calibrated, assignment))


def load_network(folder: Path, *, samples: int) -> Network:
    """Calibrate the network of a folder with its first samples."""
    model = ir.load(folder / "model.onnx")
    feeds = list(_samples(folder / "calibration_data", model, samples))
    example = feeds[0]
    optimized = ir.optimize(model, input_shapes={n: a.shape for n, a in example.items()})
    target = load_target("nash-e")
    dtypes = lower(optimized, example).dtypes
    placed = placement.place(
        optimized, target, floats={n for n, dtype in dtypes.items() if dtype == np.float32}
    )
    thresholds = max_thresholds(placed, plan_of(placed, target), feeds)
    calibrated = with_thresholds(placed, thresholds)
    plan = plan_of(calibrated, target)
    return Network(
        name=folder.name,
        model=model,
        calibrated=calibrated,
        plan=plan,
        thresholds=thresholds,
        samples=feeds,
        runner=Runner(
            calibrated, example, plan=plan, batching=Batching(samples=min(len(feeds), 4))
        ),
    )


def _samples(folder: Path, model: Model, count: int) -> Iterator[Arrays]:
    columns = {name: sorted((folder / name).glob("*.npy"))[:count] for name in model.input_names}
    for files in zip(*columns.values(), strict=True):
        yield {name: np.load(file) for name, file in zip(columns, files, strict=True)}


def max_thresholds(placed: Model, plan: Plan, samples: Sequence[Arrays]) -> Arrays:
    """Return the largest absolute value of every tensor with a quantizer, by onnxruntime."""
    features = [c for c in plan.calibrations if not c.constant]
    off = with_assignment(placed, {c.name: "float32" for c in plan.calibrations})
    # Quantizers that are off vanish, and their tensors keep the name that they read.
    found = run(observed(to_qdq(off), [c.tensor for c in features]), samples)
    largest = {c.name: max(np.abs(out[c.tensor]).max() for out in found) for c in features}
    for c in plan.calibrations:
        if c.constant:
            size = np.abs(placed.initializers[c.tensor])
            kept = () if c.axis is None else (c.axis % size.ndim,)
            largest[c.name] = size.max(tuple(i for i in range(size.ndim) if i not in kept))
    return {
        name: clean_thresholds(np.reshape(value, -1), where=name) for name, value in largest.items()
    }


def observed(model: Model, tensors: Sequence[str]) -> Model:
    """Return the model with float tensors as further outputs."""
    extra = dict.fromkeys(name for name in tensors if name not in model.output_names)
    described = tuple(Tensor(name=n, dtype=np.dtype(np.float32), shape=None) for n in extra)
    return dataclasses.replace(model, outputs=(*model.outputs, *described))


def run(model: Model, samples: Sequence[Arrays], *, optimized: bool = False) -> list[Arrays]:
    """Run samples in onnxruntime, one at a time.

    Args:
      model: Of ONNX's own operators.
      samples: Feeds.
      optimized: As its default session does, with all graph optimisations.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(ir.to_bytes(model), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, feeds), strict=True)) for feeds in samples]


def nudged(samples: Sequence[Arrays]) -> list[Arrays]:
    """Return samples that differ in their last bits: what follows from them is only noise."""
    noise = np.random.default_rng(0)
    return [
        {
            name: (a * (1 + 1e-7 * noise.standard_normal(a.shape))).astype(a.dtype)
            for name, a in feeds.items()
        }
        for feeds in samples
    ]


def ours(network: Network, packed: Packed) -> list[Arrays]:
    """Run the samples by our forward."""
    found: list[Arrays] = []
    for count, outputs in network.runner.outputs(packed, network.samples):
        arrays = {name: np.asarray(value) for name, value in outputs.items()}
        found += [{name: array[i] for name, array in arrays.items()} for i in range(count)]
    return found


@contextlib.contextmanager
def in_double() -> Iterator[None]:
    """Compute in float64; tables and literals that are float32 are widened on the way."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype == np.float32 else array
