"""The vendor's quant_config, read into plain data with every name checked.

The keys of both generations of the vendor's tool are known, the older ones (``InputType``,
``layerwise_search``) as what they mean in the newer one. Source: hmct-spec 4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jptq.errors import ConfigError
from jptq.numerics.qtypes import DUAL_INT16, QTYPES
from jptq.quant.config_keys import Unmatched, known
from jptq.quant.config_text import read_file
from jptq.quant.config_values import count, flag, number, one_of, optional, several
from jptq.quant.method_names import activation_method, searchable, weight_method

TYPES = tuple(QTYPES)
"""Types of a node or an operand, from coarse to fine; a target may not have all of them."""

EC = "ec"
"""Of one operand: error compensation, a second operator adds what int8 lost (hmct-spec 8.1)."""
INT16_EC = "int16-ec"
"""Of a node: input 0 as int16, input 1 compensated."""

PLACES = ("BPU", "CPU")
"""Where a node may run. Examples of the vendor also give ``ON`` a type, as ``qtype`` has it."""

METRICS = ("cosine-similarity", "mse", "mae", "mre", "sqnr", "chebyshev")

MIN_BINS = 129
MIN_MAX_BINS = 258
"""Limits of ``num_bin`` and ``max_num_bin`` (hmct-spec 2.2)."""

MOST_BINS = 2**20
"""Of a histogram: float32 tells no more apart, and each feature holds one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Activation:
    """How thresholds of features are found; several values of a key are tried against each other.

    Attributes:
      calibration_type: Of `method_names.ACTIVATION`; empty if the configuration names none, or
        ``default``.
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
      calibration_type: Of `method_names.WEIGHT`.
      max_percentile: Factor on the largest absolute value.
    """

    calibration_type: str = "max"
    max_percentile: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiasCorrection:
    """Biases take up the mean error of their channel (hmct-spec 2.3).

    Attributes:
      num_sample: Samples that the mean is taken over.
      metric: Of `METRICS`; a correction stays if it improves this.
    """

    num_sample: int = 1
    metric: str = METRICS[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelwiseSearch:
    """One method for all features, the best of several (hmct-spec 2.4).

    Attributes:
      metric: Of `METRICS`.
      similarity: Cosine from which per-channel candidates are not tried any more.
    """

    metric: str = METRICS[0]
    similarity: float = 0.995


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerwiseSearch:
    """Other methods for the most sensitive features (hmct-spec 2.4).

    Attributes:
      topk: How many; all under a cosine of 0.999 if None.
      metric: Of `METRICS`.
      qtype: Type that they may also be raised to, None for no such trial.
    """

    topk: int | None = None
    metric: str = METRICS[0]
    qtype: str | None = None


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
    """Types of one node, or of all nodes of one operator type.

    Attributes:
      qtype: Of all inputs, if given; also ``dual-int16`` and `INT16_EC`.
      inputs: ``{input index: type or EC}``; these win over `qtype`.
      output: Of the output, if given apart (``OutputType``); else it follows the readers.
    """

    qtype: str | None = None
    inputs: Mapping[int, str] = dataclasses.field(default_factory=dict)
    output: str | None = None

    @property
    def compensated(self) -> int | None:
        """The input that error compensation is asked for, if any."""
        for index, name in self.inputs.items():
            if name == EC:
                return index
        return 1 if self.qtype == INT16_EC and 1 not in self.inputs else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A quant_config.

    Attributes:
      all_node_type: Default type.
      model_output_type: Type of graph outputs, if given.
      activation: See `Activation`.
      weight: See `Weight`.
      bias_correction: None if off.
      modelwise: Settings of the search that several values of `activation` start; None for the
        defaults, and beside `layerwise`, which wins.
      layerwise: None if off.
      ops: By operator type.
      subgraphs: By their free names, in the order of the file.
      nodes: By node name.
      march: Target that the file names beside it, if any.
      unmatched: What happens to names that the model does not have.
      where: The file, for errors.
    """

    all_node_type: str = "int8"
    model_output_type: str | None = None
    activation: Activation = dataclasses.field(default_factory=Activation)
    weight: Weight = dataclasses.field(default_factory=Weight)
    bias_correction: BiasCorrection | None = None
    modelwise: ModelwiseSearch | None = None
    layerwise: LayerwiseSearch | None = None
    ops: Mapping[str, NodeTypes] = dataclasses.field(default_factory=dict)
    subgraphs: Mapping[str, Subgraph] = dataclasses.field(default_factory=dict)
    nodes: Mapping[str, NodeTypes] = dataclasses.field(default_factory=dict)
    march: str | None = None
    unmatched: Unmatched = "error"
    where: str = ""

    def compensations(self) -> dict[str, int]:
        """Return ``{node: input index}`` of what ``node_config`` compensates.

        `jptq.quant.compensate.compensations` adds what ``op_config`` does to a model.
        """
        found = ((name, entry.compensated) for name, entry in self.nodes.items())
        return {name: index for name, index in found if index is not None}

    def compensating(self, operands: Mapping[str, int]) -> Config:
        """Return the configuration that also asks ``ec`` of ``{node: input index}``."""
        nodes = dict(self.nodes)
        for name, index in operands.items():
            entry = nodes.get(name, NodeTypes())
            nodes[name] = dataclasses.replace(entry, inputs={**entry.inputs, index: EC})
        return dataclasses.replace(self, nodes=nodes)

    def calibrated_by(self, activation: Activation) -> Config:
        """Return the configuration with other calibration settings, and without a search."""
        return dataclasses.replace(self, activation=activation, modelwise=None, layerwise=None)

    def typing(self, nodes: Iterable[str], qtype: str) -> Config:
        """Return the configuration in which some nodes have a type."""
        types = dict(self.nodes)
        for name in nodes:
            types[name] = dataclasses.replace(types.get(name, NodeTypes()), qtype=qtype)
        return dataclasses.replace(self, nodes=types)


def load_config(
    source: Config | Mapping[str, Any] | Path | str | None, *, unmatched: Unmatched = "error"
) -> Config:
    """Read a quant_config.

    Args:
      source: The dict itself, a file of one of the forms of `config_text`, one that is read
        already, or None for defaults.
      unmatched: ``warn`` leaves out keys that do not exist, and nodes that the model does not
        have (`resolve`), with a warning; the vendor's tool ignores them silently.

    Raises:
      ConfigError: A value is impossible; `UnknownNameError` for a key or type.
      StorageError: The file cannot be read.
    """
    if source is None:
        return Config(unmatched=unmatched)
    if isinstance(source, Config):
        return source
    if isinstance(source, Mapping):
        return _config(source, unmatched=unmatched, where="quant_config")
    content, march = read_file(Path(source), unmatched=unmatched)
    found = _config(content, unmatched=unmatched, where=str(source))
    return dataclasses.replace(found, march=march)


def _config(content: object, *, unmatched: Unmatched, where: str) -> Config:
    levels = known(content, unmatched=unmatched, where=where)
    model = levels.get("model_config", {})
    at = f"{where}: model_config"
    search = model.get("search", {})
    layers, whole = (
        model.get(old, search.get(new))
        for old, new in (("layerwise_search", "layer"), ("modelwise_search", "model"))
    )
    bias = model.get("weight", {}).get("bias_correction")
    return Config(
        all_node_type=_qtype(model.get("all_node_type", "int8"), "all_node_type", at),
        model_output_type=optional(model, "model_output_type", _qtype, at),
        activation=_activation(model.get("activation", {}), where=f"{at}.activation"),
        weight=_weight(model.get("weight", {}), where=f"{at}.weight"),
        bias_correction=None if bias is None else _bias(bias, where=f"{at}.weight.bias_correction"),
        modelwise=None if whole is None or layers is not None else _modelwise(whole, where=at),
        layerwise=None if layers is None else _layerwise(layers, where=at),
        ops={
            name: _node_types(entry, where=f"{where}: op_config.{name}")
            for name, entry in levels.get("op_config", {}).items()
        },
        subgraphs={
            name: _subgraph(entry, where=f"{where}: subgraph_config.{name}")
            for name, entry in levels.get("subgraph_config", {}).items()
        },
        nodes={
            name: _node_types(entry, where=f"{where}: node_config.{name}")
            for name, entry in levels.get("node_config", {}).items()
        },
        unmatched=unmatched,
        where=where,
    )


def _activation(table: Mapping[str, Any], *, where: str) -> Activation:
    methods = several(table, "calibration_type", activation_method, where)
    if len(methods) > 1:
        for method in methods:
            searchable(method, "", where)
    out = Activation(
        calibration_type=() if methods == ("default",) else methods,
        max_percentile=several(table, "max_percentile", number(0.5), where),
        num_bin=several(table, "num_bin", count(MIN_BINS, MOST_BINS), where),
        max_num_bin=several(table, "max_num_bin", count(MIN_MAX_BINS, MOST_BINS), where),
        per_channel=several(table, "per_channel", flag, where),
        asymmetric=several(table, "asymmetric", flag, where),
    )
    if out.num_bin and out.max_num_bin and max(out.num_bin) > min(out.max_num_bin):
        raise ConfigError("'max_num_bin' is below 'num_bin'", where=where)
    return out


def _weight(table: Mapping[str, Any], *, where: str) -> Weight:
    return Weight(
        calibration_type=weight_method(
            table.get("calibration_type", "max"), "calibration_type", where
        ),
        max_percentile=number(0.5)(table.get("max_percentile", 1.0), "max_percentile", where),
    )


def _bias(table: Mapping[str, Any], *, where: str) -> BiasCorrection:
    return BiasCorrection(
        num_sample=count(1)(table.get("num_sample", 1), "num_sample", where),
        metric=_metric(table, where),
    )


def _modelwise(table: Mapping[str, Any], *, where: str) -> ModelwiseSearch:
    similarity = number(-1.0)(table.get("similarity", 0.995), "similarity", where)
    return ModelwiseSearch(metric=_metric(table, where), similarity=similarity)


def _layerwise(table: Mapping[str, Any], *, where: str) -> LayerwiseSearch:
    return LayerwiseSearch(
        topk=optional(table, "topk", count(1), where),
        metric=_metric(table, where),
        qtype=optional(table, "qtype", _qtype, where),
    )


def _subgraph(table: Mapping[str, Any], *, where: str) -> Subgraph:
    ends = {}
    for key in ("inputs", "outputs"):
        names = table.get(key)
        if not isinstance(names, list | tuple) or not names:
            raise ConfigError(f"{key!r} is a list of node names", where=where)
        ends[key] = tuple(str(name) for name in names)
    types = (*TYPES, DUAL_INT16)
    return Subgraph(**ends, qtype=one_of(types, "type")(table.get("qtype"), "qtype", where))


def _node_types(table: Mapping[str, Any], *, where: str) -> NodeTypes:
    qtype = None
    for key in ("InputType", "qtype"):
        if key in table:
            qtype = _qtype(table[key], key, where, (DUAL_INT16, INT16_EC))
    if not table:
        raise ConfigError("no type is given", where=where, hint='{"qtype": "int16"}, for instance')
    place = one_of((*PLACES, *TYPES), "place or type")(table.get("ON", "BPU"), "ON", where)
    if place in TYPES:
        if qtype not in (None, place):
            raise ConfigError(f"ON says {place}, another key {qtype}", where=where)
        qtype = place
    if place == "CPU":
        if qtype not in (None, "float32"):
            raise ConfigError(f"on the CPU there is no {qtype}", where=where, why="it runs float32")
        qtype = "float32"
    inputs = {
        int(index): _qtype(value, key, where, (EC,))
        for prefix in ("InputType", "input")
        for key, value in table.items()
        if (index := key.removeprefix(prefix)) != key and index
    }
    if list(inputs.values()).count(EC) > 1:
        raise ConfigError("only one input of a node can be compensated", where=where)
    return NodeTypes(
        qtype=qtype, inputs=inputs, output=optional(table, "OutputType", _qtype, where)
    )


def _qtype(value: object, key: str, where: str, extra: tuple[str, ...] = ()) -> str:
    # The first generation of the vendor's tool says "float".
    return one_of((*TYPES, *extra), "type")("float32" if value == "float" else value, key, where)


def _metric(table: Mapping[str, Any], where: str) -> str:
    return one_of(METRICS)(table.get("metric", METRICS[0]), "metric", where)
