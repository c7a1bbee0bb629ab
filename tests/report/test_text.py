from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jptq.errors import UnknownNameError
from jptq.report import text
from jptq.results import Comparison, OutputError, SensitivityTable, Spread


def table(rows: dict[str, tuple[float, ...]], metrics: tuple[str, ...]) -> SensitivityTable:
    score = np.array(list(rows.values()), float).reshape(len(rows), 1, len(metrics))
    return SensitivityTable(
        rows=tuple(rows),
        kind="node",
        members=((),) * len(rows),
        candidates=("int8",),
        metrics=metrics,
        score=score,
        stderr=np.zeros_like(score),
        outputs=("y",),
        method="metric",
        samples=1,
    )


def constant(value: float) -> Spread:
    return Spread(min=value, mean=value, max=value)


def error(
    output: str, cosine: Spread, l1: float = 0, l2: float = 0, most: float = 0
) -> OutputError:
    return OutputError(
        output=output,
        cosine=cosine,
        l1=constant(l1),
        l2=constant(l2),
        chebyshev=constant(most),
        sqnr=constant(0),
    )


def test_a_ranking_is_printed_to_the_character() -> None:
    printed = text.sensitivity_table(
        table({"Conv_50": (0.99976,), "Mul_943": (0.997363,)}, ("cosine-similarity",))
    )
    assert printed.split("\n") == [
        "",
        "=======node sensitivity========",
        "node        cosine-similarity  ",
        "-------------------------------",
        "Mul_943     0.99736            ",
        "Conv_50     0.99976            ",
    ]


@pytest.mark.parametrize(
    ("longest", "rows", "metrics", "width"),
    [
        (42, [(0.99736,)], ("cosine-similarity",), 63),
        (50, [(0.98768,)], ("cosine-similarity",), 71),
        (66, [(0.98768,)], ("cosine-similarity",), 71),
        (42, [(164.82712,), (0.4714,)], ("mse",), 55),
        (
            36,
            [
                (0.43427, 12.56779, 27730.66992, 0.37585, 24.77806),
                (0.97977, 0.49545, 12526.42871, 2.96076, 2199.58203),
                (0.99576, 0.21163, 9.77346, 10.03632, 38.60489),
            ],
            ("cosine-similarity", "mre", "mse", "sqnr", "chebyshev"),
            102,
        ),
        (
            36,
            [
                (0.9987, 0.35957, 0.03655, 10.08165, 18.38877),
                (0.99871, 0.3832, 0.01404, 12.15968, 6.11046),
            ],
            ("cosine-similarity", "mre", "mse", "sqnr", "chebyshev"),
            96,
        ),
    ],
)
def test_widths_are_those_of_the_vendors_published_tables(
    longest: int, rows: list[tuple[float, ...]], metrics: tuple[str, ...], width: int
) -> None:
    named = {("n" * longest if i == 0 else f"Conv_{i}"): row for i, row in enumerate(rows)}
    lines = text.sensitivity_table(table(named, metrics)).split("\n")[1:]
    assert {len(line) for line in lines} == {width}


def test_the_title_has_its_odd_rule_character_at_the_right() -> None:
    title = text.sensitivity_table(table({"n" * 42: (0.9,)}, ("cosine-similarity",))).split("\n")[1]
    assert title == "=" * 23 + "node sensitivity" + "=" * 24


def test_a_long_name_keeps_its_last_47_characters() -> None:
    name = "/bifpndecoder/seg_blocks.4/block/block.0/block/block.0/Pad"
    row = text.sensitivity_table(table({name: (0.99985,)}, ("cosine-similarity",))).split("\n")[-1]
    assert row.split() == ["...er/seg_blocks.4/block/block.0/block/block.0/Pad", "0.99985"]
    assert row.index("0.99985") == 52


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (0.9998, "0.9998"),
        (0.9, "0.9"),
        (0.4714, "0.4714"),
        (27730.669921875, "27730.66992"),
        (0.00005, "5e-05"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_values_are_rounded_to_five_decimals_without_padding(value: float, printed: str) -> None:
    row = text.sensitivity_table(table({"a": (value,)}, ("mse",))).split("\n")[-1]
    assert row.split() == ["a", printed]


def test_rows_stand_worst_first_and_not_scored_last() -> None:
    rows = {"a": (1.0,), "b": (np.nan,), "c": (3.0,), "d": (3.0,)}
    lines = text.sensitivity_table(table(rows, ("mse",))).split("\n")[4:]
    assert [line.split()[0] for line in lines] == ["c", "d", "a", "b"]


def test_columns_before_the_metrics_follow_the_order_of_the_rows() -> None:
    activations = dataclasses.replace(
        table({"x_HzCalibration": (0.1,), "y_HzCalibration": (0.7,)}, ("mse",)), kind="activation"
    )
    printed = text.sensitivity_table(
        activations,
        before={"node": ["Conv_0;Add_1", "Mul_2"], "threshold": [1.5, 2.25], "qtype": ["int8"] * 2},
    )
    assert printed.split("\n")[2:] == [
        "activation       node          threshold  qtype  mse  ",
        "------------------------------------------------------",
        "y_HzCalibration  Mul_2         2.25       int8   0.7  ",
        "x_HzCalibration  Conv_0;Add_1  1.5        int8   0.1  ",
    ]


def test_an_unknown_candidate_is_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match="int4"):
        text.sensitivity_table(table({"a": (1.0,)}, ("mse",)), candidate="int4")


