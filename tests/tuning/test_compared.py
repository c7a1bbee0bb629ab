"""What the cosine of a whole output does not show, on arrays whose loss is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from jptq.api.timing import model_of
from jptq.engine import lower
from jptq.results import OutputError
from jptq.tuning.compared import Compared, Parts, channel_axis, parts_of
from tests.graphs import Graph

RNG = np.random.default_rng(0)
SAMPLES = 4


def of(a: np.ndarray, b: np.ndarray, parts: Parts | None = None) -> OutputError:
    """Compare ``[S, *shape]`` in two batches."""
    sums = Compared({"y": a.shape[1:]}, {} if parts is None else {"y": parts})
    sums.add("y", a[:3], b[:3], 3)
    # The last of a batch may be there twice.
    sums.add("y", np.repeat(a[3:], 3, 0), np.repeat(b[3:], 3, 0), len(a) - 3)
    return sums.comparison().outputs[0]


def detector(step: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes up to 1000 and three scores, both rounded to a step."""
    boxes = RNG.uniform(0, 1000, (SAMPLES, 1, 4, 100))
    scores = RNG.uniform(0, 1, (SAMPLES, 1, 3, 100)) ** 4
    a = np.concatenate([boxes, scores], 2).astype(np.float32)
    return a, (np.round(a / step) * step).astype(np.float32) if step else a.copy()


def test_scores_that_share_the_grid_of_boxes_are_lost_though_the_cosine_is_high() -> None:
    found = of(*detector(1000 / 127))
    assert found.cosine.mean > 0.999
    (lost,) = found.lost
    assert lost.axis == 1
    assert lost.channels == (4, 5, 6)
    assert lost.correlation == found.quality == 0.0
    assert 900 < found.magnitude / lost.magnitude < 1100


def test_scores_on_the_grid_of_int16_are_kept() -> None:
    found = of(*detector(1000 / 32767))
    assert not found.lost
    assert found.quality == found.cosine.mean


def test_scores_that_become_yes_or_no_are_lost() -> None:
    a, b = detector()
    b[:, :, 4:] = a[:, :, 4:] > 0.5
    assert of(a, b).lost[0].channels == (4, 5, 6)


def test_channels_last_are_told_apart() -> None:
    a, b = (np.ascontiguousarray(v.transpose(0, 1, 3, 2)) for v in detector(1000 / 127))
    (lost,) = of(a, b).lost
    assert (lost.axis, lost.channels) == (2, (4, 5, 6))


def constant(a: np.ndarray, b: np.ndarray) -> None:
    a[:, :, 0], b[:, :, 0] = 0.5, 0.7


def nearly_constant(a: np.ndarray, b: np.ndarray) -> None:
    a[:, :, 0] = 5 + 0.01 * RNG.standard_normal(a[:, :, 0].shape)
    b[:, :, 0] = 5


def invisible(a: np.ndarray, b: np.ndarray) -> None:
    a[:, :, 0] = 1e-6 * RNG.standard_normal(a[:, :, 0].shape)
    b[:, :, 0] = 0


def noisy(a: np.ndarray, b: np.ndarray) -> None:
    b += 0.1 * RNG.standard_normal(b.shape).astype(np.float32)


@pytest.mark.parametrize("change", [constant, nearly_constant, invisible, noisy])
def test_healthy_outputs_lose_nothing(change: Callable[[np.ndarray, np.ndarray], None]) -> None:
    a = RNG.standard_normal((SAMPLES, 1, 6, 50)).astype(np.float32)
    b = a.copy()
    change(a, b)
    assert not of(a, b).lost


def test_one_faint_channel_of_many_is_no_loss_unless_it_is_an_operand() -> None:
    a = RNG.standard_normal((SAMPLES, 1, 40, 50)).astype(np.float32)
    a[:, :, 39] *= 0.01
    b = a.copy()
    b[:, :, 39] = 0
    assert not of(a, b).lost
    (lost,) = of(a, b, Parts(node="cat", axis=1, stops=(39, 40))).lost
    assert lost.channels == (39,)


def test_a_distribution_is_one_whole() -> None:
    a, b = detector(1000 / 127)
    assert of(a, b, Parts(whole=True)).lost == ()


