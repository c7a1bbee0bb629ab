from __future__ import annotations

import pytest

from jptq.errors import ConfigError, UnknownNameError
from jptq.quant.config import load_config
from jptq.quant.resolve import resolve
from jptq.quant.shortened import in_full
from tests.quant.networks import TARGET
from tests.quant.planned import network

INT16 = {"qtype": "int16"}


def test_a_shortened_name_is_that_of_the_node_that_ends_like_it() -> None:
    model, plan = network("attention")
    short = load_config({"node_config": {"...sidual": INT16, "mixed": INT16}})
    full = load_config({"node_config": {"residual": INT16, "mixed": INT16}})
    assert in_full(short, model) == full
    assert resolve(short, model, plan, TARGET) == resolve(full, model, plan, TARGET)


def test_the_ends_of_a_subgraph_may_be_shortened() -> None:
    model, _ = network("attention")
    ends = {"inputs": ["...ores"], "outputs": ["...ixed"], "qtype": "int16"}
    found = in_full(load_config({"subgraph_config": {"s": ends}}), model).subgraphs["s"]
    assert (found.inputs, found.outputs) == (("scores",), ("mixed",))


def test_a_name_that_fits_several_nodes_or_none_is_refused() -> None:
    model, plan = network("attention")
    with pytest.raises(ConfigError, match=r"\d nodes end like '...ed'") as caught:
        in_full(load_config({"node_config": {"...ed": INT16}}), model)
    assert "mixed" in caught.value.why
    with pytest.raises(UnknownNameError, match=r"unknown node '\.\.\.absent'"):
        resolve(load_config({"node_config": {"...absent": INT16}}), model, plan, TARGET)
    both = load_config({"node_config": {"...sidual": INT16, "residual": INT16}})
    with pytest.raises(ConfigError, match="in full and shortened"):
        in_full(both, model)
