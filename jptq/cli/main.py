"""The program: finds the command, runs it, and turns whatever happens into an exit code.

Exit codes: the command's own (design 3), 1 for a fault of ours, 2 for what the user can mend,
130 and 143 if a signal ended the work, 141 if nobody reads the output any more.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType

from jptq import __version__
from jptq.cli import compile_flags, flags, signals
from jptq.cli.signals import INTERRUPTED, TERMINATED
from jptq.errors import JptqError, StorageError, printable
from jptq.registry import lookup

COMMANDS = {
    "tune": "jptq.cli.tune",
    "demo": "jptq.cli.demo",
    "calibrate": "jptq.cli.calibrate",
    "fit": "jptq.cli.fit",
    "sensitivity": "jptq.cli.sensitivity",
    "sweep": "jptq.cli.sweep",
    "diagnose": "jptq.cli.diagnose",
    "evaluate": "jptq.cli.evaluate",
    "what-if": "jptq.cli.what_if",
    "latency": "jptq.cli.latency",
    "allocate": "jptq.cli.allocate",
    "export": "jptq.cli.export",
    "config": "jptq.cli.config",
    "run": "jptq.cli.run",
}
"""A command is a module with a docstring (its help), ``FLAGS``, ``REQUIRED`` and ``run(flags)``;
``WORDS`` names the repeated flag that takes words without a flag, if there is one. A command with
``verbatim(arguments)`` in the place of ``run`` parses its arguments itself."""

FAULT, USAGE, PIPE = 1, 2, 141

_FOLDERS = ("tune", "demo", "calibrate", "fit")
"""Commands that write to a folder of their own if no ``--out`` is given."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_FILE = (
    *(errno.ENAMETOOLONG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR),
    *(errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ETXTBSY, errno.ENOTEMPTY),
)
"""What the system refuses, wherever that is met."""

_HELP = ("--help", "-h", "-help", "--helpfull", "--helpshort")


