"""Commands on a model with fitted weights: they find its float network, or say what is missing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jptq import ir
from jptq.cli import debugger, info
from jptq.tuning import prepare
from jptq.tuning.reference import FLOAT_FILE
from tests.cli.conftest import Ended, Files
from tests.tuning.refitted import moved, refitted

Jptq = Callable[..., Ended]

pytestmark = pytest.mark.slow

CALIBRATED = "calibrated_model.onnx"
MAX = {"model_config": {"activation": {"calibration_type": "max"}}}
COMMANDS = {
    "evaluate": (),
    "sensitivity": (),
    "sweep": ("--min_cosine=0.5", "--thresholds=0.9"),
    "diagnose": ("--min_cosine=0.5",),
    "what-if": ("stem=int16",),
    "export": ("--check", "--out=exported"),
}


@pytest.fixture
def fitted(files: Files) -> Path:
    """Return a folder with a calibrated model of moved weights and its float network."""
    found = prepare(files.model, files.data, march="nash-e", quant_config=MAX)
    folder = files.folder / "fitted"
    ir.save(found.floating, folder / FLOAT_FILE)
    ir.save(refitted(found, moved(found)), folder / CALIBRATED)
    return folder


@pytest.fixture
def alone(fitted: Path, files: Files) -> Path:
    folder = files.folder / "alone"
    folder.mkdir()
    return Path(shutil.copy(fitted / CALIBRATED, folder / CALIBRATED))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_compares_needs_the_float_network_and_takes_it(
    command: str, jptq: Jptq, files: Files, fitted: Path, alone: Path
) -> None:
    given, options = files.flags[1], COMMANDS[command]
    found = jptq(command, f"--model={fitted / CALIBRATED}", given, *options)
    assert found.code == 0, found.err
    missing = jptq(command, f"--model={alone}", given, *options)
    assert missing.code == 2
    assert "float network of this model is not at hand" in missing.err
    assert "try: --reference=" in missing.err
    assert missing.out == ""
    named = jptq(command, f"--model={alone}", given, f"--reference={fitted / FLOAT_FILE}", *options)
    assert named.code == 0, named.err
    if command == "evaluate":
        assert named.out == found.out


def test_evaluate_compares_with_the_network_that_was_given(
    jptq: Jptq, files: Files, fitted: Path, alone: Path
) -> None:
    plain = files.folder / "plain"
    model = ir.load(fitted / CALIBRATED)
    forgetful = {k: v for k, v in model.metadata.items() if not k.startswith("float_")}
    ir.save(dataclasses.replace(model, metadata=forgetful), plain / CALIBRATED)

    def error(*flags: str) -> float:
        ended = jptq("evaluate", files.flags[1], *flags, "--json")
        (output,) = json.loads(ended.out)["model"]["comparison"]["outputs"]
        return float(output["l2"]["mean"])

    of_itself = error(f"--model={plain / CALIBRATED}")
    of_given = error(f"--model={fitted / CALIBRATED}")
    assert of_itself != of_given
    named = error(f"--model={plain / CALIBRATED}", f"--reference={fitted / FLOAT_FILE}")
    assert named == of_given


def test_export_without_the_float_network_writes_the_rest_and_says_so(
    jptq: Jptq, files: Files, fitted: Path, alone: Path
) -> None:
    ended = jptq("export", f"--model={alone}", "--out=exported")
    assert ended.code == 0, ended.err
    assert {path.name for path in Path("exported").iterdir()} == {"qdq_model.onnx"}
    assert f"{FLOAT_FILE} is not written" in ended.out
    # A path is not broken, however long it is.
    assert all(
        len(line) <= 100 or line.startswith(str(alone.parent)) for line in ended.out.splitlines()
    )
    ended = jptq("export", f"--model={fitted / CALIBRATED}", "--out=exported")
    assert ended.code == 0, ended.err
    written, given = (ir.load(folder / FLOAT_FILE) for folder in (Path("exported"), fitted))
    assert written.initializers.keys() == given.initializers.keys()
    for name, value in given.initializers.items():
        np.testing.assert_array_equal(written.initializers[name], value)


def test_what_a_sweep_writes_can_be_taken_up_again(jptq: Jptq, files: Files, fitted: Path) -> None:
    goal = ("--min_cosine=0.5", "--thresholds=0.9")
    first = jptq("sweep", f"--model={fitted / CALIBRATED}", files.flags[1], *goal, "--out=swept")
    assert first.code == 0, first.err
    again = jptq("evaluate", f"--model=swept/{CALIBRATED}", files.flags[1], "--json")
    assert again.code == 0, again.err
    of_given = jptq("evaluate", f"--model={fitted / CALIBRATED}", files.flags[1], "--json")
    assert again.out == of_given.out


def test_latencies_and_types_need_no_reference(jptq: Jptq, alone: Path) -> None:
    for command in ("latency", "config"):
        words = ("explain",) if command == "config" else ()
        ended = jptq(command, *words, f"--model={alone}")
        assert ended.code == 0, ended.err


def test_a_reference_beside_a_float_model_is_refused(
    jptq: Jptq, files: Files, fitted: Path
) -> None:
    ended = jptq("evaluate", *files.flags, f"--reference={fitted / FLOAT_FILE}")
    assert ended.code == 2
    assert "--reference with a float model" in ended.err


def test_diagnose_takes_the_model_that_reached_the_goal_under_its_own_flag(
    jptq: Jptq, files: Files, fitted: Path
) -> None:
    model = f"--model={fitted / CALIBRATED}"
    ended = jptq(
        "diagnose", model, files.flags[1], "--min_cosine=0.5", f"--reference={fitted / CALIBRATED}"
    )
    assert ended.code == 2
    assert "the reference has quantizers" in ended.err
    ended = jptq(
        *("diagnose", model, files.flags[1], "--min_cosine=0.5"),
        f"--int16_model={fitted / CALIBRATED}",
    )
    assert ended.code == 0, ended.err


def test_the_vendors_programs_have_one_option_more(
    fitted: Path, alone: Path, files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = ["--reference", str(fitted / FLOAT_FILE)]
    ranked = ["get-sensitivity-of-nodes", str(alone), str(files.data), "-v", "True"]
    shown = [str(alone), "-c", str(files.data / "x")]
    for program, arguments in ((debugger.main, ranked), (info.main, shown)):
        assert program(arguments) == 2
        assert "not at hand" in capsys.readouterr().err
        assert program([*arguments, *reference]) == 0
        named = capsys.readouterr().out
        beside = [word.replace(str(alone), str(fitted / CALIBRATED)) for word in arguments]
        assert program(beside) == 0
        found = capsys.readouterr().out.replace(str(fitted / CALIBRATED), str(alone))
        assert found == named
