"""Every key of the compile tool's YAML file that bears on accuracy (hmct-spec 4.4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jptq.errors import ConfigError, StorageError, UnknownNameError
from jptq.quant.config import Activation, BiasCorrection, Config, NodeTypes, load_config
from jptq.quant.config_text import load_compile_file
from jptq.quant.resolve import resolve
from tests.quant.networks import TARGET
from tests.quant.planned import network

INT16 = NodeTypes(qtype="int16")


def read(folder: Path, text: str, **options: Any) -> Config:
    path = folder / "lane.yaml"
    path.write_text(text)
    return load_config(path, **options)


@pytest.mark.parametrize(
    ("key", "activation"),
    [
        ("calibration_type: max", Activation(calibration_type=("max",))),
        ("calibration_type: kl", Activation(calibration_type=("kl",))),
        ("calibration_type: mix", Activation(calibration_type=("mix",))),
        ("calibration_type: skip", Activation(calibration_type=("skip",))),
        ("calibration_type: load", Activation(calibration_type=("load",))),
        ("calibration_type: default", Activation()),
        ("calibration_type: ''", Activation()),
        ("max_percentile: 0.99995", Activation(max_percentile=(0.99995,))),
        ("max_percentile: [0.99995, 1.0]", Activation(max_percentile=(0.99995, 1.0))),
        ("per_channel: True", Activation(per_channel=(True,))),
        ("asymmetric: false", Activation(asymmetric=(False,))),
        ("cal_data_dir:", Activation()),
    ],
)
def test_settings_of_the_calibration_are_those_of_the_activation(
    tmp_path: Path, key: str, activation: Activation
) -> None:
    assert read(tmp_path, f"calibration_parameters: {{{key}}}").activation == activation


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("set_all_nodes_int16", Config(all_node_type="int16")),
        ("set_all_nodes_float16", Config(all_node_type="float16")),
        ("set_model_output_int8", Config(model_output_type="int8")),
        ("set_model_output_int16", Config(model_output_type="int16")),
        ("set_Softmax_input_int16", Config(ops={"Softmax": INT16})),
        ("set_Softmax_output_int8", Config(ops={"Softmax": NodeTypes(output="int8")})),
        ("asymmetric", Config(activation=Activation(asymmetric=(True,)))),
        ("bias_correction", Config(bias_correction=BiasCorrection())),
    ],
)
@pytest.mark.parametrize("form", ["{0}", " {0} ;", "[{0}]"])
def test_words_of_optimization_are_what_they_say(
    tmp_path: Path, word: str, wanted: Config, form: str
) -> None:
    found = read(tmp_path, f"calibration_parameters:\n  optimization: {form.format(word)}\n")
    for field in ("all_node_type", "model_output_type", "activation", "bias_correction", "ops"):
        assert getattr(found, field) == getattr(wanted, field)


@pytest.mark.parametrize(
    "text",
    [
        "model_parameters:\n  node_info: a:int16;/b:0/c:int8\n",
        "model_parameters:\n  node_info: {a: int16, '/b:0/c': int8}\n",
        "model_parameters:\n  node_info: {a: {InputType: int16}, '/b:0/c': {qtype: int8}}\n",
        "model_parameters:\n  node_info:\n  - a:int16\n  - /b:0/c:int8\n",
    ],
)
def test_node_info_is_a_list_or_a_table(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text).nodes == {"a": INT16, "/b:0/c": NodeTypes(qtype="int8")}


def test_node_info_of_the_older_form_sets_input_and_output(tmp_path: Path) -> None:
    entry = "{ON: BPU, InputType: int16, OutputType: int8}"
    found = read(tmp_path, f"model_parameters: {{node_info: {{a: {entry}}}}}")
    assert found.nodes == {"a": NodeTypes(qtype="int16", output="int8")}


@pytest.mark.parametrize("nodes", ["a; b", "[a, b]"])
def test_nodes_run_where_the_file_says(tmp_path: Path, nodes: str) -> None:
    found = read(tmp_path, f"calibration_parameters:\n  run_on_cpu: {nodes}\n  run_on_bpu: c;\n")
    assert found.nodes == {
        "a": NodeTypes(qtype="float32"),
        "b": NodeTypes(qtype="float32"),
        "c": NodeTypes(),
    }


def test_a_node_on_the_cpu_is_float32_in_the_network(tmp_path: Path) -> None:
    config = read(tmp_path, "calibration_parameters: {run_on_cpu: end}")
    model, plan = network("attention")
    found = resolve(config, model, plan, TARGET)
    assert found[plan.by_node["end"].inputs[0]] == "float32"


def test_what_stands_nearer_to_the_nodes_wins(tmp_path: Path) -> None:
    text = """
