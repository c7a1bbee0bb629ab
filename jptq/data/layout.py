"""Where the samples of every input lie: which files of a folder belong together (design 3)."""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from jptq.data import flat
from jptq.data.check import Expected
from jptq.errors import DataError

ARRAYS = (".npy", ".bin", ".raw")
"""Suffixes of files that hold one array; all but ``.npy`` are the bare bytes."""

Paths = tuple[tuple[Path, ...], ...]
"""For each sample a file per input, or one ``.npz``."""

_FORBIDDEN = '/\\:*?"<>|'


def folder_name(input_name: str) -> str:
    """Return the name of the folder of a network input.

    Characters that a file system forbids become ``_``.

    Raises:
      DataError: No folder inside another one can have the name.
    """
    name = _allowed(input_name)
    if _impossible(name):
        raise DataError(
            f"input {input_name!r} cannot have a folder of its own",
            why="no file system has such a name",
            hint="rename the input, or give an .npz file per sample",
        )
    return name


def _allowed(name: str) -> str:
    return "".join("_" if character in _FORBIDDEN else character for character in name)


def _impossible(name: str) -> bool:
    return name in ("", ".", "..") or "\0" in name


def folder_names(inputs: Iterable[str]) -> dict[str, str]:
    """Return ``{input: folder}``.

    Raises:
      DataError: An input can have no folder, or two have the same.
    """
    found: dict[str, str] = {}
    for name in inputs:
        own = folder_name(name)
        for other, taken in found.items():
            if taken == own:
                raise DataError(
                    f"inputs {other!r} and {name!r} have one folder, {own!r}",
                    why="characters that a file system forbids become _",
                    hint="give an .npz file per sample, or a folder per input, in their order: "
                    "--calibration_data='one;other'",
                )
        found[name] = own
    return found


def found(folder: Path, inputs: Sequence[Expected]) -> Paths:
    """Return the files of every sample.

    Args:
      folder: Or several, separated by semicolons: one per input, in their order or as
        ``input=folder``.
      inputs: The network inputs.

    Raises:
      DataError: There are none, an input lacks some, or it cannot be told whose they are.
      OSError: A folder cannot be read.
    """
    if not folder.is_dir():
        parts = [Path(part.strip()) for part in str(folder).split(";") if part.strip()]
        if len(parts) > 1:
            columns = _one_each(_in_order(parts, inputs), inputs)
            return _paired(inputs, columns, where=str(folder))
        raise _no_folder(folder)
    names = [one.name for one in inputs]
    own = {name: _own_folder(folder, name) for name in names}
    present = [path.name for path in own.values() if path is not None]
    archives = _listed(folder, (".npz",), folders=present)
    if archives:
        return tuple((path,) for path in archives)
    # Beside folders of several inputs files mean nothing.
    direct = _listed(folder, ARRAYS, folders=present) if len(inputs) == 1 or not present else []
    if not present:
        beside = flat.columns(direct, names, plain=_allowed, where=str(folder))
        if beside is not None:
            return _paired(inputs, beside, where=str(folder))
    if len(inputs) == 1 and direct:
        return tuple((path,) for path in direct)
    _refuse_shared(own)
    return _paired(
        inputs, [_column(folder, own[one.name], one) for one in inputs], where=str(folder)
    )


def _own_folder(folder: Path, name: str) -> Path | None:
    """Return the folder of an input, under its very name or the one that every system allows.

    Raises:
      DataError: There are both.
    """
    if _impossible(_allowed(name)):
        return None
    literal, written = folder / name, folder / _allowed(name)
    if Path(name).is_absolute() or ".." in Path(name).parts:
        literal = written  # names lead nowhere else
    there = [path for path in dict.fromkeys((literal, written)) if path.is_dir()]
    if len(there) > 1:
        raise DataError(
            f"input {name!r} has two folders",
            where=str(folder),
            why=f"{literal.relative_to(folder)} and {written.name} both are its name",
            hint="remove one of them, or give a folder per input, in their order: "
            "--calibration_data='one;other'",
        )
    return there[0] if there else None


def _refuse_shared(own: dict[str, Path | None]) -> None:
    taken: dict[Path, str] = {}
    for name, path in own.items():
        if path is not None and taken.setdefault(path, name) != name:
            folder_names((taken[path], name))  # says so


