"""The keys of a quant_config, of both generations of the vendor's tool. Source: hmct-spec 4.1."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from jptq.errors import ConfigError, UnknownNameError
from jptq.quant.config_values import shown

_logger = logging.getLogger(__name__)

Unmatched: TypeAlias = Literal["error", "warn"]
"""Keys and names that match nothing are refused, or named in a warning and left out."""

_SEARCH = {"metric": None, "similarity": None}
_LAYERS = {"topk": None, "metric": None, "qtype": None}
_KEYS: dict[str, Any] = {
    "model_config": {
        "all_node_type": None,
        "model_output_type": None,
        "activation": dict.fromkeys(
            (
                *("calibration_type", "max_percentile", "num_bin", "max_num_bin"),
                *("per_channel", "asymmetric"),
            )
        ),
        "weight": {
            "calibration_type": None,
            "max_percentile": None,
            "bias_correction": {"num_sample": None, "metric": None},
        },
        "modelwise_search": _SEARCH,
        "layerwise_search": _LAYERS,
        "search": {"model": _SEARCH, "layer": _LAYERS},
    },
    "op_config": {"*": {"qtype": None, "InputType": None, "OutputType": None}},
    "subgraph_config": {"*": {"inputs": None, "outputs": None, "qtype": None}},
    "node_config": {
        "*": dict.fromkeys(("qtype", "input0", "InputType", "InputType0", "OutputType", "ON"))
    },
}
"""Every key that there is; ``*`` is any name, a final 0 any number."""


def known(content: object, *, unmatched: Unmatched, where: str) -> dict[str, Any]:
    """Return a configuration without the keys that do not exist; nor is a key left without value.

    Raises:
      ConfigError: Something is no table.
      UnknownNameError: A key does not exist and `unmatched` is ``error``.
    """
    return _known(content, _KEYS, unmatched=unmatched, where=where)


def unknown(error: ConfigError, unmatched: Unmatched, *, level: int = logging.WARNING) -> None:
    """Refuse what matches nothing, or say that it is ignored.

    Args:
      error: What to say.
      unmatched: Which of the two.
      level: At which it is logged.

    Raises:
      ConfigError: The error itself.
    """
    if unmatched == "error":
        raise error
    hint = f"; {error.hint}" if error.hint else ""
    _logger.log(level, "%s: %s is ignored%s", error.where, error.what, hint)


def _known(
    content: object, keys: Mapping[str, Any], *, unmatched: Unmatched, where: str
) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        given = "a list" if isinstance(content, list | tuple) else f"{shown(content):.40}"
        raise ConfigError(f"an object {{...}} is expected, not {given}", where=where)
    out: dict[str, Any] = {}
    for key, value in content.items():
        name = key if "*" not in keys else "*"
        pattern = name if name in keys else re.sub(r"\d+$", "0", str(name))
        if pattern not in keys:
            kind = "first-level key" if keys is _KEYS else "key"
            unknown(UnknownNameError(kind, str(key), keys, where=where), unmatched)
        elif value is None:
            continue
        elif keys[pattern] is None:
            out[str(key)] = value
        else:
            inner = f"{where}.{key}" if keys is not _KEYS else f"{where}: {key}"
            out[str(key)] = _known(value, keys[pattern], unmatched=unmatched, where=inner)
    return out