model_parameters: {node_info: "a:int8"}
calibration_parameters:
  calibration_type: kl
  max_percentile: 0.9
  optimization: set_model_output_int16
  quant_config:
    model_config: {activation: {calibration_type: max}, model_output_type: int8}
    node_config: {a: {qtype: int16}, b: {qtype: int16}}
"""
    found = read(tmp_path, text)
    assert found.activation == Activation(calibration_type=("max",), max_percentile=(0.9,))
    assert found.model_output_type == "int16"
    assert found.nodes == {"a": NodeTypes(qtype="int8"), "b": INT16}


def test_folders_samples_and_the_network_are_read(tmp_path: Path) -> None:
    (tmp_path / "lane.yaml").write_text(
        "model_parameters:\n  onnx_model: lane.onnx\n  march: nash-m\n"
        "  debug_mode: dump_calibration_data;other\n"
        "calibration_parameters: {cal_data_dir: './a; ./b'}\n"
    )
    found = load_compile_file(tmp_path / "lane.yaml")
    assert (found.model, found.march) == ("lane.onnx", "nash-m")
    assert found.calibration_data == ("./a", "./b")
    assert found.dump_calibration_data


def test_another_target_than_that_of_the_file_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, plan = network("attention")
    for march, count in (("nash-m", 1), ("nash-e", 1)):
        resolve(read(tmp_path, f"model_parameters: {{march: {march}}}"), model, plan, TARGET)
        assert caplog.text.count("is for nash-m, not nash-e") == count


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "model_parameters: {remove_node_type: Softmax;Dequantize}",
            "model_parameters.remove_node_type: 'Softmax;Dequantize' is not applied: the ends",
        ),
        ("model_parameters: {remove_node_name: a}", "remove_node_name: 'a' is not applied"),
        ("model_parameters: {output_nodes: a;b}", "output_nodes: 'a;b' is not applied"),
        (
            "input_parameters: {norm_type: data_scale, scale_value: 0.0078125}",
            "input_parameters.scale_value: '0.0078125' is not applied: samples are taken",
        ),
        ("input_parameters: {mean_value: 103.9 116.8 123.7}", "mean_value: '103.9 116.8 123.7'"),
        ("calibration_parameters: {preprocess_on: True}", "preprocess_on: 'True' is not applied"),
        ("calibration_parameters: {cal_data_type: uint8}", "cal_data_type: 'uint8' is not"),
        ("input_parameters: {input_type_train: rgb}", "input_type_train: 'rgb' is not applied"),
        ("custom_op: {op_register_files: a.py}", "an operator that ONNX does not have is refused"),
        ("model_parameters: {caffe_model: a, onnx_model: b}", "only ONNX networks are read"),
        ("calibration_parameters: {optimization: run_fast}", "'run_fast' is not applied"),
        (
            "calibration_parameters: {optimization: skip_fuse_to_hzswish}",
            "'skip_fuse_to_hzswish' is not applied",
        ),
    ],
)
def test_what_changes_the_network_only_there_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, words: str
) -> None:
    read(tmp_path, text)
    (record,) = caplog.records
    assert words in record.getMessage()
    assert str(tmp_path / "lane.yaml") in record.getMessage()


@pytest.mark.parametrize(
    "text",
    [
        "model_parameters: {remove_node_type: '', output_nodes: }",
        "input_parameters: {norm_type: no_preprocess, mean_value: 1}",
        "calibration_parameters: {preprocess_on: False, cal_data_type: float32}",
        "input_parameters: {input_layout_train: NCHW, input_type_train: featuremap}",
        "compiler_parameters: {debug: False, input_source: , extra_params: ''}",
    ],
)
def test_what_changes_nothing_is_not_talked_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    assert read(tmp_path, text).nodes == {}
    assert not caplog.records


EVERY_KEY = """
model_parameters:
  onnx_model: lane.onnx
  march: nash-e
  log_level: debug
  layer_out_dump: True
  working_dir: out
  output_model_file_prefix: lane
  node_info: a:int16
  debug_mode: dump_all_layers_output
  enable_vpu: True
  enable_spu: True
