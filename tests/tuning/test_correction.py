"""Bias correction and the searches for thresholds, from a configuration to the prepared network."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from jptq import ir
from jptq.api import steps
from jptq.calibration import bias
from jptq.errors import ConfigError
from jptq.quant.calibrated import assignment_of, thresholds_of, with_assignment
from jptq.quant.emit import quant_config
from jptq.quant.export import to_qdq
from jptq.tuning import Journal, Measurer, Prepared, prepare
from tests.oracles import run_onnx
from tests.tuning.convolutions import ACTIVATION, network, prepared, saved

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("biases"))


def error(found: Prepared) -> float:
    comparison = Measurer(found, None, Journal(None)).compare(found.configured)
    return comparison.outputs[0].l2.mean


def test_every_convolution_gets_a_bias_of_its_own_and_the_network_stays_the_same(
    folder: Path,
) -> None:
    model = ir.load(folder / "model.onnx")
    given = bias.with_biases(model)
    nodes = bias.convolutions(given)
    assert [n.name for n in nodes] == [n.name for n in bias.convolutions(model)]
    names = [node.inputs[bias.BIAS] for node in nodes]
    assert len(set(names)) == len(names) == 5
    assert {"bare_bias", "up_bias"} <= set(names)
    ir.save(given, folder / "given.onnx")
    x = np.load(folder / "data" / "0.npy")
    want = run_onnx(network().proto(), {"x": x})
    found = run_onnx(onnx.load(folder / "given.onnx"), {"x": x})
    for one, other in zip(found.values(), want.values(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Prepared:
    return prepared(folder, {})


@pytest.fixture(scope="module")
def corrected(folder: Path) -> Prepared:
    return prepared(folder, {"weight": {"bias_correction": {"num_sample": 4, "metric": "mse"}}})


def test_corrected_biases_bring_the_outputs_nearer_to_the_true_float_network(
    plain: Prepared, corrected: Prepared, folder: Path
) -> None:
    assert error(corrected) < error(plain)
    sample = corrected.samples[0]
    (want,) = run_onnx(network().proto(), {"x": sample["x"]}).values()
    (reference,) = corrected.runner.forward(None)(sample).values()
    np.testing.assert_allclose(reference, want, rtol=1e-4, atol=1e-5)
    changed = [
        name
        for name, value in corrected.floating.initializers.items()
        if name in corrected.calibrated.initializers
        and not np.array_equal(value, corrected.calibrated.initializers[name])
    ]
    assert changed
    assert all(corrected.floating.initializers[name].ndim == 1 for name in changed)


def test_the_first_correction_is_the_mean_that_its_output_lost(
    plain: Prepared, corrected: Prepared
) -> None:
    """Nothing before the first convolution is corrected: its error is that of the plain model."""
    (node,) = [n for n in corrected.calibrated.operators() if n.name == "stem"]
    name = node.inputs[bias.BIAS]
    change = corrected.calibrated.initializers[name] - corrected.floating.initializers[name]
    inside = ir.extract(plain.calibrated, [node.outputs[0]])
    lost = []
    for sample in (plain.samples[i] for i in range(len(plain.samples))):
        exact, rough = (
            next(iter(_run(model, sample).values()))
            for model in (
                with_assignment(inside, dict.fromkeys(assignment_of(inside), "float32")),
                inside,
            )
        )
        lost.append((exact.astype(np.float64) - rough).mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(change, np.mean(lost, axis=0), rtol=1e-3, atol=1e-6)


def _run(model: ir.Model, sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return run_onnx(onnx.load_from_string(ir.to_bytes(to_qdq(model))), dict(sample))


def test_a_network_that_gets_no_better_keeps_its_biases(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "jptq"):
        found = prepared(folder, {"all_node_type": "float32", "weight": {"bias_correction": {}}})
    for name, value in found.floating.initializers.items():
        if value.ndim == 1:
            np.testing.assert_array_equal(found.calibrated.initializers[name], value)
    (table,) = [r.message for r in caplog.records if "Bias_Correction_Info" in r.message]
    assert table.startswith("Bias_Correction_Info(cosine-similarity)")
    assert "no better" in table


def test_a_resumed_calibration_gives_the_same_network(folder: Path, tmp_path: Path) -> None:
    settings = {
        "weight": {"bias_correction": {}},
        "layerwise_search": {"topk": 2, "qtype": "int16"},
    }
    first = prepared(folder, settings, journal=Journal(tmp_path))
    journal = Journal(tmp_path)
    second = prepared(folder, settings, journal=journal)
    assert journal.reused == 3  # methods, thresholds, biases
    assert ir.to_bytes(first.calibrated) == ir.to_bytes(second.calibrated)
    assert first.method == second.method == "mix"
    assert "int16" in first.configured.values()


def test_the_written_configuration_gives_the_same_thresholds_and_biases_again(
    folder: Path,
) -> None:
    first = prepared(
        folder,
        {
            "weight": {"max_percentile": 0.9, "bias_correction": {"metric": "mse"}},
            "layerwise_search": {"topk": 2},
        },
    )
    written = quant_config(
        first.calibrated,
        first.plan,
        first.target,
        first.configured,
        activation=first.activation,
        like=first.config,
    )
    assert written["model_config"]["search"] == {
        "layer": {"topk": 2, "metric": "cosine-similarity"}
    }
    second = prepare(folder / "model.onnx", folder / "data", march="nash-e", quant_config=written)
    assert ir.to_bytes(second.calibrated) == ir.to_bytes(first.calibrated)


def test_mix_is_no_worse_than_the_methods_it_chooses_from(folder: Path) -> None:
    def cosine(name: str) -> float:
        found = prepared(folder, {"activation": {"calibration_type": name}})
        runner, sample = found.runner, found.samples[0]
        a, b = (
            next(iter(runner.forward(t)(sample).values())).ravel().astype(float)
            for t in (None, found.table(found.configured))
        )
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert cosine("mix") >= cosine("kl") - 1e-3


def test_a_loaded_model_keeps_its_thresholds_under_new_types(
    plain: Prepared, folder: Path, tmp_path: Path
) -> None:
    ir.save(plain.calibrated, tmp_path / "calibrated.onnx")
    config = {
        "model_config": {"all_node_type": "int16", "activation": {"calibration_type": "load"}}
    }
    found = steps.calibrate(tmp_path / "calibrated.onnx", folder / "data", quant_config=config)
    assert found.configured == plain.all("int16") != plain.configured
    held = thresholds_of(plain.calibrated)
    for name, values in thresholds_of(found.calibrated).items():
        np.testing.assert_array_equal(values, held[name])
    with pytest.raises(ConfigError, match="calibrated already"):
        steps.calibrate(
            tmp_path / "calibrated.onnx",
            folder / "data",
            quant_config={"model_config": {"activation": ACTIVATION}},
        )


def test_a_float_model_has_nothing_to_load(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no thresholds to load"):
        prepared(folder, {"activation": {"calibration_type": "load"}})
