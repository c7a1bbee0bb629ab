from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from jptq import ir
from jptq.errors import ModelError
from jptq.hmct.calibration import CalibrationNode
from jptq.hmct.ir import (
    OnnxModel,
    OnnxNode,
    extract_submodel,
    load_model,
    save_model,
    serialize_model,
)
from jptq.ir import Model
from jptq.targets import load_target
from tests.graphs import Graph
from tests.hmct import networks
from tests.hmct.networks import STEM
from tests.oracles import run_onnx

CALIBRATION = f"{STEM}_HzCalibration"


@pytest.fixture
def model() -> OnnxModel:
    return load_model(networks.calibrated())


def calibration(model: OnnxModel, name: str = CALIBRATION) -> CalibrationNode:
    node = model.graph.node_mappings[name]
    assert isinstance(node, CalibrationNode)
    return node


def weight_of(model: OnnxModel, name: str) -> CalibrationNode:
    node = model.graph.node_mappings[name].inputs[1].src_op
    assert isinstance(node, CalibrationNode)
    return node


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.seed("F1")
def test_a_model_that_is_loaded_and_saved_is_the_same_to_the_byte(tmp_path: Path) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    ir.save(networks.calibrated("int16"), first)
    save_model(load_model(first), second)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.seed("F1")
def test_every_form_of_a_model_is_loaded_alike(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    ir.save(networks.calibrated(), path)
    content = path.read_bytes()
    forms = (path, str(path), content, onnx.load(path), load_model(path), ir.load(path))
    assert all(serialize_model(load_model(form)) == content for form in forms)


def test_the_proto_is_what_onnx_reads(model: OnnxModel) -> None:
    proto = model.proto
    assert isinstance(proto, onnx.ModelProto)
    assert [node.name for node in proto.graph.node] == list(model.graph.node_names)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError, match="int is no model"):
        load_model(3)  # type: ignore[arg-type]


def test_an_edited_copy_leaves_the_original_alone(model: OnnxModel) -> None:
    for other in (load_model(model), copy.deepcopy(model)):
        calibration(other).qtype = "int16"
    assert calibration(model).qtype == "int8"


# --- graphs, nodes, tensors ----------------------------------------------------------------------


@pytest.mark.seed("F2")
def test_nodes_are_found_by_name_by_type_and_in_order(model: OnnxModel) -> None:
    graph, frozen = model.graph, networks.calibrated()
    assert [node.name for node in graph.nodes] == [node.name for node in frozen.nodes]
    assert graph.node_mappings["Conv_0"].op_type == "Conv"
    assert [node.name for node in graph.type2nodes["Conv"]] == ["Conv_0", "Conv_8"]
    assert len(graph.type2nodes["HzCalibration"]) == len(load_calibrations(frozen))
    assert not graph.type2nodes["Softmax"]


def load_calibrations(model: Model) -> list[str]:
    return [node.name for node in model.nodes if node.is_calibration]


@pytest.mark.seed("F7")
def test_a_node_tells_its_name_type_inputs_and_attributes(model: OnnxModel) -> None:
    node = model.graph.node_mappings["Resize_3"]
    assert (node.name, node.op_type, node.domain) == ("Resize_3", "Resize", "")
    assert node.attributes.get("mode", "nearest") == "nearest"
    assert node.attributes.get("antialias", "absent") == "absent"
    assert [variable.is_dummy for variable in node.inputs] == [False, True, False]
    assert node.inputs[2].is_param
    assert [other.name for other in node.prev_ops] == ["ConvTranspose_2:0_HzCalibration"]
    assert [other.name for other in node.next_ops] == ["Resize_3:0_HzCalibration"]
    assert node.owning_graph is model.graph


def test_inputs_and_outputs_tell_shape_and_dtype(model: OnnxModel) -> None:
    graph = model.graph
    assert graph.input_names == ["x", "grid"]
    assert graph.input_shapes == [(1, 4, 8, 8), (1, 8, 8, 2)]
    assert graph.input_dtypes == [np.float32, np.float32]
    assert graph.output_names == ["Conv_8:0", "MatMul_12:0"]


def test_shapes_inside_the_graph_are_inferred(model: OnnxModel) -> None:
    assert model.infer_shapes().check_validity() is model
    nodes = model.graph.node_mappings
    assert nodes["ConvTranspose_2"].output_shapes == ((1, 4, 16, 16),)
    assert nodes["MatMul_12"].output_shapes == ((1, 4, 4),)
    assert nodes["MatMul_12"].outputs[0].dtype == np.float32


