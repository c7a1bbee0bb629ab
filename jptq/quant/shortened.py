"""Names that a table of the vendor has shortened: ``...`` and the last 47 characters of a name.

Its programs read nodes out of ``node_sensitivity.log`` and write them into a configuration as they
stand there.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from typing import TypeVar

from jptq.errors import ConfigError
from jptq.ir.model import Model
from jptq.quant.config import Config

Entry = TypeVar("Entry")

_logger = logging.getLogger(__name__)

_MARK = "..."


def in_full(config: Config, model: Model) -> Config:
    """Return a configuration with the names of nodes in full.

    Args:
      config: Its names that only one node ends like are replaced; those that none does stay.
      model: Has the nodes.

    Raises:
      ConfigError: Several nodes end like a name, or a node is named in both ways.
    """
    names = [name for name in config.nodes if name.startswith(_MARK)]
    ends = [
        name
        for subgraph in config.subgraphs.values()
        for name in (*subgraph.inputs, *subgraph.outputs)
        if name.startswith(_MARK)
    ]
    if not names and not ends:
        return config
    full = _found({*names, *ends}, [node.name for node in model.operators()], config.where)
    subgraphs = {
        key: dataclasses.replace(
            subgraph,
            inputs=tuple(full.get(name, name) for name in subgraph.inputs),
            outputs=tuple(full.get(name, name) for name in subgraph.outputs),
        )
        for key, subgraph in config.subgraphs.items()
    }
    nodes = _renamed(config.nodes, full, config.where)
    return dataclasses.replace(config, nodes=nodes, subgraphs=subgraphs)


def _found(shown: Iterable[str], names: list[str], where: str) -> dict[str, str]:
    """Return ``{shortened: full}`` of what one node ends like."""
    full = {}
    for name in sorted(set(shown).difference(names)):
        alike = [one for one in names if one.endswith(name.removeprefix(_MARK))]
        if len(alike) > 1:
            raise ConfigError(
                f"{len(alike)} nodes end like {name!r}",
                where=where,
                why=", ".join(alike[:3]),
                hint="tables shorten names of more than 50 characters; node_sensitivity.json has "
                "them in full",
            )
        if alike:
            full[name] = alike[0]
            _logger.info("%s: %s is %s", where, name, alike[0])
    return full


def _renamed(entries: Mapping[str, Entry], full: Mapping[str, str], where: str) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for name, entry in entries.items():
        name = full.get(name, name)
        if name in found:
            raise ConfigError(f"node {name!r} is named in full and shortened", where=where)
        found[name] = entry
    return found
