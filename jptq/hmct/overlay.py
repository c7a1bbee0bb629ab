"""A Python environment over this one in which the vendor's names mean ours.

A script that was written for HMCT starts other processes, and these import ``hmct`` too. They run
in an environment of the standard library's `venv`, made for as long as the script runs: its
packages are those of this one, and before them two of a line each, ``hmct`` and ``horizon_nn``.
``sys.executable``, ``python`` on the path and the start methods of `multiprocessing` lead there, so
that neither the working folder nor ``PYTHONPATH`` matters, at any depth. Nothing is written to the
environment below: a package of the vendor that is installed there is what it was.

Not reached: ``python -S``, which leaves out all installed packages, and interpreters that a script
names by another path.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import site
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from multiprocessing import spawn
from pathlib import Path

import jptq
from jptq.errors import StorageError
from jptq.hmct.names import NAMES

_PACKAGE = """\
from jptq.cli import machine
from jptq.hmct import names

machine.settle(None, None)
names.stand_in()
"""
"""Of the vendor: whoever imports it gets ours, settled as a command of ours is."""

_PROGRAM = """\
#!/bin/sh
exec {python} -c 'from jptq.cli.{module} import entry; entry()' "$@"
"""

PROGRAMS = {"hmct-debugger": "debugger", "hmct-info": "info"}
"""The vendor's programs, and the modules of ours that answer to them."""


@contextlib.contextmanager
def overlay() -> Iterator[None]:
    """Let the processes that are started meanwhile find our modules under the vendor's names.

    Raises:
      StorageError: The environment cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="jptq-run-", ignore_cleanup_errors=True) as folder:
        try:
            python, packages = _made(Path(folder))
        except OSError as error:
            raise StorageError(
                "cannot make an environment for the script's processes",
                where=folder,
                why=error.strerror or str(error),
                hint="TMPDIR names the folder for temporary files",
            ) from error
        with _entered(python, packages):
            yield


def _made(folder: Path) -> tuple[Path, Path]:
    """Return the interpreter and the packages of a new environment."""
    builder = venv.EnvBuilder(symlinks=os.name == "posix", with_pip=False)
    builder.create(folder)
    context = builder.ensure_directories(folder)
    python = Path(context.env_exe)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    for name in NAMES:
        if "." not in name:
            (packages / name).mkdir(parents=True)
            (packages / name / "__init__.py").write_text(_PACKAGE, encoding="utf-8")
    root = Path(jptq.__file__).resolve().parent.parent
    below = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        below.append(site.getusersitepackages())
    # Our two before PYTHONPATH, where the vendor's may be; then this very jptq, and the packages of
    # the environment below with their own path files.
    lines = [f"import sys; sys.path.insert(0, {str(packages)!r})", str(root)]
    lines += [f"import site; site.addsitedir({path!r})" for path in below]
    (packages / "below.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, module in PROGRAMS.items():
        program = python.parent / name
        program.write_text(_PROGRAM.format(python=shlex.quote(str(python)), module=module))
        program.chmod(0o755)
    return python, packages


@contextlib.contextmanager
def _entered(python: Path, packages: Path) -> Iterator[None]:
    """Lead all ways by which a script finds an interpreter to one."""
    before = sys.executable, spawn.get_executable(), os.environ.get("PATH")
    sys.executable = str(python)
    spawn.set_executable(str(python))
    os.environ["PATH"] = os.pathsep.join(filter(None, (str(python.parent), before[2])))
    sys.path.insert(1, str(packages))  # multiprocessing hands it on
    try:
        yield
    finally:
        sys.executable = before[0]
        spawn.set_executable(before[1])
        if before[2] is None:
            del os.environ["PATH"]
        else:
            os.environ["PATH"] = before[2]
        if str(packages) in sys.path:
            sys.path.remove(str(packages))
