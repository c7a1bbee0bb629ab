from __future__ import annotations

import numpy as np
import pytest

from jptq.errors import UnknownNameError
from jptq.numerics.affine import affine
from jptq.numerics.qtypes import INT8
from jptq.sensitivity import hessian
from tests.graphs import Graph
from tests.sensitivity.networks import Case, case

IN, MIDDLE, OUT = 5, 4, 3


def _linear() -> Graph:
    g = Graph()
    hidden = g.add("MatMul", g.input("x", (1, IN)), g.random(IN, MIDDLE, name="w0"), name="first")
    g.output(g.add("MatMul", hidden, g.random(MIDDLE, OUT, name="w1"), name="second"))
    return g


@pytest.fixture(scope="module")
def net() -> Case:
    return case(_linear(), samples=3)


def _squared_error(x: np.ndarray, thresholds: np.ndarray, axis: int | None) -> float:
    scale = affine(thresholds, INT8).scale.astype(np.float64)
    shape = [1] * x.ndim
    if axis is not None and scale.size > 1:
        shape[axis] = scale.size
    scale = scale.reshape(shape)
    steps = np.clip(np.round(x / scale), -128, 127)
    return float(np.mean((steps * scale - x) ** 2))


@pytest.mark.slow
def test_the_trace_of_a_linear_network_has_a_closed_form(net: Case) -> None:
    w0, w1 = (net.model.initializers[n].astype(np.float64) for n in ("w0", "w1"))
    xs = [s["x"].astype(np.float64) for s in net.samples]
    # loss / 2 = |y - y0|^2 / (2 OUT): the Hessian of each block, traced by hand.
    traces = {
        "x": ((w0 @ w1) ** 2).sum() / OUT,
        "hidden": (w1**2).sum() / OUT,
        "w0": np.mean([(x**2).sum() for x in xs]) * (w1**2).sum() / OUT,
        "w1": np.mean([((x @ w0) ** 2).sum() for x in xs]),
    }
    rows = net.rows("activation"), net.rows("weight")
    for one in rows:
        found = hessian.rank(
            net.runner, net.thresholds, net.int8, one, net.samples, probes=512, seed=1
        )
        for i, name in enumerate(one.names):
            calibration = net.plan.calibration(name)
            key = calibration.tensor if calibration.tensor in traces else "hidden"
            thresholds = np.asarray(net.thresholds[name])
            tensors = {
                "x": xs,
                "hidden": [x @ w0 for x in xs],
                "w0": [w0],
                "w1": [w1],
            }[key]
            error = np.mean([_squared_error(t, thresholds, calibration.axis) for t in tensors])
            want = traces[key] * error
            slack = 4 * found.stderr[i, 0, 0] + 1e-3 * want
            assert abs(found.score[i, 0, 0] - want) < slack, key
            assert slack < 0.5 * want, key


@pytest.mark.slow
def test_the_seed_decides_every_bit_and_no_score_is_negative(net: Case) -> None:
    def ranked(seed: int) -> np.ndarray:
        return hessian.rank(
            net.runner, net.thresholds, net.int8, net.rows(), net.samples, probes=2, seed=seed
        ).column("hessian")

    first = ranked(0)
    np.testing.assert_array_equal(first, ranked(0))
    assert not np.array_equal(first, ranked(1))
    assert (first >= 0).all()


def test_an_unknown_metric_is_refused(net: Case) -> None:
    with pytest.raises(UnknownNameError, match="--method=hessian"):
        hessian.rank(
            net.runner, net.thresholds, net.int8, net.rows(), net.samples, metrics=("mse",)
        )


def _products(
    x: np.ndarray, w0: np.ndarray, w1: np.ndarray, samples: int, draws: int
) -> dict[str, np.ndarray]:
    """Draw what products with the Hessian give for the traces of both weights, ``[draws]`` each.

    All samples are ``x``. They share the signs of weights and have their own of features; the
    output error is zero at the float network, so the Hessian of half of it is ``J' J / OUT``.
    """
    rng = np.random.default_rng(0)

    def signs(*shape: int) -> np.ndarray:
        return rng.choice([-1.0, 1.0], (draws, *shape))

    moved = {"w0": x @ signs(IN, MIDDLE) @ w1, "w1": x @ w0 @ signs(MIDDLE, OUT)}
    features = signs(samples, IN) @ w0 @ w1 + signs(samples, MIDDLE) @ w1
    whole = features.mean(1, keepdims=True) + moved["w0"] + moved["w1"]
    return {name: (whole * one).sum((1, 2)) / OUT for name, one in moved.items()}


@pytest.mark.slow
def test_the_standard_error_is_the_spread_over_products_also_where_samples_are_alike(
    net: Case,
) -> None:
    alike, probes = net.samples[:1] * 8, 512
    w0, w1 = (net.model.initializers[n].astype(np.float64) for n in ("w0", "w1"))
    x = alike[0]["x"].astype(np.float64)
    drawn = _products(x, w0, w1, len(alike), draws=10_000)
    rows = net.rows("weight")
    found = hessian.rank(net.runner, net.thresholds, net.int8, rows, alike, probes=probes)
    for i, name in enumerate(rows.names):
        calibration = net.plan.calibration(name)
        thresholds = np.asarray(net.thresholds[name])
        weight = {"w0": w0, "w1": w1}[calibration.tensor]
        error = _squared_error(weight, thresholds, calibration.axis)
        spread = np.std(drawn[calibration.tensor])
        claimed = found.stderr[i, 0, 0] * np.sqrt(probes)
        # A deviation of 512 values is good to 3 %, twice that where the tails are long: six of
        # those. Samples taken for independent ones would make it 2.8 times too small.
        assert claimed == pytest.approx(spread * error, rel=0.4), calibration.tensor
