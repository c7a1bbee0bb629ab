"""The user's evaluator: ``evaluate(forward) -> float | dict[str, float]``, higher is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from jptq import user_code
from jptq.errors import EvaluatorError, JptqError

Forward: TypeAlias = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


class Evaluator:
    """A function of the user that scores a forward.

    Attributes:
      where: ``path.py:function``, for errors.
      digest: Of its code; part of the key under which scores are kept.
      calls: How often it ran.
    """

    def __init__(
        self,
        function: Callable[[Forward], Any],
        *,
        where: str,
        digest: str,
        folder: Path | None = None,
    ) -> None:
        self._function = function
        self._folder = folder
        self.where = where
        self.digest = digest
        self.calls = 0

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
        return cls(found.call, where=found.where, digest=found.digest, folder=found.folder)

    @classmethod
    def of(cls, function: Callable[[Forward], Any]) -> Evaluator:
        """Wrap a function of the calling program; its scores are not kept between runs."""
        name = getattr(function, "__qualname__", repr(function))
        return cls(function, where=name, digest="")

    def __call__(self, forward: Forward) -> dict[str, float]:
        """Return the scores by name.

        Raises:
          EvaluatorError: It raised, or returned something other than finite numbers.
        """
        self.calls += 1
        try:
            with user_code.importable(self._folder):
                found = self._function(forward)
        except JptqError:
            raise
        except (Exception, SystemExit) as error:
            raise EvaluatorError(
                f"the evaluator raised {type(error).__name__}",
                where=self.where,
                why=user_code.own_traceback(error, None),
            ) from error
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
                raise EvaluatorError(
                    f"score {name!r} is {float(value)}",
                    where=self.where,
                    why="it cannot be compared with the float model's score",
                    hint="return a finite number, 0 for a failed case",
                )
        return {str(name): float(value) for name, value in scores.items()}
