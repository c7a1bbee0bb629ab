"""What the debugger's rankings are asked for, checked before any work is done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from jptq.data import Samples
from jptq.errors import StorageError, UnknownNameError
from jptq.hmct.quantizer.debugger.loading import ArgumentError, missing
from jptq.ir import Model
from jptq.sensitivity import METRICS_OF
from jptq.tuning.source import First

METRICS = METRICS_OF["metric"]
"""The scores that the debugger knows; ``mae`` is not among the vendor's."""

NODE_TYPES = ("node", "weight", "activation")

Names: TypeAlias = Sequence[str | Sequence[str]]
"""Nodes; those in an inner list belong together."""


def metrics_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return the metrics asked for, each once.

    Raises:
      ArgumentError: One does not exist, or there is none.
    """
    names = tuple(dict.fromkeys([given] if isinstance(given, str) else given))
    for name in names:
        if name not in METRICS:
            hint = UnknownNameError("metric", name, METRICS).hint
            raise ArgumentError(f"metrics contain unavailable method: {name}", hint=hint)
    if not names:
        raise ArgumentError("metrics name none", hint="known: " + ", ".join(METRICS))
    return names


def node_type_of(given: str) -> str:
    """Return the kind of rows asked for.

    Raises:
      ArgumentError: It does not exist.
    """
    if given not in NODE_TYPES:
        hint = UnknownNameError("node_type", given, NODE_TYPES).hint
        raise ArgumentError(f"node_type:{given} is unavailable.", hint=hint)
    return given


def writable(save_dir: str | os.PathLike[str]) -> Path:
    """Return a folder that results can be written to, before any work is done for them.

    Raises:
      StorageError: They cannot.
    """
    folder = Path(save_dir)
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(
            f"cannot write to {folder}",
            why=f"{there} is {'not writable' if there.is_dir() else 'no folder'}",
            hint="choose another save_dir",
        )
    return folder


def first_samples(samples: Samples, data_num: int | None) -> Samples:
    """Return the first samples of a set; all of them for None.

    Raises:
      ArgumentError: There are fewer, or the number is not positive.
    """
    if data_num is None:
        return samples
    if data_num < 1:
        raise ArgumentError(f"data_num is set to {data_num}", hint="at least 1, or None for all")
    if data_num > len(samples):
        raise ArgumentError(
            f"There are only {len(samples)} data, but data_num is set to {data_num}!"
        )
    return First(samples, data_num)


def groups_of(given: Names, model: Model) -> list[tuple[str, ...]]:
    """Return the nodes of each row asked for.

    Raises:
      ArgumentError: A name is no node of the model.
    """
    groups = [(one,) if isinstance(one, str) else tuple(one) for one in given]
    for name in (name for group in groups for name in group if not isinstance(name, str)):
        raise ArgumentError(
            f"interested_nodes holds {name!r}, which is no node's name",
            hint="names, and lists of names that belong together: [['a', 'b'], 'c']",
        )
    operators = [node.name for node in model.operators()]
    known = set(operators)
    for name in (name for group in groups for name in group):
        if name not in known:
            raise missing(name, operators, model)
    return groups
