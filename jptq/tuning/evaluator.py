"""The user's evaluator: ``evaluate(forward) -> float | dict[str, float]``, higher is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from jptq import user_code
from jptq.errors import EvaluatorError, NonFiniteScoreError
from jptq.user_code import UserFunction

Forward: TypeAlias = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


class Evaluator:
    """A function of the user that scores a forward.

    Args:
      function: Takes a forward; returns a number, or numbers by name. Its digest is part of the
        key under which scores are kept; without one they are not.

    Attributes:
      calls: How often it ran.
    """

    def __init__(self, function: UserFunction) -> None:
        self._function = function
        self.calls = 0

    @property
    def where(self) -> str:
        """Where the function stands, for errors."""
        return self._function.where

    @property
    def digest(self) -> str:
        """Digest of its code, or nothing."""
        return self._function.digest

    @classmethod
    def load(cls, spec: str) -> Evaluator:
        """Load ``path.py[:function]``; the function is ``evaluate`` by default.

        Raises:
          EvaluatorError: The file or function is not there, or importing it fails.
        """
        found = user_code.load(
            spec,
            flag="--evaluator",
            function="evaluate",
            signature="def evaluate(forward) -> float | dict[str, float]",
            error=EvaluatorError,
        )
        return cls(found)

    @classmethod
    def of(cls, function: Callable[[Forward], Any]) -> Evaluator:
        """Wrap a function of the calling program; its scores are not kept between runs."""
        name = getattr(function, "__qualname__", repr(function))
        return cls(UserFunction(call=function, where=name))

    def __call__(self, forward: Forward) -> dict[str, float]:
        """Return the scores by name.

        Raises:
          EvaluatorError: It raised, returned something other than finite numbers, or never ran
            the model.
        """
        self.calls += 1
        runs = 0

        def counted(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            nonlocal runs
            runs += 1
            return forward(feeds)

        found = user_code.call(self._function, counted, noun="evaluator", error=EvaluatorError)
        scores = dict(found) if isinstance(found, Mapping) else {"score": found}
        if not scores:
            raise EvaluatorError("the evaluator returned no score", where=self.where)
        for name, value in scores.items():
            if isinstance(value, bool) or not isinstance(
                value, (int, float, np.integer, np.floating)
            ):
                raise EvaluatorError(
                    f"score {name!r} is {type(value).__name__}, not a number", where=self.where
                )
            if not math.isfinite(float(value)):
                raise NonFiniteScoreError(
                    f"score {name!r} is {float(value)}",
                    where=self.where,
                    why="it cannot be compared with the float model's score",
                    hint="return a finite number, 0 for a failed case",
                )
        if not runs:
            raise EvaluatorError(
                "the evaluator returned a score without running the model",
                where=self.where,
                why="such a score is the same for every configuration, or chance",
                hint="call the function that it is given: outputs = forward({input: batch})",
            )
        return {str(name): float(value) for name, value in scores.items()}
