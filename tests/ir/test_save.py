"""Writing ONNX files: round trips, determinism, external data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from onnx import helper

from jptq.errors import StorageError
from jptq.ir import HORIZON, Model, Node, Tensor, load, save, to_bytes
from tests.graphs import Graph, conv_net, feeds_for
from tests.oracles import run_onnx


def equal(a: object, b: object) -> bool:
    """Compare to the bit: type, shape and bytes of arrays, NaN included."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        same = a.dtype == b.dtype and a.shape == b.shape
        return same and (
            a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes()
        )
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, (Model, Node, Tensor)):
        fields = [field.name for field in dataclasses.fields(a)]
        return type(a) is type(b) and all(equal(getattr(a, f), getattr(b, f)) for f in fields)
    return type(a) is type(b) and a == b


def round_trip(model: Model, folder: Path, **options: bool) -> Model:
    save(model, folder / "saved.onnx", **options)
    return load(folder / "saved.onnx")


def from_proto(proto: onnx.ModelProto, folder: Path) -> Model:
    (folder / "given.onnx").write_bytes(proto.SerializeToString())
    return load(folder / "given.onnx")


@pytest.mark.parametrize("external_data", [False, True])
def test_a_network_survives_to_the_bit(external_data: bool, tmp_path: Path) -> None:
    model = from_proto(conv_net(), tmp_path)
    assert equal(round_trip(model, tmp_path, external_data=external_data), model)
    assert (tmp_path / "saved.onnx.data").exists() == external_data


@pytest.mark.parametrize("external_data", [False, True])
def test_onnxruntime_computes_the_same_from_a_saved_file(
    external_data: bool, tmp_path: Path
) -> None:
    proto = conv_net()
    feeds = feeds_for(proto, batch=2)
    save(from_proto(proto, tmp_path), tmp_path / "saved.onnx", external_data=external_data)
    expected = run_onnx(proto, feeds)
    for name, array in run_onnx(tmp_path / "saved.onnx", feeds).items():
        np.testing.assert_array_equal(array, expected[name])


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = from_proto(conv_net(), tmp_path)
    again = round_trip(model, tmp_path)
    assert to_bytes(model) == to_bytes(again)


def test_an_external_file_may_be_saved_onto_itself(tmp_path: Path) -> None:
    model = from_proto(conv_net(), tmp_path)
    first = round_trip(model, tmp_path, external_data=True)
    assert equal(round_trip(first, tmp_path, external_data=True), model)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    model = from_proto(conv_net(), tmp_path)
    save(model, tmp_path / "saved.onnx")
    before = (tmp_path / "saved.onnx").read_bytes()
    broken = dataclasses.replace(model, initializers={**model.initializers, "odd": "no array"})
    with pytest.raises(AttributeError):
        save(broken, tmp_path / "saved.onnx", external_data=True)
    assert (tmp_path / "saved.onnx").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given.onnx", "saved.onnx"]


def test_a_path_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        save(from_proto(conv_net(), tmp_path), tmp_path / "file" / "model.onnx")


def test_the_vendors_domain_is_imported_where_it_is_used(tmp_path: Path) -> None:
    model = Model(
        inputs=(Tensor(name="x", dtype=np.dtype(np.float32), shape=(4,)),),
        outputs=(Tensor(name="y", dtype=np.dtype(np.float32), shape=(4,)),),
        nodes=(Node(name="u", op="HzSwish", domain=HORIZON, inputs=("x",), outputs=("y",)),),
        opsets={"": 17},
    )
    proto = onnx.load_model_from_string(to_bytes(model))
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": 17, HORIZON: 1}


def test_names_with_slashes_and_colons_survive(tmp_path: Path) -> None:
    g = Graph()
    g.input("/in:0", (4,))
    g.output(g.add("Relu", "/in:0", name="/a/b:Relu.0 (x)"))
    model = from_proto(g.proto(), tmp_path)
    assert equal(round_trip(model, tmp_path), model)
    assert model.nodes[0].name == "/a/b:Relu.0 (x)"


