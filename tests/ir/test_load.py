"""Reading ONNX files: what is kept, and what is refused with which words."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from jptq.errors import ModelError
from jptq.ir import HORIZON, load, to_bytes
from tests.graphs import Graph, conv_net


def write(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def with_external(folder: Path, location: str, **words: int) -> Path:
    """Write a model whose one initializer ``float32[4]`` is external."""
    g = Graph()
    g.input("x", (4,))
    g.output(g.add("Add", "x", g.constant(np.arange(4, dtype=np.float32), "bias")))
    model = g.proto()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **words}.items():
        tensor.external_data.add(key=key, value=str(value))
    return write(model, folder)


@pytest.mark.parametrize("opset", [8, 9, 11, 13, 17, 20, 23])
def test_every_opset_is_kept(opset: int, tmp_path: Path) -> None:
    g = Graph(opset)
    g.input("x", ("n", 4))
    g.output(g.add("Relu", "x"))
    model = load(write(g.proto(), tmp_path))
    assert model.opset("") == opset
    assert model.inputs[0].shape == ("n", 4)
    assert model.inputs[0].dtype == np.float32


def test_nothing_is_folded_or_dropped(tmp_path: Path) -> None:
    proto = conv_net()
    proto.graph.node.insert(
        0, helper.make_node("Constant", [], ["unused"], name="c", value_float=1.0)
    )
    model = load(write(proto, tmp_path))
    assert [node.op for node in model.nodes] == [node.op_type for node in proto.graph.node]
    assert [node.name for node in model.nodes] == [node.name for node in proto.graph.node]
    assert model.metadata == {"author": "jptq"}


def test_nodes_without_a_name_get_type_and_index(tmp_path: Path) -> None:
    g = Graph()
    g.input("x", (4,))
    y = g.add("Relu", g.add("Relu", "x", name=""), name="Relu_0")
    g.output(g.add("Sigmoid", g.add("Relu", y, name="Relu_0"), name=""))
    names = [node.name for node in load(write(g.proto(), tmp_path)).nodes]
    assert names == ["Relu_0_1", "Relu_0", "Relu_0_2", "Sigmoid_3"]


def test_an_initializer_that_is_also_an_input_is_no_input(tmp_path: Path) -> None:
    g = Graph()
    g.input("x", (4,))
    g.input("w", (4,))
    g.constant(np.ones(4, np.float32), "w")
    g.output(g.add("Mul", "x", "w"))
    model = load(write(g.proto(), tmp_path))
    assert model.input_names == ("x",)
    assert list(model.initializers) == ["w"]


def test_vendor_operators_belong_to_the_vendors_domain(tmp_path: Path) -> None:
    g = Graph()
    g.input("x", (4,))
    g.output(g.add("HzCalibration", "x", qtype="int8", thresholds=[2.5]))
    (node,) = load(write(g.proto(), tmp_path)).nodes
    assert node.domain == HORIZON
    assert node.is_calibration
    assert node.attributes["thresholds"] == (2.5,)


def test_a_file_out_of_order_is_sorted(tmp_path: Path) -> None:
    proto = conv_net()
    in_order = [node.name for node in proto.graph.node]
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    model = load(write(proto, tmp_path))
    position = {node.name: index for index, node in enumerate(model.nodes)}
    for node in model.nodes:
        for name in node.inputs:
            if name in model.producers:
                assert position[model.producers[name].name] < position[node.name]
    assert sorted(position) == sorted(in_order)


def test_model_local_functions_are_expanded(tmp_path: Path) -> None:
    body = [helper.make_node("Sigmoid", ["a"], ["s"]), helper.make_node("Mul", ["a", "s"], ["b"])]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    function = helper.make_function("local", "Silu", ["a"], ["b"], body, imports[:1])
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, (4,)) for n in "xy")
    call = helper.make_node("Silu", ["x"], ["y"], domain="local", name="act")
    graph = helper.make_graph([call], "g", [x], [y])
    proto = helper.make_model(graph, functions=[function], opset_imports=imports, ir_version=8)
    model = load(write(proto, tmp_path))
    assert [node.op for node in model.nodes] == ["Sigmoid", "Mul"]
    assert len({node.name for node in model.nodes}) == 2
    assert model.output_names == ("y",)


def test_nodes_of_functions_without_a_name_get_type_and_index(tmp_path: Path) -> None:
    body = [helper.make_node("Relu", ["a"], ["r"]), helper.make_node("Neg", ["r"], ["b"])]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    function = helper.make_function("local", "Minus", ["a"], ["b"], body, imports[:1])
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, (4,)) for n in "xy")
    calls = [helper.make_node("Minus", [a], [b], domain="local") for a, b in ("xm", "my")]
    graph = helper.make_graph(calls, "g", [x], [y])
    proto = helper.make_model(graph, functions=[function], opset_imports=imports, ir_version=8)
    names = [node.name for node in load(write(proto, tmp_path)).nodes]
    assert names == ["Relu_0", "Neg_1", "Relu_0_2", "Neg_1_2"]


@pytest.mark.parametrize("name", ["weights", ""])
def test_a_sparse_constant_is_named_as_such(name: str, tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "values")
    places = numpy_helper.from_array(np.array([1]), "places")
    sparse = helper.make_sparse_tensor(values, places, [3])
    g = Graph()
    g.input("x", (3,))
    g.nodes.append(helper.make_node("Constant", [], ["c"], name=name, sparse_value=sparse))
    g.output(g.add("Add", "x", "c"))
    with pytest.raises(ModelError, match="sparse constants are not supported") as caught:
        load(write(g.proto(), tmp_path))
    assert repr(name or "c") in caught.value.where


@pytest.mark.parametrize(
    ("op", "outputs", "kept"),
    [
        ("BatchNormalization", ("y", "", "", "", ""), ("y",)),
        ("BatchNormalization", ("y", "", "mean", "", ""), ("y", "", "mean")),
        ("Split", ("y", ""), ("y", "")),
        ("Swirl", ("y", ""), ("y", "")),
    ],
)
def test_only_optional_outputs_without_a_name_are_absent(
    op: str, outputs: tuple[str, ...], kept: tuple[str, ...], tmp_path: Path
) -> None:
    g = Graph(9)
    g.input("x", (2, 4))
    parameters = [g.random(4) for _ in range(4 if op == "BatchNormalization" else 0)]
    g.nodes.append(helper.make_node(op, ["x", *parameters], outputs))
    g.output("y")
    (node,) = load(write(g.proto(), tmp_path)).nodes
    assert node.outputs == kept


def test_external_data_is_found_beside_the_model(tmp_path: Path) -> None:
    path = with_external(tmp_path, "weights.bin", offset=8, length=16)
    values = np.array([1, -2, 3, -4], np.float32)
    (tmp_path / "weights.bin").write_bytes(bytes(8) + values.tobytes())
    np.testing.assert_array_equal(load(path).initializers["bias"], values)


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../secret.bin", "a/../../secret.bin", "C:\\secret.bin", ""]
)
def test_external_data_outside_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    with pytest.raises(ModelError, match="outside the model's folder") as caught:
        load(with_external(folder, location))
    assert "'bias'" in caught.value.where


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (folder / "soft.bin").symlink_to(tmp_path / "secret.bin")
    os.link(tmp_path / "secret.bin", folder / "hard.bin")
    with pytest.raises(ModelError, match="outside the model's folder"):
        load(with_external(folder, "soft.bin"))
    with pytest.raises(ModelError, match="hard link"):
        load(with_external(folder, "hard.bin"))


@pytest.mark.parametrize(
    "words",
    [{"length": 1 << 40}, {"offset": 8}, {"offset": -4}, {"offset": 1 << 62, "length": 16}],
)
def test_external_data_that_is_too_short_is_refused(words: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(16))
    with pytest.raises(ModelError, match="too short"):
        load(with_external(tmp_path, "w.bin", **words))


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'w\.bin' is missing") as caught:
        load(with_external(tmp_path, "w.bin"))
    assert str(tmp_path) in caught.value.hint


def test_a_tensor_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    proto = conv_net()
    proto.graph.initializer[0].dims[0] = 1 << 40
    with pytest.raises(ModelError, match="needs") as caught:
        load(write(proto, tmp_path))
    assert repr(proto.graph.initializer[0].name) in caught.value.where


def test_damaged_files_are_refused_with_their_name(tmp_path: Path) -> None:
    whole = conv_net().SerializeToString()
    path = tmp_path / "broken.onnx"
    contents = [
        b"",
        b"not a model at all",
        bytes(100),
        *(whole[: len(whole) * k // 7] for k in range(1, 7)),
    ]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ModelError) as caught:
            load(path)
        assert "broken.onnx" in str(caught.value)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_flipped_byte_does_worse_than_a_refusal(data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(conv_net().SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "model.onnx").write_bytes(content)
    with contextlib.suppress(ModelError):
        to_bytes(load(tmp_path / "model.onnx"))


def test_names_that_are_not_text_are_refused(tmp_path: Path) -> None:
    content = conv_net().SerializeToString().replace(b"/block/residual", b"/block/\xff\xfeidual")
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="is damaged"):
        load(tmp_path / "model.onnx")


def test_an_absent_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read"):
        load(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="cannot read"):
        load(tmp_path)


def test_a_tensor_that_nothing_writes_is_named(tmp_path: Path) -> None:
    proto = conv_net()
    proto.graph.node[3].input[0] = "nowhere"
    with pytest.raises(ModelError, match="'nowhere' is read but never written"):
        load(write(proto, tmp_path))


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a", "ü"], dtype=object),
        np.array([True, False]),
        np.array([1.5, -0.0], np.float16),
        np.array(7, np.int64),
        np.zeros((0, 3), np.float32),
    ],
    ids=["text", "bool", "half", "scalar", "empty"],
)
def test_constants_of_every_kind_arrive(array: np.ndarray, tmp_path: Path) -> None:
    g = Graph()
    g.input("x", (1,))
    g.output(g.add("Identity", "x"))
    proto = g.proto()
    proto.graph.initializer.append(numpy_helper.from_array(array, "c"))
    loaded = load(write(proto, tmp_path)).initializers["c"]
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)
    assert not loaded.flags.writeable
