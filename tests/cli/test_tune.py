"""`jptq tune` from the first flag to the last file, interrupted and resumed too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from jptq import files as atomic
from jptq.api import run as tuning_run
from jptq.errors import StorageError
from tests.cli.conftest import Ended, Files

Jptq = Callable[..., Ended]

pytestmark = pytest.mark.slow

RESULTS = {
    "calibrated_model.onnx",
    "latency.json",
    "optimized_float_model.onnx",
    "outputs.png",
    "pareto.json",
    "pareto.png",
    "prepared_float_model.onnx",
    "qdq_model.onnx",
    "quant_config.json",
    "ranking.png",
    "report.md",
    "result.json",
    "run.json",
    "sensitivity.json",
}

SCORE = """
import numpy as np

def evaluate(forward):
    x = np.random.default_rng(1).standard_normal((4, 2, 6, 6)).astype(np.float32)
    y = forward({"x": x})
    return float(np.mean(np.exp(-np.abs(next(iter(y.values()))))))
"""


@pytest.fixture
def score(files: Files) -> str:
    path = files.folder / "score.py"
    path.write_text(SCORE)
    return f"--evaluator={path}"


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files that must be the same in two equal runs."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and path.name != "run.json"
    }


def test_a_met_goal_ends_with_zero_and_writes_every_file(
    jptq: Jptq, files: Files, score: str
) -> None:
    ended = jptq("tune", *files.flags, score, "--min_score=0.5", "--out=tuned")
    assert ended.code == 0, ended.err
    assert {path.name for path in Path("tuned").iterdir()} - {".jptq"} == RESULTS
    assert "Goal met" in ended.out
    checked = json.loads(Path("tuned/result.json").read_text())["onnxruntime"]
    assert checked["agrees"] is True
    assert "agrees with the quantized forward" in " ".join(ended.out.split())
    assert "## In onnxruntime" in Path("tuned/report.md").read_text()
    assert max(map(len, ended.out.splitlines())) <= 100
    assert "jptq: " not in ended.err
    onnx.checker.check_model("tuned/qdq_model.onnx")
    kept = json.loads(Path("tuned/run.json").read_text())
    assert all(kept["hashes"][name] for name in ("model_file", "model", "data", "target"))
    assert 0 < kept["seconds"]["calibrate"] < kept["seconds"]["all"]
    flags = kept["flags"]
    assert flags["min_score"] == 0.5


def test_json_prints_the_result_file(jptq: Jptq, files: Files) -> None:
    ended = jptq("tune", *files.flags, "--min_cosine=0.5", "--json")
    assert ended.code == 0, ended.err
    assert ended.out == Path("tuned_tiny/result.json").read_text()


def test_a_goal_out_of_reach_ends_with_three_and_still_writes(jptq: Jptq, files: Files) -> None:
    ended = jptq("tune", *files.flags, "--min_cosine=1.0", "--out=tuned")
    assert ended.code == 3, ended.err
    assert {path.name for path in Path("tuned").iterdir()} - {".jptq"} == RESULTS


def test_a_budget_below_the_least_latency_ends_with_four(jptq: Jptq, files: Files) -> None:
    ended = jptq("tune", *files.flags, "--latency_budget_ratio=0.5", "--out=tuned")
    assert ended.code == 4, ended.err
    assert "least" in ended.out


def test_no_time_ends_with_five_and_the_best_so_far(jptq: Jptq, files: Files) -> None:
    ended = jptq("tune", *files.flags, "--min_cosine=1.0", "--time_limit=0.001", "--out=tuned")
    assert ended.code == 5, ended.err
    assert Path("tuned/report.md").is_file()


def test_a_full_disk_leaves_no_half_written_file(
    jptq: Jptq, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = atomic.write_text

    def full(path: Path, content: str) -> None:
        if path.name == "result.json":
            with atomic.atomic_path(path) as temporary:
                temporary.write_text("{")
                raise OSError(28, os.strerror(28))
        real(path, content)

    monkeypatch.setattr(tuning_run.files, "write_text", full)
    ended = jptq("tune", *files.flags, "--min_cosine=0.5", "--out=tuned")
    assert ended.code == StorageError.exit_code
    assert "cannot write tuned/result.json" in ended.err
    assert "free space" in ended.err
    names = {path.name for path in Path("tuned").iterdir()}
    assert names < RESULTS | {".jptq"}
    assert not {"result.json", "report.md", "run.json"} & names


class Waiting:
    """An evaluator that counts its calls, and waits in one once told to."""

    def __init__(self, files: Files) -> None:
        self.started = files.folder / "waiting"
        self.calls = files.folder / "calls"
        script = files.folder / "score.py"
        script.write_text(
            "import os, time\nfrom pathlib import Path\n"
            + SCORE.replace(
                "    y = forward",
                "    calls = Path(os.environ['CALLS'])\n"
                "    calls.write_text(calls.read_text() + '.')\n"
                "    if len(calls.read_text()) == int(os.environ['STOP_AT']):\n"
                "        Path(os.environ['WAITING']).touch()\n"
                "        time.sleep(600)\n"
                "    y = forward",
            )
        )
        self.command = ["tune", *files.flags, f"--evaluator={script}", "--min_score=0.9999"]

    def environment(self, *, stop_at: int) -> dict[str, str]:
        """Begin to count, and return what the evaluator reads."""
        self.calls.write_text("")
        return {"CALLS": str(self.calls), "STOP_AT": str(stop_at), "WAITING": str(self.started)}

    def stopped(self, out: Path, number: signal.Signals, *, stop_at: int) -> tuple[int, str, str]:
        """Tune in a process of its own, and send it a signal once it waits in the evaluator."""
        # What a shell starts in the background ignores SIGINT, and so would its children.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            [sys.executable, "-m", "jptq", *self.command, f"--out={out}"],
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[2]),
                **self.environment(stop_at=stop_at),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        signal.signal(signal.SIGINT, before)
        deadline = time.monotonic() + 200
        while not self.started.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        printed, err = process.communicate(timeout=300)
        self.started.unlink()
        return process.returncode, printed, err


def test_a_run_that_is_killed_again_and_again_goes_on_and_ends_with_the_same_bytes(
    jptq: Jptq, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    waiting = Waiting(files)

    def undisturbed(out: Path) -> tuple[int, int]:
        """Tune to the end, and return the exit code and how often the evaluator was called."""
        for name, value in waiting.environment(stop_at=0).items():
            monkeypatch.setenv(name, value)
        ended = jptq(*waiting.command, f"--out={out}")
        return ended.code, len(waiting.calls.read_text())

    code, calls = undisturbed(whole)
    assert calls >= 5
    # Float, twice, and all-INT8 come first; a resumed run scores only float again before it goes
    # on: has what the evaluator reads changed?
    for number, wanted, stop_at in (
        (signal.SIGINT, 130, 4),
        (signal.SIGTERM, 143, 2),
        (signal.SIGKILL, -signal.SIGKILL, 2),
    ):
        returned, out, err = waiting.stopped(resumed, number, stop_at=stop_at)
        assert returned == wanted
        assert out == ""
        if number is not signal.SIGKILL:
            assert sum(line.startswith("jptq: ") for line in err.splitlines()) == 1
            assert "what is finished is kept" in err
        assert {path.name for path in resumed.iterdir()} == {".jptq"}
    assert undisturbed(resumed) == (code, calls - 3 + 1)
    assert contents(resumed) == contents(whole)
