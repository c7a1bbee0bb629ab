"""Rows of the table on sensitivities: against onnxruntime, and the fast sweep against the naive."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import erfc

from jptq.engine import TableQuantizer
from jptq.quant.assign import Table, uniform
from jptq.sensitivity import Rows, exact, naive, rows_of
from tests.agreements.figures import ORACLES, Figure
from tests.agreements.network import Arrays, Network, in_double, nudged, run

METRICS = ("cosine-similarity", "mre", "mse", "sqnr", "chebyshev")
HEAD = 20
_SENSITIVITY = 2e-3
"""Four networks stay below 1e-3. Behind the saturated softmax of ppocr4_rec a few values on a
rounding boundary move one of its ten nodes by 1.1e-3."""
_SWEEP = 1e-2
_SAME = 1e-9
_DEVIATIONS = 4


def against_onnxruntime(network: Network, *, nodes: int = 10) -> Figure:
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


def whole(network: Network) -> Figure:
    """The exact sweep of a small network, which is not cut into pieces, against the naive one.

    Both run one program, which rounds one way: they give the same in float32.
    """
    if not network.runner.program.small:
        raise ValueError(f"{network.name} is cut into pieces")
    rows = rows_of(network.calibrated, network.plan)
    apart = _apart(*_sweeps(network, rows, None), floor=1e-18)
    return Figure(
        what="uncut sweep against the naive one",
        values={"worst node": float(apart.max()), "nodes": len(rows.names)},
        limits={"worst node": _SAME},
    )


def sweep(network: Network) -> Figure:
    """The exact sweep with its caches against one full forward per node.

    Small networks are cut into pieces as well, which they are not for users (`whole`).
    In float64 both must give the same: that catches a lost perturbation, a stale cache, a mixed-up
    lane. Users run float32, where two programs of one network differ in their last bits and values
    on a rounding boundary fall to different sides: a node may then differ by as much as its own
    boundary values can move it, any other by 1e-2.
    """
    rows = rows_of(network.calibrated, network.plan)
    fast, slow = _sweeps(network, rows, exact.SEGMENTS)
    apart = _apart(fast, slow, floor=1e-9)
    beyond = np.flatnonzero(apart > _SWEEP)
    unexplained = apart.copy()
    with in_double():
        fast_double, slow_double = _sweeps(network.double, rows, exact.SEGMENTS)
        if beyond.size:
            unexplained[beyond] -= _boundary_reach(network, rows, beyond)
    settled = np.flatnonzero(apart <= _SWEEP)
    effects = [scores > 1e-18 * scores.max() for scores in (fast_double, slow_double)]
    own = float(np.median(_apart(slow, slow_double, floor=1e-9)))
    return Figure(
        what="fast sweep against the naive one",
        values={
            "worst node": float(apart.max()),
            f"nodes beyond {_SWEEP:g}": len(beyond),
            "worst node less what its boundary values can move": float(unexplained.max()),
            "median node": float(np.median(apart)),
            "median node of the naive one to float64": own,
            f"missing in the top {HEAD}": _missing(fast[settled], slow[settled]),
            "rank moves": _rank_moves(fast[settled], slow[settled], tie=_SWEEP),
            "worst node in float64": float(_apart(fast_double, slow_double, floor=1e-18).max()),
            "rank moves in float64": _rank_moves(fast_double, slow_double, tie=_SAME),
            "effects lost or made up in float64": int((effects[0] != effects[1]).sum()),
            "nodes": len(rows.names),
        },
        limits={
            "worst node less what its boundary values can move": _SWEEP,
            "median node": max(1e-4, own),
            f"missing in the top {HEAD}": 0,
            "rank moves": 1,
            "worst node in float64": _SAME,
            "rank moves in float64": 0,
            "effects lost or made up in float64": 0,
        },
    )


def _sweeps(network: Network, rows: Rows, segments: int | None) -> list[np.ndarray]:
    """Return the mean squared error of every node by the fast and by the naive sweep."""
    base = uniform(network.plan, "int8")
    given = (network.runner, network.thresholds, base, rows, network.samples)
    fast = exact.rank(*given, metrics=("mse",), segments=segments)
    return [one.column("mse") for one in (fast, naive.rank(*given, metrics=("mse",)))]


def _apart(scores: np.ndarray, reference: np.ndarray, *, floor: float) -> np.ndarray:
    """Return relative differences; below a share of the worst effect is rounding, no effect."""
    return np.abs(scores - reference) / np.maximum(reference, floor * reference.max())


def _missing(scores: np.ndarray, reference: np.ndarray) -> int:
    """Count what belongs to the worst nodes and is not found there, ties at the edge aside."""
    order = np.argsort(-reference, kind="stable")
    edge = reference[order[:HEAD][-1]]
    found = set(np.argsort(-scores, kind="stable")[:HEAD])
    return sum(reference[i] > edge * (1 + _SWEEP) and i not in found for i in order[:HEAD])


def _rank_moves(scores: np.ndarray, reference: np.ndarray, *, tie: float) -> int:
    """Return with how many others, further apart than a tie, a node changed places at most."""
    swapped = np.subtract.outer(scores, scores) * np.subtract.outer(reference, reference) < 0
    larger = np.maximum.outer(reference, reference)
    far = np.abs(np.subtract.outer(reference, reference)) > tie * larger
    return int((swapped & far).sum(1).max())


def _boundary_reach(network: Network, rows: Rows, chosen: Sequence[int]) -> np.ndarray:
    """Return how far values on rounding boundaries can move the scores of some rows.

    Two programs round a value apart if their last bits fall to both sides of a boundary, with a
    probability that its distance gives, in units of float32's error on that tensor. The score then
    moves by the step times its gradient, in float64; four standard deviations are allowed.

    Args:
      network: Compared with itself in float64; call under `in_double`.
      rows: Of all nodes.
      chosen: Rows to examine.

    Returns:
      ``float64[len(chosen)]``: relative to the score.
    """
    double, plan = network.double, network.plan
    runner = double.runner
    table = rows.tables(plan, network.thresholds, uniform(plan, "int8"))[0]
    noise = _noise(network)
    forward = jax.jit(lambda weights, feeds: runner.program.run(weights, None, feeds))
    floats = [forward(runner.float_weights.weights, feeds) for feeds in double.samples]
    slope = jax.jit(jax.value_and_grad(_squared_error(double), has_aux=True))
    still = {i: jnp.zeros_like(x) for i, x in _quantizer_inputs(double)[0].items()}
    found = []
    for row in chosen:
        members, reached = rows.indices(plan)[row], rows.reached[row]
        gate = np.zeros_like(np.asarray(table.gate))
        gate[list(members)] = np.asarray(table.gate)[list(members)]
        packed = runner.pack(dataclasses.replace(table, gate=gate))
        share = {name: (name in reached) / len(reached) for name in rows.outputs}
        score = squares = 0.0
        for feeds, reference in zip(double.samples, floats, strict=True):
            (error, seen), slopes = slope(
                still, packed.weights, packed.table, feeds, reference, share
            )
            score += float(error)
            for i in noise.keys() & set(members):
                scale = float(table.scale[plan.offsets[i]])
                limits = float(table.lower[i]), float(table.upper[i])
                distance = _to_boundary(np.asarray(seen[i]) / scale, limits) * scale
                moved = np.asarray(slopes[i]) * scale
                squares += float(np.sum(2 * erfc(distance / noise[i] / np.sqrt(2)) * moved**2))
        found.append(_DEVIATIONS * np.sqrt(squares) / score)
    return np.asarray(found)


def _noise(network: Network) -> dict[int, float]:
    """Return float32's error, root mean square, at every quantizer of a feature."""
    single, double = _quantizer_inputs(network), _quantizer_inputs(network.double)
    return {
        i: float(
            np.sqrt(np.mean([np.square(a[i] - b[i]) for a, b in zip(single, double, strict=True)]))
        )
        for i in single[0]
    }


