"""The prepared network that `calibrate` and `tune` write: what is said of it, and what it gives."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from jptq import files as digests
from jptq import ir
from jptq.api import run as tuning_run
from jptq.ir import Model
from jptq.results import PREPARED_FILE
from jptq.tuning.reference import FLOAT_FILE
from tests.cli.conftest import Ended, Files
from tests.tuning.convolutions import network

Jptq = Callable[..., Ended]

pytestmark = pytest.mark.slow


@pytest.fixture
def files(files: Files) -> Files:
    """Return a network of which a bias correction is kept."""
    onnx.save(network().proto(), files.model)
    rng = np.random.default_rng(0)
    for index in range(4):
        files.sample(index, rng.random((1, 3, 8, 8)).astype(np.float32))
    return files


@pytest.fixture
def correcting(files: Files) -> str:
    """Return the flag of a configuration that changes a bias."""
    path = files.folder / "config.json"
    content = {
        "model_config": {
            "activation": {"calibration_type": "max"},
            "weight": {"bias_correction": {"num_sample": 4, "metric": "mse"}},
        }
    }
    path.write_text(json.dumps(content))
    return f"--quant_config={path}"


def different(one: Model, other: Model) -> set[str]:
    return {
        name
        for name, value in one.initializers.items()
        if not np.array_equal(value, other.initializers[name])
    }


def test_calibrate_writes_it_and_says_that_it_gives_the_same(
    jptq: Jptq, files: Files, correcting: str
) -> None:
    ended = jptq("calibrate", *files.flags, correcting, "--out=made")
    assert ended.code == 0, ended.err
    said = " ".join(ended.out.split())
    assert f"{PREPARED_FILE}, calibrated again without a fit: all 654 integers" in said
    assert "are the same." in said
    onnx.checker.check_model(f"made/{PREPARED_FILE}")
    prepared, floating, calibrated = (
        ir.load(Path("made") / name)
        for name in (PREPARED_FILE, FLOAT_FILE, "calibrated_model.onnx")
    )
    biases = different(prepared, floating)
    assert biases
    assert not different(prepared, calibrated)
    found = json.loads(jptq("calibrate", *files.flags, correcting, "--json").out)
    assert found["recalibration"]["holds"] is True
    assert found["recalibration"]["changed"] == len(biases)
    assert found["recalibration"]["elements"] == 654


def test_tune_reports_it_and_its_configuration_is_for_it(
    jptq: Jptq, files: Files, correcting: str
) -> None:
    ended = jptq("tune", *files.flags, correcting, "--min_cosine=0.5", "--out=tuned")
    assert ended.code == 0, ended.err
    assert "calibrated again without a fit: all 654 integers" in " ".join(ended.out.split())
    assert max(map(len, ended.out.splitlines())) <= 100
    report = Path("tuned/report.md").read_text()
    assert f'onnx.load("{PREPARED_FILE}")' in report
    assert f"onnx_model: {PREPARED_FILE}" in report
    assert "## Calibrated again" in report
    config = json.loads(Path("tuned/quant_config.json").read_text())
    assert "weight" not in config["model_config"]
    hashes = json.loads(Path("tuned/run.json").read_text())["hashes"]
    assert hashes["reference"] == digests.digest(Path("tuned") / FLOAT_FILE)
    assert hashes["prepared"] == digests.digest(Path("tuned") / PREPARED_FILE)
    # Calibrating the two files gives the same network, but for the thresholds that are listed.
    again = jptq(
        *("calibrate", f"--model=tuned/{PREPARED_FILE}", files.flags[1]),
        *("--quant_config=tuned/quant_config.json", "--fit=off", "--out=again"),
    )
    assert again.code == 0, again.err
    first, second = (
        ir.load(Path(folder) / "calibrated_model.onnx") for folder in ("tuned", "again")
    )
    assert not different(first, second)
    quantizers = [
        {node.name: node.attributes for node in model.nodes if node.is_calibration}
        for model in (first, second)
    ]
    told = json.loads(Path("tuned/result.json").read_text())["recalibration"]
    assert told["moved"]
    assert {name for name, held in quantizers[0].items() if held != quantizers[1][name]} == {
        one["name"] for one in told["moved"]
    }


def test_without_changes_the_network_that_was_given_is_the_one_to_build(
    jptq: Jptq, files: Files
) -> None:
    ended = jptq("tune", *files.flags, "--min_cosine=0.5", "--fit=off", "--out=tuned")
    assert ended.code == 0, ended.err
    report = Path("tuned/report.md").read_text()
    assert 'onnx.load("tiny.onnx")' in report
    prepared, floating = (ir.load(Path("tuned") / name) for name in (PREPARED_FILE, FLOAT_FILE))
    assert not different(prepared, floating)


def test_a_second_run_does_not_calibrate_again(
    jptq: Jptq, files: Files, correcting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = tuning_run.recalibrated

    def counted(*args: object, **options: object) -> object:
        found = real(*args, **options)  # type: ignore[arg-type]
        calls.append(options["journal"].reused)  # type: ignore[attr-defined]
        return found

    monkeypatch.setattr(tuning_run, "recalibrated", counted)
    command = ("calibrate", *files.flags, correcting, "--out=made")
    first, second = jptq(*command), jptq(*command)
    assert first.out == second.out
    assert calls == [0, 5]  # methods, thresholds, the fit, biases and this


def test_a_file_that_does_not_come_back_is_named_in_every_place(
    jptq: Jptq, files: Files, correcting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ir.save

    def damaged(model: Model, path: Path, **options: object) -> None:
        if Path(path).name == PREPARED_FILE:
            weight = next(name for name, v in model.initializers.items() if v.ndim == 4)
            constants = dict(model.initializers)
            constants[weight] = constants[weight] * np.float32(1.01)
            constants[weight][0, 0, 0] = 0
            model = dataclasses.replace(model, initializers=constants)
        real(model, path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(tuning_run.ir, "save", damaged)
    ended = jptq("tune", *files.flags, correcting, "--min_cosine=0.5", "--out=tuned")
    said = " ".join(ended.out.split())
    assert "does not give the same network" in said
    assert "of 162 integers differ, 6 of 6 scales differ" in said
    report = Path("tuned/report.md").read_text()
    assert "6 of 6 scales differ" in report
    result = json.loads(Path("tuned/result.json").read_text())
    assert result["recalibration"]["holds"] is False
    (wrong,) = result["recalibration"]["wrong"].values()
    assert wrong in said
