from __future__ import annotations

import numpy as np
import pytest

from jptq.errors import ModelError, UnsupportedOpError
from jptq.ir.model import Model
from jptq.quant.placement import place, tied_thresholds
from jptq.quant.plan import WEIGHT
from tests.graphs import Graph
from tests.quant.networks import TARGET, attention, branches, float_model, placed, quantized


def features(model: Model) -> set[str]:
    return {t for t in quantized(model) if t not in model.initializers}


def node_of(model: Model, tensor: str) -> dict[str, object]:
    return dict(model.by_name[f"{tensor}_HzCalibration"].attributes)


def test_a_convolution_reads_quantized_features_and_weights_but_an_exact_bias() -> None:
    g = Graph()
    x = g.input("x", (1, 3, 8, 8))
    g.output(g.conv(x, 3, 5, name="conv"))
    model = placed(g)
    assert quantized(model) == {"x", "constant_0"}
    conv = model.by_name["conv"]
    assert conv.inputs == ("x_calibrated", "constant_0_calibrated", "constant_1")
    assert model.producers["x_calibrated"].name == "x_HzCalibration"
    assert node_of(model, "constant_0") == {
        "qtype": "int8",
        "tensor_type": WEIGHT,
        "constant": 1,
        "switch": "ON",
        "axis": 0,
    }


def test_a_relu_that_alone_reads_a_convolution_is_fused_into_it() -> None:
    g = Graph()
    x = g.input("x", (1, 3, 8, 8))
    g.output(g.conv(g.add("Relu", g.conv(x, 3, 4)), 4, 4))
    assert features(placed(g)) == {"x", "Relu_1:0"}


@pytest.mark.parametrize(("low", "quantized_at"), [(0.0, "Clip_1:0"), (-1.0, "Conv_0:0")])
def test_only_a_clip_that_starts_at_zero_is_fused(low: float, quantized_at: str) -> None:
    g = Graph()
    x = g.input("x", (1, 3, 8, 8))
    g.output(g.conv(g.clip(g.conv(x, 3, 4), low, 6.0), 4, 4))
    assert features(placed(g)) == {"x", quantized_at}


def test_a_relu_beside_another_reader_is_looked_through() -> None:
    g = Graph()
    x = g.input("x", (1, 3, 8, 8))
    y = g.conv(x, 3, 4)
    g.output(g.conv(g.add("Mul", g.add("Relu", y), g.add("Sigmoid", y)), 4, 4))
    assert features(placed(g)) == {"x", "Conv_0:0", "Sigmoid_2:0", "Mul_3:0"}


def test_a_graph_output_inside_a_unit_prevents_fusion() -> None:
    g = Graph()
    x = g.input("x", (1, 3, 8, 8))
    y = g.conv(x, 3, 4)
    g.output(y, g.conv(g.add("Relu", y), 4, 4))
    model = placed(g)
    assert features(model) == {"x", "Conv_0:0"}
    assert model.producers["Conv_0:0"].op == "Conv"  # the output itself stays as it was


def test_a_residual_addition_is_fused_with_its_later_convolution() -> None:
    g = Graph()
    x = g.input("x", (1, 3, 8, 8))
    short, long = g.conv(x, 3, 4, 1, name="short"), g.conv(x, 3, 4, name="long")
    y = g.add("Relu", g.add("Add", long, short, name="sum"), name="relu")
    g.output(g.conv(y, 4, 4))
    assert features(placed(g)) == {"x", "short:0", "relu:0"}


