"""Thresholds stop where no reader of a tensor tells larger values apart, and only there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from jptq import rank_nodes
from jptq.calibration import levels, spread
from jptq.calibration.reach import Scope
from jptq.calibration.statistics import Statistics
from jptq.ir import from_bytes, to_proto
from jptq.ops.intervals import Interval
from jptq.quant.export import to_qdq
from jptq.tuning import Evaluator
from jptq.tuning.journal import Journal
from jptq.tuning.prepare import prepare
from jptq.tuning.recalibrating import prepared_float
from tests.calibration.masks import LOWEST, MAX, attention, calibrated, error, samples, threshold
from tests.graphs import Graph
from tests.oracles import relative_error, run_onnx

SANE = 0.045
"""Relative error of all-INT8 with a mask of -20 is 0.034 to 0.046; with one that sets the grid 0.79
and more."""

KINDS = ("constant", "causal where", "input", "computed", "where")
INFINITY = ("constant", "causal where", "where")
"""Kinds with a mask in the file: samples may not be infinite, and 0 * inf is NaN in float."""


@pytest.mark.parametrize("value", [-1e4, LOWEST])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_costs_no_steps(tmp_path: Path, kind: str, value: float) -> None:
    proto, feeds = attention(kind, value).proto(), samples(kind, value)
    found = calibrated(tmp_path, proto, feeds)
    assert error(found, proto, feeds) < SANE
    assert threshold(found, "masked:0") < 20


@pytest.mark.parametrize("kind", INFINITY)
def test_an_infinite_mask_costs_no_steps(tmp_path: Path, kind: str) -> None:
    proto, feeds = attention(kind, -np.inf).proto(), samples(kind, -np.inf)
    found = calibrated(tmp_path, proto, feeds)
    assert error(found, proto, feeds) < SANE
    assert all(np.isfinite(t).all() for t in found.thresholds.values())


@pytest.mark.slow
@pytest.mark.parametrize(("reach", "int8", "int16"), [(False, 0.22, 0.22), (True, 0.96, 1.0)])
def test_a_trained_encoder_keeps_its_accuracy(reach: bool, int8: float, int16: float) -> None:
    """Its mask is -3.4e38, computed from an input."""
    folder = Path("tools/zoo/networks/encoder")
    found = prepare(
        folder / "model.onnx",
        folder / "calibration_data",
        march="nash-e",
        quant_config=MAX,
        reach=reach,
    )
    score = Evaluator.load(f"{folder / 'evaluate.py'}")
    forward = found.runner.forward
    whole = score(forward(None))["accuracy"]
    for qtype, expected in (("int8", int8), ("int16", int16)):
        share = score(forward(found.table(found.all(qtype))))["accuracy"] / whole
        np.testing.assert_allclose(share, expected, atol=0.02)


@pytest.mark.parametrize("value", [-100, -65504])
def test_thresholds_do_not_depend_on_what_stands_for_never(tmp_path: Path, value: float) -> None:
    kind = "input"
    given = [
        calibrated(tmp_path / str(v), attention(kind, v).proto(), samples(kind, v)).thresholds
        for v in (-30.0, value)
    ]
    for name, expected in given[0].items():
        np.testing.assert_allclose(given[1][name], expected, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", ["constant", "input", "where"])
def test_rows_that_are_masked_as_a_whole_cost_the_others_no_steps(
    tmp_path: Path, kind: str
) -> None:
    proto = attention(kind, LOWEST, full=True).proto()
    feeds = samples(kind, LOWEST, full=True)
    found = calibrated(tmp_path, proto, feeds)
    assert error(found, proto, feeds, slice(2, None)) < SANE
    assert any(limit.masked for limit in found.limits)
    assert any("a mask fills as a whole" in note for note in found.notes)


def test_a_softmax_that_is_written_out_stops_the_same_thresholds(tmp_path: Path) -> None:
    proto = attention("computed", -1e4, decomposed=True).proto()
    feeds = samples("computed", -1e4, full=True)
    found = calibrated(tmp_path, proto, feeds)
    assert threshold(found, "masked:0") < 40
    assert threshold(found, "below:0") < 40
    assert error(found, proto, feeds, slice(2, None)) < 2 * SANE
    whole = calibrated(tmp_path / "whole", proto, feeds, reach=False)
    assert error(whole, proto, feeds, slice(2, None)) > 0.5


@pytest.mark.parametrize(("kind", "value"), [("constant", -np.inf), ("computed", LOWEST)])
def test_onnxruntime_agrees_on_the_export(tmp_path: Path, kind: str, value: float) -> None:
    proto, feeds = attention(kind, value).proto(), samples(kind, value)
    found = calibrated(tmp_path, proto, feeds)
    exported = to_proto(to_qdq(found.calibrated))
    (want,) = run_onnx(exported, feeds[0]).values()
    (got,) = found.runner.forward(found.table(found.configured))(feeds[0]).values()
    assert relative_error(got, want) < 1e-5


def test_without_it_thresholds_are_the_largest_values(tmp_path: Path) -> None:
    kind, value = "input", -1e4
    found = calibrated(tmp_path, attention(kind, value).proto(), samples(kind, value), reach=False)
    assert threshold(found, "mask") == 1e4
    assert threshold(found, "masked:0") > 9e3
    assert found.limits == ()


@pytest.mark.parametrize("how", ["output", "reader", "quantized output"])
def test_what_anybody_else_tells_apart_keeps_its_range(tmp_path: Path, how: str) -> None:
    g = attention("input", -1e4)
    masked = "masked:0_inner" if how == "quantized output" else "masked:0"
    config = {"model_config": {"activation": {"calibration_type": "max"}}}
    if how == "reader":
        g.output(g.add("MatMul", masked, g.random(12, 3)))
    else:
        g.output("masked:0")
    if how == "quantized output":
        config["model_config"]["model_output_type"] = "int8"
    found = calibrated(tmp_path, g.proto(), samples("input", -1e4), quant_config=config)
    assert threshold(found, "mask") == 1e4
    if how != "output":
        assert threshold(found, masked) > 9e3


def test_a_shorter_mask_in_a_constant_computes_the_same_float_network(tmp_path: Path) -> None:
    proto, feeds = attention("constant", LOWEST).proto(), samples("constant", LOWEST)
    found = calibrated(tmp_path, proto, feeds)
    (name,) = found.floats
    assert found.floats[name].min() == np.float32(LOWEST)
    assert -60 < found.calibrated.initializers[name].min() < -20
    ships = to_proto(prepared_float(found))
    for sample in feeds:
        (want,) = run_onnx(proto, sample).values()
        (got,) = found.runner.forward(None)(sample).values()
        (shipped,) = run_onnx(ships, sample).values()
        assert relative_error(got, want) < 1e-6
        assert relative_error(shipped, want) < 1e-6


@pytest.mark.parametrize(
    ("kind", "value"), [("computed", LOWEST), ("where", -1e4), ("causal where", -np.inf)]
)
def test_what_ships_is_calibrated_well_without_limits(
    tmp_path: Path, kind: str, value: float
) -> None:
    """The factor that makes the mask, or the branch of Where, is written shorter."""
    proto, feeds = attention(kind, value).proto(), samples(kind, value)
    ships = to_proto(prepared_float(calibrated(tmp_path / "ours", proto, feeds)))
    for sample in feeds:
        (want,), (got,) = (run_onnx(one, sample).values() for one in (proto, ships))
        assert relative_error(got, want) < 1e-6
    plain = calibrated(tmp_path / "theirs", ships, feeds, reach=False)
    assert error(plain, proto, feeds) < 0.08


def test_a_factor_stays_where_what_it_masks_has_values_between(tmp_path: Path) -> None:
    feeds = [dict(feed) for feed in samples("computed", -1e4)]
    feeds[-1]["keep"] = np.maximum(feeds[-1]["keep"], np.float32(0.75))
    found = calibrated(tmp_path, attention("computed", -1e4).proto(), feeds)
    assert dict(found.floats) == {}


def test_a_constant_that_fills_whole_rows_stays(tmp_path: Path) -> None:
    """In these rows it is all that there is: shortened, a softmax would see the scores again."""
    proto = attention("constant", LOWEST, full=True).proto()
    found = calibrated(tmp_path, proto, samples("constant", LOWEST, full=True))
    assert dict(found.floats) == {}
    assert threshold(found, "masked:0") < 20


def test_a_calibration_that_is_taken_up_again_says_the_same(tmp_path: Path) -> None:
    proto, feeds = attention("constant", -1e4).proto(), samples("constant", -1e4)
    first, second = (
        calibrated(tmp_path, proto, feeds, journal=Journal(tmp_path / "work")) for _ in range(2)
    )
    assert first.limits == second.limits != ()
    assert first.notes == second.notes
    for name, expected in first.thresholds.items():
        np.testing.assert_array_equal(second.thresholds[name], expected)
    for name, expected in first.calibrated.initializers.items():
        np.testing.assert_array_equal(second.calibrated.initializers[name], expected)


def test_a_limit_names_the_reader_and_what_was_before(tmp_path: Path) -> None:
    found = calibrated(tmp_path, attention("input", -1e4).proto(), samples("input", -1e4))
    (limit,) = (one for one in found.limits if one.tensor == "mask")
    assert limit.by == (("soft", "Softmax"),)
    assert limit.before == 1e4
    np.testing.assert_allclose(limit.after, threshold(found, "mask"), rtol=1e-6)
    assert any("'soft' (Softmax) tells apart only from" in note for note in found.notes)


@pytest.mark.parametrize(
    "activation",
    [
        {"calibration_type": "kl"},
        {"calibration_type": "max", "max_percentile": 0.99995},
        {"calibration_type": "max", "asymmetric": True},
        {"calibration_type": "min-max"},
    ],
)
def test_every_method_works_on_what_is_told_apart(
    tmp_path: Path, activation: Mapping[str, object]
) -> None:
    proto, feeds = attention("where", -1e4).proto(), samples("where", -1e4)
    config = {"model_config": {"activation": activation}}
    found = calibrated(tmp_path, proto, feeds, quant_config=config)
    assert threshold(found, "masked:0") < 20
    assert error(found, proto, feeds) < 0.1


def small(add: str, *, far: float = 300.0, readers: int = 1, **attributes: float) -> Graph:
    """Return ``x -> add -> convolution``, with ``far`` in the samples of `lone`."""
    g = Graph(seed=2)
    x = g.input("x", (1, 4, 8, 8))
    y = g.add(add, x, name="limits", **attributes)
    g.output(g.conv(y, 4, 3, name="head"))
    if readers > 1:
        g.output(g.conv(x, 4, 3, name="other"))
    return g


def lone(far: float, count: int = 3) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(count):
        x = rng.standard_normal((1, 4, 8, 8)).astype(np.float32)
        x[0, 0, 0, 0] = far
        found.append({"x": x})
    return found


@pytest.mark.parametrize(
    ("add", "far", "expected"),
    [
        ("Sigmoid", 300.0, 11.09),
        ("Tanh", -300.0, 5.891),
        ("HardSigmoid", 300.0, 2.5),
        ("Erf", 300.0, 3.058),
        ("Softsign", 300.0, 300.0),
        ("LeakyRelu", -300.0, 300.0),
    ],
)
def test_activations_stop_thresholds_where_they_saturate(
    tmp_path: Path, add: str, far: float, expected: float
) -> None:
    found = calibrated(tmp_path, small(add).proto(), lone(far))
    np.testing.assert_allclose(threshold(found, "x"), expected, rtol=2e-3)


@pytest.mark.parametrize("asymmetric", [False, True])
def test_a_range_that_stops_at_its_smaller_end_is_told_too(
    tmp_path: Path, asymmetric: bool
) -> None:
    """HardSwish is 0 below -3: only a range has an end there."""
    feeds = lone(9.0)
    for one in feeds:
        one["x"][0, 1, 1, 1] = -6.0
    config = {"model_config": {"activation": {"calibration_type": "max", "asymmetric": asymmetric}}}
    graph = small("HardSwish")
    found = calibrated(tmp_path, graph.proto(), feeds, quant_config=config)
    (quantizer,) = (one.name for one in found.plan.calibrations if one.tensor == "x")
    low, high = -9.0, 9.0
    if asymmetric:
        low, high = found.thresholds[quantizer].tolist()
    assert (round(low, 2), high) == ((-3.0, 9.0) if asymmetric else (-9.0, 9.0))
    assert [one.calibration for one in found.limits] == ([quantizer] if asymmetric else [])


def test_a_second_reader_that_tells_all_apart_keeps_the_range(tmp_path: Path) -> None:
    found = calibrated(tmp_path, small("Sigmoid", readers=2).proto(), lone(300.0))
    assert threshold(found, "x") == 300.0
    assert found.limits == ()


def test_quantizers_that_share_a_grid_take_what_is_right_for_all(tmp_path: Path) -> None:
    """Behind a Concat only a Sigmoid reads; one operand has another reader, that needs all."""
    thresholds = []
    for readers in (1, 2):
        g = Graph(seed=2)
        x, z = g.input("x", (1, 4, 8, 8)), g.input("z", (1, 4, 8, 8))
        joined = g.add("Concat", g.add("Neg", x, name="a"), z, axis=1, name="joined")
        g.output(g.conv(g.add("Sigmoid", joined), 8, 3, name="head"))
        if readers > 1:
            g.output(g.conv(z, 4, 3, name="other"))
        feeds = [{"x": f["x"], "z": f["x"] * np.float32(0.5)} for f in lone(300.0)]
        found = calibrated(tmp_path / str(readers), g.proto(), feeds)
        thresholds.append({threshold(found, n) for n in ("a:0", "z", "joined:0")})
    (limited,), (whole,) = thresholds
    np.testing.assert_allclose(limited, 11.09, rtol=1e-3)
    assert whole == 150.0


def test_far_points_of_a_grid_cost_no_steps(tmp_path: Path) -> None:
    g = Graph(20, seed=2)
    x, grid = g.input("x", (1, 2, 8, 8)), g.input("grid", (1, 4, 4, 2))
    g.output(g.conv(g.add("GridSample", x, grid, name="sampled"), 2, 3, name="head"))
    rng = np.random.default_rng(1)
    points = rng.uniform(-1, 1, (1, 4, 4, 2)).astype(np.float32)
    points[0, 0, 0] = -1e6
    image = rng.standard_normal((1, 2, 8, 8)).astype(np.float32)
    found = calibrated(tmp_path, g.proto(), [{"x": image, "grid": points}])
    np.testing.assert_allclose(threshold(found, "grid"), 1 + 1 / 8, rtol=1e-6)


def test_a_heavy_tail_keeps_its_range_and_is_told(tmp_path: Path) -> None:
    g = Graph(seed=2)
    power = g.add("Mul", *[g.input("x", (1, 4, 8, 8))] * 2, name="power")
    g.output(g.conv(power, 4, 3, name="head"))
    feeds = [*lone(30.0, count=1), *lone(0.5, count=7)]
    found = calibrated(tmp_path, g.proto(), feeds)
    assert threshold(found, "power:0") == 900.0
    (told,) = (one for one in found.outlying if one.tensor == "power:0")
    assert told.by == (("head", "Conv"),)
    values = np.sort(np.concatenate([f["x"].ravel() ** 2 for f in feeds]))
    exact = values[int(np.ceil(0.999 * values.size)) - 1]
    assert exact <= told.usual <= 1.25 * exact
    assert any("'head' (Conv) reads the larger ones" in note for note in found.notes)


def test_many_small_probabilities_are_not_told(tmp_path: Path) -> None:
    g = Graph(seed=2)
    x = g.input("x", (1, 4000))
    g.output(g.add("Softmax", x, axis=1, name="share"))
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.standard_normal((1, 4000)).astype(np.float32)} for _ in range(2)]
    for feed in feeds:
        feed["x"][0, 7] = 14.0
    found = calibrated(tmp_path, g.proto(), feeds)
    assert any(c.tensor.startswith("share") for c in found.plan.calibrations)
    assert [one.tensor for one in found.outlying if one.tensor.startswith("share")] == []


def test_ordinary_values_are_not_told(tmp_path: Path) -> None:
    found = calibrated(tmp_path, small("LeakyRelu").proto(), lone(3.0))
    assert found.outlying == ()
    assert found.limits == ()


def limits_of(g: Graph, **ranges: tuple[float, float]) -> dict[str, Interval]:
    """Return what is told apart of each tensor of a graph, by the ranges of some."""
    proto = onnx.shape_inference.infer_shapes(g.proto())
    model = from_bytes(proto.SerializeToString())
    shapes, dtypes = {}, {}
    for value in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output):
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        dtypes[value.name] = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    dtypes |= {name: value.dtype for name, value in model.initializers.items()}
    scope = Scope(model=model, shapes=shapes, dtypes=dtypes)
    assert set(scope.tensors) <= set(shapes)
    known = {n: Statistics(low=low, high=high, first=high) for n, (low, high) in ranges.items()}
    return {name: found.interval for name, found in scope.limits(known, {}).items()}


def test_limits_go_back_through_scales_and_sums() -> None:
    g = Graph()
    x, y = g.input("x", (2, 3)), g.input("y", (2, 3))
    total = g.add("Sub", g.add("Mul", x, g.constant(np.float32(-0.5))), y)
    g.output(g.add("HardSigmoid", g.add("Div", total, g.constant(np.float32(2)))))
    found = limits_of(g, y=(-1, 3), Mul_0=(-9, 9), Div_2=(-90, 90), **{"Mul_0:0": (-9, 9)},
                      **{"Div_2:0": (-90, 90)})  # fmt: skip
    # |total| up to 5; -x / 2 up to 5 + 3 above and down to -5 - 1 below
    np.testing.assert_allclose(found["Sub_1:0"], (-5, 5), rtol=1e-3)
    np.testing.assert_allclose(found["Mul_0:0"], (-6, 8), rtol=1e-3)
    np.testing.assert_allclose(found["x"], (-16, 12), rtol=1e-3)
    np.testing.assert_allclose(found["y"], (-14, 14), rtol=1e-3)


def test_nothing_is_known_where_a_range_is_not() -> None:
    g = Graph()
    x, y = g.input("x", (2, 3)), g.input("y", (2, 3))
    g.output(g.add("Tanh", g.add("Add", x, y, name="sum"), name="out"))
    assert limits_of(g) == {}
    known = limits_of(g, **{"sum:0": (-90, 90)})
    assert set(known) == {"sum:0"}


def test_levels_leave_out_rows_that_lie_far_below_all_others() -> None:
    scores = np.asarray([[3.0, 1.0], [-4.0, -7.0], [-1e4, -1e4 - 2]], np.float32)
    found = levels.measure(scores[None], (1,), "maximum")
    assert levels.least(np.asarray(found)) == -4.0
    assert levels.masked(np.asarray(found))
    near = levels.measure(scores[None, :2] - 100, (1,), "maximum")
    assert levels.least(np.asarray(near)) == -104.0
    assert not levels.masked(np.asarray(near))


def test_rows_without_others_above_them_are_not_masked() -> None:
    """The scores of a whole network may lie at -1e4: a softmax does not care."""
    scores = np.random.default_rng(0).normal(-1e4, 3, (1, 50, 8)).astype(np.float32)
    found = np.asarray(levels.measure(scores, (1,), "maximum"))
    assert levels.least(found) == scores.max(axis=2).min()
    assert not levels.masked(found)


def test_the_level_of_a_mass_is_the_logarithm_of_the_mean_exponential() -> None:
    scores = np.random.default_rng(0).normal(0, 9, (1, 50, 8)).astype(np.float32)
    found = np.asarray(levels.measure(scores, (1,), "mass"))
    exact = np.log(np.mean(np.exp(scores.astype(np.float64)), axis=2)).min()
    np.testing.assert_allclose(levels.least(found), exact, rtol=1e-5)


def test_levels_and_spreads_are_the_same_on_a_device_and_in_batches() -> None:
    import jax.numpy as jnp

    x = np.random.default_rng(0).normal(-50, 90, (6, 31, 8)).astype(np.float32)
    x[2, 3] = -np.inf
    for kind in ("mass", "maximum", "element"):
        whole = np.asarray(levels.measure(x, (1,), kind))
        parts = levels.nothing()
        for i in range(0, 6, 2):
            parts = levels.joined(parts, levels.measure(jnp.asarray(x[i : i + 2]), (1,), kind))
        np.testing.assert_allclose(parts, whole, rtol=1e-6)
    counts = sum(np.asarray(spread.count(jnp.asarray(x[i : i + 4]), 3)) for i in (0, 3))
    np.testing.assert_array_equal(counts, spread.count(x, 6))


def test_a_spread_is_taken_evenly_from_large_tensors() -> None:
    """Every eighth value is loud; a step of eight would meet only those, or none."""
    x = np.tile(np.asarray([100, *[1] * 7], np.float32), 2**16)[None]
    counts = np.asarray(spread.count(x, 1))
    assert counts.sum() <= spread.LOOKED_AT
    np.testing.assert_allclose(counts.max() / counts.sum(), 7 / 8, atol=0.01)
    assert 1 <= spread.usual(counts, 0.8) <= 1.25
    assert 100 <= spread.usual(counts, 0.999) <= 125


@pytest.mark.parametrize(
    ("kind", "value"), [("constant", -np.inf), ("causal where", -np.inf), ("computed", LOWEST)]
)
@pytest.mark.parametrize("method", ["metric", "probe", "gradient"])
def test_first_order_methods_rank_a_network_with_a_mask(
    tmp_path: Path, method: str, kind: str, value: float
) -> None:
    found = calibrated(tmp_path, attention(kind, value).proto(), samples(kind, value, count=2))
    assert np.isfinite(rank_nodes(found, method=method).score).all()
