from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jptq.errors import ConfigError, StorageError
from jptq.quant.config import Activation, BiasCorrection, NodeTypes, load_config
from jptq.quant.config_text import load_compile_file, parse, strip_comments

DOCUMENT = """
quant_config = {
    "model_config": {
        "all_node_type": "int16",
        "activation": {"calibration_type": "max", "per_channel": True},
    },
    "node_config": {
        # Conv, ConvTranspose: don't compensate input0
        "Conv_360": {"input1": "ec"},
        # "GridSample_340": {"input0": "ec"},
        "a//b /* c */ # d": {"qtype": 'int8'},
    },
}
"""


@pytest.mark.seed("E5")
@pytest.mark.parametrize("name", ["quant_config.py", "quant_config.json", "quant_config.txt"])
def test_the_dict_of_the_document_is_read_as_it_stands(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for text in (DOCUMENT, DOCUMENT.strip().removeprefix("quant_config = ")):
        path.write_text(text)
        config = load_config(path)
        assert config.all_node_type == "int16"
        assert config.activation == Activation(calibration_type=("max",), per_channel=(True,))
        assert config.nodes == {
            "Conv_360": NodeTypes(inputs={1: "ec"}),
            "a//b /* c */ # d": NodeTypes(qtype="int8"),
        }


@pytest.mark.seed("E5")
def test_json_may_hold_comments(tmp_path: Path) -> None:
    path = tmp_path / "quant_config.json"
    path.write_text(
        """{
        // one line
        "model_config": {"all_node_type": "int16"}, /* several
        lines */
        "node_config": {"a//b /* c */": {"qtype": "int8"}}
        }"""
    )
    config = load_config(path)
    assert config.all_node_type == "int16"
    assert config.nodes == {"a//b /* c */": NodeTypes(qtype="int8")}
    assert config.where == str(path)


@pytest.mark.seed("E5")
def test_json_with_trailing_commas_keeps_its_constants() -> None:
    assert parse('{"a": [true, false, null, 0.5,],}', where="f") == {"a": [True, False, None, 0.5]}


def test_a_script_with_a_quant_config_in_it_is_read_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "build.py"
    ran = tmp_path / "ran"
    path.write_text(
        f"open({str(ran)!r}, 'w')\nother = {{'a': 1}}\n"
        "quant_config = {'model_config': {'all_node_type': 'int16'}}\nbuild(quant_config)\n"
    )
    assert load_config(path).all_node_type == "int16"
    assert not ran.exists()


@pytest.mark.parametrize("value", ["f()", "[x for x in ()]", "1 + n", "__import__('os')"])
def test_what_is_no_literal_is_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "quant_config.py"
    path.write_text(f"quant_config = {{'model_config': {value}}}")
    with pytest.raises(StorageError, match="neither JSON nor a Python literal"):
        load_config(path)


@given(
    st.recursive(
        st.text() | st.integers() | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    )
)
@settings(max_examples=50, deadline=None)
def test_json_and_python_without_comments_are_left_alone(content: object) -> None:
    assert json.loads(strip_comments(json.dumps(content))) == content
    assert parse(json.dumps(content), where="f") == content
    assert parse(repr(content), where="f") == content


def test_comments_keep_the_numbers_of_lines() -> None:
    text = "{# a\n/* b\n\n*/ 'x': 1}"
    assert strip_comments(text).count("\n") == text.count("\n")


@pytest.mark.seed("E6")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", '{"node_config": {"Conv_8": {"qtype": "int16"},\n"Conv_8": %s}}'),
        ("c.py", "{'node_config': {'Conv_8': {\"qtype\": \"int16\"},\n'Conv_8': %s,}}"),
        ("c.yaml", 'node_config:\n  Conv_8: {"qtype": "int16"}\n  Conv_8: %s\n'),
    ],
)
def test_a_key_that_stands_twice_is_refused_if_it_says_two_things(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_text(text % '{"qtype": "int16"}')  # as in the vendor's document
    assert load_config(path).nodes == {"Conv_8": NodeTypes(qtype="int16")}
    (record,) = caplog.records
    line = 3 if name == "c.yaml" else 2
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"{path}, line {line}: 'Conv_8' stands twice")
    path.write_text(text % '{"qtype": "int8"}')
    with pytest.raises(ConfigError, match="'Conv_8' stands twice") as caught:
        load_config(path)
    assert caught.value.where == f"{path}, line {line}"
    assert caught.value.why == f"lines {line - 1}, {line}"


def test_a_key_twice_in_what_python_cannot_read_is_seen_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    deep = '{"x": ' * 300 + "1" + "}" * 300
    path.write_text(f'{{"model_config": {{}}, "model_config": 1, "node": {deep}}}')
    with pytest.raises(ConfigError, match="'model_config' stands twice"):
        load_config(path)


