"""Run a script written for HMCT: its imports of `hmct` mean ours.

usage: jptq run SCRIPT.py [arguments of the script]

`import hmct`, `hmct.ir`, `hmct.common`, `hmct.api`, `hmct.executor`, `hmct.quantizer.debugger`
(and `horizon_nn`, their older name) resolve to `jptq.hmct`, in the script and in the Python
processes that it starts; `hmct-debugger` and `hmct-info` are found there too. Outside, an installed
HMCT is what it was. Everything behind the script is the script's, flags too; its exit code is
passed on.
"""

from __future__ import annotations

import logging
import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jptq.cli import machine
from jptq.errors import ConfigError, JptqError, StorageError

FLAGS = ()
REQUIRED = ()

FAILED = 1
"""Exit code of a script that raised."""


def verbatim(arguments: Sequence[str]) -> int:
    """Run a script with the arguments behind it.

    Args:
      arguments: The script, then what it finds in ``sys.argv``.

    Returns:
      The script's exit code; 1 if it raised, as Python's own would be.

    Raises:
      ConfigError: No script is given.
      StorageError: There is no such file.
    """
    if not arguments:
        raise ConfigError(
            "no script is given", where="jptq run", hint="jptq run script.py [arguments]"
        )
    script = Path(arguments[0])
    if not script.is_file():
        raise StorageError(
            f"there is no script {arguments[0]!r}",
            where="jptq run",
            hint="flags of jptq run do not exist: the script comes first",
        )
    from jptq.hmct.names import vendor_names
    from jptq.hmct.overlay import overlay

    machine.settle(None, None)
    with _as_python_would(arguments), overlay(), _loud(), vendor_names():
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            return _code(end)
        except JptqError as error:
            error.where = _line(error, script) + (f", {error.where}" if error.where else "")
            raise
        except Exception as error:
            _show(error, script)
            return FAILED
    return 0


@contextmanager
def _as_python_would(arguments: Sequence[str]) -> Iterator[None]:
    """Set ``sys.argv`` and the first place that imports are looked up in."""
    before = sys.argv, list(sys.path)
    sys.argv = list(arguments)
    sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
    try:
        yield
    finally:
        sys.argv, sys.path[:] = before


@contextmanager
def _loud() -> Iterator[None]:
    """Let our log reach the script's own handlers, as the vendor's does: scripts parse it."""
    logger = logging.getLogger("jptq")
    before, propagated = list(logger.handlers), logger.propagate
    logger.handlers, logger.propagate = [], True
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before, propagated


def _code(end: SystemExit) -> int:
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code
    sys.stderr.write(f"{end.code}\n")
    return FAILED


def _line(error: BaseException, script: Path) -> str:
    """Return the line of the script that led to an error."""
    lines = [
        f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(script)
    ]
    return f"{script}:{lines[-1]}" if lines else str(script)


def _show(error: Exception, script: Path) -> None:
    """Write the traceback from the script on: what is above it is ours."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != str(script):
        frames = frames.tb_next
    # A syntax error has no frame in the script.
    shown = traceback.format_exception(type(error), error, frames)
    sys.stderr.write("".join(shown))