def branching_model() -> onnx.ModelProto:
    """Return an If whose branches read an outer tensor and a Loop that adds to a sum."""
    make, info = helper.make_node, helper.make_tensor_value_info
    real, integer, boolean = (getattr(onnx.TensorProto, n) for n in ("FLOAT", "INT64", "BOOL"))
    one = helper.make_tensor("one", real, (), [1.0])
    then = helper.make_graph(
        [make("Add", ["x", "one"], ["t"])], "then", [], [info("t", real, [4])], [one]
    )
    other = helper.make_graph([make("Neg", ["x"], ["e"])], "else", [], [info("e", real, [4])])
    body = helper.make_graph(
        [make("Add", ["s", "y"], ["s2"]), make("Identity", ["c"], ["c2"])],
        "body",
        [info("i", integer, []), info("c", boolean, []), info("s", real, [4])],
        [info("c2", boolean, []), info("s2", real, [4])],
    )
    nodes = [
        make("ReduceSum", ["x"], ["total"], name="sum", keepdims=0),
        make("Greater", ["total", "zero"], ["positive"], name="test"),
        make("If", ["positive"], ["y"], name="branch", then_branch=then, else_branch=other),
        make("Loop", ["trips", "", "x"], ["z"], name="loop", body=body),
    ]
    constants = [
        helper.make_tensor("zero", real, (), [0.0]),
        helper.make_tensor("trips", integer, (), [3]),
    ]
    graph = helper.make_graph(
        nodes, "g", [info("x", real, [4])], [info("y", real, [4]), info("z", real, [4])], constants
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_subgraphs_survive(sign: float, tmp_path: Path) -> None:
    proto = branching_model()
    model = from_proto(proto, tmp_path)
    assert equal(round_trip(model, tmp_path), model)
    assert model.by_name["branch"].reads == ("positive", "x")
    assert model.by_name["loop"].reads == ("trips", "x", "y")
    feeds = {"x": sign * np.arange(4, dtype=np.float32)}
    expected = run_onnx(proto, feeds)
    for name, array in run_onnx(to_bytes(model), feeds).items():
        np.testing.assert_array_equal(array, expected[name])


names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)
arrays = st.one_of(
    *(
        numpy_strategies.arrays(dtype, numpy_strategies.array_shapes(min_dims=0, max_dims=3))
        for dtype in (np.float32, np.float64, np.float16, np.int64, np.int8, np.uint8, np.bool_)
    ),
    st.lists(st.integers(-8, 7), max_size=5).map(lambda v: np.array(v, ml_dtypes.int4)),
    st.lists(st.floats(width=16), max_size=5).map(lambda v: np.array(v, ml_dtypes.bfloat16)),
)
attributes = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(width=32, allow_nan=False),
    st.text(st.characters(codec="utf-8")),
    st.lists(st.integers(-(2**63), 2**63 - 1)).map(tuple),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1).map(tuple),
    st.lists(st.text(st.characters(codec="utf-8")), min_size=1).map(tuple),
    arrays,
)
dimensions = st.one_of(st.integers(0, 9), st.sampled_from(["batch", "length"]), st.none())


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Draw a chain of made-up operators with every kind of attribute and constant."""
    tensors = draw(st.lists(names, min_size=4, max_size=8, unique=True))
    n_constants = draw(st.integers(0, len(tensors) - 2))
    source, *rest = tensors
    constants = {name: draw(arrays) for name in rest[:n_constants]}
    nodes = []
    written = [source, *constants]
    for index, name in enumerate(rest[n_constants:]):
        inputs = draw(st.lists(st.sampled_from(["", *written]), min_size=1, max_size=3))
        nodes.append(
            Node(
                name=f"node/{index}",
                op="Made",
                domain="test",
                inputs=(*inputs, written[-1]),
                outputs=(name,),
                attributes=draw(st.dictionaries(names, attributes, max_size=3)),
            )
        )
        written.append(name)
    return Model(
        inputs=(
            Tensor(
                name=source,
                dtype=np.dtype(np.float32),
                shape=draw(st.none() | st.lists(dimensions, max_size=4).map(tuple)),
                container=draw(st.sampled_from([(), ("sequence",), ("optional", "sequence")])),
            ),
        ),
        outputs=(Tensor(name=written[-1], dtype=None, shape=None),),
        nodes=tuple(nodes),
        initializers=constants,
        opsets={"": 17, "test": 1},
        metadata=draw(st.dictionaries(names, st.text(max_size=5), max_size=2)),
    )


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(model=models(), external_data=st.booleans())
def test_any_model_survives_to_the_bit(model: Model, external_data: bool, tmp_path: Path) -> None:
    assert equal(round_trip(model, tmp_path, external_data=external_data), model)


@pytest.mark.slow
def test_more_than_two_gigabytes_go_beside_the_file(tmp_path: Path) -> None:
    large = np.zeros((1100, 1 << 20), np.uint16)
    large[-1, -1] = 7
    model = Model(
        inputs=(Tensor(name="x", dtype=np.dtype(np.uint16), shape=(1 << 20,)),),
        outputs=(Tensor(name="y", dtype=None, shape=None),),
        nodes=(Node(name="n", op="Identity", inputs=("x",), outputs=("y",)),),
        initializers={"large": large},
        opsets={"": 17},
    )
    loaded = round_trip(model, tmp_path)
    assert (tmp_path / "saved.onnx.data").stat().st_size == large.nbytes
    assert loaded.initializers["large"][-1, -1] == 7
