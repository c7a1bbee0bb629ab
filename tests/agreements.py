"""How far a network's forward, export and sensitivities agree with onnxruntime (design 6).

Thresholds are the largest absolute values that onnxruntime computes. onnxruntime runs one operator
at a time, graph optimisations off, unless said otherwise: those fuse quantizers into integer
kernels, which round differently.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime as ort
from jax import Array

from jptq import ir
from jptq.engine import Packed, Runner, layouts, lower, table_quantizer
from jptq.ir import Model, Tensor
from jptq.numerics.affine import clean_thresholds
from jptq.quant import placement
from jptq.quant.assign import Table, table, uniform
from jptq.quant.calibrated import plan_of, with_assignment, with_thresholds
from jptq.quant.export import to_qdq
from jptq.quant.plan import Plan
from jptq.results.sensitivity import SensitivityTable
from jptq.sensitivity import Rows, exact, naive, rows_of
from jptq.targets import load_target

Arrays: TypeAlias = dict[str, np.ndarray]
METRICS = ("cosine-similarity", "mre", "mse", "sqnr", "chebyshev")
HEAD = 20
_ERRORS_ONLY = 3
_SENSITIVITY = 2e-3
"""Four networks stay below 1e-3. Behind the saturated softmax of ppocr4_rec a few values on a
rounding boundary move one of its ten nodes by 1.1e-3."""
_OWN_SPREAD = "relative L2 of its own at inputs moved by 1e-7"


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

    def qdq(self, assignment: Mapping[str, str]) -> Model:
        """Return the export under an assignment."""
        return to_qdq(with_assignment(self.calibrated, assignment))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured agreement.

    Attributes:
      what: A row of design 6.
      values: ``{quantity: measured}``.
      limits: ``{quantity: largest value allowed}``; a quantity without one is only reported.
    """

    what: str
    values: Mapping[str, float]
    limits: Mapping[str, float]

    @property
    def holds(self) -> bool:
        """Tell whether no limit is passed; what is not a number passes every limit."""
        return all(self.values[name] <= limit for name, limit in self.limits.items())

    def __str__(self) -> str:
        return f"{self.what}: " + ", ".join(
            f"{name} {value:.3g}"
            + (f" (limit {self.limits[name]:g})" if name in self.limits else "")
            for name, value in self.values.items()
        )


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
        runner=Runner(calibrated, example, plan=plan, batch=min(len(feeds), 4)),
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
      optimized: Leave onnxruntime's graph optimisations on.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = 1
    if optimized:
        # Unless told, it moves int8 to uint8 and then refuses its own graph of opset 21.
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    else:
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


# --- the rows of the table ----------------------------------------------------------------------


def float_forward(network: Network) -> Figure:
    """Our float forward against the file in onnxruntime."""
    theirs = run(network.model, network.samples)
    mine = ours(network, network.runner.float_weights)
    worst = max(
        np.abs(m[name] - t[name]).max() / np.abs(t[name]).max()
        for m, t in zip(mine, theirs, strict=True)
        for name in t
    )
    return Figure(
        what="float forward",
        values={"max difference / max": float(worst)},
        limits={"max difference / max": 1e-4},
    )


def int16_forward(network: Network) -> Figure:
    """Our all-INT16 forward against the export."""
    values = _end_to_end(network, "int16")
    # Where onnxruntime itself moves further at another last bit of the input, no more can be asked.
    own = values[_OWN_SPREAD]
    return Figure(
        what="all INT16, end to end",
        values=values,
        limits={"relative L2": max(1e-3, 2 * own), "1 - cosine": max(1e-5, 2 * own**2)},
    )


def int8_forward(network: Network) -> Figure:
    """Our all-INT8 forward against the export: rounding ties are chaotic, so only reported."""
    return Figure(what="all INT8, end to end", values=_end_to_end(network, "int8"), limits={})


def _end_to_end(network: Network, qtype: str) -> dict[str, float]:
    exported = network.qdq(uniform(network.plan, qtype))
    theirs = run(exported, network.samples)
    mine = ours(network, network.runner.pack(network.table(qtype)))
    fused = run(exported, network.samples, optimized=True)
    floats = run(network.model, network.samples)
    moved = run(exported, nudged(network.samples))
    return {
        "relative L2": _largest(mine, theirs, relative_l2),
        "1 - cosine": _largest(mine, theirs, angle),
        _OWN_SPREAD: _largest(moved, theirs, relative_l2),
        "1 - cosine of its default session": _largest(fused, theirs, angle),
        "1 - cosine to float": _largest(mine, floats, angle),
    }


