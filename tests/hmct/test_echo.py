from __future__ import annotations

import pytest

from jptq.hmct.echo import echo, enabled
from jptq.quant.config import load_config


def test_a_build_repeats_every_setting_in_the_vendors_words() -> None:
    config = {
        "model_config": {
            "all_node_type": "int16",
            "model_output_type": "int8",
            "activation": {"calibration_type": "max", "max_percentile": [0.99995, 1.0]},
        },
        "op_config": {"Softmax": {"qtype": "int8"}},
        "subgraph_config": {"head": {"inputs": ["a"], "outputs": ["b"], "qtype": "int16"}},
        "node_config": {"Conv_3": {"qtype": "int16", "input1": "ec"}},
    }
    assert list(echo(load_config(config))) == [
        "All nodes in the model are set to datatype: int16",
        "All outputs of the model are set to datatype: int8",
        "The activation calibration parameters:",
        "    calibration_type     : max",
        "    max_percentile       : [0.99995, 1.0]",
        "The input of all Softmax nodes are set to : int8",
        "The input of all nodes of subgraph head are set to : int16",
        "The input of node Conv_3 is set to : int16",
        "The input1 of node Conv_3 is set to : ec",
    ]


def test_a_build_without_settings_says_the_default_type_alone() -> None:
    assert list(echo(load_config(None))) == ["All nodes in the model are set to datatype: int8"]


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("max", []),
        ("kl:num_bin=1024,max_num_bin=16384,asymmetric", ["Asymmetric"]),
        ("max-percentile:percentile=0.99995,per_channel,asymmetric", ["Perchannel", "Asymmetric"]),
    ],
)
def test_what_a_chosen_method_enables_is_said(method: str, said: list[str]) -> None:
    assert list(enabled(method)) == [f"{one} quantization is enabled." for one in said]