def test_views_share_the_quantizer_of_what_they_view() -> None:
    g = Graph()
    x = g.input("x", (1, 4, 8, 8))
    y = g.add("Sigmoid", x)
    pooled = g.add("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    flat = g.add("Reshape", pooled, g.constant([1, 64]))
    g.output(g.add("MatMul", flat, g.random(64, 3)), g.add("Tanh", g.add("Transpose", y)))
    assert features(placed(g)) == {"x", "Sigmoid_0:0", "Tanh_5:0"}


def test_a_bias_added_to_a_product_is_exact_but_a_vector_factor_is_not() -> None:
    g = Graph()
    x = g.input("x", (1, 6, 4))
    y = g.add("Add", g.add("MatMul", x, g.random(4, 4, name="w")), g.random(4, name="bias"))
    y = g.add("Mul", g.add("Mul", y, g.random(4, name="factor")), g.constant(0.5, name="scalar"))
    g.output(g.add("MatMul", y, g.random(4, 2, name="w2")))
    assert quantized(placed(g)) == {"x", "w", "Add_1:0", "factor", "Mul_2:0", "Mul_3:0", "w2"}


def test_both_operands_of_a_dynamic_product_are_features() -> None:
    model = placed(attention())
    scores = model.by_name["scores"]
    for index in (0, 1):
        tensor = scores.inputs[index]
        while not model.producers[tensor].is_calibration:
            tensor = model.producers[tensor].inputs[0]
        assert model.producers[tensor].attributes["tensor_type"] == "feature"


def test_a_shared_weight_has_one_quantizer() -> None:
    g = Graph()
    x = g.input("x", (1, 4, 4))
    weight = g.random(4, 4, name="w")
    g.output(g.add("MatMul", g.add("Tanh", g.add("MatMul", x, weight)), weight))
    model = placed(g)
    assert [n.name for n in model.nodes if n.inputs[0] == "w"] == ["w_HzCalibration"]


def test_a_transposed_convolution_has_its_channels_on_axis_one() -> None:
    g = Graph()
    x = g.input("x", (1, 4, 8, 8))
    g.output(g.add("ConvTranspose", x, g.random(4, 3, 2, 2, name="w"), strides=[2, 2]))
    assert node_of(placed(g), "w")["axis"] == 1


def test_a_vector_as_second_operand_of_a_product_has_no_channels() -> None:
    g = Graph()
    x = g.input("x", (1, 4))
    g.output(g.add("MatMul", x, g.random(4, name="w")))
    assert "axis" not in node_of(placed(g), "w")


def test_shape_arithmetic_carries_no_quantizer() -> None:
    g = Graph()
    x = g.input("x", (2, 4, 8, 8))
    batch = g.add("Gather", g.add("Shape", x), g.constant([0]), axis=0)
    g.output(g.add("Tanh", g.add("Reshape", x, g.add("Concat", batch, g.constant([-1]), axis=0))))
    assert quantized(placed(g)) == {"x", "Tanh_4:0"}


def test_the_operands_and_the_reader_of_a_concat_are_tied() -> None:
    model = placed(branches())
    assert {"resize:0", "gate:0", "concat:0"} <= features(model)
    assert tied_thresholds(model) == (
        ("resize:0_HzCalibration", "gate:0_HzCalibration", "concat:0_HzCalibration"),
    )


def test_ties_run_through_several_views() -> None:
    g = Graph()
    x = g.input("x", (1, 4, 8, 8))
    padded = g.add("Pad", x, g.constant([0, 0, 1, 1, 0, 0, 1, 1]))
    a, b = g.add("MaxPool", padded, kernel_shape=[3, 3]), g.conv(padded, 4, 4, 1)
    pooled = g.add("MaxPool", b, kernel_shape=[3, 3])
    g.output(g.conv(g.add("Concat", a, pooled, axis=1), 8, 2, 1))
    (group,) = tied_thresholds(placed(g))
    assert {name.removesuffix("_HzCalibration") for name in group} == {
        "x",
        "Pad_0:0",
        "Conv_2:0",
        "Concat_4:0",
    }


def test_outputs_of_products_and_of_concat_are_given_out_in_high_precision() -> None:
    g = Graph()
    x = g.input("x", (1, 4, 8, 8))
    conv = g.conv(x, 4, 4)
    joined = g.add("Concat", g.add("Tanh", x), g.add("Sigmoid", x), axis=1)
    g.output(g.add("Transpose", conv, perm=[0, 2, 3, 1]), joined)
    assert features(placed(g)) == {"x", "Tanh_1:0", "Sigmoid_2:0"}


def test_another_output_is_quantized_under_its_own_name() -> None:
    model = placed(attention())
    assert model.output_names == ("end:0",)
    quantizer = model.producers["end:0"]
    assert quantizer.is_calibration
    assert quantizer.name == "end:0_HzCalibration"
    assert model.producers[quantizer.inputs[0]].name == "end"


def test_outputs_can_be_quantized_wherever_they_come_from() -> None:
    g = Graph()
    x = g.input("x", (1, 4, 8, 8))
    g.output(g.conv(x, 4, 4, name="tail"))
    model = placed(g, quantize_outputs=True)
    assert model.output_names == ("tail:0",)
    assert model.producers["tail:0"].is_calibration


def test_a_calibrated_model_is_not_calibrated_again() -> None:
    with pytest.raises(ModelError, match="quantizers already"):
        place(placed(attention()), TARGET, floats=())


def test_all_unknown_operators_are_named_at_once() -> None:
    g = Graph()
    x = g.input("x", (1, 4))
    g.output(g.add("Foo", x, domain="my"), g.add("Bar", x, domain="my"))
    with pytest.raises(UnsupportedOpError, match="my::Bar, my::Foo"):
        place(float_model(g), TARGET, floats={"x"})


def test_only_float32_tensors_are_quantized() -> None:
    g = Graph()
    x = g.input("x", (1, 4))
    g.output(g.add("Tanh", g.add("Cast", g.add("Abs", x), to=11)), dtype=11)
    assert quantized(placed(g)) == {"x"}


def test_the_constants_are_untouched() -> None:
    graph = branches()
    model = placed(graph)
    for name, array in graph.constants.items():
        np.testing.assert_array_equal(model.initializers[name], array)


def test_a_model_without_anything_to_quantize_is_refused_with_the_reason() -> None:
    g = Graph()
    x = g.input("x", (1, 3, 8, 8))
    g.output(g.conv(x, 3, 5, name="conv"))
    with pytest.raises(ModelError, match="none of its tensors is float32"):
        place(float_model(g), TARGET, floats=())