def test_an_output_with_broken_elements_has_no_figures() -> None:
    a, b = detector()
    b[0, 0, 0, :7] = np.nan
    b[1, 0, 0, 0] = np.inf
    found = of(a, b)
    assert (found.broken, found.elements) == (8, a.size)
    assert all(np.isnan(s.mean) for s in (found.cosine, found.l1, found.l2, found.sqnr))
    assert found.quality == -8 / a.size


def test_numbers_that_float_does_not_have_are_counted_and_left_out() -> None:
    a, b = detector(1e-3)
    exact = of(a, b)
    a[0, 0, 0, 0] = b[0, 0, 0, 0] = np.nan
    found = of(a, b)
    assert (found.undefined, found.broken) == (1, 0)
    assert found.cosine.mean == pytest.approx(exact.cosine.mean, abs=1e-6)


def test_a_sample_without_error_has_an_infinite_ratio_that_the_mean_leaves_out() -> None:
    a, b = detector(1.0)
    b[0] = a[0]
    found = of(a, b).sqnr
    assert found.max == np.inf
    assert np.isfinite(found.mean)
    assert of(a, a).sqnr.mean == np.inf


def test_an_output_without_elements_is_perfect() -> None:
    empty = np.zeros((SAMPLES, 1, 0, 4), np.float32)
    assert of(empty, empty).quality == 1.0


@pytest.mark.parametrize(("offset", "want"), [(0.0, 1.0), (100.0, 0.01)])
def test_how_much_an_output_varies_is_known(offset: float, want: float) -> None:
    a = RNG.standard_normal((SAMPLES, 1, 6, 50)).astype(np.float32) + np.float32(offset)
    assert of(a, a).deviation == pytest.approx(want, rel=0.1)
    assert of(np.zeros_like(a), a).deviation == 0.0


def test_integers_are_judged_by_how_many_are_equal() -> None:
    a = RNG.integers(500, 510, (SAMPLES, 1, 100)).astype(np.int32)
    b = a.copy()
    b[:, :, ::2] += 1  # neighbours, and yet another class
    found = of(a, b)
    assert found.cosine.mean > 0.99999
    assert found.equal == found.quality == 0.5
    truth = a > 504
    assert of(truth, ~truth).quality == 0.0


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((1, 5, 1344), 1),
        ((1, 8400, 85), 2),
        ((1, 7, 16, 16), 1),
        ((1, 16, 16, 7), 3),
        ((1, 1, 192, 256), 1),
        ((1, 10), 1),
        ((1, 300, 400), None),
        ((4,), None),
        ((1, 0, 4), None),
    ],
)
def test_channels_lie_on_the_short_last_axis_or_on_the_second(
    shape: tuple[int, ...], axis: int | None
) -> None:
    assert channel_axis(shape) == axis


def _parts(*moves: str) -> Parts:
    g = Graph()
    x = g.input("x", (1, 4, 6, 6))
    y = g.add("Concat", x, g.add("Relu", x), g.add("Sigmoid", x), axis=-3, name="cat")
    for op in moves:
        if op == "Transpose":
            y = g.add("Transpose", y, perm=[0, 2, 3, 1])
        elif op == "Reshape":
            y = g.add("Reshape", y, g.constant([1, -1]))
        else:
            y = g.add(op, y)
    g.output(y)
    model = model_of(g.proto())
    shapes = lower(model, {"x": np.zeros((1, 4, 6, 6), np.float32)}).shapes
    return parts_of(model, model.output_names, shapes).get(model.output_names[0], Parts())


@pytest.mark.parametrize(
    ("moves", "want"),
    [
        ((), Parts(node="cat", axis=1, stops=(4, 8, 12))),
        (("Transpose",), Parts(node="cat", axis=3, stops=(4, 8, 12))),
        (("Transpose", "Transpose"), Parts(node="cat", axis=2, stops=(4, 8, 12))),
        (("Reshape",), Parts(node="cat")),
        (("Tanh",), Parts()),
        (("Softmax",), Parts(whole=True)),
    ],
)
def test_the_operands_of_an_outputs_concat_are_found_behind_what_moves_values(
    moves: tuple[str, ...], want: Parts
) -> None:
    assert _parts(*moves) == want
