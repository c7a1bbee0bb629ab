from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from jptq.cli import main as program
from jptq.cli.main import COMMANDS, _kept
from jptq.cli.signals import Terminated
from jptq.errors import ConfigError
from tests.cli.conftest import Ended

Jptq = Callable[..., Ended]

HEAVY = ("jax", "onnx", "onnx_ir", "matplotlib", "scipy", "rich", "numpy")


def replaced(monkeypatch: pytest.MonkeyPatch, act: Callable[[], int]) -> None:
    """Put a command that only acts in the place of ``tune``."""
    module = types.ModuleType("fake", "Act.")
    module.FLAGS, module.REQUIRED = ("resume",), ()  # type: ignore[attr-defined]
    module.run = lambda flags: act()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jptq.cli.fake", module)
    monkeypatch.setitem(COMMANDS, "tune", "jptq.cli.fake")


def raising(error: BaseException) -> Callable[[], int]:
    def act() -> int:
        raise error

    return act


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_without_a_command_all_commands_are_listed_with_a_line_each(
    jptq: Jptq, arguments: tuple[str, ...]
) -> None:
    ended = jptq(*arguments)
    assert ended.code == 0
    for name in COMMANDS:
        assert any(line.split()[:1] == [name] for line in ended.out.splitlines())
    assert max(map(len, ended.out.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_shows_its_flags_and_fits_100_columns(jptq: Jptq, name: str) -> None:
    ended = jptq(name, "--help")
    assert ended.code == 0
    assert f"usage: jptq {name}" in ended.out
    for flag in program._command(name).FLAGS:
        assert f"{flag}" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 100


@pytest.mark.parametrize("arguments", [["--help"], ["tune", "--help"], ["tune", "--modle=x"]])
def test_help_and_usage_errors_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from jptq.cli.main import main; main(sys.argv[1:]);"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_an_unknown_command_names_the_nearest(jptq: Jptq) -> None:
    ended = jptq("tnue")
    assert ended.code == 2
    assert "unknown command 'tnue'" in ended.err
    assert "'tune'" in ended.err


def test_the_version_is_printed(jptq: Jptq) -> None:
    assert jptq("--version").out.startswith("jptq ")


def test_the_code_of_the_command_is_the_exit_code(
    jptq: Jptq, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(monkeypatch, lambda: 4)
    assert jptq("tune").code == 4


def test_an_expected_error_is_shown_without_a_traceback(
    jptq: Jptq, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(monkeypatch, raising(ConfigError("what", where="there", why="because", hint="this")))
    ended = jptq("tune")
    assert ended.code == 2
    assert ended.err == "jptq: error: what\n  at:  there\n  why: because\n  try: this\n"


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [(KeyboardInterrupt(), 130, "interrupted"), (Terminated(), 143, "terminated")],
)
def test_a_signal_ends_in_one_line_that_says_what_is_kept(
    jptq: Jptq, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, word: str
) -> None:
    replaced(monkeypatch, raising(error))
    ended = jptq("tune")
    assert ended.code == code
    assert ended.err.startswith(f"jptq: {word}; what is finished is kept")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (("sweep",), False),
        (("sweep", "--out=o"), True),
        (("tune", "--noresume"), False),
        (("calibrate",), True),
        (("latency", "--out=o"), False),
    ],
)
def test_only_a_run_that_keeps_findings_says_that_it_goes_on(
    arguments: tuple[str, ...], kept: bool
) -> None:
    assert ("goes on from there" in _kept(arguments)) == kept


def test_a_fault_of_ours_writes_a_report_and_asks_for_it(
    jptq: Jptq, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(monkeypatch, raising(KeyError("gone")))
    ended = jptq("tune")
    assert ended.code == 1
    (written,) = Path.cwd().glob("jptq-error-*.txt")
    assert written.name in ended.err
    assert "Traceback" not in ended.err
    text = written.read_text()
    assert "KeyError: 'gone'" in text
    assert "jax" in text.splitlines()[1]


def test_a_full_disk_is_the_users_to_mend(jptq: Jptq, monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere/result.json")
    replaced(monkeypatch, raising(error))
    ended = jptq("tune")
    assert ended.code == 2
    assert "cannot write somewhere/result.json" in ended.err
    assert "free space" in ended.err


def test_exhausted_memory_hints_at_a_smaller_batch(
    jptq: Jptq, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(monkeypatch, raising(RuntimeError("RESOURCE_EXHAUSTED: Out of memory\ndetails")))
    ended = jptq("tune")
    assert ended.code == 2
    assert "--batch_size" in ended.err
    assert "details" not in ended.err


def test_a_warning_of_the_library_goes_to_stderr(
    jptq: Jptq, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act() -> int:
        logging.getLogger("jptq.some").warning("odd %s", "thing")
        return 0

    replaced(monkeypatch, act)
    ended = jptq("tune")
    assert ended.err == "jptq: warning: odd thing\n"
    assert ended.out == ""


def test_a_closed_pipe_is_quiet() -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "jptq", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    assert running.wait(30) == 141
    assert running.stderr.read() == b""
    running.stderr.close()
