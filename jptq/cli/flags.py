"""The flags of all commands: one vocabulary, every flag is described once.

Each command has its own set of flag values: ``--help`` shows what the command takes, and a flag of
another command is unknown to it.
"""

from __future__ import annotations

import itertools
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags
from absl.flags import FlagValues

from jptq.cli.vocabulary import OLDER, VOCABULARY, Flag
from jptq.errors import ConfigError, StorageError, UnknownNameError
from jptq.registry import lookup

WIDTH = 100
"""Columns that help is wrapped to."""

_MOST_NUMBER = 1e15
"""Of any flag: microseconds of thirty years."""

_GUTTER = 31
"""Column in which the help of a flag begins."""


def define(command: str, names: Sequence[str]) -> FlagValues:
    """Return the flag values of a command, not parsed yet.

    Args:
      command: Name of the command.
      names: Keys of `VOCABULARY`.
    """
    values: FlagValues = absl_flags.FlagValues()  # type: ignore[no-untyped-call]
    # Flags and stray words may stand in any order, so that every stray word is found.
    values.set_gnu_getopt(True)
    for name in names:
        flag = lookup(VOCABULARY, name, "flag", where=command)
        if flag.kind == "switch":
            switch = absl_flags.BooleanFlag(name, bool(flag.default), flag.help)
            switch.parser = _SwitchParser()
            absl_flags.DEFINE_flag(switch, values, command)
        elif flag.kind == "repeated":
            absl_flags.DEFINE_multi_string(name, [], flag.help, values)
        else:
            absl_flags.DEFINE(_parser(flag), name, flag.default, flag.help, values, None, command)
    return values


class _SwitchParser(absl_flags.BooleanParser):
    """Switches; absl's own message is a tuple of two words."""

    def parse(self, argument: str | int | bool) -> bool:
        """Return the position.

        Raises:
          ValueError: It is none.
        """
        try:
            return bool(super().parse(argument))
        except (TypeError, ValueError):
            raise ValueError("a switch takes true or false, or no value") from None


class _FiniteParser(absl_flags.FloatParser):
    """Numbers without NaN and infinities: no flag means anything by these."""

    def convert(self, argument: float | str) -> float:
        """Return the number.

        Raises:
          ValueError: It is none, or not finite.
        """
        value = super().convert(argument)
        if not math.isfinite(value):
            raise ValueError(f"{argument} is not a finite number")
        return value


def _parser(flag: Flag) -> absl_flags.ArgumentParser[Any]:
    if flag.choices:
        return absl_flags.EnumParser(list(flag.choices))
    if flag.kind == "words":
        return absl_flags.ListParser()
    if flag.kind == "number":
        return _FiniteParser(lower_bound=flag.least, upper_bound=_MOST_NUMBER)
    if flag.kind == "count":
        return absl_flags.IntegerParser(lower_bound=flag.least, upper_bound=flag.most)
    return absl_flags.ArgumentParser()


def parse(
    command: str,
    names: Sequence[str],
    required: Sequence[str],
    arguments: Sequence[str],
    *,
    words: str = "",
    fill: Callable[[FlagValues], Mapping[str, str]] = lambda values: {},
) -> FlagValues:
    """Return the parsed flags of a command.

    Args:
      command: Name of the command.
      names: Its flags.
      required: Those that must be given.
      arguments: What follows the command.
      words: The repeated flag that takes words without a flag; empty: they are refused.
      fill: Sets flags that are not given from what is, before any is missed; returns why it leaves
        some, by name.

    Raises:
      UnknownNameError: A flag that the command does not have; the nearest ones are named.
      ConfigError: A value that the flag cannot take, a missing flag, or a stray word.
      StorageError: ``--flagfile`` names no readable file.
    """
    values = define(command, names)
    where = f"jptq {command}"
    _refuse_flag_files(arguments, where)
    try:
        stray = values([where, *_renamed(arguments, names)])[1:]
    except absl_flags.UnrecognizedFlagError as error:
        known = [f"--{name}" for name in (*names, "flagfile", "help")]
        raise UnknownNameError("flag", f"--{error.flagname}", known, where=where) from None
    except absl_flags.CantOpenFlagFileError as error:
        raise StorageError("--flagfile cannot be read", where=where, why=_last(error)) from None
    except absl_flags.Error as error:
        raise ConfigError(_last(error), where=where, hint=f"{where} --help") from None
    if words:
        values[words].value = [*(values[words].value or []), *stray]
    elif stray:
        raise ConfigError(
            f"unexpected argument {stray[0]!r}", where=where, hint="flags are --name=value"
        )
    left = fill(values)
    for name in required:
        if values[name].value is None:
            raise ConfigError(
                f"--{name} is missing",
                where=where,
                why=left.get(name, ""),
                hint=f"--{name}={VOCABULARY[name].shown}",
            )
    return values


