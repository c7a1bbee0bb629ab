from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jptq import ir
from jptq.quant.calibrated import with_assignment
from tests.cli.conftest import Ended, Files

Jptq = Callable[..., Ended]


@pytest.fixture
def ask(jptq: Jptq, files: Files) -> Callable[..., Ended]:
    """Return the command for the tiny network, calibrated."""
    config = files.folder / "config.json"
    config.write_text('{"model_config": {"activation": {"calibration_type": "max"}}}')
    out = files.folder / "calibrated"
    assert jptq("calibrate", *files.flags, f"--quant_config={config}", f"--out={out}").code == 0
    model = out / "calibrated_model.onnx"
    return lambda *words: jptq(
        "what-if", f"--model={model}", f"--calibration_data={files.data}", *words
    )


@pytest.mark.slow
def test_before_and_after_are_what_evaluate_measures(
    ask: Callable[..., Ended], jptq: Jptq, files: Files
) -> None:
    content = json.loads(ask("head.input0=int16", "stem=int16", "--json").out)
    model = ir.load(files.folder / "calibrated" / "calibrated_model.onnx")
    raised = {c["calibration"]: c["after"] for c in content["changes"]}
    assert sorted(raised.values()) == ["int16", "int16", "int8"]
    changed = files.folder / "changed.onnx"
    ir.save(with_assignment(model, raised), changed)
    for path, side in (
        (files.folder / "calibrated/calibrated_model.onnx", "before"),
        (changed, "after"),
    ):
        ended = jptq("evaluate", f"--model={path}", f"--calibration_data={files.data}", "--json")
        want = json.loads(ended.out)["model"]
        assert content[side]["time_us"] == want["time_us"]
        (one,), (other,) = (x["comparison"]["outputs"] for x in (content[side], want))
        for field in ("cosine", "l1", "l2", "chebyshev"):
            np.testing.assert_allclose(one[field]["mean"], other[field]["mean"], rtol=1e-4)
    assert content["before"] != content["after"]


@pytest.mark.slow
def test_the_tables_show_old_new_and_difference(ask: Callable[..., Ended]) -> None:
    ended = ask("--change=head.input0=int16", "stem.threshold=x0.5")
    assert ended.code == 0, ended.err
    for word in ("int8", "int16", "before", "after", "difference", "Chebyshev", "4 samples"):
        assert word in ended.out
    assert "input0 of stem" in ended.out  # whose threshold a node's is
    scored = ask("stem=int16", f"--evaluator={_constant(Path.cwd())}")
    assert "share of float" in scored.out


def _constant(folder: Path) -> Path:
    path = folder / "score.py"
    path.write_text(
        "import numpy as np\n"
        "def evaluate(forward):\n"
        "    forward({'x': np.zeros((1, 2, 6, 6), np.float32)})\n"
        "    return 0.25\n"
    )
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["haed=int16"], "did you mean 'head'"),
        (["head.input9=int16"], "input0"),
        (["head=int99"], "unknown type"),
        (["head.input1=ec"], "quant_config"),
        (["head"], "is not NODE=TYPE"),
        (["stem.threshold=1,2,3"], "3 numbers, but one number is needed, or 2"),
    ],
)
def test_a_wrong_request_names_what_is_there_before_samples_are_looked_for(
    ask: Callable[..., Ended], words: list[str], message: str
) -> None:
    ended = ask("--calibration_data=nowhere", *words)
    assert ended.code == 2
    assert message in ended.err
    assert "nowhere" not in ended.err


def test_a_question_without_a_change_is_refused(jptq: Jptq) -> None:
    ended = jptq("what-if", "--model=m.onnx", "--calibration_data=d")
    assert ended.code == 2
    assert "no change is named" in ended.err


def test_the_older_spelling_of_the_model_is_taken(jptq: Jptq) -> None:
    ended = jptq("what-if", "--calibrated_model=absent.onnx", "--calibration_data=d", "a=int8")
    assert ended.code == 2
    assert "cannot read absent.onnx" in ended.err


def test_help_shows_where_the_changes_stand(jptq: Jptq) -> None:
    ended = jptq("what-if", "--help")
    assert ended.code == 0
    assert "--calibration_data=FOLDER NODE=TYPE ... [flags]" in ended.out


def test_words_are_still_refused_by_commands_that_take_none(jptq: Jptq) -> None:
    ended = jptq("export", "--model=m.onnx", "stray")
    assert ended.code == 2
    assert "unexpected argument 'stray'" in ended.err
