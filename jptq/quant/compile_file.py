"""What the YAML file of the vendor's compile tool says on precision.

What changes the network there and not here is named in a warning; so is a word that means nothing
here. Keys of the compiler are not looked at. Source: hmct-spec 4.4.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping
from typing import Any

from jptq.errors import ConfigError, UnknownNameError
from jptq.quant.config_keys import Unmatched, unknown
from jptq.quant.config_values import shown

_logger = logging.getLogger(__name__)

_MODEL, _INPUT, _CALIBRATION = "model_parameters", "input_parameters", "calibration_parameters"
_SECTIONS = (_MODEL, _INPUT, _CALIBRATION, "compiler_parameters", "custom_op")
_KEYS = {
    _MODEL: (
        *("onnx_model", "caffe_model", "prototxt", "march", "working_dir", "log_level"),
        *("output_model_file_prefix", "output_nodes", "remove_node_type", "remove_node_name"),
        *("node_info", "debug_mode", "layer_out_dump"),
    ),
    _CALIBRATION: (
        *("cal_data_dir", "cal_data_type", "preprocess_on", "calibration_type", "max_percentile"),
        *("per_channel", "asymmetric", "optimization", "quant_config", "run_on_bpu", "run_on_cpu"),
    ),
}
"""Keys of the sections that are looked at."""

_ENDS = "the ends of the network stay as the file has them; cut it before"
_AS_IT_IS = "samples are taken as the network takes them, nothing is put before it"
_NOT_APPLIED = {
    _MODEL: dict.fromkeys(("output_nodes", "remove_node_type", "remove_node_name"), _ENDS),
    _INPUT: dict.fromkeys(("mean_value", "scale_value", "std_value"), _AS_IT_IS),
    _CALIBRATION: {
        "preprocess_on": _AS_IT_IS,
        "cal_data_type": "a file of bare bytes holds the type of the network's input",
    },
}
"""Keys that change what is computed there and not here, and what is so instead."""

_IDLE = ((), ("False",), ("float32",))
"""Values of such keys that change nothing."""

_DUMP = "dump_calibration_data"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompileFile:
    """The keys of a compile file that bear on accuracy.

    Attributes:
      model: The network, as the file names it.
      march: Target.
      calibration_data: A folder per graph input, in their order.
      dump_calibration_data: The tool is asked to write the samples that it calibrated with.
      base: What ``quant_config`` holds.
      quant_config_file: The file that ``quant_config`` names instead.
      fallback: What other keys say, which `base` overrides.
      override: What ``node_info``, ``run_on_cpu`` and ``optimization`` say; overrides `base`.
    """

    model: str | None = None
    march: str | None = None
    calibration_data: tuple[str, ...] = ()
    dump_calibration_data: bool = False
    base: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    quant_config_file: str | None = None
    fallback: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    override: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def quant_config(self) -> dict[str, Any]:
        """The quant_config that all these keys amount to."""
        return _merged(_merged(self.fallback, self.base), self.override)


def is_compile_file(content: object) -> bool:
    """Tell whether a content is a compile file rather than a quant_config."""
    return isinstance(content, Mapping) and any(name in content for name in _SECTIONS)


def compile_file(content: object, *, unmatched: Unmatched = "error", where: str) -> CompileFile:
    """Read the content of a compile file.

    Args:
      content: The whole file.
      unmatched: What happens to sections, and to keys of the model and of the calibration, that do
        not exist.
      where: Its name, for messages.

    Raises:
      ConfigError: A section or an entry is malformed; `UnknownNameError` for one that does not
        exist.
    """
    sections = _table(content, where=where)
    for name in sections:
        if name not in _SECTIONS:
            unknown(UnknownNameError("section", str(name), _SECTIONS, where=where), unmatched)
    at = {name: f"{where}: {name}" for name in _SECTIONS}
    tables = {name: _table(sections.get(name), where=at[name]) for name in _NOT_APPLIED}
    for name, keys in _KEYS.items():
        for key in tables[name]:
            if key not in keys:
                unknown(UnknownNameError("key", str(key), keys, where=at[name]), unmatched)
    _name_what_is_not_applied(tables, at)
    model, calibration = tables[_MODEL], tables[_CALIBRATION]
    given = calibration.get("quant_config")
    named = str(given) if isinstance(given, str) and given else None
    override = _optimization(calibration, unmatched=unmatched, where=at[_CALIBRATION])
    nodes: dict[str, Any] = {
        name: {"ON": place}
        for key, place in (("run_on_bpu", "BPU"), ("run_on_cpu", "CPU"))
        for name in _words(calibration.get(key))
    }
    nodes.update(_node_info(model.get("node_info"), where=f"{at[_MODEL]}.node_info"))
    march, network = model.get("march"), model.get("onnx_model")
    return CompileFile(
        model=None if network is None else shown(network),
        march=None if march is None else shown(march),
        calibration_data=_words(calibration.get("cal_data_dir")),
        dump_calibration_data=_DUMP in _words(model.get("debug_mode")),
        base={} if named else _table(given, where=f"{at[_CALIBRATION]}.quant_config"),
        quant_config_file=named,
        fallback=_fallback(calibration),
        override=_merged(override, {"node_config": nodes} if nodes else {}),
    )


def _name_what_is_not_applied(
    tables: Mapping[str, Mapping[str, Any]], at: Mapping[str, str]
) -> None:
    for name, reasons in _NOT_APPLIED.items():
        table = tables[name]
        for key, instead in reasons.items():
            words = _words(table.get(key))
            idle = words in _IDLE or (
                name == _INPUT and table.get("norm_type", "") == "no_preprocess"
            )
            if not idle:
                shown = ";".join(words)
                _logger.warning("%s.%s: %r is not applied: %s", at[name], key, shown, instead)


def _fallback(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that stand beside ``quant_config``."""
    activation = {
        key: calibration[key]
        for key in ("calibration_type", "max_percentile", "per_channel", "asymmetric")
        if calibration.get(key) not in (None, "")
    }
    return {"model_config": {"activation": activation}} if activation else {}


