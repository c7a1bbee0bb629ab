from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jptq.cli import run
from jptq.hmct.names import counterpart, vendor_names
from tests.cli.conftest import Ended

Script = Callable[..., Ended]


@pytest.fixture
def script(jptq: Callable[..., Ended], tmp_path: Path) -> Script:
    """Return what runs the text of a script with arguments under ``jptq run``."""

    def started(text: str, *arguments: str) -> Ended:
        path = tmp_path / "script.py"
        path.write_text(text)
        return jptq("run", str(path), *arguments)

    return started


@pytest.mark.parametrize(
    "statement",
    [
        "import hmct",
        "import hmct.ir, hmct.common",
        "from hmct.ir import load_model, save_model",
        "from hmct.common import find_input_calibration, find_output_calibration",
        "from hmct.api import build_model, check_model, load_model, ORTExecutor",
        "from hmct.executor import ORTExecutor",
        "import hmct.quantizer.debugger as dbg; dbg.get_sensitivity_of_nodes",
        "from hmct.quantizer.debugger import get_sensitivity_of_nodes",
        "import horizon_nn.debug as dbg; dbg.get_sensitivity_of_nodes",
        "from horizon_nn.ir import load_model",
    ],
)
def test_the_vendors_imports_are_ours(script: Script, statement: str) -> None:
    assert script(statement) == Ended(0, "", "")


def test_one_module_has_both_names_and_keeps_its_own(script: Script) -> None:
    ended = script(
        "import hmct.ir, horizon_nn.ir, jptq.hmct.ir as ours\n"
        "print(hmct.ir is ours, horizon_nn.ir is ours, ours.__name__, ours.__spec__.name)"
    )
    assert ended.out == "True True jptq.hmct.ir jptq.hmct.ir\n"


def test_the_names_are_gone_afterwards(script: Script) -> None:
    script("import hmct.ir")
    assert "hmct" not in sys.modules
    assert "hmct.ir" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        __import__("hmct")


def test_an_installed_package_of_the_name_waits_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = type(sys)("hmct")
    monkeypatch.setitem(sys.modules, "hmct", theirs)
    with vendor_names():
        assert __import__("hmct").__name__ == "jptq.hmct"
    assert sys.modules["hmct"] is theirs


def test_what_jptq_does_not_have_is_said(script: Script) -> None:
    ended = script("import hmct.builder")
    assert ended.code == run.FAILED
    assert "No module named 'hmct.builder'" in ended.err
    assert "jptq stands in for the vendor's package" in ended.err


def test_counterparts_are_found_by_the_longest_name() -> None:
    assert counterpart("horizon_nn.debug.x") == "jptq.hmct.quantizer.debugger.x"
    assert counterpart("horizon_nn.debugging") == "jptq.hmct.debugging"


def test_arguments_reach_the_script_as_they_are(script: Script) -> None:
    arguments = ("--help", "-v", "True", "-m", "['mse','mre']", "--model=x")
    ended = script("import sys; print(__name__, sys.argv[1:])", *arguments)
    assert ended.code == 0
    assert ended.out == f"__main__ {list(arguments)}\n"


def test_the_state_of_the_process_is_put_back(script: Script) -> None:
    before = list(sys.argv), list(sys.path)
    script("import sys; sys.argv.append('x'); sys.path.append('y'); raise SystemExit(3)")
    assert (sys.argv, sys.path) == before


@pytest.mark.parametrize(
    ("statement", "code", "err"),
    [
        ("pass", 0, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit(5)", 5, ""),
        ("raise SystemExit('it did not work')", 1, "it did not work\n"),
    ],
)
def test_the_exit_code_is_passed_on(script: Script, statement: str, code: int, err: str) -> None:
    assert script(statement) == Ended(code, "", err)


def test_modules_beside_the_script_are_found(script: Script, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("value = 7")
    try:
        assert script("import beside; print(beside.value)").out == "7\n"
    finally:
        sys.modules.pop("beside", None)


def test_a_fault_of_the_script_shows_its_own_lines_only(script: Script) -> None:
    ended = script("def divide():\n    return 1 / 0\n\ndivide()\n")
    assert ended.code == run.FAILED
    assert ended.err.startswith("Traceback (most recent call last):\n  File ")
    assert "script.py" in ended.err.splitlines()[1]
    assert "runpy" not in ended.err
    assert ended.err.endswith("ZeroDivisionError: division by zero\n")


def test_a_script_that_is_no_python_shows_where(script: Script) -> None:
    ended = script("a = = 1")
    assert ended.code == run.FAILED
    assert "script.py" in ended.err
    assert "SyntaxError" in ended.err


def test_our_own_errors_name_the_line_of_the_script(script: Script) -> None:
    ended = script("from hmct.ir import load_model\n\nload_model('absent.onnx')\n")
    assert ended.code == 2
    assert ended.err.startswith("jptq: error: cannot read absent.onnx")
    assert "script.py:3" in ended.err


def test_our_log_reaches_the_scripts_own_handlers(script: Script) -> None:
    root = logging.getLogger()
    handlers = list(root.handlers)
    try:
        ended = script(
            "import logging\n"
            "logging.basicConfig(level=logging.INFO, force=True)\n"
            "logging.getLogger('jptq.hmct.api').warning('Saving model to: x.onnx.')\n"
        )
    finally:
        root.handlers = handlers
    assert ended.err == "WARNING:jptq.hmct.api:Saving model to: x.onnx.\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no script is given"),
        (("absent.py",), "there is no script 'absent.py'"),
        (("--verbose", "script.py"), "the script comes first"),
    ],
)
def test_wrong_use_is_refused(
    jptq: Callable[..., Ended], arguments: tuple[str, ...], says: str
) -> None:
    ended = jptq("run", *arguments)
    assert ended.code == 2
    assert says in ended.err


def test_help_before_a_script_is_ours(jptq: Callable[..., Ended]) -> None:
    ended = jptq("run", "--help")
    assert ended.code == 0
    assert "usage: jptq run SCRIPT.py" in ended.out
