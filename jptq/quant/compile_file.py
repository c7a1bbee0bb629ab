"""What the YAML file of the vendor's compile tool says on precision.

Every key of that tool is read or named: what changes the network there and not here in a warning of
its own, what means nothing where nothing is compiled in one line. Source: hmct-spec 4.4.
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
_COMPILER, _CUSTOM = "compiler_parameters", "custom_op"
_SECTIONS = (_MODEL, _INPUT, _CALIBRATION, _COMPILER, _CUSTOM)

_READ = {
    _MODEL: ("onnx_model", "march", "node_info", "debug_mode"),
    _INPUT: ("input_name", "input_shape", "norm_type"),
    _CALIBRATION: (
        *("cal_data_dir", "calibration_type", "max_percentile", "per_channel", "asymmetric"),
        *("optimization", "quant_config", "run_on_bpu", "run_on_cpu"),
    ),
    _COMPILER: (),
    _CUSTOM: (),
}
"""Keys that are read."""

_WITHOUT_MEANING = {
    _MODEL: (
        *("log_level", "layer_out_dump", "working_dir", "output_model_file_prefix"),
        *("enable_vpu", "enable_spu"),
    ),
    _INPUT: (
        *("input_type_rt", "input_space_and_range", "input_layout_rt", "input_batch"),
        *("separate_batch", "separate_name"),
    ),
    _CALIBRATION: (),
    _COMPILER: (
        *("compile_mode", "debug", "optimize_level", "ability_entry", "core_num"),
        *("max_time_per_fc", "jobs", "input_source", "advice", "balance_factor"),
        *("hbdk3_compatible_mode", "extra_params", "cache_path", "cache_mode", "max_l2m_size"),
    ),
    _CUSTOM: (),
}
"""Keys of what comes behind calibration: the compiler, its files, the inputs of the board."""

_ENDS = "the ends of the network stay as the file has them; cut it before"
_AS_IT_IS = "samples are taken as the network takes them, nothing is put before it"
_CAFFE = "only ONNX networks are read"
_OWN_OPERATORS = "an operator that ONNX does not have is refused by name"
_NOT_APPLIED = {
    _MODEL: {
        **dict.fromkeys(("output_nodes", "remove_node_type", "remove_node_name"), _ENDS),
        **dict.fromkeys(("caffe_model", "prototxt"), _CAFFE),
    },
    _INPUT: dict.fromkeys(
        (
            *("mean_value", "scale_value", "std_value"),
            *("input_type_train", "input_layout_train"),
        ),
        _AS_IT_IS,
    ),
    _CALIBRATION: {
        "preprocess_on": _AS_IT_IS,
        "cal_data_type": "a file of bare bytes holds the type of the network's input",
    },
    _COMPILER: {},
    _CUSTOM: dict.fromkeys(
        ("op_register_files", "custom_op_method", "custom_op_dir"), _OWN_OPERATORS
    ),
}
"""Keys that change what is computed there and not here, and what is so instead."""

_IDLE = ((), ("False",), ("float32",))
"""Values of such keys that change nothing."""

_PREPROCESSING = ("mean_value", "scale_value", "std_value")
"""Keys that ``norm_type: no_preprocess`` makes idle."""

_AS_STORED = {"input_layout_train": {"NCHW"}, "input_type_train": {"featuremap"}}
"""Words of such keys that say what is so here anyway."""

_LEAST_PERCENTILE = 0.5
"""Smaller shares are raised to it (hmct-spec 2.2)."""

_NODES = "node_config"
_ON_BPU = {"ON": "BPU"}

_DUMP = "dump_calibration_data"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompileFile:
    """The keys of a compile file that bear on accuracy.

    Attributes:
      model: The network, as the file names it.
      march: Target.
      calibration_data: A folder per graph input, in their order, or in that of `inputs`.
      inputs: Names of the graph inputs, if the file has them.
      input_shapes: Of the inputs that are named.
      dump_calibration_data: The tool is asked to write the samples that it calibrated with.
      base: What ``quant_config`` holds.
      quant_config_file: The file that ``quant_config`` names instead.
      fallback: What other keys say, which `base` overrides.
      override: What ``node_info``, ``run_on_cpu`` and ``optimization`` say; overrides `base`.
    """

    model: str | None = None
    march: str | None = None
    calibration_data: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    input_shapes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    dump_calibration_data: bool = False
    base: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    quant_config_file: str | None = None
    fallback: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    override: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def quant_config(self) -> dict[str, Any]:
        """The quant_config that all these keys amount to."""
        found = _merged(_merged(self.fallback, self.base), self.override)
        # A node that has a type here has no other from there, for none of its inputs.
        typed = {n: e for n, e in self.override.get(_NODES, {}).items() if dict(e) != _ON_BPU}
        return {**found, _NODES: {**found[_NODES], **typed}} if typed else found


def is_compile_file(content: object) -> bool:
    """Tell whether a content is a compile file rather than a quant_config."""
    return isinstance(content, Mapping) and any(name in content for name in _SECTIONS)


def compile_file(content: object, *, unmatched: Unmatched = "error", where: str) -> CompileFile:
    """Read the content of a compile file.

    Args:
      content: The whole file.
      unmatched: What happens to sections and keys that do not exist.
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
    tables = {name: _table(sections.get(name), where=at[name]) for name in _SECTIONS}
    for name in _SECTIONS:
        _refuse_unknown(tables[name], name, unmatched=unmatched, where=at[name])
    _name_what_is_not_applied(tables, at)
    _name_what_has_no_meaning(tables, where=where)
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
    inputs, shapes = _inputs(tables[_INPUT], where=at[_INPUT])
    folders = _words(calibration.get("cal_data_dir"))
    if inputs and folders and len(folders) not in (1, len(inputs)):
        raise ConfigError(
            f"cal_data_dir has {len(folders)} folders for {len(inputs)} inputs",
            where=at[_CALIBRATION],
            why=f"input_name: {', '.join(inputs)}",
        )
    return CompileFile(
        model=None if network is None else shown(network),
        march=None if march is None else shown(march),
        calibration_data=folders,
        inputs=inputs,
        input_shapes=shapes,
        dump_calibration_data=_DUMP in _words(model.get("debug_mode")),
        base={} if named else _table(given, where=f"{at[_CALIBRATION]}.quant_config"),
        quant_config_file=named,
        fallback=_fallback(calibration, where=at[_CALIBRATION]),
        override=_merged(override, {_NODES: nodes} if nodes else {}),
    )


