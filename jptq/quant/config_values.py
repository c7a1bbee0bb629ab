"""Checks of single values of a configuration: ``check(value, key, where)`` returns the value."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

from jptq.errors import ConfigError, UnknownNameError

Value = TypeVar("Value")
Check: TypeAlias = Callable[[object, str, str], Value]
"""Takes a value, its key and the table it stands in; raises ConfigError."""


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 60, 60


def shown(value: object) -> str:
    """Return a value for a message: aliases let a few lines of YAML stand for gigabytes."""
    return value if isinstance(value, str) else _SHORT.repr(value)


def one_of(known: tuple[str, ...], kind: str = "") -> Check[str]:
    """Return the check that a value is one of some words; `kind` says what they are."""

    def check(value: object, key: str, where: str) -> str:
        if not isinstance(value, str) or value not in known:
            raise UnknownNameError(kind or key, shown(value), known, where=where)
        return value

    return check


def number(least: float) -> Check[float]:
    """Return the check that a value is a number from `least` to 1."""

    def check(value: object, key: str, where: str) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= 1.0:
            return float(value)
        raise ConfigError(
            f"{key!r} is a number from {least:g} to 1, not {_SHORT.repr(value)}", where=where
        )

    return check


def count(least: int, most: int = 2**31 - 1) -> Check[int]:
    """Return the check that a value is an integer from `least` to `most`."""

    def check(value: object, key: str, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            end = f" to {most}" if isinstance(value, int) and value > most else ""
            raise ConfigError(
                f"{key!r} is an integer from {least}{end}, not {_SHORT.repr(value)}", where=where
            )
        return value

    return check


def flag(value: object, key: str, where: str) -> bool:
    """Check that a value is true or false."""
    if not isinstance(value, bool):
        raise ConfigError(f"{key!r} is true or false, not {_SHORT.repr(value)}", where=where)
    return value


def optional(table: Mapping[str, Any], key: str, check: Check[Value], where: str) -> Value | None:
    """Return the checked value of a key, None if it is absent."""
    return check(table[key], key, where) if key in table else None


def several(
    table: Mapping[str, Any], key: str, check: Check[Value], where: str
) -> tuple[Value, ...]:
    """Return the checked values of a key without duplicates; nothing if it is absent."""
    if key not in table:
        return ()
    value = table[key]
    values: Iterable[object] = value if isinstance(value, list | tuple) else [value]
    return tuple(dict.fromkeys(check(one, key, where) for one in values))