def teacher_forced(network: Network, qtype: str = "int8") -> Figure:
    """Every unit between quantizers, fed with what onnxruntime gives for its inputs.

    Our quantizers see what our operators make of onnxruntime's values; their result is compared
    with onnxruntime's on the grid, and replaced by it.
    """
    features = [c for c in network.plan.calibrations if not c.constant]
    exported = network.qdq(uniform(network.plan, qtype))
    theirs = run(observed(exported, [c.output for c in features]), network.samples)
    settings = jax.tree.map(jnp.asarray, network.table(qtype))
    packed = network.runner.pack(settings)
    compare = jax.jit(_forced(network))
    sizes = np.asarray([theirs[0][c.output].size for c in features])
    worst, moved = 0.0, np.zeros(len(features))
    for feeds, forced in zip(network.samples, theirs, strict=True):
        given = {c.output: jnp.asarray(forced[c.output]) for c in features}
        steps = compare(packed.weights, settings, feeds, given)
        worst = max(worst, *(float(most) for most, _ in steps.values()))
        moved += [float(steps[c.name][1]) for c in features]
    shares = moved / sizes / len(network.samples)
    return Figure(
        what=f"{qtype.upper()}, teacher-forced",
        values={
            "largest difference in steps": worst,
            "share of elements": float(moved.sum() / sizes.sum() / len(network.samples)),
            "worst unit's share": float(shares.max()),
            "quantizers": len(features),
        },
        limits={"largest difference in steps": 1.0, "share of elements": 1e-3},
    )


def _forced(network: Network) -> Callable[..., dict[str, tuple[Array, Array]]]:
    plan, program = network.plan, network.runner.program

    def compare(
        weights: Mapping[str, Array],
        settings: Table,
        feeds: Mapping[str, Array],
        given: Mapping[str, Array],
    ) -> dict[str, tuple[Array, Array]]:
        found: dict[str, tuple[Array, Array]] = {}
        own = table_quantizer(plan, settings)

        def quantizer(index: int, x: Array, axis: int | None) -> Array:
            calibration = plan.calibrations[index]
            want = program.perms[calibration.output]
            theirs = given[calibration.output]
            theirs = layouts.convert(theirs, layouts.canonical(theirs.ndim), want)
            shape = [1] * x.ndim
            if axis is not None:
                shape[axis] = -1
            scale = settings.scale[plan.offsets[index] : plan.offsets[index + 1]].reshape(shape)
            steps = jnp.round(jnp.abs(own(index, x, axis) - theirs) / scale)
            found[calibration.name] = (steps.max(initial=0), (steps > 0).sum())
            return theirs

        program.run(weights, quantizer, feeds)
        return found

    return compare


def sensitivity(network: Network, *, nodes: int = 10) -> Figure:
    """The exact sweep against a loop over exports with one node's quantizers each."""
    runner, plan = network.runner, network.plan
    every = rows_of(network.calibrated, plan).names
    chosen = [every[i] for i in np.linspace(0, len(every) - 1, nodes).round().astype(int)]
    rows = rows_of(network.calibrated, plan, only=[[name] for name in chosen])
    base = uniform(plan, "int8")
    mine = exact.rank(
        runner, network.thresholds, base, rows, network.samples, metrics=METRICS
    ).score[:, 0]
    theirs, again = (
        np.stack([_by_onnxruntime(network, base, row, rows, samples) for row in range(nodes)])
        for samples in (network.samples, nudged(network.samples))
    )

    def errors(scores: np.ndarray) -> np.ndarray:
        """Relative errors of the nodes whose cosine is off by more than 1e-6, zero elsewhere."""
        absolute = np.abs(scores - theirs)
        return np.where(absolute[:, :1] > 1e-6, absolute / np.abs(theirs), 0.0)[:, 1:]

    # The last bit of float32 decides about values on a rounding boundary: onnxruntime itself does
    # not know a node better than it agrees with itself.
    own = float(errors(again).max())
    everywhere = np.abs(mine - theirs) / np.abs(theirs)
    return Figure(
        what=f"sensitivity of {nodes} nodes",
        values={
            "worst relative": float(errors(mine).max()),
            "worst relative of its own at inputs moved by 1e-7": own,
            "1 - cosine, absolute": float(np.abs(mine - theirs)[:, 0].max()),
            "median relative": float(np.median(everywhere[:, 1:])),
            "largest relative on mse": float(everywhere[:, METRICS.index("mse")].max()),
        },
        limits={"worst relative": max(_SENSITIVITY, 2 * own)},
    )