input_parameters:
  input_name: image;mask
  input_type_rt: nv12;featuremap
  input_space_and_range: regular
  input_layout_rt: NHWC;NCHW
  norm_type: no_preprocess
  input_shape: 1x3x8x8;1x1x8x8
  input_batch: 4
  separate_batch: True
  separate_name: image
calibration_parameters:
  cal_data_dir: ./image;./mask
  calibration_type: max
  per_channel: False
  max_percentile: 0.9999
compiler_parameters:
  compile_mode: latency
  debug: True
  optimize_level: O2
  ability_entry: 0
  core_num: 1
  max_time_per_fc: 0
  jobs: 16
  input_source: {image: ddr}
  advice: 1
  balance_factor: 50
  hbdk3_compatible_mode: True
  extra_params: {a: 1}
  cache_path: cache
  cache_mode: enable
  max_l2m_size: 0
"""


def test_keys_without_meaning_are_named_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lane.yaml").write_text(EVERY_KEY)
    found = load_compile_file(tmp_path / "lane.yaml")
    assert found.inputs == ("image", "mask")
    assert found.input_shapes == {"image": "1x3x8x8", "mask": "1x1x8x8"}
    (record,) = caplog.records
    text = record.getMessage()
    assert text.startswith(f"{tmp_path / 'lane.yaml'}: without meaning here")
    named = text.partition("compiled: ")[2].split(", ")
    assert len(named) == 27
    for word in ("model_parameters.enable_vpu", "input_parameters.input_batch"):
        assert word in named
    assert "compiler_parameters.max_l2m_size" in named


def test_a_key_of_the_calibration_that_is_like_no_other_is_named_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The compile tool takes any key there."""
    read(tmp_path, "calibration_parameters: {calibration_type: kl, vendor_extra: 1}")
    assert "unknown key 'vendor_extra' is ignored" in caplog.text


def test_a_percentile_below_what_the_method_takes_is_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = read(tmp_path, "calibration_parameters: {max_percentile: 0.1}")
    assert found.activation == Activation(max_percentile=(0.5,))
    assert "max_percentile: 0.1 is raised to 0.5" in caplog.text


def test_the_types_of_node_info_win_over_all_other_places(tmp_path: Path) -> None:
    text = """
model_parameters: {node_info: {a: {ON: BPU, InputType: int16}, b: int8}}
calibration_parameters:
  run_on_cpu: a
  optimization: set_all_nodes_int16
  quant_config: {node_config: {a: {qtype: float16}, b: {qtype: int16}}}
"""
    found = read(tmp_path, text)
    assert found.nodes == {"a": INT16, "b": NodeTypes(qtype="int8")}