@pytest.mark.parametrize("name", ["c.json", "c.py", "c.yaml"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_byte_order_mark_and_the_ends_of_lines_do_not_matter(
    tmp_path: Path, name: str, mark: bytes, end: bytes
) -> None:
    lines = {
        "c.json": (b"{ // c", b'"model_config": {', b'"all_node_type": "int16"}}'),
        "c.py": (b"# c", b"quant_config = {'model_config':", b"{'all_node_type': 'int16',},}"),
        "c.yaml": (b"# c", b"model_config:", b"  all_node_type: int16"),
    }[name]
    (tmp_path / name).write_bytes(mark + end.join(lines) + end)
    assert load_config(tmp_path / name).all_node_type == "int16"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", b"", "is empty"),
        ("c.json", b" \n// nothing\n", "is empty"),
        ("c.yaml", b"# nothing\n", "is empty"),
        ("c.json", b"[" * 100_000, "nested too deeply"),
        ("c.json", b"[" * 60 + b"]" * 60, "nested too deeply"),
        ("c.json", b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "nested too deeply"),
        ("c.yaml", b"[" * 2_000 + b"]" * 2_000, "nested too deeply"),
        ("c.json", b"[1, 2]", "is expected, not a list"),
        ("c.py", b"quant_config = ['a',]", "is expected, not a list"),
        ("c.yaml", b"- 1\n- 2\n", "is expected, not a list"),
        ("c.json", b'"int16"', "is expected, not int16"),
        ("c.json", b"3", "is expected, not 3"),
        ("c.json", b"x" * 10_000_000, "line 1: it holds more than text, numbers"),
        ("c.json", b'{\n"a": {}\n"b": {}}', "as JSON: line 3: Expecting ',' delimiter"),
        ("c.py", b"{\n'a': f(),\n}", "as Python: line 2: it holds more than"),
        ("c.py", b"{\n'a': 1\n'b': 2}", "as Python: line 2: invalid syntax"),
        ("c.yaml", b"a:\n\tb: 1\n", "line 2: while scanning"),
        ("c.yaml", b"a: 1\n---\nb: 2\n", "line 2: expected a single document"),
        ("c.yaml", b"? [1, 2]\n: x\n", "unhashable key"),
        ("c.yaml", b"a: 2026-99-99\n", "month must be"),
        ("c.json", "{}".encode("utf-16"), "is not UTF-8 text"),
        ("c.json", bytes(range(256)) * 40_000, "is not UTF-8 text"),
    ],
)
def test_a_file_that_says_nothing_of_use_is_refused_with_the_reason(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises((ConfigError, StorageError)) as caught:
        load_config(path)
    text = str(caught.value)
    assert message in text
    assert str(path) in text
    assert len(text) < 400


@pytest.mark.parametrize("text", ["{", "\xff", '{"model_config": }', "", "a = 1; b = 2", "[" * 999])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "quant_config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(StorageError, match=r"quant_config\.json"):
        load_config(path)


COMPILE = """
model_parameters:
  onnx_model: lane.onnx
  march: nash-m
  debug_mode: "dump_calibration_data;other"
  node_info: "/a:0/Conv:int16;Conv_1:int8"
calibration_parameters:
  cal_data_dir: ./calibration_data/images; ./calibration_data/grid
  calibration_type: kl
  max_percentile: 0.9999
  optimization: set_model_output_int16; set_all_nodes_int16;run_fast;set_Resize_input_int8
  run_on_cpu: Softmax_7;
  quant_config:
    model_config:
      activation: {calibration_type: max}
    node_config:
      Conv_1: {qtype: int16}
      Conv_2: {ON: CPU}
compiler_parameters:
  optimize_level: O2
"""


@pytest.mark.seed("E5")
def test_the_compile_file_says_the_same_as_a_quant_config(tmp_path: Path) -> None:
    path = tmp_path / "lane.yaml"
    path.write_text(COMPILE)
    config = load_config(path)
    assert config.activation == Activation(calibration_type=("max",), max_percentile=(0.9999,))
    assert (config.all_node_type, config.model_output_type) == ("int16", "int16")
    assert config.ops == {"Resize": NodeTypes(qtype="int8")}
    assert config.nodes == {
        "Conv_1": NodeTypes(qtype="int8"),  # node_info has the last word
        "Conv_2": NodeTypes(qtype="float32"),
        "Softmax_7": NodeTypes(qtype="float32"),
        "/a:0/Conv": NodeTypes(qtype="int16"),
    }
    found = load_compile_file(path)
    assert (found.model, found.march) == ("lane.onnx", "nash-m")
    assert found.calibration_data == ("./calibration_data/images", "./calibration_data/grid")
    assert found.dump_calibration_data


def test_the_compile_file_may_name_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "types.json").write_text('{"model_config": {"all_node_type": "int16"}} // all')
    path = tmp_path / "lane.yml"
    path.write_text(
        "model_parameters: {march: nash-e}\n"
        "calibration_parameters:\n  quant_config: types.json\n  calibration_type: default\n"
        "  optimization: bias_correction\n"
    )
    config = load_config(path)
    assert config.all_node_type == "int16"
    assert config.activation == Activation()
    assert config.bias_correction == BiasCorrection()


def test_a_yaml_file_may_be_the_quant_config_itself(tmp_path: Path) -> None:
    path = tmp_path / "quant_config.yaml"
    path.write_text("model_config:\n  all_node_type: int16\n")
    assert load_config(path).all_node_type == "int16"


def test_yaml_builds_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "quant_config.yaml"
    path.write_text("model_config: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(StorageError, match="is not YAML"):
        load_config(path)
