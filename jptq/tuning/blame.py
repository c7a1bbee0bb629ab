"""Which outputs make a network miss its goal, and the ranking that looks only at these."""

from __future__ import annotations

import json
from collections.abc import Sequence

from jptq.quant.assign import Assignment
from jptq.results import Evaluation, SensitivityTable
from jptq.tuning.advice import failing
from jptq.tuning.evaluator import Forward
from jptq.tuning.goal import Judge
from jptq.tuning.measure import Measurer, shares_of
from jptq.tuning.ranking import rank


def blamed(measurer: Measurer, judge: Judge, int8: Evaluation) -> tuple[str, ...]:
    """Return the outputs that make all-INT8 miss the goal; none if it does not."""
    return culprits(measurer, judge, measurer.prepared.all("int8"), failing(judge.goal, int8))


def narrowed(
    measurer: Measurer,
    judge: Judge,
    ranking: SensitivityTable,
    int8: Evaluation,
    *,
    samples: int = 8,
) -> SensitivityTable:
    """Return the ranking at the outputs that fail, the one given if there are no others.

    Args:
      measurer: Runs the network.
      judge: Knows the goal.
      ranking: At all outputs.
      int8: All-INT8, measured.
      samples: For ranking again, evenly taken from the set.
    """
    found = blamed(measurer, judge, int8)
    if not found or set(found) >= set(ranking.outputs):
        return ranking
    prepared, journal = measurer.prepared, measurer.journal
    key = (prepared.digest, str(samples), *found)
    stored = journal.load("ranking-at", *key)
    if stored is not None:
        return SensitivityTable.from_json(stored)
    measurer.check_time()
    table = rank(
        prepared,
        prepared.all("int8"),
        outputs=found,
        samples=samples,
        progress=lambda *_: measurer.check_time(),
    )
    journal.save("ranking-at", *key, content=table.to_json())
    return table


def culprits(
    measurer: Measurer, judge: Judge, assignment: Assignment, failed: Sequence[str]
) -> tuple[str, ...]:
    """Return the outputs whose error makes scores fail, found by running one output at a time.

    An evaluator names scores as it likes. Each output in turn comes from the quantized model and
    the others from the float one: what makes a failing score fail alone is a culprit.

    Args:
      measurer: Runs the network.
      judge: Knows the goal.
      assignment: Under which the scores fail.
      failed: `advice.failing`: scores, or outputs if the cosine decides.

    Returns:
      Outputs in graph order; all of them if none fails a score alone.
    """
    prepared = measurer.prepared
    names = prepared.calibrated.output_names
    evaluator, bound = measurer.evaluator, judge.goal.min_score
    if evaluator is None or bound is None:
        return tuple(name for name in names if name in failed)
    if len(names) == 1 or not failed:
        return names if failed else ()
    exact = prepared.runner.forward(None)
    rough = prepared.runner.forward(prepared.table(assignment))
    floats = measurer.float_scores
    held = json.dumps(sorted(assignment.items()))
    found = []
    for name in names:

        def mixed(name: str = name) -> Forward:
            return lambda feeds: {**exact(feeds), name: rough(feeds)[name]}

        measurer.check_time()
        scores = measurer.scores.of(prepared.digest, name, held, forward=mixed)
        shares = shares_of(scores, floats)
        if min(shares[task] for task in failed) < bound:
            found.append(name)
    return tuple(found) or names
