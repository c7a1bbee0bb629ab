from __future__ import annotations

import io
import re
import sys
import time

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
    return lines[-len({progress.line_of(step[0]) for step in steps}) :]


def test_nothing_is_shown_if_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bars() as bars:
        bars("load", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_every_step_has_a_line_with_its_count(monkeypatch: pytest.MonkeyPatch) -> None:
    load, calibrate = shown(monkeypatch, ("load", 1, 1), ("calibrate", 3, 12))
    assert load.startswith("load ")
    assert "1/1" in load
    assert "3/12" in calibrate


def lines(monkeypatch: pytest.MonkeyPatch, *steps: tuple[float, str, int, int]) -> list[str]:
    """Return what a log gets of steps at some seconds."""
    log, now = io.StringIO(), [1000.0]
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress.threading.Thread, "start", lambda self: None)
    with progress.bars() as shown:
        for at, *step in steps:
            now[0] = 1000.0 + at
            shown(*step)  # type: ignore[arg-type]
            shown.later(60.0)
    return log.getvalue().splitlines()


def test_a_log_gets_a_line_per_step_with_the_time_spent_and_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = lines(
        monkeypatch,
        (1, "load", 0, 1),
        (10, "calibrate", 0, 40),
        (20, "calibrate", 20, 40),
        (41, "calibrate", 31, 40),
        (50, "run all-INT8", 1, 9),
        (51, "run milp 3 us", 2, 9),
        (90, "run milp 2 us", 5, 8),
    )
    assert found == [
        "[0:10] calibrate 0/40, then at most 1:00",
        "[0:41] calibrate 31/40, at most 1:09 left in all",
        "[0:50] run all-INT8 1/9, then at most 1:00",
        "[1:30] run milp 2 us 5/8, at most 1:30 left in all",
    ]


def test_a_step_that_says_nothing_is_told_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    monkeypatch.setattr(progress, "BEAT_S", 0.2)
    monkeypatch.setattr(progress, "PULSE_S", 0.02)
    with progress.bars() as shown:
        shown("measure", 1, 4)
        deadline = time.monotonic() + 10
        while log.getvalue().count("measure 1/4") < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert log.getvalue().count("measure 1/4") >= 2


def test_steps_without_an_end_share_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = shown(monkeypatch, ("run all-INT8", 1, 0), ("run milp 3 us", 2, 0))
    assert run.startswith("run milp 3 us")
    assert "?" not in run
    assert "-:--" not in run


def test_a_step_is_over_when_the_next_one_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    measure, _ = shown(monkeypatch, ("measure", 0, 4), ("rank nodes", 1, 9))
    assert "4/4" in measure


def test_a_long_title_keeps_the_bars_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    long, short = shown(monkeypatch, ("a" * 80, 1, 2), ("b", 1, 2))
    assert long.index("━") == short.index("━")
    assert "..." in long
    assert len(long.rstrip()) <= 100
