"""The user's time limit: what has begun ends soon after it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jptq.tuning.prepare import Progress


class OutOfTime(Exception):  # noqa: N818 - control flow, not an error
    """The time limit of the user has passed."""


def passed(deadline: float | None) -> bool:
    """Tell whether a `time.monotonic` value is over; None never is."""
    return deadline is not None and time.monotonic() > deadline


def bounded(progress: Progress, deadline: float | None) -> Progress:
    """Return a progress callback that ends the work which calls it once the deadline is over.

    It raises `OutOfTime` between two program runs: a compilation that has begun is finished.
    """

    def step(what: str, done: int, total: int) -> None:
        progress(what, done, total)
        if passed(deadline):
            raise OutOfTime

    return step