def _to_boundary(steps: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Return how far values are from the nearest middle between two integers of a range."""
    lower, upper = limits
    return np.abs(steps - (np.clip(np.floor(steps), lower, upper - 1) + 0.5))


def _quantizer_inputs(network: Network) -> list[dict[int, Array]]:
    """Return what every quantizer on a feature sees in the float forward, sample by sample."""
    program = network.runner.program

    def forward(weights: Mapping[str, Array], feeds: Mapping[str, Array]) -> dict[int, Array]:
        seen: dict[int, Array] = {}

        def quantizer(index: int, x: Array, axis: int | None) -> Array:
            del axis
            seen[index] = x
            return x

        program.run(weights, quantizer, feeds)
        return seen

    compiled = jax.jit(forward)
    return [compiled(network.runner.float_weights.weights, feeds) for feeds in network.samples]


def _squared_error(network: Network) -> Callable[..., tuple[Array, dict[int, Array]]]:
    """Return the score of a sample as a function of what is added behind each quantizer."""
    plan, program = network.plan, network.runner.program

    def error(
        added: Mapping[int, Array],
        weights: Mapping[str, Array],
        settings: Table,
        feeds: Mapping[str, Array],
        floats: Mapping[str, Array],
        share: Mapping[str, float],
    ) -> tuple[Array, dict[int, Array]]:
        seen: dict[int, Array] = {}
        own = TableQuantizer(plan, settings)

        def quantizer(index: int, x: Array, axis: int | None) -> Array:
            seen[index] = x
            return own(index, x, axis) + added[index]

        out = program.run(weights, quantizer, feeds)
        terms = [part * jnp.mean((out[n] - floats[n]) ** 2) for n, part in share.items()]
        return jnp.sum(jnp.stack(terms)), seen

    return error
