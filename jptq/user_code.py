"""Functions from Python files of the user: ``--evaluator`` and ``--loss``."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jptq import files
from jptq.errors import JptqError


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserFunction:
    """A function of a user's file.

    Attributes:
      call: The function itself.
      where: ``path.py:function``, for errors.
      digest: Of the file, of the modules beside it that it imports, and of the function's name.
      folder: Of the file; None for a function of the calling program.
    """

    call: Callable[..., Any]
    where: str
    digest: str = ""
    folder: Path | None = None


def load(
    spec: str, *, flag: str, function: str, signature: str, error: type[JptqError]
) -> UserFunction:
    """Load ``path.py[:function]``; the file's folder is importable, as when Python runs it.

    Args:
      spec: What the user gave.
      flag: Where it was given, for errors.
      function: Its name if `spec` says none.
      signature: How it is defined, for the hint.
      error: Raised, as this class, if the file or function is not there, or importing it fails.
    """
    # A drive letter has a colon too: a function name follows ``.py:``.
    path, _, name = spec.rpartition(":") if ".py:" in spec else (spec, "", "")
    name = name or function
    file = Path(path)
    if not file.is_file():
        raise error(f"{flag}: no file {path}", hint="give path.py or path.py:function")
    module_name = f"jptq_user_{files.digest(str(file.resolve()))[:12]}"
    module_spec = importlib.util.spec_from_file_location(module_name, file)
    if module_spec is None or module_spec.loader is None:
        raise error(f"{flag}: {path} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_name] = module
    folder = file.resolve().parent
    try:
        with importable(folder):
            module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as raised:
        raise error(
            f"{flag}: {path} cannot be imported", why=own_traceback(raised, file)
        ) from raised
    found = getattr(module, name, None)
    if not callable(found):
        raise error(f"{flag}: {path} has no function {name!r}", hint=signature)
    parts = [part for one in _with_imports(file.resolve()) for part in (one.name, one)]
    return UserFunction(
        call=found,
        where=f"{file.name}:{name}",
        digest=files.digest(name, *parts),
        folder=folder,
    )


def call(
    function: UserFunction,
    *arguments: object,
    noun: str,
    error: type[JptqError],
    hint: str = "",
) -> Any:
    """Return what a function of the user returns.

    Args:
      function: To call.
      *arguments: What it is given.
      noun: What it is called in the message.
      error: Raised, as this class, if it raises anything; with the user's own traceback.
      hint: Stands in that error.
    """
    try:
        with importable(function.folder):
            return function.call(*arguments)
    except JptqError as refused:
        line = _line(refused, function.folder)
        if line not in refused.where:
            refused.where = f"{line}, {refused.where}" if refused.where else line
        raise
    except (Exception, SystemExit) as raised:
        raise error(
            f"the {noun} raised {type(raised).__name__}",
            where=function.where,
            why=own_traceback(raised, None),
            hint=hint,
        ) from raised


@contextlib.contextmanager
def importable(folder: Path | None) -> Iterator[None]:
    """Let code of the user run as a program in a folder would.

    Its modules can be imported, those too that a function imports when it is called. What it
    prints goes to stderr: stdout is ours, and may be read by a program.
    """
    if folder is None:
        yield
        return
    sys.path.insert(0, str(folder))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(ValueError):  # the user's code may have taken it out
            sys.path.remove(str(folder))


def own_traceback(error: BaseException, file: Path | None) -> str:
    """Return the user's part of a traceback: from ``file`` on, or after our own frame."""
    frames = traceback.extract_tb(error.__traceback__)
    if file is None:
        first = 1 if len(frames) > 1 else 0
    else:
        own = [i for i, f in enumerate(frames) if Path(f.filename).resolve() == file.resolve()]
        first = own[0] if own else len(frames)  # a syntax error has no frame in its file
    lines = traceback.format_list(frames[first:])
    if isinstance(error, SyntaxError):
        lines += traceback.format_exception_only(error)
    else:  # without the notes that JAX adds about its own frames
        lines.append(f"{type(error).__name__}: {error}")
    return "".join(lines).rstrip()


def _line(error: BaseException, folder: Path | None) -> str:
    """Return the line of the user's file that led to an error of ours; nothing without a file."""
    own = (
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in reversed(traceback.extract_tb(error.__traceback__))
        if folder is not None and Path(frame.filename).resolve().is_relative_to(folder)
    )
    return next(own, "")


def _with_imports(file: Path) -> list[Path]:
    """Return a file and the modules of its folder that it imports, directly or through others."""
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found.add(one)
        try:
            tree = ast.parse(one.read_bytes())
        except (SyntaxError, ValueError):  # Python has refused it, or never gets to it
            continue
        waiting += [path for node in ast.walk(tree) for path in _imported(node, one, file.parent)]
    return sorted(found)


def _imported(node: ast.AST, file: Path, folder: Path) -> list[Path]:
    """Return the files below a folder that an import statement may read."""
    if isinstance(node, ast.Import):
        root, names = folder, [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        root = folder if not node.level else file.parents[node.level - 1]
        base = [node.module] if node.module else []
        names = [*base, *(".".join((*base, alias.name)) for alias in node.names)]
    else:
        return []
    out = []
    for name in names:
        words = name.split(".")
        for depth in range(1, len(words) + 1):
            path = root.joinpath(*words[:depth])
            out += [p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()]
    return out
