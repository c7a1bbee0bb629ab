"""Progress on stderr: bars if a person is looking, else a line per step for a log."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

TITLE = 34
"""Columns of a step's title; longer ones are cut so that the bars stay in place."""

QUIET_S = 5.0
"""A command that takes less says nothing in a log."""

BEAT_S = 30.0
"""Within a step there is a line this often, and one even if nothing came of it yet."""

PULSE_S = 1.0
"""How often it is looked whether a line is due."""


class Progress:
    """``progress(step, done, total)``; a total of 0 is not known.

    Attributes:
      left_s: Seconds that the present step still takes, at most, by what it took so far; None if
        that is not known.
      later_s: Seconds that what follows the present step takes at most; None if not known.
    """

    def __init__(self) -> None:
        self.left_s: float | None = None
        self.later_s: float | None = None
        self._key = ""
        self._began = time.monotonic()
        self._first = 0

    def __call__(self, step: str, done: int, total: int) -> None:
        """Take note of how far a step is."""
        key, now = line_of(step), time.monotonic()
        if key != self._key:
            self._key, self._began, self._first = key, now, done
        self.left_s = None
        if self._first < done < total:
            self.left_s = (now - self._began) / (done - self._first) * (total - done)
        self.show(step, done, total)

    def later(self, seconds: float | None) -> None:
        """Take note of how long what follows the present step takes at most."""
        self.later_s = seconds

    @property
    def whole_s(self) -> float | None:
        """Seconds that the whole command still takes, at most; None if that is not known."""
        if self.left_s is None or self.later_s is None:
            return None
        return self.left_s + self.later_s

    def show(self, step: str, done: int, total: int) -> None:
        """Show it."""


def line_of(step: str) -> str:
    """Return what steps of one kind share: "run" of "run all-INT8" and "run milp 40 us"."""
    return step.partition(" ")[0] if step.startswith(("run ", "build ")) else step


@contextlib.contextmanager
def bars() -> Iterator[Progress]:
    """Yield what shows progress on stderr, as bars or as lines."""
    if sys.stderr.isatty():
        with _bars() as shown:
            yield shown
        return
    lines = _Lines()
    try:
        yield lines
    finally:
        lines.stop()


class _Lines(Progress):
    """A line when a step begins and every `BEAT_S` seconds, whatever the step does."""

    def __init__(self) -> None:
        super().__init__()
        self._started = time.monotonic()
        self._now = ("", 0, 0)
        self._said = ("", 0.0)
        self._lock = threading.Lock()
        self._over = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def stop(self) -> None:
        self._over.set()

    def show(self, step: str, done: int, total: int) -> None:
        with self._lock:
            self._now = (step, done, total)
            self._say()

    def _beat(self) -> None:
        while not self._over.wait(PULSE_S):
            with self._lock:
                self._say()

    def _say(self) -> None:
        step, done, total = self._now
        now = time.monotonic()
        key, last = self._said
        due = line_of(step) != key or now - last >= BEAT_S
        if not step or not due or now - self._started < QUIET_S:
            return
        self._said = (line_of(step), now)
        count = f" {done}/{total}" if total > 1 else ""
        sys.stderr.write(f"[{clock(now - self._started)}] {step}{count}{self._rest()}\n")
        sys.stderr.flush()

    def _rest(self) -> str:
        if self.whole_s is not None:
            return f", at most {clock(self.whole_s)} left in all"
        if self.left_s is not None:
            return f", {clock(self.left_s)} left in this step"
        if self.later_s:
            return f", then at most {clock(self.later_s)}"
        return ""


def clock(seconds: float) -> str:
    """Write a duration as minutes and seconds, with hours if there are any."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextlib.contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Display

    display = Display(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
        transient=True,
    )
    shown: dict[str, TaskID] = {}

    class Shown(Progress):
        def show(self, step: str, done: int, total: int) -> None:
            line = line_of(step)
            if line not in shown:
                # Steps follow each other: the ones before are over, whether they said so or not.
                for task in display.tasks:
                    known = task.total or task.completed
                    count = f"{known:.0f}/{known:.0f}" if task.total else task.fields["count"]
                    display.update(task.id, completed=known, count=count, left="")
                    display.stop_task(task.id)
                shown[line] = display.add_task(line, total=total or None, count="", left="")
            title = step if len(step) <= TITLE else step[: TITLE - 3] + "..."
            display.update(
                shown[line],
                description=f"{title:<{TITLE}}",
                completed=done,
                total=total or None,
                count=f"{done}/{total}" if total else (f"{done}" if done else ""),
                left=self._words(),
            )

        def _words(self) -> str:
            if self.whole_s is not None:
                return f"at most {clock(self.whole_s)} left in all"
            return "" if self.left_s is None else f"{clock(self.left_s)} left"

    with display:
        yield Shown()
