"""Samples of several inputs side by side: ``b0_input_data_image.npy``, ``b0_input_data_mask.npy``.

A name is the number of the batch, perhaps a prefix, and the name of the input. The prefix is not
known, so that a name may fit two inputs of which one ends like the other (``mask``, ``da_mask``).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from jptq.errors import DataError

_logger = logging.getLogger(__name__)

_NAME = re.compile(r"b(?P<batch>\d+)_(?P<rest>.+)")

_ENOUGH = 1000
"""Ways to read the names that are looked at: more only exist where many names end alike."""

Choice = Mapping[str, str]
"""``{input: what stands behind the batch in the names of its files}``."""


def columns(
    paths: Sequence[Path], inputs: Sequence[str], *, plain: Callable[[str], str], where: str
) -> list[list[Path]] | None:
    """Return the files of every input by batch; None if the names say no input.

    Args:
      paths: All files of the folder.
      inputs: Names of the network inputs.
      plain: Gives a name as a file system takes it.
      where: The folder, for messages.

    Raises:
      DataError: It cannot be told whose a file is, or an input lacks one.
    """
    parts: dict[str, list[tuple[int, Path]]] = {}
    for path in paths:
        match = _NAME.fullmatch(path.stem)
        if match is not None:
            parts.setdefault(match["rest"], []).append((int(match["batch"]), path))
    fitting = {
        name: {rest: prefix for rest in parts if (prefix := _prefix(rest, name, plain)) is not None}
        for name in inputs
    }
    if not any(fitting.values()):
        return None
    if len(inputs) == 1 and not _alone(fitting[inputs[0]], parts):
        return None  # all files are samples of the only input, whatever they are called
    chosen = _chosen(fitting, where)
    rest = [path for path in paths if _rest(path) not in chosen.values()]
    if rest:
        shown = ", ".join(path.name for path in rest[:3]) + (", ..." if len(rest) > 3 else "")
        _logger.warning("%s: %d files belong to no input: %s", where, len(rest), shown)
    batches = {name: _by_batch(parts[chosen[name]]) for name in inputs}
    every = sorted(set().union(*batches.values()))
    for name, own in batches.items():
        for batch in every:
            if batch not in own:
                raise DataError(
                    f"batch {batch} has no file for input {name!r}",
                    where=where,
                    why=f"the others are called b<batch>_{chosen[name]}",
                )
    return [[batches[name][batch] for batch in every] for name in inputs]


def _prefix(rest: str, name: str, plain: Callable[[str], str]) -> str | None:
    """Return what stands before an input's name; None if that is not what a name ends with."""
    for written in dict.fromkeys((name, plain(name))):
        if rest == written or rest.endswith(f"_{written}"):
            return rest.removesuffix(written)
    return None


def _rest(path: Path) -> str:
    match = _NAME.fullmatch(path.stem)
    return "" if match is None else match["rest"]


def _alone(fits: Mapping[str, str], parts: Mapping[str, Sequence[tuple[int, Path]]]) -> bool:
    """Tell whether one kind of names is the only input's, once in every batch."""
    if len(fits) != 1:
        return False
    (rest,) = fits
    own = {batch for batch, _ in parts[rest]}
    return own == {batch for found in parts.values() for batch, _ in found}


def _chosen(fitting: Mapping[str, Mapping[str, str]], where: str) -> Choice:
    """Return whose each kind of names is: the only way there is, or the only one of one prefix.

    Raises:
      DataError: There is no way, or more than one.
    """
    for name, fits in fitting.items():
        if not fits:
            raise DataError(
                f"there is no file for input {name!r}",
                where=where,
                why=f"the name of one ends with _{name}, as b0_{name} does",
            )
    ways = list(_ways(fitting))
    same = [way for way in ways if len({fitting[name][rest] for name, rest in way.items()}) == 1]
    for found in (ways, same):
        if len(found) == 1:
            return found[0]
    if not ways:
        raise DataError(
            "two inputs would have one file",
            where=where,
            why="; ".join(f"{name}: b0_{', b0_'.join(fits)}" for name, fits in fitting.items()),
        )
    first, second = (same or ways)[:2]
    name = next(name for name in first if first[name] != second[name])
    raise DataError(
        f"two files may be of input {name!r}: b0_{first[name]} and b0_{second[name]}",
        where=where,
        hint="put the files of each input into a folder of its name",
    )


def _ways(fitting: Mapping[str, Mapping[str, str]]) -> Iterator[Choice]:
    """Yield ways to give every input a kind of names of its own, a few at most."""
    names = sorted(fitting, key=lambda name: len(fitting[name]))

    def given(index: int, taken: dict[str, str]) -> Iterator[Choice]:
        if index == len(names):
            yield dict(taken)
            return
        for rest in fitting[names[index]]:
            if rest not in taken.values():
                yield from given(index + 1, {**taken, names[index]: rest})

    for count, way in enumerate(given(0, {})):
        if count == _ENOUGH:
            return
        yield way


def _by_batch(found: Sequence[tuple[int, Path]]) -> dict[int, Path]:
    """Return the files by batch.

    Raises:
      DataError: Two are of one batch.
    """
    out: dict[int, Path] = {}
    for batch, path in found:
        if batch in out:
            raise DataError(
                f"batch {batch} is there twice", where=str(path), why=f"it is {out[batch].name} too"
            )
        out[batch] = path
    return out
