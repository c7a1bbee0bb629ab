"""The vendor's quant_config, read into plain data with every name checked.

Source: hmct-spec 4. Left out, and refused by name: error compensation, bias correction, the
layerwise search and the legacy keys of older versions.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from jptq.errors import ConfigError, StorageError, UnknownNameError
from jptq.numerics.qtypes import DUAL_INT16, QTYPES

Value = TypeVar("Value")

ACTIVATION_METHODS = ("max", "kl")
WEIGHT_METHODS = ("max",)
MIN_BINS = 129
MIN_MAX_BINS = 258
"""Limits of ``num_bin`` and ``max_num_bin`` (hmct-spec 2.2)."""

_LEVELS = ("model_config", "op_config", "subgraph_config", "node_config")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Activation:
    """How thresholds of features are found; several values of a key are tried against each other.

    Attributes:
      calibration_type: Of ``max``, ``kl``; empty if the configuration names none.
      max_percentile: Shares of the absolute values that ``max`` keeps, 0.5 to 1.
      num_bin: Bins that ``kl`` starts with.
      max_num_bin: Bins that it may grow to.
      per_channel: Whether features that only convolutions read get a threshold per channel.
      asymmetric: Whether int8 features with negative values get a range [min, max].
    """

    calibration_type: tuple[str, ...] = ()
    max_percentile: tuple[float, ...] = ()
    num_bin: tuple[int, ...] = ()
    max_num_bin: tuple[int, ...] = ()
    per_channel: tuple[bool, ...] = ()
    asymmetric: tuple[bool, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the block in the vendor's form: a list only where there are several values."""
        return {
            field.name: values[0] if len(values) == 1 else list(values)
            for field in dataclasses.fields(self)
            if (values := getattr(self, field.name))
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weight:
    """How thresholds of weights are found.

    Attributes:
      calibration_type: ``max``.
      max_percentile: Factor on the largest absolute value.
    """

    calibration_type: str = "max"
    max_percentile: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subgraph:
    """Types of all nodes between some nodes and others, both ends included.

    Attributes:
      inputs: Node names.
      outputs: Node names.
      qtype: Their type.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    qtype: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeTypes:
    """Types of one node.

    Attributes:
      qtype: Of all inputs, if given.
      inputs: ``{input index: type}``; these win over `qtype`.
    """

    qtype: str | None = None
    inputs: Mapping[int, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A quant_config.

    Attributes:
      all_node_type: Default type.
      model_output_type: Type of graph outputs, if given.
      activation: See `Activation`.
      weight: See `Weight`.
      ops: ``{operator type: type}``.
      subgraphs: By their free names, in the order of the file.
      nodes: By node name.
      where: The file, for errors.
    """

    all_node_type: str = "int8"
    model_output_type: str | None = None
    activation: Activation = dataclasses.field(default_factory=Activation)
    weight: Weight = dataclasses.field(default_factory=Weight)
    ops: Mapping[str, str] = dataclasses.field(default_factory=dict)
    subgraphs: Mapping[str, Subgraph] = dataclasses.field(default_factory=dict)
    nodes: Mapping[str, NodeTypes] = dataclasses.field(default_factory=dict)
    where: str = ""


def load_config(source: Mapping[str, Any] | Path | str | None) -> Config:
    """Read a quant_config.

    Args:
      source: The dict itself, the path of a JSON file (comments allowed), or None for defaults.

    Raises:
      ConfigError: A value is impossible; `UnknownNameError` for a key or type.
      StorageError: The file cannot be read or is not JSON.
    """
    if source is None:
        return Config()
    if isinstance(source, Mapping):
        return _config(source, where="quant_config")
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"cannot read {path}", why=str(error)) from error
    try:
        content = json.loads(strip_comments(text))
    except ValueError as error:
        raise StorageError(f"{path} is not JSON", why=str(error)) from error
    return _config(content, where=str(path))


_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)


def strip_comments(text: str) -> str:
    """Return JSON without ``//`` and ``/* */`` comments; strings keep what looks like one."""
    return _COMMENT.sub(lambda match: match.group(1) or " ", text)


def _config(content: object, *, where: str) -> Config:
    levels = _table(content, where=where)
    for key in levels:
        if key not in _LEVELS:
            raise UnknownNameError("first-level key", key, _LEVELS, where=where)
    at = {level: f"{where}: {level}" for level in _LEVELS}
    parts = {level: _table(levels.get(level, {}), where=at[level]) for level in _LEVELS}
    model = parts["model_config"]
    _only(
        model,
        ("all_node_type", "model_output_type", "activation", "weight"),
        where=at["model_config"],
    )
    output = model.get("model_output_type")
    return Config(
        all_node_type=_qtype(model.get("all_node_type", "int8"), where=at["model_config"]),
        model_output_type=None if output is None else _qtype(output, where=at["model_config"]),
        activation=_activation(model.get("activation", {}), where=at["model_config"]),
        weight=_weight(model.get("weight", {}), where=at["model_config"]),
        ops={
            name: _op_type(entry, where=f"{at['op_config']}.{name}")
            for name, entry in parts["op_config"].items()
        },
        subgraphs={
            name: _subgraph(entry, where=f"{at['subgraph_config']}.{name}")
            for name, entry in parts["subgraph_config"].items()
        },
        nodes={
            name: _node_types(entry, where=f"{at['node_config']}.{name}")
            for name, entry in parts["node_config"].items()
        },
        where=where,
    )


