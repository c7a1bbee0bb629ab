"""What operators say of the values that they tell apart, checked by running them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jptq.calibration import levels
from jptq.ops import Op, registered
from jptq.ops.intervals import ALL, HALF_STEP, Asked, Interval, Seen
from jptq.ops.reach import JOINS, MOVES

Rng = np.random.Generator
Case = tuple[list[np.ndarray], dict[str, Any], int]
"""Operands, attributes, and the operand that is asked about."""

ENTRIES = [e for e in registered() if e.traits.reach not in (None, MOVES, JOINS)]
TRIALS = 12


def wide(rng: Rng, *shape: int) -> np.ndarray:
    """Return numbers of a few units among which some are far larger."""
    x = rng.standard_normal(shape) * 10 ** rng.uniform(-0.5, 1.0)
    far = rng.random(shape) < 0.3
    return np.where(far, x * 10 ** rng.uniform(1, 4), x).astype(np.float32)


def alone(**ranges: tuple[float, float]) -> Callable[[Rng], Case]:
    """Return cases of a function of one operand with attributes drawn from ranges."""

    def case(rng: Rng) -> Case:
        drawn = {name: float(rng.uniform(*ends)) for name, ends in ranges.items()}
        return [wide(rng, 6, 40)], drawn, 0

    return case


def rows(rng: Rng) -> Case:
    x = wide(rng, 3, 5, 17) * np.float32(rng.choice([1.0, 0.1]))
    return [x], {"axis": int(rng.integers(-3, 3))}, 0


def pair(rng: Rng) -> Case:
    return [wide(rng, 4, 9), wide(rng, 1, 9)], {}, int(rng.integers(2))


def scaled(rng: Rng) -> Case:
    factors = rng.uniform(0.1, 3, (1, 9)) * rng.choice([-1, 1])
    return [wide(rng, 4, 9), factors.astype(np.float32)], {}, 0


def compared(rng: Rng) -> Case:
    return [wide(rng, 4, 9), rng.uniform(-2, 2, 9).astype(np.float32)], {}, 0


def clipped(rng: Rng) -> Case:
    low, high = sorted(rng.uniform(-5, 5, 2))
    return [wide(rng, 40), np.float32(low), np.float32(high)], {}, 0


def clipped_6(rng: Rng) -> Case:
    low, high = sorted(rng.uniform(-5, 5, 2))
    return [wide(rng, 40)], {"min": float(low), "max": float(high)}, 0


def gelu(rng: Rng) -> Case:
    return [wide(rng, 60)], {"approximate": str(rng.choice(["none", "tanh"]))}, 0


def chosen(rng: Rng) -> Case:
    return [rng.random((4, 9)) < 0.5, wide(rng, 4, 9), wide(rng, 1, 9)], {}, int(rng.integers(1, 3))


def reduced(rng: Rng) -> Case:
    return [wide(rng, 4, 9), np.asarray([1], np.int32)], {}, 0


def reduced_by_attribute(rng: Rng) -> Case:
    return [wide(rng, 4, 9)], {"axes": (1,)}, 0


def pooled(rng: Rng) -> Case:
    return [wide(rng, 1, 2, 8, 8)], {"kernel_shape": (3, 3), "strides": (2, 2)}, 0


def top(rng: Rng) -> Case:
    return [wide(rng, 4, 9), np.asarray([3])], {"largest": int(rng.integers(2))}, 0


def top_1(rng: Rng) -> Case:
    return [wide(rng, 4, 9)], {"k": 3}, 0


def sampled(modes: tuple[str, ...]) -> Callable[[Rng], Case]:
    def case(rng: Rng) -> Case:
        image = rng.standard_normal((1, 2, int(rng.integers(1, 6)), int(rng.integers(1, 6))))
        attributes = {
            "mode": str(rng.choice(modes)),
            "padding_mode": str(rng.choice(["zeros", "border", "reflection"])),
            "align_corners": int(rng.integers(2)),
        }
        return [image.astype(np.float32), wide(rng, 1, 8, 9, 2)], attributes, 1

    return case


def written(rng: Rng) -> Case:
    places = np.stack([rng.permutation(4)[:2] for _ in range(9)], 1).astype(np.int32)
    reduction = str(rng.choice(["none", "add", "max"]))
    operands = [wide(rng, 4, 9), places, wide(rng, 2, 9)]
    return operands, {"axis": 0, "reduction": reduction}, int(rng.choice([0, 2]))


def written_plainly(rng: Rng) -> Case:
    operands, attributes, index = written(rng)
    return operands, {"axis": attributes["axis"]}, index


def written_slices(rng: Rng) -> Case:
    operands = [wide(rng, 4, 9), np.asarray([[1], [3]], np.int32), wide(rng, 2, 9)]
    return operands, {"reduction": str(rng.choice(["none", "add"]))}, int(rng.choice([0, 2]))


def cached(rng: Rng) -> Case:
    return [wide(rng, 1, 2, 6, 3), wide(rng, 1, 2, 2, 3)], {}, int(rng.integers(2))


def padded(rng: Rng) -> Case:
    operands = [wide(rng, 4, 9), np.asarray([0, 1, 0, 2]), np.float32(rng.normal() * 50)]
    return operands, {}, int(rng.choice([0, 2]))


CASES: Mapping[str, Callable[[Rng], Case]] = {
    **dict.fromkeys(("Relu", "Selu", "Sigmoid", "HardSwish", "Softplus"), alone()),
    **dict.fromkeys(("Mish", "Erf", "Tanh", "Neg", "HzSwish"), alone()),
    **dict.fromkeys(("HzHardSwish", "HzMish"), alone()),
    "Elu": alone(alpha=(0.1, 3)),
    "Celu": alone(alpha=(0.1, 3)),
    "Exp": lambda rng: ([np.minimum(wide(rng, 6, 40), 30)], {}, 0),
    **dict.fromkeys(("Softsign", "Atan"), lambda rng: ([wide(rng, 6, 40) * 1000], {}, 0)),
    "ThresholdedRelu": alone(alpha=(-2, 2)),
    "HardSigmoid": alone(alpha=(-0.5, 0.5), beta=(0, 1)),
    "Swish": alone(alpha=(-2, 2)),
    "HzReluX": alone(clip_value=(0.5, 8)),
    **dict.fromkeys(("Gelu", "HzGelu"), gelu),
    "Clip": clipped,
    "Clip-6": clipped_6,
    **dict.fromkeys(("Softmax", "Hardmax", "HzSoftmax", "ArgMax"), rows),
    **dict.fromkeys(("Add", "Sub", "Max", "Min", "Sum"), pair),
    **dict.fromkeys(("Mul", "Div"), scaled),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), compared),
    "Where": chosen,
    **dict.fromkeys(("ReduceMax-20", "ReduceMin-20"), reduced),
    **dict.fromkeys(("ReduceMax-13", "ReduceMin-13"), reduced_by_attribute),
    **dict.fromkeys(("MaxPool", "GlobalMaxPool"), pooled),
    "GlobalMaxPool": lambda rng: (pooled(rng)[0], {}, 0),
    "TopK": top,
    "TopK-1": top_1,
    "GridSample": sampled(("nearest", "linear", "cubic")),
    "GridSample-16": sampled(("nearest", "bilinear", "bicubic")),
    "ScatterElements": written,
    "Scatter": written_plainly,
    "ScatterND": written_slices,
    "TensorScatter": cached,
    "Pad": padded,
}


def _name(entry: Op) -> str:
    return f"{entry.name}-{entry.since[-1]}"


def _case(entry: Op) -> Callable[[Rng], Case]:
    return CASES.get(_name(entry)) or CASES[entry.name]


def _run(entry: Op, operands: list[np.ndarray], attributes: dict[str, Any]) -> list[np.ndarray]:
    given = [
        x if entry.is_static(i) or x.dtype.kind in "biu" else jnp.asarray(x)
        for i, x in enumerate(operands)
    ]
    found = entry.function(*given, **attributes)
    return [np.asarray(y) for y in (found if isinstance(found, tuple) else (found,))]


def _seen(x: np.ndarray, *, constant: bool, level: float = np.nan) -> Seen:
    low, high = float(x.min()), float(x.max())
    return Seen(low=low, high=high, shape=x.shape, constant=constant, level=level)


def interval_of(
    entry: Op,
    operands: list[np.ndarray],
    attributes: dict[str, Any],
    index: int,
    output: Interval,
    result: np.ndarray,
) -> Interval:
    reach = entry.traits.reach
    assert reach is not None
    defaults = {name: entry.default(name) for name in entry.attributes}
    known = {n: v for n, v in defaults.items() if v is not inspect.Parameter.empty}
    whole = {**known, **attributes}
    seen = [_seen(x, constant=i != index) for i, x in enumerate(operands)]
    if reach.rows:
        assert reach.axes is not None
        found = levels.measure(operands[0][None], reach.axes(whole, operands[0].ndim), reach.rows)
        seen[0] = _seen(operands[0], constant=False, level=levels.least(np.asarray(found)))
    return reach.interval(
        Asked(
            index=index,
            output=output,
            operands=seen,
            result=_seen(result, constant=False),
            attributes=whole,
        )
    )


@pytest.mark.parametrize("entry", ENTRIES, ids=_name)
def test_beyond_what_is_told_apart_the_output_does_not_change(entry: Op) -> None:
    case, rng = _case(entry), np.random.default_rng(len(entry.name))
    reach = entry.traits.reach
    assert reach is not None
    limited = 0
    for _ in range(TRIALS):
        operands, attributes, index = case(rng)
        assert reach.of(index)
        before = _run(entry, operands, attributes)
        floats = before[0].dtype.kind == "f"
        output = Interval(*sorted(rng.normal(size=2) * 5)) if reach.passes and floats else ALL
        interval = interval_of(entry, operands, attributes, index, output, before[0])
        cut = np.clip(operands[index], *map(np.float32, interval)).astype(np.float32)
        limited += not np.array_equal(cut, operands[index])
        after = _run(entry, [cut if i == index else x for i, x in enumerate(operands)], attributes)
        for y, z in zip(before, after, strict=True):
            if y.dtype.kind != "f":
                np.testing.assert_array_equal(y, z)
                continue
            most = HALF_STEP * np.abs(y).max() if not reach.passes else 1e-4
            if reach.rows:  # a sum of float32 rounds each addend to its own steps
                most += y.size * 2.0**-24
            y, z = (np.clip(values, *map(np.float32, output)) for values in (y, z))
            np.testing.assert_allclose(y, z, rtol=1e-6, atol=1.01 * most)
    assert limited > 0


def test_every_operator_with_a_reach_of_its_own_is_checked() -> None:
    assert all(_name(entry) in CASES or entry.name in CASES for entry in ENTRIES)


@pytest.mark.parametrize(
    ("name", "seen", "low", "high"),
    [
        ("Sigmoid", (-300, 300), -11.09, 11.09),
        ("Tanh", (-300, 300), -5.9, 5.9),
        ("Erf", (-300, 300), -3.06, 3.06),
        ("HardSigmoid", (-300, 300), -2.5, 2.5),
        ("Exp", (-300, 4), -7.09, np.inf),
        ("HardSwish", (-300, 4), -3, np.inf),
        ("Elu", (-300, 4), -9.7, np.inf),
    ],
)
def test_ends_are_where_half_a_step_of_int16_is_left(
    name: str, seen: tuple[float, float], low: float, high: float
) -> None:
    (entry,) = (e for e in ENTRIES if e.name == name)
    x = np.asarray(seen, np.float32)
    found = interval_of(entry, [x], {}, 0, ALL, x)
    np.testing.assert_allclose(found, (low, high), rtol=2e-3)


def test_small_outputs_are_told_apart_further_down() -> None:
    """Probabilities of at most 1e-4 have a grid of their own: half a step of it is far smaller."""
    (entry,) = (e for e in ENTRIES if e.name == "Sigmoid")
    x = np.asarray([-300, np.log(1e-4)], np.float32)
    low, _ = interval_of(entry, [x], {}, 0, ALL, x)
    np.testing.assert_allclose(low, np.log(1e-4 * HALF_STEP), rtol=1e-4)


def test_a_softmax_over_many_is_told_apart_further_down_than_one_over_few() -> None:
    """A thousand exponentials at the end of a grid may add up to no more than one."""
    (entry,) = (e for e in ENTRIES if _name(e) == "Softmax-13")
    lows = []
    for count in (2, 1000):
        x = np.full((1, count), -1e4, np.float32)
        x[0, 0] = 0.0
        lows.append(interval_of(entry, [x], {"axis": 1}, 0, ALL, x)[0])
    np.testing.assert_allclose(lows, np.log(HALF_STEP / np.asarray([2, 1000])), rtol=1e-5)
