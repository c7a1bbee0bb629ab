"""Every ending that there can be is told without a contradiction."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest

from jptq.results import Outcome
from jptq.results.problem import ProblemType
from jptq.tuning.verdict import Ending, verdict


def possible(ending: Ending) -> bool:
    """Leave out what measuring cannot give: the corners and the chosen mix are all candidates."""
    keeps_something = ending.int8 or ending.int16 or ending.ec
    if ending.quality and ending.met and not ending.final:
        return False
    if keeps_something and not ending.final and not ending.budget:
        return False  # what keeps the quality is chosen, unless a budget forbids it
    if ending.final and not ending.met and not ending.budget:
        return False
    if ending.outcome is Outcome.BUDGET_TOO_SMALL and not ending.budget:
        return False
    if (ending.duals or ending.ec) and not ending.raised:
        return False
    if ending.ec and (ending.beyond_us is not None or ending.int8 or ending.int16):
        return False  # ec is built where the corners fail
    if ending.beyond_us is not None and not ending.budget:
        return False
    told = {ProblemType.NONE} if ending.int8 else {ProblemType.INT16_FAILS}
    if ending.int16 and not ending.int8:
        told = {ProblemType.RANKING_WORKS, ProblemType.RANKING_FAILS, None}
    return ending.kind in told


def endings() -> Iterator[Ending]:
    """Yield every combination of outcome, corners and means that can be."""
    truth = (False, True)
    for values in itertools.product(
        Outcome,
        truth,
        truth,
        truth,
        truth,
        truth,
        truth,
        (0, 2),
        ((), ("a",), ("a", "b")),
        truth,
        ((), ("c.input1",)),
        (None, 7.0),
        (None, *ProblemType),
    ):
        names = (
            "outcome quality budget int8 int16 ceiling final raised duals dual_fails ec "
            "beyond_us kind"
        )
        ending = Ending(**dict(zip(names.split(), values, strict=True)))
        if possible(ending):
            yield ending


CLAIMS = {
    "all-INT8 meets": ("All-INT8 meets", "All-INT8 keeps"),
    "all-INT16 meets": ("all-INT16 meets",),
    "all-INT16 misses": ("All-INT16 does not meet", "all-INT16 misses"),
    "closed": (
        "ec closes the gap",
        r"\d nodes? closes? the gap",
        "This mix of INT8 and INT16 meets it",
    ),
    "open": ("No configuration", "does not close the gap", "would close the gap"),
    "type 3": ("Problem type 3",),
    "over budget": ("more than the budget", "more time than the budget", "budget that is missed"),
}


def claims(ending: Ending) -> set[str]:
    """Return what the sentences of a verdict say."""
    text = " ".join(verdict(ending))
    return {claim for claim, words in CLAIMS.items() if any(re.search(w, text) for w in words)}


def test_every_ending_says_what_is_so_and_nothing_against_it() -> None:
    count = 0
    for ending in endings():
        count += 1
        said = claims(ending)
        if not ending.quality:
            assert not said, ending
            continue
        assert ("all-INT8 meets" in said) == ending.int8, ending
        assert ("all-INT16 misses" in said) == (not ending.int16 and not ending.int8), ending
        assert not {"all-INT16 meets", "all-INT16 misses"} <= said, ending
        assert not {"closed", "open"} <= said, ending
        if ending.met:
            assert not said & {"open", "over budget"}, ending
        if "all-INT16 misses" in said:
            assert said & {"closed", "open"}, ending
            assert ("closed" in said) == ending.final, ending
            assert ("over budget" in said) or ending.met or not ending.final, ending
        if "type 3" in said:  # INT16 as it is fails: then nothing but compensation helps
            assert not ending.final or ending.ec or ending.duals, ending
        if "over budget" in said:
            assert ending.budget, ending
    assert count > 500


@pytest.mark.parametrize("met", [True, False])
def test_a_mix_that_keeps_what_all_int16_misses_is_no_failure_of_int16(met: bool) -> None:
    ending = Ending(
        outcome=Outcome.MET if met else Outcome.NOT_MET,
        quality=True,
        budget=not met,
        int8=False,
        int16=False,
        ceiling=False,
        final=True,
        raised=3,
        kind=ProblemType.INT16_FAILS,
        int16_reached="0.98000",
        ceiling_reached="0.98500",
        left=(4, 1),
    )
    first, second = verdict(ending)
    assert "(0.98000)" in first
    assert "4 weights and 1 feature " in first
    assert ("it all the same" in second) is met
