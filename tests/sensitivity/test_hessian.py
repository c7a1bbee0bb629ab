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


@pytest.mark.slow
def test_the_standard_error_is_the_spread_over_seeds_also_where_samples_are_alike() -> None:
    net = case(_linear(), samples=1)
    alike = net.samples * 8
    rows = net.rows("weight")
    found = [
        hessian.rank(net.runner, net.thresholds, net.int8, rows, alike, probes=8, seed=seed)
        for seed in range(24)
    ]
    spread = np.std([one.score[:, 0, 0] for one in found], axis=0, ddof=1)
    claimed = np.sqrt(np.mean([one.stderr[:, 0, 0] ** 2 for one in found], axis=0))
    # A standard deviation of 24 values is good to 15 %, one of 8 on average over 24 to 5 %.
    np.testing.assert_allclose(claimed, spread, rtol=0.5)
