"""`jptq fit`, and `--fit` of the commands that do it as their first step."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import jptq as package
from jptq import ir
from jptq.api import run as tuning_run
from jptq.quant.originals import absent_constants
from jptq.results import PREPARED_FILE, Fit
from jptq.results.fit import MODES
from jptq.tuning.reference import FLOAT_FILE
from tests.cli.conftest import Ended, Files
from tests.graphs import Graph

Jptq = Callable[..., Ended]

pytestmark = pytest.mark.slow

SAMPLES = 24
MAX = '{"model_config": {"activation": {"calibration_type": "max"}}}'
WRITTEN = {PREPARED_FILE, FLOAT_FILE, "calibrated_model.onnx", "fit.json"}


@pytest.fixture
def files(files: Files) -> Files:
    """Return a network of convolutions on samples whose channels go together."""
    g = Graph(seed=3)
    x = g.input("x", (1, 4, 12, 12))
    y = g.add("Relu", g.conv(x, 4, 16, name="stem"))
    y = g.add("Relu", g.conv(y, 16, 16, name="middle"))
    g.output(g.conv(y, 16, 8, name="head"))
    onnx.save(g.proto(), files.model)
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((4, 2)).astype(np.float32)
    for index in range(SAMPLES):
        shared = rng.standard_normal((2, 12, 12)).astype(np.float32)
        own = rng.standard_normal((4, 12, 12)).astype(np.float32)
        files.sample(index, (np.tensordot(mix, shared, 1) + 0.1 * own)[None])
    return files


@pytest.fixture
def given(files: Files) -> list[str]:
    path = files.folder / "config.json"
    path.write_text(MAX)
    return [*files.flags, f"--quant_config={path}"]


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def run(path: Path, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})
    return np.asarray(found)


def test_fit_writes_the_network_and_the_table_of_its_layers(
    jptq: Jptq, files: Files, given: list[str]
) -> None:
    ended = jptq("fit", *given)
    assert ended.code == 0, ended.err
    assert {p.name for p in Path("fitted_tiny").iterdir()} - {".jptq"} == WRITTEN
    content = json.loads(Path("fitted_tiny/fit.json").read_text())
    fit = Fit.from_json(content["fit"])
    assert fit.kept
    assert fit.fitted < fit.plain
    assert fit.count("weights") >= 2
    for layer in fit.layers:
        if layer.kept == "weights":
            assert layer.fitted < layer.plain
        assert any(all(name in line for name in layer.nodes) for line in ended.out.splitlines())
    assert content["recalibration"]["holds"] is True
    assert content["recalibration"]["elements"] == 4 * 16 * 9 + 16 * 16 * 9 + 16 * 8 * 9
    said = " ".join(ended.out.split())
    assert f"Of 3 layers {fit.count('weights')} with fitted weights" in said
    assert "calibrated again without a fit: all 4,032 integers" in said
    assert max(map(len, ended.out.splitlines())) <= 100
    assert jptq("fit", *given, "--json").out == Path("fitted_tiny/fit.json").read_text()


def test_less_is_lost_with_the_fitted_weights_and_onnxruntime_says_so_too(
    jptq: Jptq, files: Files, given: list[str]
) -> None:
    errors = {}
    x = np.load(files.data / "x" / "000.npy")
    want = run(files.model, x)
    for mode in ("off", "auto"):
        ended = jptq("calibrate", *given, f"--fit={mode}", f"--out={mode}")
        assert ended.code == 0, ended.err
        int16 = jptq("evaluate", f"--model={mode}/calibrated_model.onnx", given[1], "--json")
        assert int16.code == 0, int16.err
        exported = jptq("export", f"--model={mode}/calibrated_model.onnx", f"--out={mode}/qdq")
        assert exported.code == 0, exported.err
        (output,) = json.loads(int16.out)["model"]["comparison"]["outputs"]
        ran = float(np.mean((run(Path(mode) / "qdq" / "qdq_model.onnx", x) - want) ** 2))
        errors[mode] = (output["l2"]["mean"], ran)
        floats = run(Path(mode) / "qdq" / FLOAT_FILE, x)
        np.testing.assert_allclose(floats, want, rtol=1e-4, atol=1e-5)
    assert errors["auto"][0] < errors["off"][0]
    assert errors["auto"][1] < errors["off"][1]


def test_every_way_changes_what_it_says(jptq: Jptq, files: Files, given: list[str]) -> None:
    changed = {}
    for mode in MODES:
        ended = jptq("calibrate", *given, f"--fit={mode}", f"--out={mode}")
        assert ended.code == 0, ended.err
        prepared, floating = (ir.load(Path(mode) / name) for name in (PREPARED_FILE, FLOAT_FILE))
        changed[mode] = {
            value.ndim
            for name, value in prepared.initializers.items()
            if not np.array_equal(value, floating.initializers[name])
        }
        found = json.loads(
            jptq("calibrate", *given, f"--fit={mode}", f"--out={mode}", "--json").out
        )
        assert (found["fit"] is None) == (mode == "off")
        assert ("layers" in ended.out) == (mode != "off")
        assert bool(absent_constants(ir.load(Path(mode) / "calibrated_model.onnx"))) == (
            4 in changed[mode]
        )
    assert changed["off"] == set()
    assert changed["bias"] <= {1}
    assert 4 in changed["auto"]
    assert 4 in changed["weights"]


def test_a_second_run_fits_nothing_anew_and_gives_the_same_bytes(
    jptq: Jptq, files: Files, given: list[str]
) -> None:
    first = jptq("fit", *given, "--out=made")
    before = contents("made")
    second = jptq("fit", *given, "--out=made")
    assert second.out == first.out
    assert contents("made") == before
    fresh = jptq("fit", *given, "--out=fresh")
    assert fresh.code == 0
    assert contents("fresh") == before
    again = jptq("fit", *given, "--out=made", "--noresume")
    assert again.code == 0
    assert contents("made") == before


def test_tune_fits_first_and_reports_it(jptq: Jptq, files: Files, given: list[str]) -> None:
    for mode in ("auto", "off"):
        ended = jptq("tune", *given, "--min_cosine=0.9999", f"--fit={mode}", f"--out={mode}")
        assert ended.code == 0, ended.err
        report = Path(f"{mode}/report.md").read_text()
        assert ("## What was fitted" in report) == (mode == "auto")
        assert ("with fitted weights" in " ".join(ended.out.split())) == (mode == "auto")
        assert (f'onnx.load("{PREPARED_FILE}")' in report) == (mode == "auto")
        result = json.loads(Path(f"{mode}/result.json").read_text())
        assert (result["fit"] is None) == (mode == "off")
        assert result["recalibration"]["holds"] is True
        kept = json.loads(Path(f"{mode}/run.json").read_text())
        assert kept["flags"]["fit"] == mode
    int8 = [
        json.loads(Path(f"{mode}/result.json").read_text())["int8"]["comparison"]["outputs"][0]
        for mode in ("auto", "off")
    ]
    assert int8[0]["l2"]["mean"] < int8[1]["l2"]["mean"]


def test_nothing_is_fitted_where_int8_is_enough(jptq: Jptq, given: list[str]) -> None:
    ended = jptq("tune", *given, "--min_cosine=0.9", "--out=tuned")
    assert ended.code == 0, ended.err
    assert json.loads(Path("tuned/result.json").read_text())["fit"] is None
    prepared, floating = (ir.load(Path("tuned") / name) for name in (PREPARED_FILE, FLOAT_FILE))
    for name, value in prepared.initializers.items():
        np.testing.assert_array_equal(value, floating.initializers[name])


def test_what_was_written_calibrates_to_the_same_network(
    jptq: Jptq, files: Files, given: list[str]
) -> None:
    assert jptq("fit", *given, "--out=made").code == 0
    again = jptq(
        *("calibrate", f"--model=made/{PREPARED_FILE}", *given[1:], "--fit=off", "--out=again")
    )
    assert again.code == 0, again.err
    first, second = (ir.load(Path(out) / "calibrated_model.onnx") for out in ("made", "again"))
    moved = json.loads(Path("made/fit.json").read_text())["recalibration"]["moved"]
    for node, other in zip(first.nodes, second.nodes, strict=True):
        if node.is_calibration and node.name not in {one["name"] for one in moved}:
            assert node.attributes == other.attributes
    for name, value in first.initializers.items():
        np.testing.assert_array_equal(value, second.initializers[name])
    # Beside the network that was given the two are the same, beside itself the second is another.
    reference = f"--reference=made/{FLOAT_FILE}"
    named = jptq("evaluate", "--model=again/calibrated_model.onnx", given[1], reference, "--json")
    own = jptq("evaluate", "--model=made/calibrated_model.onnx", given[1], "--json")
    a, b = (
        json.loads(found.out)["model"]["comparison"]["outputs"][0]["l2"]["mean"]
        for found in (named, own)
    )
    assert a == pytest.approx(b, rel=0.2 if moved else 1e-6)


def test_bad_words_are_refused(jptq: Jptq, given: list[str]) -> None:
    nothing = jptq("fit", *given, "--fit=off")
    assert nothing.code == 2
    assert "--fit=off leaves nothing to do" in nothing.err
    unknown = jptq("calibrate", *given, "--fit=all")
    assert unknown.code == 2
    assert "auto|off|bias|weights" in unknown.err


def test_a_network_that_does_not_come_back_ends_with_three(
    jptq: Jptq, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:

    real = tuning_run.prepared_float

    def damaged(*given: object) -> ir.Model:
        model = real(*given)  # type: ignore[arg-type]
        name = next(n for n, value in model.initializers.items() if value.ndim == 4)
        weights = dict(model.initializers)
        weights[name] = np.float32(1.3) * weights[name]
        return dataclasses.replace(model, initializers=weights)

    monkeypatch.setattr(tuning_run, "prepared_float", damaged)
    ended = jptq("fit", *given)
    assert ended.code == 3
    assert "does not give the same network" in " ".join(ended.out.split())


def test_python_fits_too(files: Files) -> None:
    plain = package.calibrate(files.model, files.data, quant_config=json.loads(MAX))
    assert plain.fit is None
    assert not plain.floats
    fitted = package.calibrate(files.model, files.data, quant_config=json.loads(MAX), fit="auto")
    assert fitted.fit is not None
    assert fitted.fit.kept
    assert fitted.floats
    for one in (plain, fitted):
        (found,) = one.runner.forward(None)(one.samples[0]).values()
        np.testing.assert_allclose(
            found, run(files.model, one.samples[0]["x"]), rtol=1e-4, atol=1e-5
        )