def _refuse_unknown(
    table: Mapping[str, Any], name: str, *, unmatched: Unmatched, where: str
) -> None:
    known = (*_READ[name], *_WITHOUT_MEANING[name], *_NOT_APPLIED[name])
    for key in table:
        if key in known:
            continue
        error = UnknownNameError("key", str(key), known, where=where)
        # That tool takes any key here; one that is nearly ours is a slip all the same.
        open_ = name == _CALIBRATION and "did you mean" not in error.hint
        unknown(error, "warn" if open_ else unmatched)


def _name_what_is_not_applied(
    tables: Mapping[str, Mapping[str, Any]], at: Mapping[str, str]
) -> None:
    plain = tables[_INPUT].get("norm_type", "") == "no_preprocess"
    for name, reasons in _NOT_APPLIED.items():
        table = tables[name]
        for key, instead in reasons.items():
            words = _words(table.get(key))
            idle = words in _IDLE or set(words) <= _AS_STORED.get(key, set())
            if not idle and not (plain and key in _PREPROCESSING):
                shown = ";".join(words)
                _logger.warning("%s.%s: %r is not applied: %s", at[name], key, shown, instead)


def _name_what_has_no_meaning(tables: Mapping[str, Mapping[str, Any]], *, where: str) -> None:
    named = [
        f"{section}.{key}"
        for section, keys in _WITHOUT_MEANING.items()
        for key in keys
        if _words(tables[section].get(key)) not in _IDLE
    ]
    if named:
        text = "%s: without meaning here, where nothing is compiled: %s"
        _logger.warning(text, where, ", ".join(named))


def _inputs(table: Mapping[str, Any], *, where: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the names of the inputs, and their shapes as ``1x3x224x224``."""
    names, shapes = _words(table.get("input_name")), _words(table.get("input_shape"))
    if len(shapes) > 1 and not names:
        raise ConfigError("input_shape has several shapes, input_name no names", where=where)
    if shapes and names and len(shapes) != len(names):
        raise ConfigError(
            f"input_shape has {len(shapes)} shapes for {len(names)} names", where=where
        )
    for shape in shapes:
        if not re.fullmatch(r"\d+([xX]\d+)*", shape):
            raise ConfigError(
                f"input_shape: {shape!r} is no shape", where=where, hint="1x3x224x224"
            )
    # A shape without a name is that of the only input, which the network says itself.
    return names, dict(zip(names, shapes, strict=False)) if names else {}


def _fallback(calibration: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Return the settings that stand beside ``quant_config``."""
    activation = {
        key: calibration[key]
        for key in ("calibration_type", "max_percentile", "per_channel", "asymmetric")
        if calibration.get(key) not in (None, "")
    }
    share = activation.get("max_percentile")
    if isinstance(share, int | float) and 0 <= share < _LEAST_PERCENTILE and share is not False:
        text = "%s.max_percentile: %s is raised to %s, the least that the method takes"
        _logger.warning(text, where, share, _LEAST_PERCENTILE)
        activation["max_percentile"] = _LEAST_PERCENTILE
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
