"""Rows of the table on whole forwards: float, INT16 and INT8, end to end and unit by unit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax import Array

from jptq.engine import TableQuantizer, layouts
from jptq.quant.assign import Table, uniform
from jptq.quant.plan import Calibration
from tests.agreements.figures import Figure, angle, relative_l2
from tests.agreements.network import Arrays, Network, observed, ours, run

_DRAWS = 8

_DEFAULT = "1 - cosine of onnxruntime's default session"
"""Between a session with optimisations and one without: other sums, so the same boundaries."""


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
    """Our all-INT16 forward against the export.

    A value on a rounding boundary falls to either side with float32's last bit, and what it moves
    decides about others: a few values that differ behind the first layer become most of them at the
    end. So two float32 programs agree no better than one does with itself when its scales move by
    a last bit; twice that distance is allowed. `teacher_forced` is the sharp test.
    """
    table = network.table("int16")
    mine = ours(network, network.runner.pack(table))
    moved = [ours(network, network.runner.pack(_nudged(table, seed))) for seed in range(_DRAWS)]
    own = max(_largest(other, mine, relative_l2) for other in moved)
    own_angle = max(_largest(other, mine, angle) for other in moved)
    return Figure(
        what="all INT16, end to end",
        values={
            **_end_to_end(network, "int16"),
            "relative L2 of ours to itself, scales a last bit off": own,
            "1 - cosine of ours to itself, scales a last bit off": own_angle,
        },
        limits={
            "relative L2": max(1e-3, 2 * own),
            "1 - cosine": max(1e-5, 4 * own_angle),
            _DEFAULT: max(1e-5, 4 * own_angle),
        },
    )


def _nudged(table: Table, seed: int) -> Table:
    """Return the table with every scale moved to one of its two neighbours in float32."""
    scale = np.asarray(table.scale)
    up = np.random.default_rng(seed).integers(0, 2, scale.shape) > 0
    limit = np.where(up, np.float32(np.inf), np.float32(0))
    return dataclasses.replace(table, scale=np.nextafter(scale, limit))


def int8_forward(network: Network) -> Figure:
    """Our all-INT8 forward against the export: rounding ties are chaotic, so only reported.

    Between the sessions of onnxruntime, which mostly run the same kernels, it is 0 on six networks;
    what a single tie does to the most chaotic of them is allowed.
    """
    return Figure(
        what="all INT8, end to end", values=_end_to_end(network, "int8"), limits={_DEFAULT: 2e-2}
    )


def _end_to_end(network: Network, qtype: str) -> dict[str, float]:
    exported = network.qdq(uniform(network.plan, qtype))
    theirs = run(exported, network.samples)
    mine = ours(network, network.runner.pack(network.table(qtype)))
    fused = run(exported, network.samples, optimized=True)
    floats = run(network.model, network.samples)
    return {
        "relative L2": _largest(mine, theirs, relative_l2),
        "1 - cosine": _largest(mine, theirs, angle),
        _DEFAULT: _largest(fused, theirs, angle),
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
    settings = jax.device_put(network.table(qtype))
    packed = network.runner.pack(settings)
    quantized = network.runner.compilations.once("forced", lambda: jax.jit(_forced(network)))
    perms = {c.name: network.runner.program.perms[c.output] for c in features}
    sizes = np.asarray([theirs[0][c.output].size for c in features])
    worst, moved = 0.0, np.zeros(len(features))
    for feeds, forced in zip(network.samples, theirs, strict=True):
        given = {c.name: forced[c.output].transpose(perms[c.name]) for c in features}
        found = quantized(packed.weights, settings, feeds, given)
        for i, c in enumerate(features):
            steps = _apart(np.asarray(found[c.name]), given[c.name], _scale(network, settings, c))
            worst = max(worst, float(steps.max(initial=0)))
            moved[i] += np.count_nonzero(steps)
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


def _apart(ours: np.ndarray, theirs: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return how many steps of a grid tensors are apart.

    The lowest step of a grid of -3.4e38 is -inf in either of them: no difference. Where only one is
    not finite, they are infinitely far apart.
    """
    with np.errstate(invalid="ignore"):
        steps = np.round(np.abs(ours.astype(np.float64) - theirs) / scale)
    return np.where(ours == theirs, 0.0, np.nan_to_num(steps, nan=np.inf))


def _scale(network: Network, settings: Table, calibration: Calibration) -> np.ndarray:
    """Return the steps of a quantizer, to broadcast with its tensor in physical order."""
    plan, program = network.plan, network.runner.program
    index = plan.index[calibration.name]
    scale = np.asarray(settings.scale)[plan.offsets[index] : plan.offsets[index + 1]]
    perm = program.perms[calibration.output]
    shape = [1] * len(perm)
    if calibration.axis is not None:
        shape[layouts.axis_position(calibration.axis, perm)] = -1
    return scale.reshape(shape)


def _forced(network: Network) -> Callable[..., dict[str, Array]]:
    """Return the program that gives what each quantizer makes of its input, physical order, and
    goes on with `given`."""
    plan, program = network.plan, network.runner.program

    def quantized(
        weights: Mapping[str, Array],
        settings: Table,
        feeds: Mapping[str, Array],
        given: Mapping[str, Array],
    ) -> dict[str, Array]:
        found: dict[str, Array] = {}
        own = TableQuantizer(plan, settings)

        def quantizer(index: int, x: Array, axis: int | None) -> Array:
            name = plan.calibrations[index].name
            found[name] = own(index, x, axis)
            return given[name]

        program.run(weights, quantizer, feeds)
        return found

    return quantized


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
