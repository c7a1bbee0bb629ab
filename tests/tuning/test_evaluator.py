from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jptq.errors import EvaluatorError, ShapeError
from jptq.tuning.evaluator import Evaluator


def forward(feeds: Any) -> dict[str, np.ndarray]:
    return dict(feeds)


def scores(value: Any) -> dict[str, float]:
    return Evaluator.of(lambda forward: (forward({}), value)[1])(forward)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(content: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(content)
        return path

    return write


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5)])
def test_a_number_is_the_score(value: Any) -> None:
    assert scores(value) == {"score": 0.5}


def test_whole_numbers_are_numbers() -> None:
    assert scores(3) == scores(np.int64(3)) == {"score": 3.0}


def test_a_dict_gives_several_scores() -> None:
    assert scores({"top1": 0.5, "top5": np.float32(0.75)}) == {"top1": 0.5, "top5": 0.75}


@pytest.mark.parametrize(
    "value", ["0.5", None, True, np.True_, [0.5], 1j, np.complex64(1), {"top1": "high"}]
)
def test_anything_else_is_refused_with_its_type(value: Any) -> None:
    with pytest.raises(EvaluatorError, match="not a number"):
        scores(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": 1.0, "b": -np.inf}])
def test_numbers_that_cannot_be_compared_are_refused(value: Any) -> None:
    with pytest.raises(EvaluatorError, match=r"nan|inf") as caught:
        scores(value)
    assert "finite" in caught.value.hint


def test_an_empty_dict_is_refused() -> None:
    with pytest.raises(EvaluatorError, match="no score"):
        scores({})


def test_a_score_of_no_model_is_refused() -> None:
    with pytest.raises(EvaluatorError, match="without running the model") as caught:
        Evaluator.of(lambda forward: 1.0)(forward)
    assert "forward(" in caught.value.hint


def test_an_exception_shows_the_users_own_traceback(written: Callable[[str], Path]) -> None:
    path = written(
        "def helper(x):\n    return 1 / x\n\ndef evaluate(forward):\n    return helper(0)\n"
    )
    with pytest.raises(EvaluatorError, match="raised ZeroDivisionError") as caught:
        Evaluator.load(str(path))(forward)
    assert "return helper(0)" in caught.value.why
    assert "return 1 / x" in caught.value.why
    assert "tuning/evaluator.py" not in caught.value.why
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_leaving_the_program_is_an_exception_of_the_evaluator() -> None:
    def leave(forward: Any) -> float:
        raise SystemExit(0)

    with pytest.raises(EvaluatorError, match="SystemExit"):
        Evaluator.of(leave)(forward)


def test_an_interruption_is_passed_on() -> None:
    def interrupted(forward: Any) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Evaluator.of(interrupted)(forward)


def test_our_own_errors_about_feeds_are_passed_on() -> None:
    def wrong(forward: Any) -> float:
        raise ShapeError("input 'x' has shape (1,)")

    with pytest.raises(ShapeError):
        Evaluator.of(wrong)(forward)


def test_a_file_is_loaded_with_its_folder_importable(tmp_path: Path) -> None:
    (tmp_path / "beside_the_evaluator.py").write_text("VALUE = 0.25\n")
    path = tmp_path / "mine.py"
    path.write_text(
        "from beside_the_evaluator import VALUE\n"
        "def other(forward):\n    forward({})\n    return VALUE\n"
    )
    found = Evaluator.load(f"{path}:other")
    assert found(forward) == {"score": 0.25}
    assert found.where == "mine.py:other"
    assert found.calls == 1


def test_the_digest_follows_the_files_content(written: Callable[[str], Path]) -> None:
    first = Evaluator.load(str(written("def evaluate(forward):\n    return 1\n"))).digest
    second = Evaluator.load(str(written("def evaluate(forward):\n    return 2\n"))).digest
    assert first != second
    assert Evaluator.of(lambda forward: 1).digest == ""


def test_faults_of_the_flag_are_told(written: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(EvaluatorError, match="no file"):
        Evaluator.load(str(tmp_path / "absent.py"))
    path = written("evaluate = 3\n")
    with pytest.raises(EvaluatorError, match="no function 'evaluate'") as caught:
        Evaluator.load(str(path))
    assert "def evaluate(forward)" in caught.value.hint
    with pytest.raises(EvaluatorError, match="no function 'other'"):
        Evaluator.load(f"{path}:other")


@pytest.mark.parametrize("relative", [False, True])
def test_a_file_that_cannot_be_imported_shows_its_line_and_not_ours(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    path = written("import nowhere_at_all\n")
    monkeypatch.chdir(path.parent)
    with pytest.raises(EvaluatorError, match="cannot be imported") as caught:
        Evaluator.load(os.path.relpath(path) if relative else str(path))
    assert "import nowhere_at_all" in caught.value.why
    assert "importlib" not in caught.value.why


def test_a_syntax_error_shows_its_line_and_not_ours(written: Callable[[str], Path]) -> None:
    with pytest.raises(EvaluatorError, match="cannot be imported") as caught:
        Evaluator.load(str(written("def evaluate(forward:\n    return 1\n")))
    assert "def evaluate(forward:" in caught.value.why
    assert "importlib" not in caught.value.why