def _by_onnxruntime(
    network: Network, base: Mapping[str, str], row: int, rows: Rows, samples: Sequence[Arrays]
) -> np.ndarray:
    """Return ``float64[M]``: the metrics if only one row's quantizers are exported."""
    off = {c.name: "float32" for c in network.plan.calibrations}
    floats = run(network.qdq(off), samples)
    on = {name: base[name] for name in rows.members[row]}
    quantized = run(network.qdq({**off, **on}), samples)
    scores = [
        [
            np.mean([metric(f[name], q[name]) for name in rows.reached[row]])
            for metric in ORACLES.values()
        ]
        for f, q in zip(floats, quantized, strict=True)
    ]
    return np.mean(scores, axis=0)


def sweep(network: Network) -> Figure:
    """The exact sweep with its caches against one full forward per node."""
    base = uniform(network.plan, "int8")
    rows = rows_of(network.calibrated, network.plan)
    fast, slow, again = (
        method.rank(network.runner, network.thresholds, base, rows, samples, metrics=("mse",))
        for method, samples in (
            (exact, network.samples),
            (naive, network.samples),
            (naive, nudged(network.samples)),
        )
    )
    found, own = _difference(fast, slow), _difference(again, slow)
    allowed = {"worst node": 1e-2, "median node": 1e-4, "missing in the top 20": 1, "rank moves": 1}
    return Figure(
        what="fast sweep against the naive one",
        values={
            **found,
            **{f"{name} of its own at inputs moved by 1e-7": value for name, value in own.items()},
            "nodes without effect": int((fast.column("mse") <= 0).sum()),
            "nodes": len(rows.names),
        },
        limits={
            **{name: max(limit, 4 * own[name]) for name, limit in allowed.items()},
            "nodes without effect": 0,
        },
    )


def _difference(table: SensitivityTable, reference: SensitivityTable) -> dict[str, float]:
    scores = reference.column("mse")
    # What is a billionth of the worst node's effect is the last bit of float32, no effect.
    relative = np.abs(table.column("mse") - scores) / np.maximum(scores, 1e-9 * scores.max())
    orders = [t.order("mse") for t in (table, reference)]
    places = [np.argsort(order) for order in orders]
    return {
        "worst node": float(relative.max()),
        "median node": float(np.median(relative)),
        "missing in the top 20": len(set(orders[1][:HEAD]) - set(orders[0][:HEAD])),
        "rank moves": int(np.abs(places[0] - places[1]).max()),
    }


ROWS: Mapping[str, Callable[[Network], Figure]] = {
    "float": float_forward,
    "int16": int16_forward,
    "int8 teacher-forced": teacher_forced,
    "int8": int8_forward,
    "sensitivity": sensitivity,
    "sweep": sweep,
}


# --- oracles ------------------------------------------------------------------------------------


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of two arrays, flattened, in float64."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Return one minus the cosine."""
    return 1 - cosine(a, b)


def relative_l2(a: np.ndarray, b: np.ndarray) -> float:
    """Return the distance of ``a`` from ``b`` as a share of the length of ``b``."""
    return float(np.linalg.norm((a - b).astype(np.float64)) / np.linalg.norm(b.astype(np.float64)))


def _error(f: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.abs(q.astype(np.float64) - f.astype(np.float64)).ravel()


def _mre(f: np.ndarray, q: np.ndarray) -> float:
    size = np.abs(f.astype(np.float64)).ravel()
    return float(np.mean(_error(f, q)[size > 0] / size[size > 0]))


def _sqnr(f: np.ndarray, q: np.ndarray) -> float:
    signal = float(np.linalg.norm(f.astype(np.float64)))
    return float(10 * np.log10(signal / np.linalg.norm(_error(f, q))))


ORACLES: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "cosine-similarity": cosine,
    "mre": _mre,
    "mse": lambda f, q: float(np.mean(_error(f, q) ** 2)),
    "sqnr": _sqnr,
    "chebyshev": lambda f, q: float(_error(f, q).max()),
}
"""Metrics of a float and a quantized output, as hmct-spec 2.5 defines them."""


def _largest(
    left: Sequence[Arrays],
    right: Sequence[Arrays],
    distance: Callable[[np.ndarray, np.ndarray], float],
) -> float:
    """Return the largest distance over outputs, all samples of an output taken together."""
    return max(
        distance(np.stack([a[name] for a in left]), np.stack([b[name] for b in right]))
        for name in right[0]
    )
