"""What the vendor's programs take for a value: lists without quotes, words for booleans.

All raise argparse's own error, which names the option; `Parser` shows it as ours are shown.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from jptq.errors import ConfigError

Names = str | list[Any]
"""A word, or a list of words and of such lists."""

_BOOLEANS = {
    **dict.fromkeys(("true", "t", "1", "yes", "y", "on"), True),
    **dict.fromkeys(("false", "f", "0", "no", "n", "off"), False),
}


class Parser(argparse.ArgumentParser):
    """Reads a command line; what is wrong with it is raised, not printed below the usage."""

    def error(self, message: str) -> NoReturn:
        """Refuse a command line.

        Raises:
          ConfigError: Always.
        """
        raise ConfigError(message, hint=f"{self.prog} --help")


def names(text: str) -> Names:
    """Read a word or a list, with or without quotes.

    >>> names("['mse', 'sqnr']"), names("[[a,b],c]"), names("Conv_0")
    (['mse', 'sqnr'], [['a', 'b'], 'c'], 'Conv_0')

    Raises:
      ArgumentTypeError: Brackets do not match, or there is nothing between two commas.
    """
    tokens = [t.strip() for t in re.findall(r"[\[\],]|[^\[\],]+", re.sub("['\"]", "", text))]
    tokens = [t for t in tokens if t]
    bare = tokens[:1] != ["["]
    found, rest = _list([*tokens, "]"] if bare else tokens[1:], text)
    if any(isinstance(name, list) for item in found if isinstance(item, list) for name in item):
        raise argparse.ArgumentTypeError(f"{text!r} nests lists too deep: [[a,b],c] at most")
    if rest or not found:
        raise _not_a_list(text)
    return str(found[0]) if bare and len(found) == 1 else found


def listed(text: str) -> list[Any]:
    """Read a list; a word is a list of one."""
    found = names(text)
    return [found] if isinstance(found, str) else found


def boolean(text: str) -> bool:
    """Read a boolean: a word in the vendor's programs.

    Raises:
      ArgumentTypeError: It is none.
    """
    if text.lower() not in _BOOLEANS:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return _BOOLEANS[text.lower()]


def or_none(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Let the word None stand for an option that is not given."""

    def value(text: str) -> Any:
        return None if text == "None" else read(text)

    value.__name__ = read.__name__  # argparse names it: "invalid int value"
    return value


def joined(arguments: Sequence[str]) -> list[str]:
    """Put lists together again that the shell has split at blanks.

    >>> joined(["-m", "[mse,", "sqnr]", "-v", "True"])
    ['-m', '[mse,sqnr]', '-v', 'True']
    """
    found: list[str] = []
    open_brackets = 0
    for argument in arguments:
        if open_brackets > 0:
            found[-1] += argument
        else:
            found.append(argument)
        open_brackets += argument.count("[") - argument.count("]")
    return found


def _list(tokens: list[str], text: str) -> tuple[list[Any], list[str]]:
    """Read up to the bracket that closes a list; return it and what follows."""
    found: list[Any] = []
    while tokens and tokens[0] != "]":
        head, *tokens = tokens
        if head == ",":
            raise _not_a_list(text)
        if head == "[":
            item, tokens = _list(tokens, text)
            found.append(item)
        else:
            found.append(head)
        if tokens[:1] == [","]:
            tokens = tokens[1:]
        elif tokens[:1] != ["]"]:
            raise _not_a_list(text)
    if not tokens:
        raise _not_a_list(text)
    return found, tokens[1:]


def _not_a_list(text: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{text!r} is not a list: [a,b]")
