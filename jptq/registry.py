"""Look-up of a name in a table of entries, with a useful refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from jptq.errors import UnknownNameError

T = TypeVar("T")


def lookup(table: Mapping[str, T], name: str, kind: str, *, where: str = "") -> T:
    """Return ``table[name]``.

    Args:
      table: The registered entries.
      name: What the user asked for.
      kind: What an entry is called in an error ("metric", "method").
      where: Flag or file that holds the name.

    Raises:
      UnknownNameError: ``name`` is not registered; near names are listed.
    """
    try:
        return table[name]
    except KeyError:
        raise UnknownNameError(kind, name, table, where=where) from None
