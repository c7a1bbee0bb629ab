"""Progress bars with the time left, on stderr, if a person is looking."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Progress = Callable[[str, int, int], None]
"""``progress(step, done, total)``; a total of 0 is not known."""

_TITLE = 34
"""Columns of a step's title; longer ones are cut so that the bars stay in place."""


@contextlib.contextmanager
def bars() -> Iterator[Progress]:
    """Yield a progress callback: one line per step; those of one kind share a line.

    Steps that count without an end ("run all-INT8", "run milp 40 us") share a line by their first
    word. Nothing is shown if stderr is not a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda step, done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Display

    display = Display(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    shown: dict[str, TaskID] = {}

    def progress(step: str, done: int, total: int) -> None:
        line = step if total else step.partition(" ")[0]
        if line not in shown:
            # Steps follow each other: the ones before are over, whether they said so or not.
            for task in display.tasks:
                display.update(task.id, completed=task.total or task.completed)
                display.stop_task(task.id)
            shown[line] = display.add_task(line, total=total or None)
        title = step if len(step) <= _TITLE else step[: _TITLE - 3] + "..."
        display.update(shown[line], description=f"{title:<{_TITLE}}", completed=done)

    with display:
        yield progress