def test_an_empty_title_is_a_full_rule_and_a_missing_value_is_blank() -> None:
    printed = text.info_table("Node", ["Conv_0"], {"Type": [None]}, description="The nodes:")
    assert printed.split("\n") == [
        "The nodes:",
        "==================",
        "Node        Type  ",
        "------------------",
        "Conv_0            ",
    ]


def test_the_distance_table_is_the_vendors() -> None:
    comparison = Comparison(
        outputs=(
            error("det_out", constant(0.995352), 7.633481, 289.637665, 552.817566),
            error("drive_area_seg", constant(0.998973), 0.004005, 0.001132, 0.592610),
            error("lane_line_seg", constant(0.999933), 0.000417, 0.000069, 0.564768),
        ),
        samples=1,
    )
    lines = text.distance_table(comparison).split("\n")
    assert lines[0] == "The quantized model output:"
    assert lines[1] == "=" * 81
    assert lines[2].split("  ")[:1] == ["Output"]
    assert lines[4:] == [
        "det_out         0.995352           7.633481     289.637665   552.817566          ",
        "drive_area_seg  0.998973           0.004005     0.001132     0.592610            ",
        "lane_line_seg   0.999933           0.000417     0.000069     0.564768            ",
    ]


def test_the_score_table_is_the_vendors() -> None:
    printed = text.score_table(
        model="yolop",
        march="nash-e",
        samples=10000,
        floating={"det": 0.76448, "da_seg": 0.89008, "ll_seg": 0.6523},
        scores={"det": 0.61507, "da_seg": 0.88863, "ll_seg": 0.65357},
        shares={"det": 0.80456, "da_seg": 0.99837, "ll_seg": 1.00195},
        cosine=0.999891,
    )
    assert printed.split("\n") == [
        "Model           Float  March      Samples  calibrated_model      Cosine_Similarity",
        "------------  -------  -------  ---------  ------------------  -------------------",
        "yolop_det     0.76448  nash-e       10000  0.61507(80.46%)                0.999891",
        "yolop_da_seg  0.89008  nash-e       10000  0.88863(99.84%)                0.999891",
        "yolop_ll_seg  0.6523   nash-e       10000  0.65357(100.19%)               0.999891",
    ]


def test_a_share_of_a_zero_score_is_left_out() -> None:
    printed = text.score_table(
        model="m",
        march="nash-e",
        samples=1,
        floating={"a": 0.0},
        scores={"a": 0.5},
        shares={"a": 1.0},
        cosine=1.0,
    )
    assert "%" not in printed
    assert "0.50000" in printed


def test_the_output_grid_is_the_vendors() -> None:
    comparison = Comparison(
        outputs=(
            error("background", Spread(min=0.878089, mean=0.979943, max=0.997221)),
            error("box_arrow", Spread(min=-0.231095, mean=0.850558, max=0.99862)),
        ),
        samples=2,
    )
    assert text.output_table(comparison).split("\n") == [
        "+------------+-------------------+-----------+----------+----------+",
        "|   Output   |      Metric       |    Min    |   Max    |   Avg    |",
        "+------------+-------------------+-----------+----------+----------+",
        "| background | cosine-similarity | 0.878089  | 0.997221 | 0.979943 |",
        "| box_arrow  | cosine-similarity | -0.231095 | 0.998620 | 0.850558 |",
        "+------------+-------------------+-----------+----------+----------+",
    ]


def test_the_output_grid_has_a_row_per_output_and_metric() -> None:
    comparison = Comparison(outputs=(error("y", constant(1.0), 0.5, 0.25, 2.0),), samples=1)
    lines = text.output_table(comparison, ("mae", "mse", "chebyshev", "sqnr")).split("\n")[3:-1]
    values = [line.replace("|", " ").split()[1:3] for line in lines]
    assert values == [
        ["mae", "0.500000"],
        ["mse", "0.250000"],
        ["chebyshev", "2.000000"],
        ["sqnr", "0.000000"],
    ]