@pytest.mark.parametrize(
    ("text", "error", "message", "hint"),
    [
        ("compiler_parameters: {optimise_level: O2}", UnknownNameError, "key", "optimize_level"),
        ("input_parameters: {mean_values: 1}", UnknownNameError, "key", "'mean_value'"),
        ("custom_op: {custom_op_dirs: a}", UnknownNameError, "key", "'custom_op_dir'"),
        (
            "input_parameters: {input_name: a;b}\ncalibration_parameters: {cal_data_dir: x;y;z}",
            ConfigError,
            "3 folders for 2 inputs",
            "",
        ),
        ("input_parameters: {input_name: a, input_shape: 1x2;3}", ConfigError, "2 shapes", ""),
        ("input_parameters: {input_shape: '1,2'}", ConfigError, "'1,2' is no shape", ""),
        ("calibration_parameters: {calibration_typ: max}", UnknownNameError, "key", "on_type'"),
        ("model_parameters: {node_inf: 'a:int8'}", UnknownNameError, "'node_inf'", "'node_info'"),
        (
            "model_parameters: {}\ncalibration_parameter: {}",
            UnknownNameError,
            "section 'calibration_parameter'",
            "'calibration_parameters'",
        ),
        (
            "calibration_parameters: {optimization: set_modle_output_int16}",
            UnknownNameError,
            "word 'set_modle_output_int16'",
            "'set_model_output_int16'",
        ),
        ("calibration_parameters: {calibration_type: kll}", UnknownNameError, "'kll'", "'kl'"),
        ("calibration_parameters: {max_percentile: -0.1}", ConfigError, "0.5 to 1", ""),
        ("calibration_parameters: {max_percentile: 1.1}", ConfigError, "0.5 to 1", ""),
        ("calibration_parameters: {per_channel: yes}", ConfigError, "true or false", ""),
        ("calibration_parameters: [1]", ConfigError, "a table is expected", ""),
        ("model_parameters: {node_info: Conv_0}", ConfigError, "is not NODE:TYPE", ""),
        ("model_parameters: {node_info: 'Conv_0:int9'}", ConfigError, "unknown type 'int9'", ""),
        ("calibration_parameters: {quant_config: absent.json}", StorageError, "cannot read", ""),
    ],
)
def test_what_is_wrong_is_named_with_the_nearest_word(
    tmp_path: Path, text: str, error: type[ConfigError], message: str, hint: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        read(tmp_path, text)
    assert hint in caught.value.hint


def test_unknown_keys_and_words_can_be_warned_of_instead(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        "model_parameter: {}\nmodel_parameters: {node_inf: 'a:int8'}\n"
        "calibration_parameters: {max_percentil: 0.9, optimization: set_modle_output_int8}\n"
    )
    assert read(tmp_path, text, unmatched="warn").nodes == {}
    for word in ("model_parameter", "node_inf", "max_percentil", "set_modle_output_int8"):
        assert f"{word!r} is ignored; did you mean" in caplog.text


def test_a_file_that_names_itself_is_refused(tmp_path: Path) -> None:
    names = "calibration_parameters: {quant_config: %s}"
    with pytest.raises(ConfigError, match="names the file that it stands in"):
        read(tmp_path, names % "lane.yaml")
    (tmp_path / "other.yaml").write_text(names % "lane.yaml")
    with pytest.raises(ConfigError, match="names the file that it stands in") as caught:
        read(tmp_path, names % "other.yaml")
    assert caught.value.why.count(" -> ") == 2


_BOMB = "".join(
    f"    {name}: &{name} [{', '.join([f'*{before}' if before else 'lol'] * 9)}]\n"
    for before, name in zip(["", *"abcdefg"], "abcdefgh", strict=True)
)
"""Lists of lists by aliases: 43 million words if written out."""


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("calibration_parameters: {quant_config: {model_config: {all_node_type: *h}}}", "type"),
        ("calibration_parameters: {quant_config: {model_config: *h}}", "not a list"),
        ("calibration_parameters: {max_percentile: [*h]}", "number from"),
        ("calibration_parameters: {per_channel: [*h]}", "true or false"),
        ("calibration_parameters: {optimization: [*h]}", "word"),
        ("model_parameters: {node_info: [*h]}", "NODE:TYPE"),
    ],
)
def test_lists_that_aliases_blow_up_are_shown_in_short(
    tmp_path: Path, key: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, f"compiler_parameters:\n  input_source:\n{_BOMB}{key}\n")
    assert len(str(caught.value)) < 1000


def test_a_list_in_the_named_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "types.json").write_text("[1]")
    with pytest.raises(ConfigError, match="object") as caught:
        read(tmp_path, "calibration_parameters: {quant_config: types.json}")
    assert caught.value.where.endswith("types.json")


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    text = "calibration_parameters:\n  calibration_type: kl\n  calibration_type: max\n"
    with pytest.raises(ConfigError, match="'calibration_type' stands twice") as caught:
        read(tmp_path, text)
    assert caught.value.where == f"{tmp_path / 'lane.yaml'}, line 3"
    assert caught.value.why == "lines 2, 3"
