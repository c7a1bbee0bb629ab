"""Types of operands: what ONNX's own check refuses is refused, and nothing else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from jptq.errors import ModelError
from jptq.ir import Model, from_bytes
from tests.graphs import Graph

Proto = onnx.TensorProto
TYPES = (Proto.FLOAT, Proto.INT64, Proto.DOUBLE, Proto.BOOL, Proto.FLOAT16, Proto.STRING)


def read(proto: onnx.ModelProto) -> Model:
    return from_bytes(proto.SerializeToString())


def refused_by_onnx(proto: onnx.ModelProto) -> bool:
    try:
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError:
        return True
    return False


SCHEMAS = {
    f"{schema.name}-{schema.since_version}": schema
    for schema in onnx.defs.get_all_schemas_with_history()
    if schema.domain == "" and not schema.deprecated and schema.inputs and schema.outputs
    # Bodies, and what no operand alone decides.
    if not any(a.type.name.startswith("GRAPH") for a in schema.attributes.values())
    and not any(a.required for a in schema.attributes.values())
    and schema.name != "SequenceInsert"
}


@pytest.mark.parametrize("part", range(4))
def test_every_operator_takes_the_types_that_onnx_lets_it_take(part: int) -> None:
    rng = np.random.default_rng(part)
    checked = 0
    for name in sorted(SCHEMAS)[part::4]:
        schema = SCHEMAS[name]
        for _ in range(3):
            g = Graph(schema.since_version)
            pool = rng.choice(TYPES, size=2)
            given = [
                g.input(f"x{i}", None, int(rng.choice(pool))) for i in range(len(schema.inputs))
            ]
            outputs = [f"y{i}" for i in range(max(schema.min_output, 1))]
            node = helper.make_node(schema.name, given, outputs, name="node")
            proto = helper.make_model(
                helper.make_graph([node], "one", g.inputs, []),
                opset_imports=[helper.make_opsetid("", schema.since_version)],
                ir_version=8,
            )
            known = {v.type_str: None for v in schema.inputs}
            # ONNX also refuses shapes, ranks and results; the operands' types are what is meant.
            allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
            right = True
            for formal, value in zip(schema.inputs, g.inputs, strict=True):
                code = value.type.tensor_type.elem_type
                text = f"tensor({helper.tensor_dtype_to_string(code).split('.')[1].lower()})"
                right &= text in allowed.get(formal.type_str, [formal.type_str])
                right &= known[formal.type_str] in (None, text) or not formal.is_homogeneous
                known[formal.type_str] = text
            try:
                read(proto)
                taken = True
            except ModelError:
                taken = False
            assert taken == right, (name, [v.type.tensor_type.elem_type for v in g.inputs])
            assert taken or refused_by_onnx(proto), name
            checked += 1
    assert checked > 150


def test_operands_of_two_types_are_named() -> None:
    g = Graph()
    x = g.input("x", (1, 4))
    g.output(g.add("Relu", g.add("Add", x, g.constant([1], "count"), name="sum")))
    with pytest.raises(ModelError) as caught:
        read(g.proto())
    text = str(caught.value)
    assert "Add does not take float and int64 together" in text
    assert "tensors 'x' and 'count' at node 'sum' (Add)" in text


def test_a_type_that_no_operand_can_have_is_named_with_those_it_can() -> None:
    g = Graph()
    ids = g.input("ids", (1, 4), Proto.INT64)
    g.output(g.add("Gather", ids, g.random(8, 8, name="table"), name="look up"), dtype=Proto.INT64)
    with pytest.raises(ModelError, match=r"does not take float as 'indices'(?s:.*)int32, int64"):
        read(g.proto())


def test_an_output_of_another_type_than_declared_is_refused() -> None:
    g = Graph()
    g.output(g.add("Shape", g.input("x", (1, 4))), dtype=Proto.FLOAT)
    with pytest.raises(ModelError, match=r"is int64\n(?s:.*)declares it float"):
        read(g.proto())


def _body(op: str, *, given: int, opset: int = 17) -> onnx.ModelProto:
    """Return a Loop whose body applies `op` to the sum that it carries and to ``x``."""
    inside = [helper.make_node(op, ["s", "x"], ["t"], name="inside")]
    inside.append(helper.make_node("Identity", ["on"], ["still"], name="on"))
    body = helper.make_graph(
        inside,
        "body",
        [
            helper.make_tensor_value_info("i", Proto.INT64, []),
            helper.make_tensor_value_info("on", Proto.BOOL, []),
            helper.make_tensor_value_info("s", given, None),
        ],
        [
            helper.make_tensor_value_info("still", Proto.BOOL, []),
            helper.make_tensor_value_info("t", given, None),
        ],
    )
    g = Graph(opset)
    g.input("x", (1, 4), given)
    start = g.constant(np.zeros((1, 4), np.float32), "start")
    g.output(g.add("Loop", g.constant(np.int64(2)), "", start, name="loop", body=body), dtype=given)
    return g.proto()


def test_bodies_are_checked_and_what_they_are_called_with() -> None:
    assert read(_body("Add", given=Proto.FLOAT)).nodes
    with pytest.raises(ModelError, match=r"And does not take float(?s:.*)'inside'"):
        read(_body("And", given=Proto.FLOAT))
    with pytest.raises(ModelError, match=r"calls its body with float(?s:.*)declares it double"):
        read(_body("Add", given=Proto.DOUBLE))


def test_functions_are_checked_where_they_are_called() -> None:
    g = Graph()
    g.output(g.add("Twice", g.input("x", (1, 4)), domain="own"))
    proto = g.proto()
    inside = [helper.make_node("Not", ["a"], ["b"], name="inverse")]
    imports = [helper.make_opsetid("", 17)]
    proto.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], inside, imports))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    with pytest.raises(ModelError, match=r"Not does not take float(?s:.*)inverse"):
        read(proto)


def test_what_hangs_on_an_unknown_operator_is_not_judged() -> None:
    g = Graph()
    x = g.input("x", (1, 4))
    unheard = g.add("Swirl", x, domain="nobody")
    g.output(g.add("And", unheard, unheard), dtype=Proto.BOOL)
    assert len(read(g.proto()).nodes) == 2


def test_a_sequence_takes_tensors_of_its_type() -> None:
    g = Graph()
    x = g.input("x", (1, 4))
    made = g.add("SequenceConstruct", x, x)
    g.output(g.add("SequenceAt", g.add("SequenceInsert", made, g.constant([1])), g.constant([0])))
    with pytest.raises(ModelError, match=r"does not take int64 into seq\(tensor\(float\)\)"):
        read(g.proto())
