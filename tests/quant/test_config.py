from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jptq.errors import ConfigError, StorageError, UnknownNameError
from jptq.quant.config import Activation, NodeTypes, load_config, strip_comments


def test_nothing_means_the_defaults() -> None:
    config = load_config(None)
    assert (config.all_node_type, config.model_output_type) == ("int8", None)
    assert config.activation == Activation()
    assert load_config({}).weight.max_percentile == 1.0


def test_a_file_may_hold_comments(tmp_path) -> None:
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


@given(
    st.recursive(
        st.text() | st.integers() | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    )
)
@settings(max_examples=50, deadline=None)
def test_json_without_comments_is_left_alone(content: object) -> None:
    assert json.loads(strip_comments(json.dumps(content))) == content


def test_single_values_and_lists_are_read_alike() -> None:
    activation = {"calibration_type": ["max", "kl", "max"], "num_bin": 1024, "asymmetric": True}
    found = load_config({"model_config": {"activation": activation}}).activation
    assert found == Activation(calibration_type=("max", "kl"), num_bin=(1024,), asymmetric=(True,))
    assert found.to_json() == {
        "calibration_type": ["max", "kl"],
        "num_bin": 1024,
        "asymmetric": True,
    }


def test_inputs_are_read_by_number() -> None:
    config = load_config({"node_config": {"n": {"qtype": "dual-int16", "input1": "int8"}}})
    assert config.nodes["n"] == NodeTypes(qtype="dual-int16", inputs={1: "int8"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}}, "unknown first-level key 'model'"),
        ({"model_config": {"all_node_typ": "int8"}}, "unknown key 'all_node_typ'"),
        ({"model_config": {"all_node_type": "int9"}}, "unknown type 'int9'"),
        ({"model_config": {"all_node_type": ["int8"]}}, "unknown type"),
        ({"model_config": {"all_node_type": "dual-int16"}}, "unknown type 'dual-int16'"),
        ({"model_config": {"activation": {"calibration_type": "min"}}}, "calibration_type 'min'"),
        ({"model_config": {"activation": {"max_percentile": 0.4}}}, "0.5 to 1"),
        ({"model_config": {"activation": {"max_percentile": float("nan")}}}, "0.5 to 1"),
        ({"model_config": {"activation": {"max_percentile": True}}}, "0.5 to 1"),
        ({"model_config": {"activation": {"num_bin": 128}}}, "integer from 129"),
        ({"model_config": {"activation": {"num_bin": 500, "max_num_bin": 300}}}, "is below"),
        ({"model_config": {"activation": {"per_channel": 1}}}, "true or false"),
        ({"model_config": {"weight": {"calibration_type": "kl"}}}, "calibration_type 'kl'"),
        ({"model_config": {"weight": {"bias_correction": {}}}}, "unknown key 'bias_correction'"),
        ({"op_config": {"Conv": {"qtype": "int4"}}}, "unknown type 'int4'"),
        ({"op_config": {"Conv": {}}}, "unknown type"),
        ({"node_config": {"n": {"qtyp": "int8"}}}, "unknown key 'qtyp'"),
        ({"node_config": {"n": {"input": "int8"}}}, "unknown key 'input'"),
        ({"node_config": {"n": {"input1": "ec"}}}, "unknown type 'ec'"),
        ({"node_config": {"n": "int8"}}, "object"),
        ({"node_config": ["n"]}, "object"),
        ({"subgraph_config": {"s": {"inputs": ["a"], "qtype": "int8"}}}, "'outputs' is a list"),
        ({"subgraph_config": {"s": {"inputs": "a", "outputs": ["b"]}}}, "'inputs' is a list"),
    ],
)
def test_what_is_wrong_is_named(content: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(content)


def test_near_names_are_offered() -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_config({"model_config": {"all_node_typ": "int8"}})
    assert "all_node_type" in caught.value.hint
    assert "model_config" in caught.value.where


@pytest.mark.parametrize("text", ["{", "\xff", '{"model_config": }'])
def test_a_file_that_is_not_json_is_refused(tmp_path, text: str) -> None:
    path = tmp_path / "quant_config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(StorageError, match=r"quant_config\.json"):
        load_config(path)


def test_a_missing_file_is_refused(tmp_path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        load_config(tmp_path / "absent.json")
