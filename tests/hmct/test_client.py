"""Programs written for HMCT run unchanged: `client/` knows the vendor's names and nothing of ours.

The networks are built so that the tuner visits each of its phases: what fails is what INT8, INT16
or INT8 weights cannot hold, by the sizes of the values.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from jptq.cli.main import main
from jptq.hmct.executor import ORTExecutor
from tests.graphs import Graph

LONG = "/backbone/stages.0/blocks.1/attention/projection/activation/Clip"
CLIENT = Path(__file__).parent / "client"
SAMPLES = 3


def gains(first: float) -> np.ndarray:
    """Return factors per channel of [1, 4, 8, 8], of which one is not 1."""
    return np.array([first, 1, 1, 1], np.float32).reshape(1, 4, 1, 1)


def clipped(g: Graph, x: str, index: int, gain: float) -> str:
    """Add a branch whose first channel is `gain` times what is left of it behind Clip."""
    up = g.add("Mul", x, g.constant(gains(gain)), name=f"up_{index}")
    low, high = g.constant(-1.0), g.constant(1.0)
    return g.conv(g.add("Clip", up, low, high, name=f"clip_{index}"), 4, 4, name=f"conv_{index}")


def easy() -> Graph:
    g = Graph(seed=1)
    g.output(g.conv(g.input("x", (1, 4, 8, 8)), 4, 4, name="conv"))
    return g


def outliers() -> Graph:
    """Two outputs; INT8 loses much behind one Clip and a little behind each of two others."""
    g = Graph(seed=1)
    x = g.input("x", (1, 4, 8, 8))
    first = clipped(g, x, 0, 200.0)
    second = clipped(g, clipped(g, x, 1, 70.0), 2, 12.0)
    g.nodes[1].name = LONG  # the table that the tuner reads shortens it
    g.output(first, second)
    return g


def heavy_weights() -> Graph:
    """One weight of each channel is 200 times the others and multiplies next to nothing."""
    g = Graph(seed=1)
    gate = g.add("Mul", g.input("x", (1, 4, 8, 8)), g.constant(gains(1e-3)), name="gate")
    weight = (0.3 * g.rng.standard_normal((4, 4, 3, 3))).astype(np.float32)
    weight[:, 0, 0, 0] = 60
    heavy = g.add("Conv", gate, g.constant(weight), name="heavy", pads=[1] * 4)
    g.output(g.conv(g.add("Relu", heavy, name="relu"), 4, 4, 1, name="light"))
    return g


def wide() -> Graph:
    """Values from 0.1 to 25,000 of which x / (|x| + 0.5) keeps all alike: float16 holds them.

    In INT8 the divisor of what is small is 0: the output is no number.
    """
    g = Graph(seed=1)
    up = g.add("Mul", g.input("x", (1, 4, 8, 8)), g.constant(gains(25_000)), name="up")
    plus = g.add("Add", g.add("Abs", up, name="abs"), g.constant(0.5), name="plus")
    g.output(g.conv(g.add("Div", up, plus, name="squash"), 4, 4, 1, name="mix"))
    return g


@dataclasses.dataclass(frozen=True)
class Ended:
    """What a run of the tuner left behind."""

    code: int
    folder: Path

    @property
    def phases(self) -> list[tuple[str, bool]]:
        """The phases in order, and whether each holds."""
        rows = (self.folder / "tuned" / "tuning_report.md").read_text().splitlines()[4:]
        cells = [[cell.strip() for cell in row.split("|")[1:3]] for row in rows]
        return [(phase, holds == "yes") for phase, holds in cells]

    @property
    def config(self) -> Mapping[str, Mapping[str, Mapping[str, object]]]:
        """The final configuration."""
        found: Mapping[str, Mapping[str, Mapping[str, object]]] = json.loads(
            (self.folder / "tuned" / "final_quant_config.json").read_text()
        )
        return found

    def cosine(self, phase: str) -> float:
        """The least cosine of an output on the first sample, from the phase's file."""
        feeds = {"x": np.load(self.folder / "cali" / "x" / "0.npy")}
        session = onnxruntime.InferenceSession(self.folder / "net.onnx")
        names = [output.name for output in session.get_outputs()]
        floats = session.run(names, feeds)
        calibrated = self.folder / "tuned" / phase / "model_calibrated_model.onnx"
        quantized = ORTExecutor(str(calibrated)).inference(feeds)
        pairs = [(quantized[n].ravel(), f.ravel()) for n, f in zip(names, floats, strict=True)]
        return min(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairs)


Tune = Callable[..., Ended]


def started(program: str, *arguments: str) -> int:
    """Run a program under ``jptq run``; it finds the root logger as a new process has it."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    try:
        return main(["run", str(CLIENT / program), *arguments])
    finally:
        root.handlers = handlers
        root.setLevel(level)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with samples of input x."""
    monkeypatch.setenv("JPTQ_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cali" / "x").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(SAMPLES):
        sample = rng.uniform(-1, 1, (1, 4, 8, 8)).astype(np.float32)
        np.save(tmp_path / "cali" / "x" / f"{index}.npy", sample)
    return tmp_path


