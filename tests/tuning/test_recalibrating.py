"""The prepared float network, written and calibrated again as a tool does that knows of no fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from jptq import ir
from jptq.ir import HORIZON
from jptq.quant.assign import uniform
from jptq.quant.calibrated import thresholds_of
from jptq.quant.originals import float_constants
from jptq.results import PREPARED_FILE, Recalibration
from jptq.targets.folder import configs
from jptq.tuning import Journal, Prepared, prepare
from jptq.tuning.prepare import assembled
from jptq.tuning.recalibrating import prepared_float, recalibrated
from tests.calibration import masks
from tests.graphs import Graph
from tests.oracles import run_onnx
from tests.tuning.convolutions import prepared, saved
from tests.tuning.refitted import moved, refitted

pytestmark = pytest.mark.slow


def changed(found: Prepared, constants: Mapping[str, np.ndarray]) -> Prepared:
    """Return a prepared network that computes with other constants, as a fit leaves it."""
    model = refitted(found, dict(constants))
    return dataclasses.replace(
        found,
        calibrated=model,
        runner=found.runner.sharing(
            model,
            plan=found.plan,
            changed=constants,
            floats=float_constants(model, found.floating),
        ),
        digest=found.digest + "changed",
    )


def proof(found: Prepared, folder: Path, **options: Any) -> Recalibration:
    ir.save(prepared_float(found), folder / PREPARED_FILE)
    return recalibrated(folder / PREPARED_FILE, found, **options)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def plain(source: Path) -> Prepared:
    return prepared(source, {})


def weights_of(found: Prepared) -> dict[str, np.ndarray]:
    held = found.calibrated.initializers
    tensors = [c.tensor for c in found.plan.calibrations if c.constant]
    return {name: held[name] for name in tensors}


def test_an_unchanged_network_gives_itself(plain: Prepared, tmp_path: Path) -> None:
    found = proof(plain, tmp_path)
    assert found.holds
    weights = weights_of(plain)
    assert found.weights == len(weights) == 5
    assert found.elements == found.same_elements == sum(w.size for w in weights.values())
    assert found.scales == found.same_scales == 6 + 6 + 6 + 6 + 4
    assert found.features == sum(not c.constant for c in plain.plan.calibrations)
    assert found.moved == ()
    assert found.method == "max"
    assert "So are the thresholds of all" in found.sentence


def test_weights_on_their_grid_come_back_whole(plain: Prepared, tmp_path: Path) -> None:
    new = moved(plain)
    found = proof(changed(plain, new), tmp_path)
    assert found.holds, found.wrong
    assert found.same_elements == found.elements
    # They really are other integers than those of the network that was given.
    scale = thresholds_of(plain.calibrated)
    for one in plain.plan.calibrations:
        if one.tensor in new:
            assert one.name in scale
            assert not np.array_equal(new[one.tensor], weights_of(plain)[one.tensor])
    # Other weights give other activations behind them, but the input's threshold stays.
    assert 0 < len(found.moved) < found.features
    assert all(0 < one.change < 1 for one in found.moved)
    changes = [one.change for one in found.moved]
    assert changes == sorted(changes, reverse=True)
    assert f"{len(found.moved)} of {found.features} thresholds" in found.sentence


def test_the_thresholds_that_moved_are_those_of_the_changed_networks_activations(
    plain: Prepared, tmp_path: Path
) -> None:
    fitted = changed(plain, moved(plain))
    found = proof(fitted, tmp_path)
    names = {one.name: one.change for one in found.moved}
    tensors = [c for c in plain.plan.calibrations if not c.constant and c.name in names]
    proto = onnx.load(tmp_path / PREPARED_FILE)
    by_name = {c.tensor: c.name for c in tensors}
    proto.graph.output.extend(
        onnx.helper.make_tensor_value_info(t, onnx.TensorProto.FLOAT, None) for t in by_name
    )
    runs = [run_onnx(proto, dict(plain.samples[i])) for i in range(len(plain.samples))]
    for tensor, name in by_name.items():
        largest = max(float(np.abs(run[tensor]).max()) for run in runs)
        own = float(plain.thresholds[name][0])
        change = abs(largest - own) / max(largest, own)
        assert names[name] == pytest.approx(change, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("what", ["off the grid", "larger than its threshold", "bias"])
def test_what_another_tool_would_not_reproduce_is_named(
    what: str, plain: Prepared, tmp_path: Path
) -> None:
    weight = plain.floating.by_name["stem"].inputs[1]
    bias = plain.floating.by_name["stem"].inputs[2]
    new = moved(plain)
    fitted = changed(plain, new)
    if what == "off the grid":
        values = new[weight].copy()
        values[0, 0, 0, :2] *= np.float32(0.97)
        found = proof(changed(plain, {**new, weight: values}), tmp_path)
        assert f"{weight} (2 of 162 values are off the grid)" in found.sentence
    elif what == "larger than its threshold":
        values = new[weight].copy()
        values[0] *= np.float32(1.5)
        found = proof(changed(plain, {**new, weight: values}), tmp_path)
        assert "1 of 6 scales differ" in found.wrong[weight]
        assert found.same_scales == found.scales - 1
    else:
        ir.save(prepared_float(fitted), tmp_path / PREPARED_FILE)
        proto = onnx.load(tmp_path / PREPARED_FILE)
        (held,) = [one for one in proto.graph.initializer if one.name == bias]
        other = onnx.numpy_helper.to_array(held) + np.float32(1e-3)
        held.CopyFrom(onnx.numpy_helper.from_array(other, bias))
        onnx.save(proto, tmp_path / PREPARED_FILE)
        found = recalibrated(tmp_path / PREPARED_FILE, fitted)
        assert found.wrong == {bias: "another value"}
        assert found.same_constants == found.constants - 1
        assert found.same_elements == found.elements
    assert not found.holds
    assert "does not give the same network" in found.sentence


def test_integers_are_compared_under_the_final_types(plain: Prepared, tmp_path: Path) -> None:
    fitted = changed(plain, moved(plain))
    int16 = dict.fromkeys(uniform(plain.plan, "int8"), "int16")
    found = proof(fitted, tmp_path, assignment=int16)
    assert found.holds, found.wrong
    off = {**int16, plain.plan.of_node("stem").inputs[1]: "float32"}
    fewer = proof(fitted, tmp_path, assignment=off)
    assert fewer.weights == found.weights - 1


def test_the_answer_is_kept_and_belongs_to_the_file(plain: Prepared, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "kept")
    fitted = changed(plain, moved(plain))
    first = proof(fitted, tmp_path, journal=journal)
    assert journal.reused == 0
    assert proof(fitted, tmp_path, journal=journal) == first
    assert journal.reused == 1
    proof(changed(plain, moved(plain, seed=1)), tmp_path, journal=journal)
    assert journal.reused == 1


def test_no_program_is_compiled_for_it_after_a_calibration(plain: Prepared, tmp_path: Path) -> None:
    fitted = changed(plain, moved(plain))
    before = dict(plain.runner.compilations.counts)
    proof(fitted, tmp_path)
    assert plain.runner.compilations.counts == before


def test_corrected_biases_ship_and_are_not_corrected_again(source: Path, tmp_path: Path) -> None:
    settings = {"weight": {"bias_correction": {"num_sample": 4, "metric": "mse"}}}
    corrected = prepared(source, settings)
    assert corrected.floats
    found = proof(corrected, tmp_path)
    assert found.holds, found.wrong
    written = ir.load(tmp_path / PREPARED_FILE)
    for name in corrected.floats:
        np.testing.assert_array_equal(
            written.initializers[name], corrected.calibrated.initializers[name]
        )


def test_the_file_is_standard_onnx_that_computes_with_the_changed_constants(
    tmp_path: Path,
) -> None:
    g = Graph(seed=7)
    x = g.input("x", (1, 3, 8, 8))
    y = g.conv(x, 3, 6, name="stem")
    y = g.add("Mul", y, g.add("Sigmoid", y), name="swish")
    g.output(g.conv(y, 6, 4, name="head"))
    onnx.save(g.proto(), tmp_path / "model.onnx")
    (tmp_path / "data").mkdir()
    sample = np.random.default_rng(0).random((1, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "data" / "0.npy", sample)
    plain = prepared(tmp_path, {})
    assert any(node.domain == HORIZON for node in plain.floating.nodes)
    fitted = changed(plain, moved(plain))
    found = proof(fitted, tmp_path)
    assert found.holds, found.wrong
    written = onnx.load(tmp_path / PREPARED_FILE)
    onnx.checker.check_model(written)
    assert {entry.domain for entry in written.opset_import} == {""}
    assert written.ir_version <= 9
    assert max(entry.version for entry in written.opset_import) <= 20
    (ran,) = run_onnx(written, {"x": sample}).values()
    network = fitted.runner.sharing(fitted.calibrated, plan=fitted.plan)  # no floats: its own
    (own,) = network.forward(None)({"x": sample}).values()
    np.testing.assert_allclose(ran, own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("node", ["stem", "first", "up"])
def test_operators_that_were_split_for_ec_are_whole_in_the_file(
    node: str, source: Path, tmp_path: Path
) -> None:
    config = {
        "model_config": {"activation": {"calibration_type": "max"}},
        "node_config": {node: {"input1": "ec"}},
    }
    split = prepare(source / "model.onnx", source / "data", march="nash-e", quant_config=config)
    assert any(name.endswith("_split_add") for name in split.floating.by_name)
    written = prepared_float(split)
    assert not any("_split_" in name for name in written.by_name)
    found = proof(split, tmp_path)
    assert found.holds, found.wrong
    assert found.moved == ()
    assert {one.name for one in found.stopped} <= {one.calibration for one in split.limits}


@pytest.mark.parametrize("kind", ["constant", "input"])
def test_thresholds_that_no_plain_calibration_finds_are_told_from_the_others(
    kind: str, tmp_path: Path
) -> None:
    proto = masks.attention(kind, masks.LOWEST).proto()
    made = masks.calibrated(tmp_path / "net", proto, masks.samples(kind, masks.LOWEST, count=4))
    limits = {one.calibration for one in made.limits}
    assert limits
    found = proof(made, tmp_path)
    assert found.holds, found.wrong
    assert {one.name for one in found.moved} & limits == set()
    assert {one.name for one in found.stopped} <= limits
    largest = max((one.change for one in found.stopped), default=0.0)
    if kind == "constant":  # written shorter in the file, so that any calibration stops
        assert found.changed == 1
        assert largest < 0.9
    else:
        assert largest > 0.999
        assert "stop where no reader tells larger values apart" in found.sentence


def test_a_threshold_that_is_tied_to_one_that_stops_stops_with_it(tmp_path: Path) -> None:
    g = Graph(seed=1)
    x = g.input("x", (1, 3, 8, 8))
    wide = g.conv(x, 3, 4, name="wide")
    narrow = g.add("Conv", x, g.random(4, 3, 1, 1, scale=1e-3), name="narrow")
    y = g.add("Concat", wide, narrow, axis=1, name="join")
    g.output(g.add("Sigmoid", g.conv(g.add("Sigmoid", y), 8, 4, name="head")))
    rng = np.random.default_rng(0)
    feeds = [{"x": (90 * rng.standard_normal((1, 3, 8, 8))).astype(np.float32)} for _ in range(3)]
    made = masks.calibrated(tmp_path / "net", g.proto(), feeds)
    limits = {one.calibration for one in made.limits}
    found = proof(made, tmp_path)
    assert found.moved == ()
    assert {one.name for one in found.stopped} - limits == {"narrow:0_HzCalibration"}
    assert "wide:0_HzCalibration" in limits


def test_searched_features_are_not_compared_and_that_is_said(source: Path, tmp_path: Path) -> None:
    mixed = prepared(source, {"activation": {"calibration_type": "mix"}})
    found = proof(mixed, tmp_path)
    assert found.holds
    assert found.features == 0
    assert "Thresholds of features were not compared: each was searched" in found.sentence


def test_the_demonstration_network_comes_back_whole(tmp_path: Path) -> None:
    plain = prepare(
        configs("demo") / "model.onnx",
        configs("demo") / "calibration_data",
        march="nash-e",
        quant_config={"model_config": {"activation": {"calibration_type": "max"}}},
        limit=2,
    )
    found = proof(changed(plain, moved(plain)), tmp_path)
    assert found.holds, found.wrong
    assert found.elements > 10_000
    assert Recalibration.from_json(found.to_json()) == found


def test_assembled_is_what_gives_the_float_constants(plain: Prepared) -> None:
    fitted = changed(plain, moved(plain))
    again = assembled(
        Path("model.onnx"),
        plain.target,
        plain.config,
        plain.floating,
        fitted.calibrated,
        plain.samples,
        method=plain.method,
        batching=None,
        measured_latency=None,
        identity="",
        make=fitted.runner.__class__,
    )
    (own,) = again.runner.forward(None)(plain.samples[0]).values()
    (want,) = plain.runner.forward(None)(plain.samples[0]).values()
    np.testing.assert_array_equal(own, want)
