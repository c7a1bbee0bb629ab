"""Words that an attribute may hold: looked up in one way, refused in one way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from jptq.errors import ShapeError, UnknownNameError
from jptq.registry import lookup

T = TypeVar("T")


def choose(table: Mapping[str, T], word: str, attribute: str) -> T:
    """Return what a word stands for.

    Args:
      table: The words that the attribute may hold.
      word: The one it holds.
      attribute: Its name.

    Raises:
      ShapeError: The word is unknown; near ones are listed, and the engine adds the node.
    """
    try:
        return lookup(table, word, attribute)
    except UnknownNameError as error:
        raise ShapeError(error.what, hint=error.hint) from None
