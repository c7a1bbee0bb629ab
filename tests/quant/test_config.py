from __future__ import annotations

import json
from typing import Any

import pytest

from jptq.errors import ConfigError, StorageError, UnknownNameError
from jptq.quant.config import (
    Activation,
    BiasCorrection,
    Config,
    LayerwiseSearch,
    ModelwiseSearch,
    NodeTypes,
    Subgraph,
    load_config,
)


def model_config(**content: Any) -> Config:
    return load_config({"model_config": content})


def test_nothing_means_the_defaults() -> None:
    config = load_config(None)
    assert (config.all_node_type, config.model_output_type) == ("int8", None)
    assert config.activation == Activation()
    assert load_config({}).weight.max_percentile == 1.0
    assert (config.bias_correction, config.layerwise, config.modelwise) == (None, None, None)


def test_a_configuration_that_is_read_already_is_taken_as_it_is() -> None:
    config = load_config({"model_config": {"all_node_type": "int16"}})
    assert load_config(config) is config


@pytest.mark.seed("E2")
def test_single_values_and_lists_are_read_alike() -> None:
    activation = {"calibration_type": ["max", "kl", "max"], "num_bin": 1024, "asymmetric": True}
    found = model_config(activation=activation).activation
    assert found == Activation(calibration_type=("max", "kl"), num_bin=(1024,), asymmetric=(True,))
    assert found.to_json() == {
        "calibration_type": ["max", "kl"],
        "num_bin": 1024,
        "asymmetric": True,
    }


@pytest.mark.seed("E2")
def test_the_activation_block_of_the_document_is_read() -> None:
    first = {"calibration_type": "max", "max_percentile": 0.99995}
    assert model_config(activation=first).activation == Activation(
        calibration_type=("max",), max_percentile=(0.99995,)
    )
    second = {"calibration_type": "max", "per_channel": True, "asymmetric": True}
    assert model_config(activation=second).activation == Activation(
        calibration_type=("max",), per_channel=(True,), asymmetric=(True,)
    )


@pytest.mark.parametrize("name", ["max", "kl", "min-max", "mix", "load", "fixed", "skip"])
def test_every_calibration_type_of_the_vendor_is_known(name: str) -> None:
    assert model_config(activation={"calibration_type": name}).activation == Activation(
        calibration_type=(name,)
    )


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ({"activation": {"calibration_type": "percentile"}}, "max with a max_percentile"),
        ({"activation": {"calibration_type": ["kl", "max-percentile"]}}, "a max_percentile"),
        ({"activation": {"calibration_type": "per-channel"}}, '"per_channel": true'),
        ({"activation": {"calibration_type": "equalization"}}, "no method here rescales"),
        ({"weight": {"calibration_type": "bias_correction"}}, '"bias_correction": {}'),
        ({"weight": {"calibration_type": "compensation"}}, '"input1": "ec"'),
    ],
)
def test_methods_that_the_vendors_documents_list_are_refused_with_what_to_write(
    model: dict[str, Any], hint: str
) -> None:
    with pytest.raises(ConfigError, match="calibration_type is not '") as caught:
        model_config(**model)
    assert hint in caught.value.hint


def test_a_place_may_be_a_type() -> None:
    """The vendor's examples also say ``{"ON": "int16"}``."""
    config = load_config({"node_config": {"n": {"ON": "int16"}}})
    assert config.nodes["n"] == NodeTypes(qtype="int16")
    with pytest.raises(ConfigError, match="ON says int16, another key int8"):
        load_config({"node_config": {"n": {"ON": "int16", "qtype": "int8"}}})


def test_the_default_calibration_type_says_nothing() -> None:
    assert model_config(activation={"calibration_type": "default"}).activation == Activation()


def test_bias_correction_without_settings_is_on() -> None:
    assert model_config(weight={"bias_correction": {}}).bias_correction == BiasCorrection(
        num_sample=1, metric="cosine-similarity"
    )
    settings = {"num_sample": 4, "metric": "mae"}
    assert model_config(weight={"bias_correction": settings}).bias_correction == BiasCorrection(
        num_sample=4, metric="mae"
    )


def test_both_spellings_of_the_searches_are_read() -> None:
    layers = {"topk": 5, "metric": "mse", "qtype": "int16"}
    wanted = LayerwiseSearch(topk=5, metric="mse", qtype="int16")
    assert model_config(layerwise_search=layers).layerwise == wanted
    assert model_config(search={"layer": layers}).layerwise == wanted
    whole = {"metric": "sqnr", "similarity": 0.99}
    assert model_config(modelwise_search=whole).modelwise == ModelwiseSearch(
        metric="sqnr", similarity=0.99
    )
    assert model_config(search={"model": {}}).modelwise == ModelwiseSearch()


def test_beside_a_layerwise_search_the_modelwise_one_is_off() -> None:
    config = model_config(layerwise_search={}, modelwise_search={})
    assert (config.layerwise, config.modelwise) == (LayerwiseSearch(), None)


@pytest.mark.seed("E3")
def test_inputs_are_read_by_number() -> None:
    config = load_config({"node_config": {"n": {"qtype": "dual-int16", "input1": "int8"}}})
    assert config.nodes["n"] == NodeTypes(qtype="dual-int16", inputs={1: "int8"})
    config = load_config({"node_config": {"n": {"input12": "float16"}}})
    assert config.nodes["n"].inputs == {12: "float16"}


