from __future__ import annotations

import io
import re
import sys

import pytest

from jptq.cli import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, *steps: tuple[str, int, int]) -> list[str]:
    """Return the last frame that a terminal shows."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with progress.bars() as bars:
        for step in steps:
            bars(*step)
    frame = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    lines = [line for line in re.split(r"[\r\n]+", frame) if line.strip()]
    return lines[-len({step[0].split()[0] for step in steps}) :]


def test_nothing_is_shown_if_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bars() as bars:
        bars("load", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_every_step_has_a_line_with_its_count(monkeypatch: pytest.MonkeyPatch) -> None:
    load, calibrate = shown(monkeypatch, ("load", 1, 1), ("calibrate", 3, 12))
    assert load.startswith("load ")
    assert "1/1" in load
    assert "3/12" in calibrate


def test_steps_without_an_end_share_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = shown(monkeypatch, ("run all-INT8", 1, 0), ("run milp 3 us", 2, 0))
    assert run.startswith("run milp 3 us")
    assert "2/?" in run


def test_a_step_is_over_when_the_next_one_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    measure, _ = shown(monkeypatch, ("measure", 0, 4), ("rank nodes", 1, 9))
    assert "4/4" in measure


def test_a_long_title_keeps_the_bars_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    long, short = shown(monkeypatch, ("a" * 80, 1, 2), ("b", 1, 2))
    assert long.index("━") == short.index("━")
    assert "..." in long
    assert len(long.rstrip()) <= 100