def _renamed(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return arguments with the spellings of today; what follows ``--`` is no flag."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    found = []
    for argument in arguments[:end]:
        name, equals, value = argument.lstrip("-").partition("=")
        today = OLDER.get(name) if argument.startswith("-") else None
        found.append(f"--{today}{equals}{value}" if today in names else argument)
    return [*found, *arguments[end:]]


_FLAG_FILE_BYTES = 1 << 20
_FLAG_FILE = re.compile(r"--?flagfile(=|\s+|$)")


def _refuse_flag_files(arguments: Sequence[str], where: str, above: tuple[Path, ...] = ()) -> None:
    """Refuse a ``--flagfile`` that has no end: a device, a giant, one that names itself."""
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        found = _FLAG_FILE.match(argument)
        if found is None:
            continue
        path = Path(argument[found.end() :].strip() or following).expanduser()
        why = ""
        if path.exists() and not path.is_file():
            why = "it is no regular file"
        elif path.is_file() and path.stat().st_size > _FLAG_FILE_BYTES:
            why = f"it has {path.stat().st_size} bytes"
        elif path.is_file() and path.resolve() in above:
            why = "it names itself, or one that it is named in does"
        if why:
            raise StorageError("--flagfile cannot be read", where=where, why=f"{path}: {why}")
        if path.is_file():
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, ValueError) as error:
                raise StorageError(
                    "--flagfile cannot be read", where=where, why=f"{path}: {error}"
                ) from None
            _refuse_flag_files(lines, where, (*above, path.resolve()))


def _last(error: Exception) -> str:
    """Return a message of absl on one line, without its shout."""
    return " ".join(str(error).removeprefix("ERROR:: ").split())


def usage(
    command: str, doc: str, names: Sequence[str], required: Sequence[str], *, words: str = ""
) -> str:
    """Return the help of a command.

    Args:
      command: Its name.
      doc: The docstring of its module; the first line says what it does.
      names: Its flags.
      required: Those that must be given; they stand first.
      words: The repeated flag that takes words without a flag.
    """
    first, _, rest = doc.strip().partition("\n")
    needed = " ".join(f"--{name}={VOCABULARY[name].shown}" for name in required)
    bare = f" {VOCABULARY[words].shown} ..." if words else ""
    lines = [first, "", f"usage: jptq {command} {needed}{bare} [flags]".replace("  ", " ")]
    if rest.strip():
        lines += ["", rest.strip()]
    lines += ["", "flags:"]
    for name in (*required, *(other for other in names if other not in required)):
        lines += _described(name, needed=name in required)
    lines += _entry("--flagfile=FILE", "Read flags from a file, one a line.")
    return "\n".join(lines) + "\n"


def _described(name: str, *, needed: bool) -> list[str]:
    flag = VOCABULARY[name]
    if flag.kind == "switch":
        title, default = f"--[no]{name}", "on" if flag.default else "off"
    else:
        shown = "|".join(flag.choices) if flag.choices else flag.shown
        title, default = f"--{name}={shown}", "" if flag.default is None else str(flag.default)
    note = " Required." if needed else f" Default: {default}." if default else ""
    return _entry(title, flag.help + note)


def _entry(title: str, text: str) -> list[str]:
    wrapped = textwrap.wrap(text, WIDTH - _GUTTER, break_long_words=False)
    head = f"  {title}"
    if len(head) >= _GUTTER:
        return [head, *(" " * _GUTTER + line for line in wrapped)]
    return [(head if i == 0 else "").ljust(_GUTTER) + line for i, line in enumerate(wrapped)]
