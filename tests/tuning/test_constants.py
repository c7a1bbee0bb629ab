"""Fitted weights and biases on the way from a file to a prepared network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import jptq
from jptq import files, ir
from jptq.calibration.weights import weight_thresholds
from jptq.errors import UnknownNameError
from jptq.quant.assign import true_int16
from jptq.quant.calibrated import thresholds_of
from jptq.quant.export import to_qdq
from jptq.tuning import Journal, Prepared, prepare
from tests.graphs import Graph
from tests.oracles import relative_error, run_onnx

pytestmark = pytest.mark.slow

ACTIVATION = {"calibration_type": "max"}


def network() -> Graph:
    g = Graph(seed=5)
    x = g.input("x", (1, 3, 8, 8))
    y = g.add("Relu", g.conv(x, 3, 6, name="stem"))
    y = g.add("Relu", g.add("Conv", y, g.random(8, 6, 3, 3, scale=0.2), name="bare"))
    g.output(g.conv(y, 8, 4, 1, name="head"))
    return g


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    onnx.save(network().proto(), folder / "model.onnx")
    (folder / "data").mkdir()
    rng = np.random.default_rng(0)
    for i in range(9):
        np.save(folder / "data" / f"{i}.npy", rng.random((1, 3, 8, 8)).astype(np.float32))
    return folder


def prepared(folder: Path, fit: str = "auto", **options: Any) -> Prepared:
    settings = options.pop("settings", {})
    config = {"model_config": {"activation": ACTIVATION, **settings}}
    return prepare(
        folder / "model.onnx",
        folder / "data",
        march="nash-e",
        quant_config=config,
        fit=fit,
        **options,
    )


@pytest.fixture(scope="module")
def fitted(folder: Path) -> Prepared:
    return prepared(folder)


def test_the_calibrated_network_computes_with_what_was_fitted(
    fitted: Prepared, folder: Path
) -> None:
    assert fitted.fit is not None
    assert fitted.fit.kept
    changed = {
        name
        for name, value in fitted.calibrated.initializers.items()
        if not np.array_equal(value, fitted.floating.initializers[name])
    }
    assert changed == set(fitted.floats)
    assert {one.weight for one in fitted.fit.layers if one.kept == "weights"} <= changed
    plain = prepared(folder, "off")
    assert plain.fit is None
    assert not plain.floats
    sample = fitted.samples[0]
    (want,) = run_onnx(network().proto(), {"x": sample["x"]}).values()
    errors = []
    for one in (fitted, plain):
        (reference,) = one.runner.forward(None)(sample).values()
        assert relative_error(reference, want) < 1e-5
        (output,) = one.runner.forward(one.table(one.all("int16")))(sample).values()
        errors.append(relative_error(output, want))
    assert errors[0] < 0.7 * errors[1]


def test_a_plain_calibration_finds_the_thresholds_of_fitted_weights(fitted: Prepared) -> None:
    held = thresholds_of(fitted.calibrated)
    for name, values in weight_thresholds(fitted.calibrated).items():
        np.testing.assert_array_equal(values, held[name])


def test_convolutions_get_a_bias_and_nothing_else_is_added(fitted: Prepared, folder: Path) -> None:
    plain = prepared(folder, "off")
    assert [n.op for n in fitted.floating.nodes] == [n.op for n in plain.floating.nodes]
    (bare,) = [n for n in fitted.floating.operators() if n.name == "bare"]
    assert not fitted.floating.initializers[bare.inputs[2]].any()
    assert fitted.calibrated.initializers[bare.inputs[2]].any()


def test_a_resumed_fit_gives_the_same_network(folder: Path, tmp_path: Path) -> None:
    settings = {"weight": {"bias_correction": {"metric": "mse"}}}
    first = prepared(folder, journal=Journal(tmp_path), settings=settings)
    second = prepared(folder, journal=Journal(tmp_path), settings=settings)
    assert "fit" in first.runner.compilations.counts
    assert "fit" not in second.runner.compilations.counts
    assert ir.to_bytes(first.calibrated) == ir.to_bytes(second.calibrated)
    assert first.digest == second.digest
    assert first.fit is not None
    assert second.fit is not None
    assert files.json_text(first.fit.to_json()) == files.json_text(second.fit.to_json())
    third = prepared(folder, "bias", journal=Journal(tmp_path), settings=settings)
    assert third.fit is not None
    assert third.fit.mode == "bias"
    assert third.digest != first.digest


def test_a_weight_that_the_configuration_raises_is_left_as_it_is(
    folder: Path, fitted: Prepared
) -> None:
    assert fitted.fit is not None
    (layer,) = [one for one in fitted.fit.layers if one.nodes == ("bare",)]
    assert layer.weight in fitted.floats
    raised = prepare(
        folder / "model.onnx",
        folder / "data",
        march="nash-e",
        quant_config={
            "model_config": {"activation": ACTIVATION},
            "node_config": {"bare": {"qtype": "dual-int16"}},
        },
        fit="auto",
    )
    assert raised.fit is not None
    (layer,) = [one for one in raised.fit.layers if one.nodes == ("bare",)]
    assert layer.reason == "the configuration makes it int16"
    assert layer.weight not in raised.floats


def test_a_way_to_fit_that_does_not_exist_is_named(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown way to fit 'wheights'"):
        prepared(folder, "wheights")


def _outputs(one: Prepared, types: dict[str, str]) -> np.ndarray:
    (output,) = one.runner.forward(one.table(types))(one.samples[0]).values()
    return output


def test_a_weight_that_is_raised_later_has_its_float_value_and_bias_again(
    fitted: Prepared, folder: Path
) -> None:
    """The rounding was fitted to INT8: on a finer grid it would be an error that stays."""
    plain = prepared(folder, "off")
    raised = true_int16(fitted.plan)
    np.testing.assert_array_equal(_outputs(fitted, raised), _outputs(plain, raised))
    (layer,) = [one for one in fitted.fit.layers if one.nodes == ("bare",)]  # type: ignore[union-attr]
    quantizer = fitted.plan.of_node("bare").inputs[1]
    one = {**fitted.all("int16"), quantizer: "int16"}
    assert not np.array_equal(_outputs(fitted, one), _outputs(fitted, fitted.all("int16")))
    mixed = fitted.mixed(one)
    bias = mixed.by_name["bare"].inputs[2]
    for name in (layer.weight, bias):
        np.testing.assert_array_equal(mixed.initializers[name], fitted.floating.initializers[name])
    others = set(fitted.floats) - {layer.weight, bias}
    assert others
    for name in others:
        assert np.array_equal(mixed.initializers[name], fitted.calibrated.initializers[name])
    (want,) = run_onnx(ir.to_proto(to_qdq(mixed)), dict(fitted.samples[0])).values()
    assert relative_error(_outputs(fitted, one), want) < 1e-4


def test_the_sensitivity_of_a_node_counts_the_bias_that_was_fitted_with_its_weight(
    fitted: Prepared,
) -> None:
    count = len(fitted.samples)
    naive, exact = (
        jptq.rank_nodes(fitted, metrics=("mse",), samples=count, sweep=sweep)
        for sweep in ("naive", "fast")
    )
    np.testing.assert_allclose(exact.score, naive.score, rtol=1e-2)
    forwards = [fitted.runner.forward(fitted.table(_only(fitted, node))) for node in ("", "bare")]
    lost = []
    for i in range(count):
        one, other = (next(iter(run(fitted.samples[i]).values())) for run in forwards)
        lost.append(np.mean((one - other) ** 2))
    score = exact.score[exact.rows.index("bare"), 0, 0]
    np.testing.assert_allclose(score, np.mean(lost), rtol=1e-3)


def _only(one: Prepared, node: str) -> dict[str, str]:
    """Return the assignment that quantizes a single node."""
    own = one.plan.of_node(node).calibrations if node else ()
    return {c.name: "int8" if c.name in own else "float32" for c in one.plan.calibrations}


def test_a_network_from_a_file_computes_the_same_under_every_type(
    fitted: Prepared, folder: Path, tmp_path: Path
) -> None:
    ir.save(fitted.calibrated, tmp_path / "calibrated_model.onnx")
    ir.save(fitted.floating, tmp_path / "optimized_float_model.onnx")
    again = jptq.calibrate(tmp_path / "calibrated_model.onnx", folder / "data")
    for types in (fitted.all("int8"), fitted.all("int16"), true_int16(fitted.plan)):
        np.testing.assert_array_equal(_outputs(again, types), _outputs(fitted, types))
    (sample,) = [fitted.samples[0]]
    (float_output,) = again.runner.forward(None)(sample).values()
    (want,) = run_onnx(network().proto(), dict(sample)).values()
    assert relative_error(float_output, want) < 1e-5