@pytest.fixture
def tune(folder: Path) -> Tune:
    """Return the tuner, under ``jptq run``."""

    def run(network: Graph, *arguments: str) -> Ended:
        onnx.save(network.proto(), folder / "net.onnx")
        given = [f"--onnx_path={folder / 'net.onnx'}", f"--cali_data_dir={folder / 'cali'}"]
        given += ["--march=nash-p", f"--work_dir={folder / 'tuned'}"]
        return Ended(started("tuner.py", *given, *arguments), folder)

    return run


PLAIN = ["--calibration_type", "max", "--per_channel", "false", "--asymmetric", "false"]


@pytest.mark.slow
def test_what_int8_loses_is_raised_by_the_first_threshold_that_holds(tune: Tune) -> None:
    ended = tune(outliers(), *PLAIN)
    assert ended.code == 0
    mixed = "output_int8_int16_mixed/threshold"
    assert ended.phases == [
        ("output_int8", False),
        ("output_int16", True),
        (f"{mixed}_0.99", False),
        (f"{mixed}_0.999", True),
    ]
    assert {f"...{LONG[-47:]}", "up_0", "clip_1", "up_1"} <= ended.config["node_config"].keys()
    assert not {"clip_2", "conv_2"} & ended.config["node_config"].keys()
    assert ended.cosine("output_int8") < 0.99 <= ended.cosine(f"{mixed}_0.999")


@pytest.mark.slow
def test_weights_that_int8_cannot_hold_become_dual_int16(tune: Tune) -> None:
    ended = tune(heavy_weights(), *PLAIN)
    assert ended.code == 0
    assert ended.phases == [
        ("output_int8", False),
        ("output_int16", False),
        ("output_dual_int16", True),
        ("output_int16_dual_int16_mixed/threshold_0.99", True),
    ]
    # Both operands by their names, beside an op_config that says dual-int16: the same.
    assert ended.config["node_config"] == {"heavy": {"input0": "int16", "input1": "int16"}}
    assert ended.cosine("output_int16") < 0.9
    assert ended.cosine("output_int16_dual_int16_mixed/threshold_0.99") > 0.9999


@pytest.mark.slow
def test_values_that_int16_cannot_hold_become_float16(tune: Tune) -> None:
    ended = tune(wide(), *PLAIN)
    assert ended.code == 0
    mixed = "output_dual_int16_float16_mixed/threshold_0.99"
    assert ended.phases == [
        ("output_int8", False),
        ("output_int16", False),
        ("output_dual_int16", False),
        ("output_float16", True),
        (mixed, True),
    ]
    float16 = {"qtype": "float16"}
    assert ended.config["node_config"] == dict.fromkeys(("abs", "squash", "plus"), float16)
    assert ended.cosine("output_dual_int16") < 0.98
    assert ended.cosine(mixed) > 0.99


@pytest.mark.slow
def test_every_option_of_the_tuner_reaches_the_build(tune: Tune, folder: Path) -> None:
    """INT8 holds, under a search over all lists; a node that the user fixed stays as it is."""
    fixed = folder / "fixed.json"
    fixed.write_text('{"node_config": {"conv": {"ON": "int16"}}}')
    ended = tune(
        easy(),
        *("--calibration_type", "max", "kl", "--per_channel", "true", "false"),
        *("--asymmetric", "true", "false", "--num_sample", "2", "--bias_correction", "true"),
        # More samples than there are is what the vendor's default of 4 asks of a small set.
        *("--bias_correction_num_sample", "4", "--bias_correction_metric", "mse"),
        f"--node_config_path={fixed}",
    )
    assert ended.code == 0
    assert ended.phases == [("output_int8", True)]
    info = json.loads((folder / "tuned/output_int8/model_quant_info.json").read_text())
    assert info["conv"]["input_qtype"] == ["int16", "int8"]


@pytest.mark.slow
def test_one_call_builds_and_checks_from_files(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    g = Graph(seed=1)
    x = g.input("x", (1, 4, "height", "width"))
    g.output(g.conv(g.conv(x, 4, 4, name="conv"), 4, 4, name="last"))
    onnx.save(g.proto(), folder / "net.onnx")

    def written(name: str, content: object) -> str:
        (folder / name).write_text(json.dumps(content))
        return str(folder / name)

    shapes = written("shapes.json", {"x": {"input_shape": [1, 4, 8, 8]}})
    common = ["--onnx_path", str(folder / "net.onnx"), "--march", "nash-e"]
    common += ["--input_dict_path", shapes]
    types = written("types.json", {"node_config": {"last": {"ON": "int16"}}})
    method = written("method.json", {"calibration_type": "max", "asymmetric": False})
    arguments = ["--cali_data_dir", str(folder / "cali"), "--name_prefix", f"{folder}/out/model"]
    arguments += ["--quant_config_path", types, "--cali_dict_path", method]
    assert started("builder.py", "build", *common, *arguments) == 0
    qtypes = json.loads(capsys.readouterr().out)
    assert qtypes["conv:0_HzCalibration"] == "int16"
    assert qtypes["x_HzCalibration"] == "int8"
    assert (folder / "out" / "model_calibrated_model.onnx").is_file()
    assert started("builder.py", "check", *common) == 0
    assert capsys.readouterr().out == "check: ok\n"