_OPTIMIZATION = re.compile(
    r"set_(?P<what>all_nodes|model_output|(?P<op>[A-Z]\w*)_(?P<side>input|output))_"
    r"(?P<type>int8|int16|float16|float32)"
)


_WORDS = {"run_fast": "nothing is left out here", "skip_": "the graph is optimized as a whole"}
"""Beginnings of words that mean nothing here, and what is so instead."""

_EXAMPLES = (
    *("asymmetric", "bias_correction", "run_fast", "set_all_nodes_int16", "set_model_output_int8"),
    *("set_model_output_int16", "set_Conv_input_int16", "set_Conv_output_int16"),
)


def _optimization(
    calibration: Mapping[str, Any], *, unmatched: Unmatched, where: str
) -> dict[str, Any]:
    """Return what the words of ``optimization`` mean."""
    where = f"{where}.optimization"
    model: dict[str, Any] = {}
    ops: dict[str, dict[str, str]] = {}
    for word in _words(calibration.get("optimization")):
        match = _OPTIMIZATION.fullmatch(word)
        if match is None and word == "asymmetric":
            model["activation"] = {"asymmetric": True}
        elif match is None and word == "bias_correction":
            model["weight"] = {"bias_correction": {}}
        elif match is None and word.startswith(tuple(_WORDS)):
            instead = next(text for start, text in _WORDS.items() if word.startswith(start))
            _logger.warning("%s: %r is not applied: %s", where, word, instead)
        elif match is None:
            unknown(UnknownNameError("word", word, _EXAMPLES, where=where), unmatched)
        elif match["op"] is not None:
            side = {"input": "InputType", "output": "OutputType"}[match["side"]]
            ops.setdefault(match["op"], {})[side] = match["type"]
        else:
            key = {"all_nodes": "all_node_type", "model_output": "model_output_type"}[match["what"]]
            model[key] = match["type"]
    parts = {"model_config": model, "op_config": ops}
    return {key: value for key, value in parts.items() if value}


def _node_info(content: object, *, where: str) -> dict[str, Any]:
    """Read ``"Conv_0:int16;Conv_1:int8"``, or the table of nodes of the older form."""
    if isinstance(content, Mapping):
        return {
            str(name): entry if isinstance(entry, Mapping) else {"qtype": entry}
            for name, entry in content.items()
        }
    out: dict[str, Any] = {}
    for word in _words(content):
        name, _, qtype = word.rpartition(":")  # names of nodes may hold colons
        if not name:
            raise ConfigError(f"{word!r} is not NODE:TYPE", where=where)
        out[name.strip()] = {"qtype": qtype.strip()}
    return out


def _words(value: object) -> tuple[str, ...]:
    """Return the entries of a list, or of a text separated by semicolons."""
    if value is None:
        return ()
    parts = value if isinstance(value, list | tuple) else shown(value).split(";")
    return tuple(word for part in parts if (word := shown(part).strip()))


def _table(content: object, *, where: str) -> Mapping[str, Any]:
    if content in (None, ""):
        return {}
    if not isinstance(content, Mapping):
        raise ConfigError("a table is expected", where=where)
    return content


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return two tables as one; the second wins, tables within are merged alike."""
    out = dict(first)
    for key, value in second.items():
        before = out.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            value = _merged(before, value)
        out[key] = value
    return out