def entry(run: Callable[[Sequence[str]], int] | None = None) -> None:
    """Run a program; ``jptq`` if none is named."""
    signals.install()
    sys.exit((run or main)(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run a command.

    Args:
      arguments: What follows the program's name.

    Returns:
      The exit code. Everything a user has to read is written.
    """
    return guarded("jptq", arguments, lambda: _dispatch(arguments), kept=lambda: _kept(arguments))


def guarded(
    program: str,
    arguments: Sequence[str],
    work: Callable[[], int],
    *,
    kept: Callable[[], str] = str,
) -> int:
    """Run a program's work; whatever ends it becomes a line for the user and an exit code.

    Args:
      program: Name that messages begin with.
      arguments: What follows it on the command line.
      work: Returns the exit code.
      kept: Says what is left of an interrupted run.
    """
    with _warnings_on_stderr(program):
        try:
            code = work()
            sys.stdout.flush()
        except JptqError as error:
            code = _refuse(program, error)
        except KeyboardInterrupt:
            signals.caught()
            code = _say(program, "interrupted" + kept(), INTERRUPTED)
        except signals.Terminated:
            signals.caught()
            code = _say(program, "terminated" + kept(), TERMINATED)
        except BrokenPipeError:
            # What is left in the buffer would raise again when Python exits.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = PIPE
        except Exception as error:
            known = _understood(error)
            code = (
                _refuse(program, known)
                if known is not None
                else _report_fault(program, error, arguments)
            )
    return code


def overview() -> str:
    """Return the list of commands with a line each."""
    width = max(map(len, COMMANDS)) + 2
    lines = [
        f"jptq {__version__}: mixed-precision post-training quantization of ONNX networks",
        "",
        "usage: jptq COMMAND [flags]",
        "",
        "commands:",
    ]
    for name in COMMANDS:
        first = (_command(name).__doc__ or "").strip().partition("\n")[0]
        lines.append(f"  {name:<{width}}{first}")
    lines += ["", "jptq COMMAND --help shows the flags of a command; start with jptq demo."]
    return "\n".join(lines) + "\n"


def _dispatch(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in (*_HELP, "help"):
        sys.stdout.write(overview())
        return 0
    if arguments[0] == "--version":
        sys.stdout.write(f"jptq {__version__}\n")
        return 0
    name, rest = arguments[0], arguments[1:]
    lookup(COMMANDS, name, "command")
    command = _command(name)
    if hasattr(command, "verbatim"):
        if rest and rest[0] in _HELP:
            sys.stdout.write((command.__doc__ or "").strip() + "\n")
            return 0
        return int(command.verbatim(rest))
    words = getattr(command, "WORDS", "")
    if any(argument in _HELP for argument in rest):
        doc = command.__doc__ or ""
        sys.stdout.write(flags.usage(name, doc, command.FLAGS, command.REQUIRED, words=words))
        return 0
    values = flags.parse(
        name, command.FLAGS, command.REQUIRED, rest, words=words, fill=compile_flags.fill
    )
    return int(command.run(values))


def _command(name: str) -> ModuleType:
    return importlib.import_module(COMMANDS[name])


def _kept(arguments: Sequence[str]) -> str:
    """Say whether the interrupted command can go on; it was a known one, or it would not run."""
    if not arguments or "resume" not in _command(arguments[0]).FLAGS:
        return ""
    given = [argument.lstrip("-").partition("=")[0] for argument in arguments[1:]]
    fresh = "noresume" in given or "--resume=false" in arguments
    resumes = not fresh and (arguments[0] in _FOLDERS or "out" in given)
    return "; what is finished is kept, the same command goes on from there" if resumes else ""


def _say(program: str, text: str, code: int) -> int:
    sys.stderr.write(f"{program}: {printable(text, lines=True)}\n")
    return code


def _refuse(program: str, error: JptqError) -> int:
    sys.stderr.write(f"{program}: error: {error}\n")
    return error.exit_code


def _understood(error: Exception) -> JptqError | None:
    """Return what to say of a failure of the machine; None if it is a fault of ours."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return StorageError(
            f"cannot write {error.filename or 'a file'}",
            why=error.strerror or str(error),
            hint="free space or choose another --out",
        )
    if isinstance(error, OSError) and error.errno in _NO_FILE:
        name = (
            shown if len(shown := str(error.filename or "a file")) <= 100 else f"{shown[:100]}..."
        )
        return StorageError(f"cannot use {name}", why=error.strerror or str(error))
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return JptqError(
            "out of memory",
            why=str(error).partition("\n")[0],
            hint="a smaller --batch_size, or another --device",
        )
    return None


def _report_fault(program: str, error: Exception, arguments: Sequence[str]) -> int:
    """Write all that a maintainer needs to a file and ask for it in one line."""
    packages = ("jax", "jaxlib", "numpy", "onnx", "onnx-ir", "scipy", "absl-py", "rich")
    text = "\n".join(
        [
            f"jptq {__version__}, Python {platform.python_version()}, {platform.platform()}",
            ", ".join(f"{name} {_version(name)}" for name in packages),
            " ".join([program, *arguments]),
            "",
            "".join(traceback.format_exception(error)),
        ]
    )
    name = time.strftime("jptq-error-%Y%m%d-%H%M%S.txt")
    written = "this output"
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            (folder / name).write_text(text, encoding="utf-8")
        except OSError:
            continue
        written = str(folder / name)
        break
    else:
        sys.stderr.write(text)
    first = str(error).partition("\n")[0]
    fault = f"internal error: {type(error).__name__}: {first}"
    text = f"{fault}\n  please send {written} to the authors of jptq"
    return _say(program, text, FAULT)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


class _Shown(logging.Formatter):
    """Writes out what a terminal would act on."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), lines=True)


@contextlib.contextmanager
def _warnings_on_stderr(program: str) -> Iterator[None]:
    """Show warnings of the library in one form, on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Shown(f"{program}: warning: %(message)s"))
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger("jptq")
    logger.addHandler(handler)
    propagated, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
