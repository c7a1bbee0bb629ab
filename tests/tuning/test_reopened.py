"""A network with corrected biases that is written and opened again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from jptq import ir
from jptq.api import steps
from jptq.hmct.executor import ORTExecutor
from jptq.hmct.quantizer.debugger import get_sensitivity_of_nodes, loading
from jptq.hmct.quantizer.debugger.info import model_info
from jptq.quant.export import without_quantizers
from jptq.quant.originals import ORIGINALS
from jptq.tuning import Journal, Measurer, Prepared
from tests.oracles import run_onnx
from tests.tuning.convolutions import network, prepared, saved

pytestmark = pytest.mark.slow

SETTINGS = {"weight": {"bias_correction": {"num_sample": 4, "metric": "mse"}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("reopened"))


@pytest.fixture(scope="module")
def made(folder: Path) -> Prepared:
    found = prepared(folder, SETTINGS)
    ir.save(found.calibrated, folder / "calibrated_model.onnx")
    return found


@pytest.fixture(scope="module")
def reopened(made: Prepared, folder: Path) -> Prepared:
    return steps.calibrate(folder / "calibrated_model.onnx", folder / "data")


def l2(found: Prepared) -> float:
    comparison = Measurer(found, None, Journal(None)).compare(found.configured)
    return comparison.outputs[0].l2.mean


def wanted(folder: Path) -> np.ndarray:
    sample = np.load(folder / "data" / "0.npy")
    (want,) = run_onnx(network().proto(), {"x": sample}).values()
    return want


def test_its_float_reference_is_the_network_that_was_given(
    made: Prepared, reopened: Prepared, folder: Path
) -> None:
    sample, want = reopened.samples[0], wanted(folder)
    (reference,) = reopened.runner.forward(None)(sample).values()
    np.testing.assert_allclose(reference, want, rtol=1e-4, atol=1e-5)
    assert l2(reopened) == l2(made)
    (bare,) = run_onnx(ir.to_proto(reopened.floating), sample).values()
    np.testing.assert_allclose(bare, want, rtol=1e-4, atol=1e-5)


def test_its_quantized_outputs_keep_the_corrected_biases(
    made: Prepared, reopened: Prepared, folder: Path
) -> None:
    sample = made.samples[0]
    before, after = (
        next(iter(p.runner.forward(p.table(p.configured))(sample).values()))
        for p in (made, reopened)
    )
    np.testing.assert_array_equal(before, after)
    (ran,) = ORTExecutor(folder / "calibrated_model.onnx").inference(sample).values()
    np.testing.assert_array_equal(before, ran)


def test_without_the_note_what_is_in_the_file_counts_as_float(made: Prepared, folder: Path) -> None:
    metadata = {k: v for k, v in made.calibrated.metadata.items() if k != ORIGINALS}
    ir.save(dataclasses.replace(made.calibrated, metadata=metadata), folder / "plain.onnx")
    plain = steps.calibrate(folder / "plain.onnx", folder / "data")
    (reference,) = plain.runner.forward(None)(plain.samples[0]).values()
    assert np.abs(reference - wanted(folder)).max() > 1e-4
    assert l2(plain) != l2(made)


def test_the_debugger_compares_with_the_network_that_was_given(
    made: Prepared, folder: Path
) -> None:
    file, data = folder / "calibrated_model.onnx", folder / "data"
    found = model_info(file, [data])
    first = dataclasses.replace(made, samples=[made.samples[0]])
    expected = Measurer(first, None, Journal(None)).compare(made.configured)
    assert found.outputs.outputs[0].l2.mean == pytest.approx(expected.outputs[0].l2.mean, rel=1e-5)
    network = loading.loaded(file, data)
    (reference,) = network.runner.forward(None)(network.samples[0]).values()
    np.testing.assert_allclose(reference, wanted(folder), rtol=1e-4, atol=1e-5)


def test_a_ranking_at_a_node_has_the_same_reference_as_one_at_the_outputs(
    made: Prepared, reopened: Prepared, folder: Path
) -> None:
    (last,) = [
        n.name for n in made.calibrated.operators() if n.outputs[0] == made.floating.output_names[0]
    ]
    options = {"metrics": ("mse",), "samples": 1}
    for one in (made, reopened):
        whole = steps.rank_nodes(one, **options)
        at_node = steps.rank_nodes(one, **options, output_nodes=[last])
        np.testing.assert_allclose(at_node.column("mse"), whole.column("mse"), rtol=1e-5)
    scores = get_sensitivity_of_nodes(folder / "calibrated_model.onnx", "mse", folder / "data")
    np.testing.assert_allclose(
        [float(scores[row]["mse"]) for row in whole.rows], whole.column("mse"), rtol=1e-5
    )


def test_a_script_that_saves_the_model_again_keeps_the_note(made: Prepared, folder: Path) -> None:
    from jptq.hmct.ir import load_model, save_model

    save_model(load_model(folder / "calibrated_model.onnx"), folder / "again.onnx")
    again = ir.load(folder / "again.onnx")
    assert ORIGINALS in again.metadata
    assert ORIGINALS not in without_quantizers(again).metadata
