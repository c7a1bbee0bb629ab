"""Errors that a user can act on: what, where, why, and what to try."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories: controls, marks that turn the direction of writing, halves of characters,
ends of lines and paragraphs."""


def printable(text: str, *, lines: bool = False) -> str:
    r"""Return text that a terminal or a page shows as it is, and nothing else happens.

    Names in a file may hold what moves the cursor, recolours the screen or turns the direction of
    writing. Everything that people read goes through here; files for machines keep true names.

    Args:
      text: Any.
      lines: Ends of lines are meant, and stay.

    >>> printable("a\x1b[31mb\nc\u202ed")
    'a\\x1b[31mb\\nc\\u202ed'
    """
    if text.isascii() and text.isprintable():
        return text

    def shown(character: str) -> str:
        if (lines and character == "\n") or unicodedata.category(character) not in _UNSAFE:
            return character
        return repr(character)[1:-1]

    return "".join(map(shown, text))


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
        parts = [self.what, *(f"  {label} {text}" for label, text in labelled if text)]
        return "\n".join(printable(part, lines=True) for part in parts)


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


class NonFiniteScoreError(EvaluatorError):
    """A score is NaN or infinite."""


class StorageError(JptqError):
    """A file could not be written or read."""