def test_an_open_shape_is_said_when_it_is_asked_for_and_none_otherwise() -> None:
    floating = networks.floating()
    opened = ir.rename(floating, {})
    tensors = [
        ir.Tensor(name=t.name, dtype=t.dtype, shape=("n", *(t.shape or ())[1:]))
        for t in opened.inputs
    ]
    model = load_model(
        Model(
            inputs=tuple(tensors),
            outputs=opened.outputs,
            nodes=opened.nodes,
            initializers=opened.initializers,
            opsets=opened.opsets,
        )
    )
    assert model.graph.node_mappings["Conv_0"].output_shapes == (None,)
    with pytest.raises(ModelError, match="the shape of input 'x' is open"):
        model.infer_shapes()


def test_a_tensor_tells_who_writes_and_reads_it(model: OnnxModel) -> None:
    variable = model.graph.variable_mappings["ConvTranspose_2:0_calibrated"]
    assert variable.src_op is calibration(model, "ConvTranspose_2:0_HzCalibration")
    assert [node.name for node in variable.dest_ops] == ["Resize_3", "Resize_4"]
    assert [(node.name, i) for node, i in variable.dest_infos] == [("Resize_3", 0), ("Resize_4", 0)]
    with pytest.raises(ModelError, match="2 nodes read"):
        _ = variable.dest_op


def test_a_constant_is_replaced_and_not_written_into(model: OnnxModel) -> None:
    weight = weight_of(model, "Conv_0").inputs[0]
    assert weight.value is not None
    before = weight.value.copy()
    with pytest.raises(ValueError, match="read-only"):
        weight.value *= 2
    weight.value = before * 2
    np.testing.assert_array_equal(model.freeze().initializers[weight.name], before * 2)


def test_only_constants_have_a_value(model: OnnxModel) -> None:
    with pytest.raises(ModelError, match="'x' has no value to set"):
        model.graph.inputs[0].value = np.zeros(3)


def test_a_tensor_becomes_an_output_once(model: OnnxModel) -> None:
    model.graph.append_output(STEM)
    model.graph.extend_outputs([model.graph.variable_mappings["Add_7:0"]])
    assert model.graph.output_names == ["Conv_8:0", "MatMul_12:0", STEM, "Add_7:0"]
    assert model.freeze().output_names[-2:] == (STEM, "Add_7:0")
    with pytest.raises(ModelError, match="a graph output already"):
        model.graph.append_output(STEM)
    with pytest.raises(ModelError, match="no tensor 'nothing'"):
        model.graph.append_output("nothing")


def split(model: OnnxModel, name: str) -> OnnxNode:
    """Compute a convolution as the sum of two, as scripts do; return the sum."""
    graph, conv = model.graph, model.graph.node_mappings[name]
    kernel = weight_of(model, name).inputs[0].value
    assert kernel is not None
    halves = [
        graph.create_node(
            op_type="Conv",
            name=f"{name}_{part}",
            attributes=conv.attributes,
            inputs=[conv.inputs[0], graph.create_variable(is_param=True, value=kernel / 2)],
        ).insert_before(conv)
        for part in ("a", "b")
    ]
    halves[0].append_input(conv.inputs[2])
    both = [half.outputs[0] for half in halves]
    total = graph.create_node("Add", name=f"{name}_sum", inputs=both).insert_after(conv)
    conv.replace_all_uses_with(total)
    conv.destroy()
    return total


def test_a_node_is_replaced_by_others() -> None:
    model = load_model(networks.floating())
    total = model.graph.node_mappings["Conv_0"]
    graph = model.graph
    weight = total.inputs[1]
    twice = graph.create_variable("twice", is_param=True, value=np.asarray(weight.value) * 2)
    relu = graph.node_mappings["Relu_1"]
    extra = graph.create_node(
        "Conv", name="extra", attributes=total.attributes, inputs=[total.inputs[0], twice]
    ).insert_before(relu)
    relu.replace_input(0, extra.outputs[0])
    assert not total.is_used
    total.destroy()
    names = model.check_validity().graph.node_names
    assert names[:2] == ("extra", "Relu_1")
    assert "Conv_0" not in names
    with pytest.raises(ModelError, match="'Conv_0' has been destroyed"):
        _ = total.owning_graph


def test_a_convolution_is_split_into_two_as_published_scripts_do(model: OnnxModel) -> None:
    split(model, "Conv_8")
    names = [node.name for node in model.check_validity().infer_shapes().graph.nodes]
    assert "Conv_8" not in names
    assert names.index("Conv_8_a") < names.index("Conv_8_sum") < names.index("Reshape_9")
    # It was a graph output too.
    assert model.graph.output_names[0] == "Conv_8_sum_output"


def test_a_node_that_is_read_is_not_destroyed(model: OnnxModel) -> None:
    with pytest.raises(ModelError, match="it is read by 'Relu_1'"):
        model.graph.node_mappings["Conv_0"].destroy()