def _activation(content: object, *, where: str) -> Activation:
    where = f"{where}.activation"
    table = _table(content, where=where)
    _only(table, [field.name for field in dataclasses.fields(Activation)], where=where)
    out = Activation(
        calibration_type=_several(table, "calibration_type", _method, where),
        max_percentile=_several(table, "max_percentile", _percentile, where),
        num_bin=_several(table, "num_bin", _bins(MIN_BINS), where),
        max_num_bin=_several(table, "max_num_bin", _bins(MIN_MAX_BINS), where),
        per_channel=_several(table, "per_channel", _flag, where),
        asymmetric=_several(table, "asymmetric", _flag, where),
    )
    if out.num_bin and out.max_num_bin and max(out.num_bin) > min(out.max_num_bin):
        raise ConfigError("'max_num_bin' is below 'num_bin'", where=where)
    return out


def _weight(content: object, *, where: str) -> Weight:
    where = f"{where}.weight"
    table = _table(content, where=where)
    _only(table, [field.name for field in dataclasses.fields(Weight)], where=where)
    method = table.get("calibration_type", "max")
    if method not in WEIGHT_METHODS:
        raise UnknownNameError("calibration_type", str(method), WEIGHT_METHODS, where=where)
    share = table.get("max_percentile", 1.0)
    return Weight(max_percentile=_percentile(share, "max_percentile", where))


def _op_type(entry: object, *, where: str) -> str:
    table = _table(entry, where=where)
    _only(table, ("qtype",), where=where)
    return _node_qtype(table.get("qtype"), where=where)


def _subgraph(entry: object, *, where: str) -> Subgraph:
    table = _table(entry, where=where)
    _only(table, ("inputs", "outputs", "qtype"), where=where)
    ends = {}
    for key in ("inputs", "outputs"):
        names = table.get(key)
        if not isinstance(names, list | tuple) or not names:
            raise ConfigError(f"{key!r} is a list of node names", where=where)
        ends[key] = tuple(str(name) for name in names)
    return Subgraph(**ends, qtype=_node_qtype(table.get("qtype"), where=where))


def _node_types(entry: object, *, where: str) -> NodeTypes:
    table = _table(entry, where=where)
    inputs: dict[int, str] = {}
    for key, value in table.items():
        index = key.removeprefix("input")
        if key != "qtype" and not (index != key and index.isdecimal()):
            raise UnknownNameError("key", key, ("qtype", "input0", "input1"), where=where)
        if key != "qtype":
            inputs[int(index)] = _qtype(value, where=f"{where}.{key}")
    qtype = _node_qtype(table["qtype"], where=where) if "qtype" in table else None
    return NodeTypes(qtype=qtype, inputs=inputs)


def _qtype(value: object, *, where: str) -> str:
    if not isinstance(value, str) or value not in QTYPES:
        raise UnknownNameError("type", str(value), QTYPES, where=where)
    return value


def _node_qtype(value: object, *, where: str) -> str:
    return DUAL_INT16 if value == DUAL_INT16 else _qtype(value, where=where)


def _table(content: object, *, where: str) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise ConfigError("an object {...} is expected", where=where)
    return content


def _only(table: Iterable[str], known: Iterable[str], *, where: str) -> None:
    known = tuple(known)
    for key in table:
        if key not in known:
            raise UnknownNameError("key", key, known, where=where)


def _several(
    table: Mapping[str, Any], key: str, check: Callable[[object, str, str], Value], where: str
) -> tuple[Value, ...]:
    """Return the checked values of a key without duplicates; nothing if it is absent."""
    if key not in table:
        return ()
    value = table[key]
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(dict.fromkeys(check(one, key, where) for one in values))


def _method(value: object, key: str, where: str) -> str:
    if value not in ACTIVATION_METHODS:
        raise UnknownNameError(key, str(value), ACTIVATION_METHODS, where=where)
    return str(value)


def _percentile(value: object, key: str, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0.5 <= value <= 1.0:
        return float(value)
    raise ConfigError(f"{key!r} is a number from 0.5 to 1, not {value!r}", where=where)


def _bins(least: int) -> Callable[[object, str, str], int]:
    def check(value: object, key: str, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{key!r} is an integer from {least}, not {value!r}", where=where)
        return value

    return check


def _flag(value: object, key: str, where: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{key!r} is true or false, not {value!r}", where=where)
    return value
