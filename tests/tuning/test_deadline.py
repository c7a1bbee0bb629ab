from __future__ import annotations

import time

import pytest

from jptq.tuning.deadline import OutOfTime, bounded, passed


def test_work_ends_at_its_next_step_once_the_deadline_is_over() -> None:
    told: list[tuple[str, int, int]] = []
    late = bounded(lambda *step: told.append(step), time.monotonic() - 1)
    with pytest.raises(OutOfTime):
        late("rank nodes", 1, 9)
    assert told == [("rank nodes", 1, 9)]


def test_without_a_deadline_or_before_it_work_goes_on() -> None:
    for deadline in (None, time.monotonic() + 1000):
        assert not passed(deadline)
        bounded(lambda *step: None, deadline)("rank nodes", 1, 9)
