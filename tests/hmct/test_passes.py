from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest

from jptq.errors import ConfigError, ModelError
from jptq.hmct import passes
from jptq.hmct.api import ModelBuilder, PredicateBasedPass, build_model, load_model, register_pass
from jptq.hmct.ir import OnnxModel, OnnxNode
from tests.graphs import Graph
from tests.oracles import run_onnx

MAX: dict[str, Any] = {"model_config": {"activation": {"calibration_type": "max"}}}


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    passes.registered().clear()
    yield
    passes.registered().clear()


def doubled() -> onnx.ModelProto:
    """Return a convolution behind two additions of a tensor to itself."""
    g = Graph()
    x = g.input("x", (1, 2, 4, 4))
    for name in ("first", "second"):
        x = g.add("Add", x, x, name=name)
    g.output(g.conv(x, 2, 3, 1, name="conv"))
    return g.proto()


class DoublingAsProduct(PredicateBasedPass):
    """Writes x + x as 2 x."""

    name = "doubling_as_product"

    def match_pattern(self, onnx_node: OnnxNode) -> bool:
        return onnx_node.op_type == "Add" and len(set(onnx_node.input_names)) == 1

    def apply_transform(self, onnx_node: OnnxNode, onnx_model: OnnxModel) -> bool:
        graph = onnx_model.graph
        two = graph.create_variable("two", is_param=True, value=np.float32([2]))
        product = graph.create_node(
            "Mul", name=f"{onnx_node.name}_product", inputs=[onnx_node.inputs[0], two]
        ).insert_before(onnx_node)
        onnx_node.replace_all_uses_with(product)
        onnx_node.destroy()
        return True


def build(model: onnx.ModelProto) -> ModelBuilder:
    samples = [np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype(np.float32)]
    found = build_model(
        model,
        cali_data=samples,
        quant_config=MAX,
        save_model=False,
        return_builder=True,
        verbose=False,
    )
    assert isinstance(found, ModelBuilder)
    return found


@pytest.mark.slow
def test_a_registered_pass_rewrites_the_model_before_it_is_optimized() -> None:
    assert register_pass(DoublingAsProduct) is DoublingAsProduct
    found = build(doubled())
    assert found.original_model.graph.node_names == ("first", "second", "conv")
    assert found.optimized_model.graph.node_names == ("first_product", "second_product", "conv")
    feeds = {"x": np.random.default_rng(1).standard_normal((1, 2, 4, 4)).astype(np.float32)}
    (expected,) = run_onnx(doubled(), feeds).values()
    (rewritten,) = run_onnx(found.optimized_model.proto, feeds).values()
    np.testing.assert_allclose(rewritten, expected, rtol=1e-5)


def test_a_pass_runs_until_nothing_changes_and_skips_nodes_that_it_has_removed() -> None:
    class Peel(DoublingAsProduct):
        name = "peel"

        def __init__(self) -> None:
            self.rounds: list[str] = []

        def initialize_pass(self, onnx_model: OnnxModel) -> None:
            self.rounds.append("begin")

        def finalize_pass(self, onnx_model: OnnxModel) -> None:
            self.rounds.append("end")

        def apply_transform(self, onnx_node: OnnxNode, onnx_model: OnnxModel) -> bool:
            after = onnx_node.outputs[0].dest_op
            super().apply_transform(onnx_node, onnx_model)
            if after is not None and after.op_type == "Add":  # a later node goes with it
                after.replace_all_uses_with(after.prev_ops[0])
                after.destroy()
            return True

    one = Peel()
    register_pass(one)
    model = passes.rewritten(load_model(doubled()).freeze())
    assert [node.name for node in model.nodes] == ["first_product", "conv"]
    assert one.rounds == ["begin", "end"] * 2


def test_a_pass_that_always_reports_a_change_is_stopped_and_named() -> None:
    class Endless(DoublingAsProduct):
        name = "endless"

        def match_pattern(self, onnx_node: OnnxNode) -> bool:
            return onnx_node.op_type == "Conv"

        def apply_transform(self, onnx_node: OnnxNode, onnx_model: OnnxModel) -> bool:
            return True

    register_pass(Endless)
    with pytest.raises(ModelError, match="pass 'endless' does not end"):
        passes.rewritten(load_model(doubled()).freeze())


def test_a_pass_that_breaks_the_graph_is_named() -> None:
    class Breaking(DoublingAsProduct):
        name = "breaking"

        def apply_transform(self, onnx_node: OnnxNode, onnx_model: OnnxModel) -> bool:
            nowhere = onnx_model.graph.create_variable("nowhere")
            onnx_node.replace_input(0, nowhere)
            return True

    register_pass(Breaking)
    with pytest.raises(ModelError, match="breaking"):
        passes.rewritten(load_model(doubled()).freeze())


def test_what_is_no_pass_is_refused_when_it_is_registered() -> None:
    class Half(PredicateBasedPass):
        name = "half"

        def match_pattern(self, onnx_node: OnnxNode) -> bool:
            return False

    with pytest.raises(ConfigError, match="pass Half lacks apply_transform"):
        register_pass(Half)
    with pytest.raises(ConfigError, match="str is no pass"):
        register_pass("fuse")  # type: ignore[type-var]
    assert passes.registered() == {}


def test_a_pass_of_the_same_name_takes_the_place_of_the_first() -> None:
    register_pass(DoublingAsProduct)
    again = DoublingAsProduct()
    register_pass(again)
    assert list(passes.registered().values()) == [again]
