"""How much of a tuning is left: bounds that hold, counted in runs of a configuration."""

from __future__ import annotations

from collections.abc import Callable

from jptq.results import Evaluation
from jptq.tuning.error_models import VIEWS
from jptq.tuning.goal import Judge
from jptq.tuning.heads import LIMIT as HEAD
from jptq.tuning.options import Options
from jptq.tuning.prepare import Prepared
from jptq.tuning.search import GIVE_BACK, LADDER, REFINE, UNDERCUT

Later = Callable[[float | None], None]
"""``later(seconds)``: how long what follows the present step takes, at most; None: not known."""


def silent(seconds: float | None) -> None:
    """Do nothing."""


def most_runs(
    options: Options, judge: Judge, prepared: Prepared, int8: Evaluation
) -> dict[str, int]:
    """Return the most runs that each part of a search takes, by the part's name."""
    nodes = sum(bool(slots.calibrations) for slots in prepared.plan.slots)
    quality, budget = judge.goal.has_quality, judge.goal.budget_us is not None
    if options.search == "walk":
        return {} if judge.meets(int8) else {"walk": nodes}
    if options.search == "head":
        return {} if judge.meets(int8) else {"head": HEAD}
    out: dict[str, int] = {}
    if quality and not judge.meets(int8):
        out = {"ladder": 1 + LADDER.bit_length(), "refine": REFINE * (1 + len(VIEWS))}
        out |= {"walk": nodes.bit_length(), "give_back": GIVE_BACK, "undercut": UNDERCUT}
        out["again"] = GIVE_BACK
    return out | ({"propose": 4 * (1 + len(VIEWS))} if budget else {})
