"""Errors that a user can act on: what, where, why, and what to try."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class JptqError(Exception):
    """An expected failure, printed without a traceback.

    Args:
      what: One line that names the fault.
      where: Node, tensor, file or flag it was found at.
      why: The cause, if it is not plain from `what`.
      hint: What to try.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        labelled = (("at: ", self.where), ("why:", self.why), ("try:", self.hint))
        return "\n".join([self.what, *(f"  {label} {text}" for label, text in labelled if text)])


class ModelError(JptqError):
    """The network cannot be read or traced."""


class UnsupportedOpError(ModelError):
    """Operators (all of them at once) that have no implementation."""


class StaticInputError(ModelError):
    """An operator needs a value while tracing that is only known when running."""


class ShapeError(ModelError):
    """Shapes do not fit each other or cannot be resolved."""


class ConfigError(JptqError):
    """A configuration says something impossible."""


class UnknownNameError(ConfigError):
    """A name that does not exist, with the nearest names that do.

    Args:
      kind: What the name should have named ("node", "metric", "march").
      name: The name as given.
      known: The names that exist.
      where: File or flag that holds the name.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str = "") -> None:
        candidates = list(known)
        near = difflib.get_close_matches(name, candidates, n=3, cutoff=0.5)
        if near:
            hint = "did you mean " + " or ".join(repr(other) for other in near) + "?"
        elif len(candidates) <= 16:
            hint = "known: " + ", ".join(sorted(candidates))
        else:
            hint = ""
        super().__init__(f"unknown {kind} {name!r}", where=where, hint=hint)


class DataError(JptqError):
    """Calibration or evaluation data that cannot be used."""


class EvaluatorError(JptqError):
    """The user's evaluator raised or returned something unusable."""


class StorageError(JptqError):
    """A file could not be written or read."""
