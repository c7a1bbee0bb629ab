"""The user's evaluator: ``evaluate(forward) -> float | dict[str, float]``, higher is better."""

from __future__ import annotations

import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from jptq import files
from jptq.errors import EvaluatorError, JptqError

Forward: TypeAlias = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


class Evaluator:
    """A function of the user that scores a forward.

    Attributes:
      where: ``path.py:function``, for errors.
      digest: Of the file; part of the key under which scores are kept.
      calls: How often it ran.
    """

    def __init__(self, function: Callable[[Forward], Any], *, where: str, digest: str) -> None:
        self._function = function
        self.where = where
        self.digest = digest
        self.calls = 0

    @classmethod
    def load(cls, spec: str) -> Evaluator:
        """Load ``path.py[:function]``; the function is ``evaluate`` by default.

        The file's folder is importable while it loads, as when Python runs it.

        Raises:
          EvaluatorError: The file or function is not there, or importing it fails.
        """
        path, _, name = spec.rpartition(":") if _names_function(spec) else (spec, "", "")
        file = Path(path)
        if not file.is_file():
            raise EvaluatorError(
                f"--evaluator: no file {path}", hint="give path.py or path.py:function"
            )
        module_name = f"jptq_evaluator_{files.digest(str(file.resolve()))[:12]}"
        module_spec = importlib.util.spec_from_file_location(module_name, file)
        if module_spec is None or module_spec.loader is None:
            raise EvaluatorError(f"--evaluator: {path} is not a Python file")
        module = importlib.util.module_from_spec(module_spec)
        sys.modules[module_name] = module
        sys.path.insert(0, str(file.resolve().parent))
        try:
            module_spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise EvaluatorError(
                f"--evaluator: {path} cannot be imported", why=_own_traceback(error, file)
            ) from error
        finally:
            sys.path.remove(str(file.resolve().parent))
        function = getattr(module, name or "evaluate", None)
        if not callable(function):
            raise EvaluatorError(
                f"--evaluator: {path} has no function {name or 'evaluate'!r}",
                hint="def evaluate(forward) -> float | dict[str, float]",
            )
        return cls(function, where=f"{file.name}:{name or 'evaluate'}", digest=files.digest(file))

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
            found = self._function(forward)
        except JptqError:
            raise
        except (Exception, SystemExit) as error:
            raise EvaluatorError(
                f"the evaluator raised {type(error).__name__}",
                where=self.where,
                why=_own_traceback(error, None),
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


def _names_function(spec: str) -> bool:
    """A drive letter has a colon too: a function name follows ``.py:``."""
    return ".py:" in spec


def _own_traceback(error: BaseException, file: Path | None) -> str:
    """The user's part of a traceback: from ``file`` on, or after our own frame."""
    frames = traceback.extract_tb(error.__traceback__)
    if file is None:
        first = 1 if len(frames) > 1 else 0
    else:
        own = [i for i, f in enumerate(frames) if Path(f.filename).resolve() == file.resolve()]
        first = own[0] if own else len(frames)  # a syntax error has no frame in its file
    lines = traceback.format_list(frames[first:])
    lines += traceback.format_exception_only(type(error), error)
    return "".join(lines).rstrip()
