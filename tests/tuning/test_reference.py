"""A network with fitted weights that is written and opened again: what it is compared with."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from jptq import ir
from jptq.api import steps
from jptq.errors import ConfigError, ModelError
from jptq.hmct.executor import ORTExecutor
from jptq.hmct.ir import load_model, save_model
from jptq.hmct.quantizer.debugger import compared_with, get_sensitivity_of_nodes
from jptq.quant.export import network_digest
from jptq.quant.originals import ORIGINALS, REFERENCE
from jptq.tuning import Journal, Measurer, Prepared
from jptq.tuning.ranges import kept_inside
from jptq.tuning.reference import FLOAT_FILE
from tests.oracles import run_onnx
from tests.tuning.convolutions import network, prepared, saved
from tests.tuning.refitted import moved, refitted

pytestmark = pytest.mark.slow

CALIBRATED = "calibrated_model.onnx"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def plain(source: Path) -> Prepared:
    return prepared(source, {})


@pytest.fixture(scope="module")
def changed(plain: Prepared) -> Mapping[str, np.ndarray]:
    bias = plain.floating.by_name["stem"].inputs[2]
    return {**moved(plain), bias: plain.floating.initializers[bias] + np.float32(0.25)}


@pytest.fixture(scope="module")
def written(
    plain: Prepared, changed: Mapping[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("written")
    ir.save(plain.floating, folder / FLOAT_FILE)
    ir.save(refitted(plain, dict(changed)), folder / CALIBRATED)
    return folder


@pytest.fixture
def alone(written: Path, tmp_path: Path) -> Path:
    """Return the calibrated model in a folder of its own."""
    return Path(shutil.copy(written / CALIBRATED, tmp_path / CALIBRATED))


@pytest.fixture(scope="module")
def reopened(written: Path, source: Path) -> Prepared:
    return steps.calibrate(written / CALIBRATED, source / "data")


def wanted(source: Path) -> np.ndarray:
    (want,) = run_onnx(network().proto(), {"x": np.load(source / "data" / "0.npy")}).values()
    return want


def floats_of(found: Prepared) -> np.ndarray:
    (reference,) = found.runner.forward(None)(found.samples[0]).values()
    return np.asarray(reference)


def l2(found: Prepared) -> float:
    comparison = Measurer(found, None, Journal(None)).compare(found.configured)
    return comparison.outputs[0].l2.mean


def test_the_file_beside_the_model_is_its_float_reference(
    reopened: Prepared, plain: Prepared, source: Path
) -> None:
    want = wanted(source)
    np.testing.assert_allclose(floats_of(reopened), want, rtol=1e-4, atol=1e-5)
    (bare,) = run_onnx(ir.to_proto(reopened.floating), reopened.samples[0]).values()
    np.testing.assert_allclose(bare, want, rtol=1e-4, atol=1e-5)
    assert reopened.digests == plain.digests
    assert network_digest(reopened.calibrated) == network_digest(plain.calibrated)


def test_it_computes_with_the_changed_constants(
    reopened: Prepared, changed: Mapping[str, np.ndarray], written: Path, source: Path
) -> None:
    table = reopened.table(reopened.configured)
    (found,) = reopened.runner.forward(table)(reopened.samples[0]).values()
    (ran,) = ORTExecutor(written / CALIBRATED).inference(reopened.samples[0]).values()
    np.testing.assert_array_equal(found, ran)
    error = float(np.mean((np.asarray(found) - wanted(source)) ** 2))
    first = dataclasses.replace(reopened, samples=[reopened.samples[0]])
    assert l2(first) == pytest.approx(error, rel=1e-4)
    for name, value in changed.items():
        np.testing.assert_array_equal(reopened.calibrated.initializers[name], value)


def test_the_note_has_digests_of_weights_and_values_of_biases(written: Path) -> None:
    model = ir.load(written / CALIBRATED)
    assert len(model.metadata[REFERENCE]) < 1000
    assert ORIGINALS in model.metadata


def test_without_the_file_there_is_a_line_and_no_comparison(alone: Path, source: Path) -> None:
    with pytest.raises(ModelError, match="float network of this model is not at hand") as caught:
        steps.calibrate(alone, source / "data")
    told = str(caught.value)
    assert str(alone) in told
    assert str(alone.parent / FLOAT_FILE) in told
    assert "and 2 more" in told
    assert "--reference=" in told


def test_a_file_that_is_named_does(
    alone: Path, written: Path, source: Path, reopened: Prepared
) -> None:
    shutil.copy(written / FLOAT_FILE, alone.parent / "float.onnx")
    found = steps.calibrate(alone, source / "data", reference=alone.parent / "float.onnx")
    assert l2(found) == l2(reopened)
    assert found.digest == reopened.digest


@pytest.mark.parametrize("automatic", [True, False])
def test_another_network_is_refused(
    alone: Path, written: Path, source: Path, automatic: bool
) -> None:
    model = ir.load(written / FLOAT_FILE)
    name = next(n for n, value in model.initializers.items() if value.ndim == 4)
    other = {**model.initializers, name: model.initializers[name] * np.float32(1.0001)}
    path = alone.parent / (FLOAT_FILE if automatic else "other.onnx")
    ir.save(dataclasses.replace(model, initializers=other), path)
    with pytest.raises(ModelError, match="the reference is another network") as caught:
        steps.calibrate(alone, source / "data", reference=None if automatic else path)
    assert f"has other values of: {name!r}" in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_network_before_it_was_optimized_is_told_from_the_optimized_one(
    alone: Path, source: Path
) -> None:
    g_model = ir.load(source / "model.onnx")
    renamed = {f"{name}_": value for name, value in g_model.initializers.items()}
    nodes = tuple(
        dataclasses.replace(
            node, inputs=tuple(f"{n}_" if n in g_model.initializers else n for n in node.inputs)
        )
        for node in g_model.nodes
    )
    path = alone.parent / "given.onnx"
    ir.save(dataclasses.replace(g_model, nodes=nodes, initializers=renamed), path)
    with pytest.raises(ModelError, match="another network") as caught:
        steps.calibrate(alone, source / "data", reference=path)
    assert "does not have" in str(caught.value)


def test_missing_broken_and_quantized_files_are_refused(
    alone: Path, written: Path, source: Path
) -> None:
    broken = alone.parent / "broken.onnx"
    broken.write_bytes((written / FLOAT_FILE).read_bytes()[:200])
    for path, message in (
        (alone.parent / "nowhere.onnx", "cannot read"),
        (broken, "not a readable ONNX model"),
        (alone, "the reference has quantizers"),
    ):
        with pytest.raises(ModelError, match=message):
            steps.calibrate(alone, source / "data", reference=path)


def test_a_float_model_takes_no_reference(source: Path, written: Path) -> None:
    with pytest.raises(ConfigError, match="--reference with a float model"):
        steps.calibrate(source / "model.onnx", source / "data", reference=written / FLOAT_FILE)


def test_a_model_of_another_tool_is_compared_with_what_is_named(
    written: Path, source: Path, tmp_path: Path, reopened: Prepared
) -> None:
    model = ir.load(written / CALIBRATED)
    ir.save(dataclasses.replace(model, metadata={}), tmp_path / CALIBRATED)
    unsaid = steps.calibrate(tmp_path / CALIBRATED, source / "data")
    assert np.abs(floats_of(unsaid) - wanted(source)).max() > 1e-3
    named = steps.calibrate(tmp_path / CALIBRATED, source / "data", reference=written / FLOAT_FILE)
    np.testing.assert_array_equal(floats_of(named), floats_of(reopened))
    assert l2(named) == l2(reopened)
    assert named.digest != unsaid.digest


def test_the_vendors_prefix_of_a_file_is_taken_over(
    alone: Path, written: Path, source: Path, reopened: Prepared
) -> None:
    shutil.move(alone, alone.parent / f"net_{CALIBRATED}")
    shutil.copy(written / FLOAT_FILE, alone.parent / f"net_{FLOAT_FILE}")
    found = steps.calibrate(alone.parent / f"net_{CALIBRATED}", source / "data")
    assert l2(found) == l2(reopened)


def test_cut_networks_and_strict_integers_keep_the_reference(
    plain: Prepared, reopened: Prepared
) -> None:
    last = next(n.name for n in plain.floating.nodes if n.outputs == plain.floating.output_names)
    whole = steps.rank_nodes(reopened, metrics=("mse",), samples=1)
    at_node = steps.rank_nodes(reopened, metrics=("mse",), samples=1, output_nodes=[last])
    np.testing.assert_allclose(at_node.column("mse"), whole.column("mse"), rtol=1e-5)
    np.testing.assert_array_equal(floats_of(kept_inside(reopened)), floats_of(reopened))


def test_the_debugger_finds_it_for_files_and_for_models_that_scripts_edit(
    reopened: Prepared,
    written: Path,
    source: Path,
    alone: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = steps.rank_nodes(reopened, metrics=("mse",), samples=1)

    def scores(model: object) -> list[float]:
        found = get_sensitivity_of_nodes(model, "mse", source / "data")
        return [float(found[row]["mse"]) for row in whole.rows]

    want = whole.column("mse")
    np.testing.assert_allclose(scores(written / CALIBRATED), want, rtol=1e-5)
    edited = load_model(written / CALIBRATED)
    np.testing.assert_allclose(scores(edited), want, rtol=1e-5)
    proto = onnx.load(written / CALIBRATED)
    monkeypatch.chdir(alone.parent)
    with pytest.raises(ModelError, match="not at hand"):
        scores(proto)
    with compared_with(written / FLOAT_FILE):
        np.testing.assert_allclose(scores(proto), want, rtol=1e-5)
    monkeypatch.chdir(written)
    np.testing.assert_allclose(scores(proto), want, rtol=1e-5)


def test_a_script_that_saves_the_model_again_keeps_the_digests(written: Path) -> None:
    save_model(load_model(written / CALIBRATED), written / "again.onnx")
    before, again = (ir.load(written / name).metadata for name in (CALIBRATED, "again.onnx"))
    assert again[REFERENCE] == before[REFERENCE]
