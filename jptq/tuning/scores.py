"""The user's scores of a network and its variants: the float model's are checked, all are kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping

from jptq.errors import EvaluatorError
from jptq.tuning.evaluator import Evaluator, Forward
from jptq.tuning.journal import Journal

EXACT = 1e-6
"""Relative difference of two scores that rounding explains."""

NOISE = 1e-3
"""Relative difference of two scores of one model up to which choices can be based on them: a
tenth of what the default goal allows."""

_logger = logging.getLogger(__name__)


class Scores:
    """Scores by what was scored; a finding of an earlier run counts as a call.

    Args:
      evaluator: The user's, or None: then there are no scores.
      journal: Keeps scores of an evaluator that comes from a file.
      network: Digest of the network whose float model is scored.

    Attributes:
      calls: Scores asked for, those that the journal knew included: the same number in a resumed
        run.
      noise: By score: how far two scorings of the float model were apart, relative.
    """

    def __init__(self, evaluator: Evaluator | None, journal: Journal, network: str) -> None:
        self.calls = 0
        self.noise: dict[str, float] = {}
        self._evaluator = evaluator
        self._journal = journal if evaluator is not None and evaluator.digest else Journal(None)
        self._identity = (network, "none" if evaluator is None else evaluator.digest)
        self._floats: dict[str, float] | None = None

    def floating(self, forward: Callable[[], Forward]) -> Mapping[str, float]:
        """Return the scores of the float model: it is scored twice, and again in a resumed run.

        Args:
          forward: Gives the float model.

        Raises:
          EvaluatorError: It scores the same model differently, or 0 whatever is asked.
        """
        if self._floats is None:
            self._floats = {} if self._evaluator is None else self._checked(forward())
        return self._floats

    def of(self, *key: str, forward: Callable[[], Forward]) -> dict[str, float]:
        """Return the scores of a variant. `floating` has to have been called.

        Findings hang on the float model's scores: where these change, what the evaluator reads has
        changed.

        Args:
          key: What is scored.
          forward: Gives it, if it has to be run.
        """
        if self._evaluator is None:
            return {}
        assert self._floats is not None
        self.calls += 1
        whole = (*self._identity, json.dumps(self._floats), *key)
        stored = self._journal.load("scores", *whole)
        if stored is not None:
            return {str(name): float(value) for name, value in stored.items()}
        scores = self._evaluator(forward())
        self._journal.save("scores", *whole, content=scores)
        return scores

    def _checked(self, forward: Forward) -> dict[str, float]:
        """Return the float model's scores: those of an earlier run if they are still true."""
        assert self._evaluator is not None
        self.calls += 2
        stored = self._journal.load("float-scores", *self._identity)
        first = self._evaluator(forward)
        if stored is not None:
            scores, noise = ({str(k): float(v) for k, v in part.items()} for part in stored)
            if all(
                value <= (NOISE if noise.get(name, 0.0) > EXACT else EXACT)
                for name, value in _distances(scores, first).items()
            ):
                self.noise = noise
                return scores
        second = self._evaluator(forward)
        self.noise = _distances(first, second)
        self._refuse_chance(first, second)
        self._refuse_nothing(first)
        if stored is not None:
            _logger.warning(
                "the float model scores %s and scored %s in the earlier run: what the evaluator "
                "reads has changed, so scores of that run are not used",
                _written(first),
                _written(scores),
            )
        self._journal.save("float-scores", *self._identity, content=[first, self.noise])
        return first

    def _refuse_chance(self, first: Mapping[str, float], second: Mapping[str, float]) -> None:
        assert self._evaluator is not None
        if max(self.noise.values()) <= NOISE:
            return
        raise EvaluatorError(
            "the evaluator scores the same model differently each time",
            where=self._evaluator.where,
            why=f"the float model scored {_written(first)} and then {_written(second)}: the best "
            "of many configurations would be the luckiest one",
            hint="fix the seed of what is random, and start anew in each call",
        )

    def _refuse_nothing(self, scores: Mapping[str, float]) -> None:
        assert self._evaluator is not None
        if any(scores.values()):
            return
        raise EvaluatorError(
            "the float model scores 0",
            where=self._evaluator.where,
            why="a goal is a share of the float score, and there is no share of 0",
            hint="check preprocessing and labels; instead of an error e, return 1 - e",
        )


def _distances(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Return the relative difference of each score; 1 where only one side has it."""
    both = one.keys() & other.keys()
    return {
        name: _distance(one[name], other[name]) if name in both else 1.0
        for name in {**one, **other}
    }


def _distance(one: float, other: float) -> float:
    return abs(one - other) / max(abs(one), abs(other)) if one != other else 0.0


def _written(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in scores.items())