def test_a_quantizer_can_be_created(model: OnnxModel) -> None:
    variable = model.graph.variable_mappings["Conv_0:0"]
    made = model.graph.create_node("HzCalibration", inputs=[variable])
    assert isinstance(made, CalibrationNode)
    assert made.domain == "horizon"
    assert (made.qtype, made.tensor_type, made.thresholds) == ("int8", "feature", None)


def test_tensors_of_another_graph_are_refused(model: OnnxModel) -> None:
    other = load_model(model).graph.variable_mappings["x"]
    with pytest.raises(ModelError, match="'x' is not of this graph"):
        model.graph.node_mappings["Conv_0"].replace_input(0, other)


def test_attributes_that_are_set_hold(model: OnnxModel) -> None:
    node = model.graph.node_mappings["Resize_3"]
    node.set_attribute("mode", "linear")
    node.set_attribute("antialias", None)
    node.attributes["axes"] = [2, 3]
    attributes = model.freeze().by_name["Resize_3"].attributes
    assert attributes["mode"] == "linear"
    assert attributes["axes"] == (2, 3)


def test_a_part_of_a_model_is_a_model() -> None:
    part = extract_submodel(networks.floating(), [STEM, "grid"], ["Add_7:0"])
    assert part.graph.input_names == [STEM, "grid"]
    assert part.graph.input_shapes[0] == (1, 4, 8, 8)
    assert part.graph.node_names[0] == "ConvTranspose_2"
    assert part.graph.node_names[-1] == "Add_7"
    assert "Conv_0" not in part.graph.node_mappings


def test_a_part_that_needs_more_than_its_inputs_is_refused() -> None:
    with pytest.raises(ModelError, match="'grid' is read but never written"):
        extract_submodel(networks.floating(), [STEM], ["Add_7:0"])
    with pytest.raises(ModelError, match="no tensor 'nothing'"):
        extract_submodel(networks.floating(), ["nothing"], ["Add_7:0"])


# --- quantizers ----------------------------------------------------------------------------------


@pytest.mark.seed("F3")
@pytest.mark.parametrize("qtype", ["int8", "int16", "float16", "float32"])
def test_a_type_is_read_and_set(model: OnnxModel, qtype: str, tmp_path: Path) -> None:
    node = calibration(model)
    assert node.qtype == "int8"
    node.qtype = qtype
    save_model(model, tmp_path / "edited.onnx")
    again = calibration(load_model(tmp_path / "edited.onnx"))
    assert (again.qtype, again.thresholds) == (qtype, node.thresholds)


@pytest.mark.seed("F3")
@pytest.mark.parametrize("qtype", ["int4", "uint8", "", None, 16])
def test_another_type_is_refused_with_the_allowed_ones(model: OnnxModel, qtype: str) -> None:
    node = calibration(model)
    with pytest.raises(ValueError, match="int8, int16, float16, float32"):
        node.qtype = qtype
    assert node.qtype == "int8"


@pytest.mark.seed("F3")
def test_another_type_keeps_the_thresholds_and_makes_the_scale_anew(model: OnnxModel) -> None:
    node = calibration(model)
    assert node.thresholds == (8.0,)
    for qtype, steps in (("int16", 32767), ("int8", 127)):
        node.qtype = qtype
        assert node.thresholds == (8.0,)
        assert node.scales == (float(np.float32(8.0) / np.float32(steps)),)
        assert node.zero_point == (0,)
    node.qtype = "float32"
    assert (node.scales, node.zero_point) == (None, None)


@pytest.mark.seed("F4")
def test_features_and_weights_are_told_apart(model: OnnxModel) -> None:
    kinds = {node.name: node.tensor_type for node in model.graph.type2nodes["HzCalibration"]}
    weights = {weight_of(model, n).name for n in ("Conv_0", "ConvTranspose_2", "MatMul_10")}
    assert {kinds[name] for name in weights} == {"weight"}
    assert kinds[CALIBRATION] == "feature"
    assert set(kinds.values()) == {"feature", "weight"}


def test_a_file_that_does_not_say_so_tells_a_weight_by_its_being_constant(model: OnnxModel) -> None:
    for node in model.graph.type2nodes["HzCalibration"]:
        del node.attributes["tensor_type"]
    assert weight_of(model, "Conv_0").tensor_type == "weight"
    assert calibration(model).tensor_type == "feature"


@pytest.mark.seed("F6")
@pytest.mark.parametrize("form", [list, tuple, np.asarray])
def test_thresholds_are_read_and_set(
    model: OnnxModel, form: Callable[[list[float]], list[float]]
) -> None:
    node = calibration(model)
    node.thresholds = form([4.23])
    assert node.thresholds == (float(np.float32(4.23)),)
    assert node.scales == (float(np.float32(4.23) / np.float32(127)),)


