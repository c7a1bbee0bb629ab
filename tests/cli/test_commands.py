"""Each command once on a tiny network, checked against other programs where there are any."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from jptq.api import steps
from jptq.ir import load
from tests.cli.conftest import Ended, Files
from tests.graphs import Graph

Jptq = Callable[..., Ended]

pytestmark = pytest.mark.slow


@pytest.fixture
def max_config(files: Files) -> str:
    """Return the flag of a configuration that needs no search for thresholds."""
    path = files.folder / "config.json"
    path.write_text('{"model_config": {"activation": {"calibration_type": "max"}}}')
    return f"--quant_config={path}"


@pytest.fixture
def calibrated(jptq: Jptq, files: Files, max_config: str) -> Path:
    """Return the tiny network, calibrated by the command."""
    out = files.folder / "calibrated"
    ended = jptq("calibrate", *files.flags, max_config, f"--out={out}")
    assert ended.code == 0, ended.err
    return out / "calibrated_model.onnx"


def onnx_outputs(path: Path, files: Files) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    samples = (np.load(path) for path in sorted((files.data / "x").iterdir()))
    return [session.run(None, {"x": sample})[0] for sample in samples]


def test_calibrate_writes_both_models_and_counts_the_quantizers(
    jptq: Jptq, files: Files, max_config: str
) -> None:
    ended = jptq("calibrate", *files.flags, max_config)
    assert ended.code == 0
    assert "max over 4 samples" in ended.out
    assert "2 on weights" in ended.out
    model = load(Path("calibrated_tiny") / "calibrated_model.onnx")
    quantizers = [node for node in model.nodes if node.is_calibration]
    assert all("thresholds" in node.attributes for node in quantizers)
    assert f"({len(quantizers)} int8)" in ended.out
    np.testing.assert_allclose(
        onnx_outputs(Path("calibrated_tiny") / "optimized_float_model.onnx", files),
        onnx_outputs(files.model, files),
        rtol=1e-5,
        atol=1e-6,
    )


def test_calibrate_prints_json(jptq: Jptq, files: Files, max_config: str) -> None:
    content = json.loads(jptq("calibrate", *files.flags, max_config, "--json").out)
    assert content["method"] == "max"
    assert content["quantizers"]["weight"] == 2


def test_export_gives_what_evaluate_measures(jptq: Jptq, files: Files, calibrated: Path) -> None:
    out = files.folder / "exported"
    ended = jptq("export", f"--model={calibrated}", f"--out={out}")
    assert ended.code == 0, ended.err
    floats = onnx_outputs(out / "optimized_float_model.onnx", files)
    quantized = onnx_outputs(out / "qdq_model.onnx", files)
    np.testing.assert_allclose(floats, onnx_outputs(files.model, files), rtol=1e-5, atol=1e-6)
    cosines = [
        float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
        for a, b in zip(floats, quantized, strict=True)
    ]
    ended = jptq("evaluate", f"--model={calibrated}", files.flags[1], "--json")
    (measured,) = json.loads(ended.out)["model"]["comparison"]["outputs"]
    assert measured["cosine"]["mean"] == pytest.approx(np.mean(cosines), abs=2e-4)
    assert measured["cosine"]["min"] == pytest.approx(min(cosines), abs=2e-4)


def test_evaluate_scores_with_the_evaluator_of_the_user(
    jptq: Jptq, files: Files, calibrated: Path
) -> None:
    script = files.folder / "score.py"
    script.write_text(
        "import numpy as np\n"
        "def worth(forward):\n"
        "    y = forward({'x': np.ones((3, 2, 6, 6), np.float32)})\n"
        "    return {'mean': float(np.mean(np.abs(next(iter(y.values())))))}\n"
    )
    ended = jptq("evaluate", f"--model={calibrated}", files.flags[1], f"--evaluator={script}:worth")
    assert ended.code == 0, ended.err
    assert "share of float" in ended.out
    session = onnxruntime.InferenceSession(files.model, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": np.ones((1, 2, 6, 6), np.float32)})
    assert f"{np.mean(np.abs(expected)):.4f}" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 100


def test_sensitivity_of_a_float_and_of_its_calibrated_model_are_the_same(
    jptq: Jptq, files: Files, calibrated: Path, max_config: str
) -> None:
    of_float = jptq("sensitivity", *files.flags, max_config, "--metric=mse,sqnr")
    of_calibrated = jptq(
        "sensitivity", f"--model={calibrated}", files.flags[1], "--metric=mse,sqnr"
    )
    assert of_float.code == of_calibrated.code == 0, of_float.err
    assert of_float.out == of_calibrated.out
    assert "node sensitivity" in of_float.out
    assert {"stem", "head"} <= {line.split()[0] for line in of_float.out.splitlines() if line}


def test_the_naive_sweep_agrees_with_the_fast_one(
    jptq: Jptq, files: Files, calibrated: Path
) -> None:
    tables = []
    for sweep in ("fast", "naive"):
        out = files.folder / sweep
        flags = (f"--model={calibrated}", files.flags[1], f"--sweep={sweep}", "--metric=mse")
        assert jptq("sensitivity", *flags, f"--out={out}").code == 0
        tables.append(json.loads((out / "sensitivity.json").read_text())["rows"])
    fast, naive = tables
    assert [row["name"] for row in fast] == [row["name"] for row in naive]
    np.testing.assert_allclose(
        [row["score"] for row in fast], [row["score"] for row in naive], rtol=1e-2
    )


@pytest.mark.parametrize(("kind", "columns"), [("weight", 3), ("activation", 5)])
def test_quantizers_are_printed_with_their_node(
    jptq: Jptq, files: Files, calibrated: Path, kind: str, columns: int
) -> None:
    ended = jptq("sensitivity", f"--model={calibrated}", files.flags[1], f"--kind={kind}")
    assert ended.code == 0, ended.err
    header = next(line for line in ended.out.splitlines() if line.startswith(kind))
    assert len(header.split()) == columns
    assert header.split()[1] == "node"


def test_an_output_node_takes_the_place_of_the_outputs(
    jptq: Jptq, files: Files, calibrated: Path
) -> None:
    flags = (f"--model={calibrated}", files.flags[1], "--metric=mse", "--json")
    ended = jptq("sensitivity", *flags, "--output_node=stem")
    assert ended.code == 0, ended.err
    (table,) = json.loads(ended.out)["tables"]
    assert [row["name"] for row in table["rows"]] == ["stem"]


def test_an_unknown_output_node_names_the_nearest(
    jptq: Jptq, files: Files, calibrated: Path
) -> None:
    ended = jptq("sensitivity", f"--model={calibrated}", files.flags[1], "--output_node=stam")
    assert ended.code == 2
    assert "'stem'" in ended.err


def test_compare_shows_every_method_beside_the_exact_one(
    jptq: Jptq, files: Files, calibrated: Path
) -> None:
    flags = (f"--model={calibrated}", files.flags[1], "--method=probe", "--compare")
    ended = jptq("sensitivity", *flags)
    assert ended.code == 0, ended.err
    assert "Agreement with the exact ranking" in ended.out
    lines = [line.split() for line in ended.out.splitlines() if line.strip()]
    assert [line[0] for line in lines if line[0] in ("probe", "metric")] == ["probe", "metric"]


def test_compare_sweeps_exactly_once(
    jptq: Jptq, files: Files, calibrated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked: list[tuple[str, ...]] = []
    rank_nodes = steps.rank_nodes

    def counted(*args: Any, **options: Any) -> Any:
        if options["method"] == "metric":
            ranked.append(tuple(options["metrics"]))
        return rank_nodes(*args, **options)

    monkeypatch.setattr(steps, "rank_nodes", counted)
    flags = (f"--model={calibrated}", files.flags[1], "--method=metric,probe", "--compare")
    ended = jptq("sensitivity", *flags, "--json")
    assert ended.code == 0, ended.err
    # A second sweep would find its programs compiled, and every other method slow beside it.
    assert ranked == [("cosine-similarity", "mse")]
    found = json.loads(ended.out)
    assert [table["metrics"] for table in found["tables"]] == [["cosine-similarity"], ["mse"]]


def test_a_fixed_input_needs_no_samples_in_any_command(
    jptq: Jptq, tmp_path: Path, max_config: str
) -> None:
    g = Graph()
    x = g.input("x", (1, 2, 6, 6))
    size = g.input("size", (4,), onnx.TensorProto.INT64)
    g.output(g.add("Relu", g.add("Reshape", g.conv(x, 2, 4, name="stem"), size)))
    model, data = tmp_path / "switched.onnx", tmp_path / "x_only"
    onnx.save(g.proto(), model)
    data.mkdir()
    for index in range(2):
        sample = np.random.default_rng(index).standard_normal((1, 2, 6, 6))
        np.save(data / f"{index}.npy", sample.astype(np.float32))
    fixed = (f"--model={model}", "--input_value=size:1,4,12,3")
    fed = (*fixed, f"--calibration_data={data}", max_config)
    for command in (
        ("tune", *fed, "--out=tuned"),
        ("calibrate", *fed, "--out=calibrated"),
        ("sensitivity", *fed),
        ("evaluate", *fed),
        ("latency", *fixed),
        ("config", "explain", *fixed, max_config),
    ):
        ended = jptq(*command)
        assert ended.code == 0, (command, ended.err)
    for folder in ("tuned", "calibrated"):
        found = load(f"{folder}/calibrated_model.onnx")
        assert found.input_names == ("x",)
        assert found.outputs[0].shape == (1, 4, 12, 3)
    # The calibrated model has no such input any more.
    again = jptq("evaluate", "--model=tuned/calibrated_model.onnx", *fed[1:3])
    assert again.code == 2
    assert "--input_value with a model that is calibrated already" in again.err


def test_latency_needs_no_data_and_names_what_is_assumed(jptq: Jptq, files: Files) -> None:
    ended = jptq("latency", files.flags[0], "--out=latency")
    assert ended.code == 0, ended.err
    assert "int16_factor 2" in ended.out
    table = json.loads(Path("latency/latency.json").read_text())
    total = sum(node["time_us"]["int8"] for node in table["nodes"])
    assert f"{total:,.1f}" in ended.out


def test_own_times_replace_the_models(jptq: Jptq, files: Files) -> None:
    path = files.folder / "times.csv"
    path.write_text("node,int8_us,int16_us\nstem,1000,3000\n")
    ended = jptq("latency", files.flags[0], f"--latency_table={path}", "--json")
    nodes = {node["node"]: node for node in json.loads(ended.out)["nodes"]}
    assert nodes["stem"]["time_us"]["int8"] == 1000
    assert nodes["stem"]["source"] == "measured"
    assert nodes["head"]["source"] == "modelled"


def test_a_front_and_a_budget_come_of_a_table_of_groups(
    jptq: Jptq, files: Files, calibrated: Path
) -> None:
    out = files.folder / "groups"
    flags = (f"--model={calibrated}", files.flags[1], "--kind=group", f"--out={out}")
    assert jptq("sensitivity", *flags).code == 0
    common = (f"--model={calibrated}", f"--sensitivity={out / 'sensitivity.json'}")
    front = json.loads(jptq("allocate", *common, "--json").out)
    errors = [point["predicted_error"] for point in front]
    times = [point["time_us"] for point in front]
    assert errors == sorted(errors, reverse=True)
    assert times == sorted(times)
    ended = jptq("allocate", *common, "--latency_budget_ratio=2", "--out=chosen")
    assert ended.code == 0, ended.err
    assert "Predicted" in ended.out
    assert json.loads(Path("chosen/quant_config.json").read_text())
    ended = jptq("allocate", *common, "--latency_budget_ratio=0.5")
    assert ended.code == 4
    assert f"{times[0]:,.1f}" in ended.out
    ended = jptq("allocate", *common, "--latency_budget_ratio=0.5", "--json")
    assert ended.code == 4
    assert json.loads(ended.out)["least_us"] == times[0]
    ended = jptq("allocate", *common, f"--latency_budget_us={times[0] * (1 - 1e-10)!r}", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)[0]["time_us"] == times[0]


def test_errors_are_allocated_to_the_network_that_they_are_of(
    jptq: Jptq, files: Files, calibrated: Path, max_config: str
) -> None:
    flags = (f"--model={calibrated}", files.flags[1], "--kind=group", "--out=ranked")
    assert jptq("sensitivity", *flags).code == 0
    errors = "--sensitivity=ranked/sensitivity.json"
    ended = jptq(
        "allocate", files.flags[0], errors, max_config, "--latency_budget_ratio=2", "--out=chosen"
    )
    assert ended.code == 0, ended.err
    kept = json.loads(Path("chosen/quant_config.json").read_text())["model_config"]["activation"]
    assert kept["calibration_type"] == "max"
    model = onnx.load(calibrated)
    weight = next(one for one in model.graph.initializer if len(one.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 2, weight.name))
    onnx.save(model, "other.onnx")
    ended = jptq("allocate", "--model=other.onnx", errors)
    assert ended.code == 2
    assert "another network" in ended.err


@pytest.mark.parametrize("flag", ["--latency_budget_us=inf", "--min_score=nan", "--time_limit=nan"])
def test_numbers_that_are_not_finite_are_refused(jptq: Jptq, files: Files, flag: str) -> None:
    ended = jptq("tune", *files.flags, flag)
    assert ended.code == 2
    assert "not a finite number" in ended.err
    ended = jptq("sweep", *files.flags, "--thresholds=0.9,nan")
    assert ended.code == 2
    assert "'nan' is not a number" in ended.err


def test_measured_times_are_not_called_modelled(jptq: Jptq, files: Files, calibrated: Path) -> None:
    path = files.folder / "some_times.csv"
    path.write_text("node,int8_us,int16_us\nstem,10,30\n")
    flags = (f"--model={calibrated}", files.flags[1], f"--latency_table={path}")
    ended = jptq("evaluate", *flags)
    assert "(measured in part)" in ended.out
    assert "modelled" not in ended.out


def test_a_table_of_nodes_cannot_be_allocated_by(
    jptq: Jptq, files: Files, calibrated: Path
) -> None:
    flags = (f"--model={calibrated}", files.flags[1], "--out=nodes")
    assert jptq("sensitivity", *flags).code == 0
    ended = jptq("allocate", f"--model={calibrated}", "--sensitivity=nodes/sensitivity.json")
    assert ended.code == 2
    assert "--kind=group" in ended.err


def test_a_calibrated_model_takes_no_configuration(
    jptq: Jptq, files: Files, calibrated: Path, max_config: str
) -> None:
    ended = jptq("evaluate", f"--model={calibrated}", files.flags[1], max_config)
    assert ended.code == 2
    assert "calibrated already" in ended.err


def test_export_checks_the_file_in_both_kinds_of_session(
    jptq: Jptq, files: Files, calibrated: Path
) -> None:
    ended = jptq("export", f"--model={calibrated}", "--check", files.flags[1])
    assert ended.code == 0, ended.err
    assert "cosine, unoptimized" in ended.out
    assert "agrees with the quantized forward over 4 samples" in " ".join(ended.out.split())
    ended = jptq("export", f"--model={calibrated}", "--check")
    assert ended.code == 2
    assert "--check needs --calibration_data" in ended.err


def test_a_check_without_onnxruntime_says_how_to_get_it(
    jptq: Jptq, files: Files, calibrated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ended = jptq("export", f"--model={calibrated}", "--check", files.flags[1])
    assert ended.code == 0, ended.err
    assert "pip install onnxruntime" in ended.out


def test_export_of_a_float_model_points_to_calibrate(jptq: Jptq, files: Files) -> None:
    ended = jptq("export", files.flags[0])
    assert ended.code == 2
    assert "jptq calibrate" in ended.err
    assert not list(Path.cwd().iterdir())


def test_the_exported_model_passes_the_checker(jptq: Jptq, files: Files, calibrated: Path) -> None:
    assert jptq("export", f"--model={calibrated}", "--out=exported").code == 0
    onnx.checker.check_model(Path("exported/qdq_model.onnx"), full_check=True)