@pytest.mark.seed("E4")
def test_the_subgraph_of_the_document_is_read() -> None:
    ends = {"inputs": ["Conv_559", "Conv_707", "Conv_855"], "outputs": ["Concat_1003"]}
    config = load_config({"subgraph_config": {"det_head": {**ends, "qtype": "int16"}}})
    assert config.subgraphs == {
        "det_head": Subgraph(
            inputs=("Conv_559", "Conv_707", "Conv_855"), outputs=("Concat_1003",), qtype="int16"
        )
    }


def test_compensated_operands_are_listed() -> None:
    config = load_config(
        {
            "node_config": {
                "Conv_3": {"qtype": "int16", "input1": "ec"},
                "GridSample_340": {"input0": "ec"},
                "Conv_5": {"qtype": "int16-ec"},
                "Conv_6": {"qtype": "int16-ec", "input1": "int8"},
                "Conv_8": {"qtype": "int16"},
            }
        }
    )
    assert config.compensations() == {"Conv_3": 1, "GridSample_340": 0, "Conv_5": 1}


def test_the_older_keys_mean_the_newer_ones() -> None:
    config = load_config(
        {
            "model_config": {"all_node_type": "float"},
            "op_config": {"Conv": {"InputType": "int16", "OutputType": "int8"}},
            "node_config": {
                "a": {"ON": "BPU", "InputType": "int16", "OutputType": "int16"},
                "b": {"InputType0": "int8", "InputType1": "int16"},
                "c": {"ON": "CPU"},
            },
        }
    )
    assert config.all_node_type == "float32"
    assert config.ops == {"Conv": NodeTypes(qtype="int16", output="int8")}
    assert config.nodes == {
        "a": NodeTypes(qtype="int16", output="int16"),
        "b": NodeTypes(inputs={0: "int8", 1: "int16"}),
        "c": NodeTypes(qtype="float32"),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}}, "unknown first-level key 'model'"),
        ({"model_config": {"all_node_typ": "int8"}}, "unknown key 'all_node_typ'"),
        ({"model_config": {"all_node_type": "int9"}}, "unknown type 'int9'"),
        ({"model_config": {"all_node_type": ["int8"]}}, "unknown type"),
        ({"model_config": {"all_node_type": "dual-int16"}}, "unknown type 'dual-int16'"),
        ({"model_config": {"activation": {"calibration_type": "min"}}}, "calibration_type 'min'"),
        ({"model_config": {"activation": {"calibration_type": ["max", "mix"]}}}, "several 'mix'"),
        ({"model_config": {"activation": {"max_percentile": 0.4}}}, "0.5 to 1"),
        ({"model_config": {"activation": {"max_percentile": float("nan")}}}, "0.5 to 1"),
        ({"model_config": {"activation": {"max_percentile": True}}}, "0.5 to 1"),
        ({"model_config": {"activation": {"num_bin": 128}}}, "integer from 129"),
        ({"model_config": {"activation": {"num_bin": 500, "max_num_bin": 300}}}, "is below"),
        ({"model_config": {"activation": {"per_channel": 1}}}, "true or false"),
        ({"model_config": {"weight": {"calibration_type": "kl"}}}, "calibration_type 'kl'"),
        ({"model_config": {"weight": {"bias_correction": {"num_sample": 0}}}}, "integer from 1"),
        ({"model_config": {"weight": {"bias_correction": {"samples": 1}}}}, "key 'samples'"),
        ({"model_config": {"layerwise_search": {"metric": "cos"}}}, "unknown metric 'cos'"),
        ({"model_config": {"search": {"layers": {}}}}, "unknown key 'layers'"),
        ({"op_config": {"Conv": {"qtype": "int4"}}}, "unknown type 'int4'"),
        ({"op_config": {"Conv": {"qtype": "ec"}}}, "unknown type 'ec'"),
        ({"op_config": {"Conv": {}}}, "no type is given"),
        ({"node_config": {"n": {"qtyp": "int8"}}}, "unknown key 'qtyp'"),
        ({"node_config": {"n": {"input": "int8"}}}, "unknown key 'input'"),
        ({"node_config": {"n": {"qtype": "ec"}}}, "unknown type 'ec'"),
        ({"node_config": {"n": {"input0": "ec", "input1": "ec"}}}, "only one input"),
        ({"node_config": {"n": {"ON": "GPU"}}}, "unknown place or type 'GPU'"),
        ({"node_config": {"n": {"ON": "CPU", "qtype": "int16"}}}, "on the CPU there is no int16"),
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


def test_unmatched_keys_can_be_warned_of_instead(caplog: pytest.LogCaptureFixture) -> None:
    content = {
        "modelconfig": {},
        "model_config": {"all_node_typ": "int16", "all_node_type": "int16"},
        "node_config": {"n": {"qtype": "int16", "inputs0": "int8"}},
    }
    config = load_config(content, unmatched="warn")
    assert config.all_node_type == "int16"
    assert config.nodes == {"n": NodeTypes(qtype="int16")}
    assert config.unmatched == "warn"
    for key in ("modelconfig", "all_node_typ", "inputs0"):
        assert f"{key!r} is ignored" in caplog.text


def test_values_are_never_ignored() -> None:
    with pytest.raises(UnknownNameError, match="int9"):
        load_config({"model_config": {"all_node_type": "int9"}}, unmatched="warn")


def test_a_file_is_named_in_errors(tmp_path) -> None:
    path = tmp_path / "quant_config.json"
    path.write_text(json.dumps({"model_config": {"all_node_type": "int9"}}))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in caught.value.where
    with pytest.raises(StorageError, match="cannot read"):
        load_config(tmp_path / "absent.json")
