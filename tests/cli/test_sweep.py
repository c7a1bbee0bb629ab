"""`jptq sweep` and `jptq diagnose` on a tiny network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ended, Files

Jptq = Callable[..., Ended]

pytestmark = pytest.mark.slow

SCORE = """
import numpy as np

def evaluate(forward):
    x = np.random.default_rng(1).standard_normal((6, 2, 6, 6)).astype(np.float32)
    y = next(iter(forward({"x": x}).values()))
    return {"det": float(np.mean(np.exp(-np.abs(y)))), "seg": float(np.mean(np.abs(y)))}
"""


@pytest.fixture
def config(files: Files) -> str:
    path = files.folder / "config.json"
    path.write_text('{"model_config": {"activation": {"calibration_type": "max"}}}')
    return f"--quant_config={path}"


@pytest.fixture
def score(files: Files) -> str:
    path = files.folder / "score.py"
    path.write_text(SCORE)
    return f"--evaluator={path}"


def test_a_sweep_prints_its_rows_and_the_configuration_of_the_one_it_takes(
    jptq: Jptq, files: Files, config: str
) -> None:
    bound = ("--min_cosine=0.9999999", "--metric=mse", "--thresholds=1e9,0")
    ended = jptq("sweep", *files.flags, config, *bound, "--spread", "--out=swept")
    assert ended.code in (0, 3), ended.err
    lines = ended.out.splitlines()
    assert lines[0].startswith("No.  mse (>=)")
    assert "Gemm" not in lines[0]
    assert [line.split()[1] for line in lines[2:5]] == ["None", "1000000000.0", "0.0"]
    assert "head:0 Min" in lines[0]
    assert json.loads(ended.out[ended.out.index("{") :]) == json.loads(
        Path("swept/quant_config.json").read_text()
    )
    stored = json.loads(Path("swept/sweep.json").read_text())
    assert [row["threshold"] for row in stored["rows"]] == [None, 1e9, 0.0]
    assert stored["rows"][1]["nodes"] == []
    assert set(stored["rows"][2]["nodes"]) >= {"stem", "head"}
    second = jptq(
        "sweep", "--model=swept/calibrated_model.onnx", files.flags[1], "--min_cosine=0", "--json"
    )
    assert second.code == 0, second.err
    assert json.loads(second.out)["chosen"] == 0


def test_a_second_sweep_reuses_the_first(jptq: Jptq, files: Files, config: str, score: str) -> None:
    flags = ("sweep", *files.flags, config, score, "--min_score=2", "--out=swept", "--json")
    first = jptq(*flags)
    assert first.code == 3
    (files.folder / "score.py").write_text(SCORE)
    second = jptq(*flags)
    assert second.out == first.out
    assert len(list(Path("swept/.jptq").iterdir())) > 3


def test_a_diagnosis_names_the_type_and_prints_the_scores(
    jptq: Jptq, files: Files, config: str, score: str
) -> None:
    ended = jptq("diagnose", *files.flags, config, score, "--min_score=1.5", "--out=told")
    assert ended.code == 0, ended.err
    assert "Problem type 3" in ended.out
    assert "INT8 under all-INT16: stem.input1" in ended.out
    assert "tiny_det" in ended.out
    assert "calibrated by max" in ended.out
    told = json.loads(Path("told/diagnosis.json").read_text())
    assert told["type"] == 3
    assert [one["slots"] for one in told["leftovers"]]
    fine = jptq("diagnose", *files.flags, config, "--min_cosine=0.5", "--subgraph", "--json")
    assert fine.code == 0, fine.err
    assert json.loads(fine.out)["type"] == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--thresholds=0.9,high",), "'high' is not a number"),
        (("--metric=mse,sqnr",), "--metric takes one value"),
        (("--metric=cosine",), "cosine-similarity"),
        (("--min_score=0.9",), "--min_score needs --evaluator"),
        (("--output_node=stemm",), "did you mean 'stem'"),
        (("--min_cosine=1.5",), "above 1"),
    ],
)
def test_wrong_usage_is_told_in_a_line(
    jptq: Jptq, files: Files, config: str, flags: tuple[str, ...], said: str
) -> None:
    ended = jptq("sweep", *files.flags, config, *flags)
    assert ended.code == 2
    assert said in ended.err