@pytest.mark.seed("F6")
def test_a_weight_takes_a_threshold_per_channel_or_one(model: OnnxModel) -> None:
    node = weight_of(model, "Conv_0")
    assert node.granularity == "per-channel"
    node.thresholds = np.arange(1, 5)
    assert node.thresholds == (1.0, 2.0, 3.0, 4.0)
    node.thresholds = [2.5]
    assert node.granularity == "per-tensor"
    assert node.thresholds == (2.5,)


@pytest.mark.seed("F6")
def test_a_wrong_number_of_thresholds_is_refused(model: OnnxModel) -> None:
    for node, count in ((weight_of(model, "Conv_0"), 3), (calibration(model), 3)):
        before = node.thresholds
        with pytest.raises(ValueError, match=r"1 \(whole\) or 4 \(per channel"):
            node.thresholds = [1.0] * count
        assert node.thresholds == before


@pytest.mark.seed("F6")
def test_a_feature_takes_a_threshold_per_channel(model: OnnxModel) -> None:
    node = calibration(model)
    node.thresholds = [1.0, 2.0, 3.0, 4.0]
    assert (node.axis, node.granularity) == (1, "per-channel")
    assert len(node.scales or ()) == 4


def test_an_asymmetric_quantizer_takes_a_range(model: OnnxModel) -> None:
    node = calibration(model)
    node.attributes["asymmetric"] = 1
    node.thresholds = [-1.0, 3.0]
    assert node.asymmetric
    assert node.granularity == "per-tensor"
    # 4 / 255; the integer that stands for 0 is a quarter up from -128.
    assert node.scales == (float(np.float32(4 / 255)),)
    assert node.zero_point == (-64,)
    with pytest.raises(ValueError, match="the tensor takes a range"):
        node.thresholds = [1.0]


def test_thresholds_that_make_no_grid_are_mended_or_refused(
    model: OnnxModel, caplog: pytest.LogCaptureFixture
) -> None:
    node = calibration(model)
    with caplog.at_level(logging.WARNING):
        node.thresholds = [0.0]
        assert node.thresholds == (1.0,)
        node.thresholds = [np.inf]
    assert node.thresholds == (float(np.finfo(np.float32).max),)
    assert "not positive" in caplog.text
    assert "infinite" in caplog.text
    with pytest.raises(ValueError, match="NaN"):
        node.thresholds = [np.nan]
    with pytest.raises(ValueError, match="no list of numbers"):
        node.thresholds = ["wide"]  # type: ignore[list-item]


def test_the_switch_is_set_on_its_own(model: OnnxModel) -> None:
    node = calibration(model)
    node.switch = "OFF"
    node.qtype = "int16"
    assert node.switch == "OFF"
    with pytest.raises(ValueError, match="ON or OFF"):
        node.switch = "off"


def test_a_quantizer_tells_the_rest(model: OnnxModel) -> None:
    node, weight = calibration(model), weight_of(model, "ConvTranspose_2")
    assert (node.constant, node.group, node.axis, node.quantize_type) == (0, 1, None, "scale")
    assert (weight.constant, weight.axis) == (1, 1)


@pytest.mark.seed("D1")
@pytest.mark.parametrize("march", ["nash-e", "nash-m", "nash-p"])
def test_all_int16_leaves_weights_resize_gridsample_and_second_operands_int8(march: str) -> None:
    target, graph = load_target(march), load_model(networks.calibrated("int16")).graph
    for name, index in (
        ("Conv_0", 1),
        ("ConvTranspose_2", 1),
        ("MatMul_10", 1),
        ("Resize_3", 0),
        ("GridSample_5", 0),
    ):
        calib = graph.node_mappings[name].inputs[index].src_op
        assert isinstance(calib, CalibrationNode)
        assert calib.qtype == "int8", name
        assert target.allowed(graph.node_mappings[name].op_type, index) == ("int8",)
    for name in ("Conv_0", "Conv_8", "ConvTranspose_2"):
        calib = graph.node_mappings[name].inputs[0].src_op
        assert isinstance(calib, CalibrationNode)
        assert calib.qtype == "int16", name


def test_a_constant_without_axes_is_still_a_tensor_after_a_round_trip() -> None:
    g = Graph()
    half = numpy_helper.from_array(np.asarray(0.5, np.float32))
    g.output(g.add("Mul", g.input("x", (1, 4)), g.add("Constant", value=half), name="halved"))
    x = np.arange(4, dtype=np.float32)[np.newaxis]
    model = load_model(g.proto())
    (found,) = run_onnx(model.proto, {"x": x}).values()
    np.testing.assert_array_equal(found, x / 2)
    (node,) = model.graph.type2nodes["Constant"]
    node.set_attribute("value", np.float32(3))  # a NumPy number is a number
    assert node.freeze().attributes["value"] == 3.0
