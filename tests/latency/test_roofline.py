from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jptq.errors import ShapeError
from jptq.latency import model_latency
from jptq.results import Boundary, LatencyTable, NodeTime
from tests.latency.networks import (
    calibration,
    compensated_block,
    conv_block,
    model,
    node,
    plan,
    target,
)

CALIBRATIONS = ("x_cal", "r_cal", "w_cal", "relu_y_cal", "sigmoid_y_cal")
MACS, VECTOR, BYTES, OVERHEAD = 1000.0, 100.0, 10.0, 7.0


def block(**facts: float) -> LatencyTable:
    network, shapes = conv_block()
    return model_latency(network, plan(network), shapes, target(**facts))


def row(table: LatencyTable, name: str) -> NodeTime:
    return next(entry for entry in table.nodes if entry.node == name)


def test_a_convolution_moves_its_operands_in_their_types_and_writes_behind_its_unit() -> None:
    conv = row(block(), "conv")
    # 30 features, 12 weights, 4 biases of int32, 40 results of the Relu.
    assert conv.bytes == 30 + 12 + 4 * 4 + 40
    assert conv.macs == 40 * 3
    assert conv.time_us["int8"] == pytest.approx(OVERHEAD + (30 + 12 + 16 + 40) / BYTES)
    assert conv.time_us["int16"] == pytest.approx(OVERHEAD + (60 + 12 + 16 + 80) / BYTES)
    assert conv.time_us["dual-int16"] == pytest.approx(OVERHEAD + (60 + 24 + 16 + 80) / BYTES)
    assert (conv.source, conv.limit) == ("modelled", "memory")
    assert conv.assumed == ("ddr_share", "resident_share")


def test_what_is_fused_reads_only_its_other_operand() -> None:
    add, relu = row(block(), "add"), row(block(), "relu")
    assert add.time_us["int8"] == pytest.approx(40 / BYTES)
    assert add.time_us["int16"] == pytest.approx(80 / BYTES)
    assert set(relu.time_us.values()) <= {0.0, relu.time_us["float32"]}
    assert (add.source, relu.source) == ("fused", "fused")


def test_a_reshape_is_free() -> None:
    assert set(row(block(), "flat").time_us.values()) == {0.0}


def test_compute_takes_longer_with_wider_operands() -> None:
    conv = row(block(ddr_gbytes_s=1e6, peak_int8_tops=2e-5), "conv")
    assert conv.time_us["int8"] == pytest.approx(OVERHEAD + 120 / 10)
    assert conv.time_us["int16"] == pytest.approx(OVERHEAD + 2 * 120 / 10)
    assert conv.time_us["dual-int16"] == pytest.approx(OVERHEAD + 4 * 120 / 10)
    assert conv.limit == "compute"


def test_vector_work_is_one_operation_per_result_where_nothing_else_is_known() -> None:
    sigmoid = row(block(ddr_gbytes_s=1e6, vector_gops=1e-3), "sigmoid")
    assert sigmoid.time_us["int8"] == pytest.approx(OVERHEAD + 40 / 1)
    assert sigmoid.time_us["int16"] == pytest.approx(OVERHEAD + 2 * 40 / 1)
    assert "dual-int16" not in sigmoid.time_us
    assert sigmoid.limit == "vector"


def test_what_fits_on_chip_makes_no_traffic_but_constants_and_ends_of_the_graph_do() -> None:
    table = block(on_chip_bytes=80)  # 40 bytes may stay: the Relu's result as int8, not as int16
    conv, sigmoid = row(table, "conv"), row(table, "sigmoid")
    assert conv.time_us["int8"] == pytest.approx(OVERHEAD + (30 + 12 + 16) / BYTES)
    assert conv.time_us["int16"] == pytest.approx(OVERHEAD + (60 + 12 + 16 + 80) / BYTES)
    assert sigmoid.time_us["int8"] == pytest.approx(OVERHEAD + 40 / BYTES)
    assert "resident_share" in conv.assumed


def test_a_wider_output_costs_the_bytes_it_adds() -> None:
    table = block()
    assert table.boundaries == (
        Boundary(first=("x_cal", "w_cal"), second="relu_y_cal", time_us=pytest.approx(40 / BYTES)),
        Boundary(first=("relu_y_cal",), second="sigmoid_y_cal", time_us=pytest.approx(40 / BYTES)),
    )
    types = dict.fromkeys(("x_cal", "r_cal", "w_cal", "relu_y_cal", "sigmoid_y_cal"), "int8")
    raised = {**types, "sigmoid_y_cal": "int16"}
    assert table.total_us(raised) - table.total_us(types) == pytest.approx(40 / BYTES)