def _in_order(parts: Sequence[Path], inputs: Sequence[Expected]) -> list[Path]:
    """Return folders in the order of the inputs; all of them may be written ``input=folder``.

    Raises:
      DataError: An input has two folders, or none.
    """
    names = [one.name for one in inputs]
    found: dict[str, Path] = {}
    for part in parts:
        name = next((name for name in names if str(part).startswith(f"{name}=")), None)
        if name is None or part.exists():
            return list(parts)
        if name in found:
            raise DataError(f"input {name!r} is given two folders", where=";".join(map(str, parts)))
        found[name] = Path(str(part).removeprefix(f"{name}="))
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(
            f"there is no folder for input {missing[0]!r}", where=";".join(map(str, parts))
        )
    return [found[name] for name in names]


def _one_each(folders: Sequence[Path], inputs: Sequence[Expected]) -> list[list[Path]]:
    """Return the files of folders that are named input by input."""
    if len(folders) != len(inputs):
        raise DataError(
            f"{len(folders)} folders of calibration data for {len(inputs)} inputs",
            where=";".join(map(str, folders)),
            why="inputs: " + ", ".join(expected.name for expected in inputs),
        )
    columns = []
    for folder, expected in zip(folders, inputs, strict=True):
        if not folder.is_dir():
            raise _no_folder(folder)
        columns.append(_listed(folder, ARRAYS))
        if not columns[-1]:
            raise _no_samples(folder, expected)
    return columns


def _paired(inputs: Sequence[Expected], columns: Sequence[Sequence[Path]], *, where: str) -> Paths:
    """Return samples from the files of each input."""
    counts = {len(column) for column in columns}
    if len(counts) > 1:
        raise DataError(
            "the inputs have different numbers of samples",
            where=where,
            why=", ".join(
                f"{expected.name}: {len(column)}"
                for expected, column in zip(inputs, columns, strict=True)
            ),
        )
    return tuple(zip(*columns, strict=True))


def _column(folder: Path, own: Path | None, expected: Expected) -> list[Path]:
    """Return the files of one input, from its own folder."""
    if own is None:
        own = folder / folder_name(expected.name)
        present = sorted(path.name for path in folder.iterdir() if path.is_dir())
        if not present and not _listed(folder, ARRAYS):
            raise _no_samples(folder, expected)
        broken = f"{own.name} is {_kind(own)}; " if own.is_symlink() or own.exists() else ""
        raise DataError(
            f"there is no folder for input {expected.name!r}",
            where=str(own),
            why=f"{broken}folders here: " + (", ".join(present) or "none"),
        )
    listed = _listed(own, ARRAYS)
    if not listed:
        raise _no_samples(own, expected)
    return listed


def _no_folder(path: Path) -> DataError:
    return DataError(
        "the calibration data is not a folder",
        where=str(path),
        why=f"it is {_kind(path)}" if path.is_symlink() or path.exists() else "",
    )


def _no_samples(folder: Path, expected: Expected) -> DataError:
    others = sorted({path.suffix or path.name for path in folder.iterdir() if path.is_file()})
    return DataError(
        f"there are no samples of input {expected.name!r}",
        where=str(folder),
        why="the files here are " + ", ".join(others) if others else "the folder is empty",
        hint="a sample is an array as the network takes it, saved as "
        + ", ".join((*ARRAYS, ".npz")),
    )


def _listed(folder: Path, suffixes: Sequence[str], folders: Collection[str] = ()) -> list[Path]:
    """Return the files with some suffixes by name.

    Args:
      folder: Where.
      suffixes: Of what is meant as a sample; hidden files are not.
      folders: Names of folders of inputs: these may look like files.

    Raises:
      DataError: Something that is no file is called like one: leaving it out would be another set
        of samples, and opening it may never return.
    """
    named = [
        path
        for path in folder.iterdir()
        if path.suffix in suffixes and not path.name.startswith(".") and path.name not in folders
    ]
    for path in sorted(named):
        if not path.is_file():
            raise DataError(
                f"a sample is {_kind(path)}",
                where=str(path),
                why="every file with this suffix is taken for a sample",
                hint="put the file there, or remove it",
            )
    return sorted(named)


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISREG, "a file"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _kind(path: Path) -> str:
    """Say what a path leads to, without opening it."""
    try:
        mode = path.stat().st_mode
    except OSError:  # or a circle of links
        return f"a broken link to {path.readlink()}" if path.is_symlink() else "unreadable"
    return next((title for is_one, title in _KINDS if is_one(mode)), "no file")