def test_an_operator_without_quantizers_runs_on_the_host() -> None:
    network = model([node("sigmoid", "Sigmoid", "x")], ["x"], ["sigmoid_y"])
    shapes = {"x": (1, 40), "sigmoid_y": (1, 40)}
    table = model_latency(network, plan(network), shapes, target())
    assert set(row(table, "sigmoid").time_us.values()) == {50.0 + 40 / 10}


def test_the_second_operand_of_a_product_is_told_from_a_plain_feature() -> None:
    nodes = [
        calibration("a"),
        calibration("b"),
        node("product", "MatMul", "a_q", "b_q"),
        node("sum", "Add", "a_q", "b_q"),
    ]
    network = model(nodes, ["a", "b"], ["product_y", "sum_y"])
    shapes = dict.fromkeys(("a", "b", "product_y", "sum_y"), (4, 4))
    table = model_latency(network, plan(network), shapes, target())
    product, total = row(table, "product"), row(table, "sum")
    assert (product.first, product.second) == (("a_cal",), ("b_cal",))
    assert (total.first, total.second) == (("a_cal", "b_cal"), ())


def test_every_number_of_the_target_is_in_the_table_with_its_source() -> None:
    table = block()
    assert set(target().constants()) <= set(table.constants)
    assert all(source.startswith(("doc", "assumed")) for _, source in table.constants.values())


@pytest.mark.seed("D8")
def test_a_compensated_convolution_costs_a_second_operator_and_the_sum_in_between() -> None:
    before, after = block(), model_latency(*compensated_block(), target())
    conv, low = row(after, "conv"), row(after, "conv_split_low")
    total, relu = row(after, "conv_split_add"), row(after, "relu")
    plain = row(before, "conv")
    assert conv.macs == low.macs == plain.macs
    # The first result leaves as int32, 160 bytes, and the second operator, which has no bias, adds
    # it: what both write, and the features they read, pass the memory twice.
    assert conv.time_us["int8"] == pytest.approx(OVERHEAD + (30 + 12 + 4 * 4 + 160) / BYTES)
    assert low.time_us["int8"] == pytest.approx(OVERHEAD + (30 + 12 + 40) / BYTES)
    assert (total.source, total.time_us["int8"]) == ("fused", pytest.approx(160 / BYTES))
    # The addition of the block is no epilogue any more, and the Relu behind it is a step of it.
    assert (row(after, "add").source, relu.source) == ("modelled", "fused")
    types = dict.fromkeys((*CALIBRATIONS, "w_low_cal", "total_cal"), "int8")
    assert after.total_us(types) > before.total_us(types) + low.time_us["int8"]


def test_all_missing_shapes_are_named() -> None:
    network, shapes = conv_block()
    del shapes["conv_y"], shapes["relu_y"]
    with pytest.raises(ShapeError, match=r"'conv_y', 'relu_y'"):
        model_latency(network, plan(network), shapes, target())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    on_chip=st.sampled_from([1, 60, 100, 1e6]),
    bandwidth=st.sampled_from([0.02, 1.0]),
    macs=st.sampled_from([2e-5, 2e-3]),
)
def test_raising_a_calibration_never_makes_the_network_faster(
    seed: int, on_chip: float, bandwidth: float, macs: float
) -> None:
    network, shapes = conv_block()
    table = model_latency(
        network,
        plan(network),
        shapes,
        target(on_chip_bytes=on_chip, ddr_gbytes_s=bandwidth, peak_int8_tops=macs),
    )
    rng = np.random.default_rng(seed)
    names = [calibration.name for calibration in plan(network).calibrations]
    types = {name: str(rng.choice(["int8", "int16"])) for name in names}
    before = table.total_us(types)
    for name in names:
        assert table.total_us({**types, name: "int16"}) >= before - 1e-9
    for entry in table.nodes:
        int8, int16 = entry.time_us["int8"], entry.time_us["int16"]
        assert int8 <= int16 <= entry.time_us.get("dual-int16", int16) <= entry.time_us["float32"]


def test_a_table_survives_its_file() -> None:
    table = block()
    assert LatencyTable.from_json(table.to_json()) == table


def test_float16_takes_as_long_as_int16() -> None:
    table = block()
    base = dict.fromkeys(CALIBRATIONS, "int8")
    for name in ("relu_y_cal", "sigmoid_y_cal"):
        half, wide = ({**base, name: qtype} for qtype in ("float16", "int16"))
        assert table.total_us(half) == table.total_us(wide) > table.total_us(base)
    mixed = {**base, "r_cal": "int16", "relu_y_cal": "float16", "sigmoid_y_cal": "float16"}
    assert row(table, "sigmoid").candidate(mixed) == "int16"
    assert table.total_us({**mixed, "x_cal": "float32"}) > table.total_us(mixed)
