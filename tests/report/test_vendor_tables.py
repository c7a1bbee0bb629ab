from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jptq.errors import StorageError
from jptq.report import distance_table, output_table, score_table, sensitivity_table
from jptq.report import vendor_tables as tables
from jptq.report.vendor_tables import NodeRow
from jptq.results import Comparison, OutputError, SensitivityTable, Spread

TUNING = Path(__file__).parents[1] / "fixtures" / "tuning"
RANKINGS = sorted(TUNING.glob("*_ranking*.txt"))
SCORES = sorted(TUNING.glob("*_scores.txt"))
OUTPUTS = sorted(TUNING.glob("*_outputs.txt"))


def fixture(name: str) -> str:
    return (TUNING / name).read_text(encoding="utf-8")


def collapsed(text: str) -> str:
    """Return a table as a web page leaves it: one line, single blanks."""
    return " ".join(text.split())


def ranking(
    rows: dict[str, tuple[float, ...]], metrics: tuple[str, ...], kind: str = "node"
) -> SensitivityTable:
    score = np.array(list(rows.values()), float).reshape(len(rows), 1, len(metrics))
    return SensitivityTable(
        rows=tuple(rows),
        kind=kind,
        members=((),) * len(rows),
        candidates=("current",),
        metrics=metrics,
        score=score,
        stderr=np.zeros_like(score),
        outputs=("y",),
        method="metric",
        samples=1,
    )


def unseen(lines: list[str], read: tables.Ranking) -> dict[str, tuple[float, ...]]:
    """Return a last row as wide as those that the document leaves out at the end of its tables."""
    header = next(line for line in lines if line.startswith("node"))
    starts = [header.index(metric) for metric in read.metrics]
    widths = np.diff([*starts, len(header)]) - 2
    cells = [f"{'1' * (width - 6)}.12345" for width in widths[1:]]
    return {"n" * (starts[0] - 2): (float("nan"), *map(float, cells))}


def spread(value: float) -> Spread:
    return Spread(min=value, mean=value, max=value)


def distances(cosine: float, l1: float, l2: float, most: float, output: str) -> OutputError:
    return OutputError(
        output=output,
        cosine=spread(cosine),
        l1=spread(l1),
        l2=spread(l2),
        chebyshev=spread(most),
        sqnr=spread(0.0),
    )


# --- rankings -------------------------------------------------------------------------------------


@pytest.mark.seed("B5")
@pytest.mark.parametrize("path", RANKINGS, ids=lambda path: path.stem)
def test_a_ranking_of_the_document_is_read_and_printed_again_to_the_character(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    read = tables.parse_sensitivity_table(text)
    title = next(i for i, line in enumerate(text.splitlines()) if line.startswith("="))
    assert len(read.rows) == len(text.rstrip().splitlines()) - title - 3
    shown = text.rstrip("\n").split("\n")
    printed = sensitivity_table(ranking({**read.rows, **unseen(shown, read)}, read.metrics))
    assert printed.split("\n")[:-1] == shown
    # The document's own order is by digits that it does not show.
    first = [read.score(name) for name in read.rows]
    assert first == sorted(first, reverse=read.metrics[0] == "mse")


@pytest.mark.parametrize("path", RANKINGS, ids=lambda path: path.stem)
def test_a_ranking_that_has_lost_its_blanks_is_read_all_the_same(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    whole, pieces = (tables.parse_sensitivity_table(t) for t in (text, collapsed(text) + " ..."))
    assert pieces == whole


def test_what_surrounds_a_ranking_is_passed_over() -> None:
    text = "Start calculating node sensitivity...\n" + sensitivity_table(
        ranking({"Conv_1": (0.5,), "Conv_2": (0.25,)}, ("mse",))
    )
    read = tables.parse_sensitivity_table(text + "\nResults: debug result\n")
    assert read.rows == {"Conv_1": (0.5,), "Conv_2": (0.25,)}
    assert read.title == "node sensitivity"


def test_infinite_and_undefined_scores_are_read() -> None:
    text = sensitivity_table(ranking({"a": (float("inf"),), "b": (float("nan"),)}, ("sqnr",)))
    read = tables.parse_sensitivity_table(text).rows
    assert read["a"] == (float("inf"),)
    assert np.isnan(read["b"][0])


def test_columns_that_are_no_scores_are_kept_apart() -> None:
    table = ranking({"x_HzCalibration": (0.5,)}, ("mse",), kind="activation")
    columns = tables.calibration_columns(
        table,
        owners={"x_HzCalibration": ("Conv_0", "Add_1")},
        thresholds={"x_HzCalibration": np.array([0.1, 2.1234567], np.float32)},
        qtypes={"x_HzCalibration": "int16"},
    )
    read = tables.parse_sensitivity_table(sensitivity_table(table, before=columns))
    assert read.metrics == ("mse",)
    assert read.more["x_HzCalibration"] == {
        "node": "Conv_0;Add_1",
        "threshold": "2.12346",
        "qtype": "int16",
    }


def test_a_saved_ranking_differs_in_title_heading_and_width() -> None:
    table = ranking({"a": (0.5,), "bb": (0.25,)}, ("mse",), kind="weight")
    assert tables.sensitivity_log(table, before={"node": ["n", "m"]}) == "\n".join(
        [
            "======weight======",
            "Node  node  mse   ",
            "------------------",
            "a     n     0.5   ",
            "bb    m     0.25  ",
            "",
        ]
    )


def test_an_odd_title_has_equal_rules_in_the_log() -> None:
    table = ranking({"a" * 7: (0.5,)}, ("mse",), kind="node")
    title = tables.sensitivity_log(table).split("\n")[0]
    assert title == "=" * 5 + "node" + "=" * 5


@pytest.mark.parametrize(
    "text", ["", "nothing", "===a===\nnode mse\n", "===a===\nnode mse\n--------\n"]
)
def test_what_is_no_ranking_is_refused(text: str) -> None:
    with pytest.raises(StorageError):
        tables.parse_sensitivity_table(text)


def test_a_shortened_name_is_completed_if_only_one_ends_like_it() -> None:
    names = ["/bifpndecoder/block/Conv", "/head/block/Conv", "Conv"]
    assert tables.resolve_name("...decoder/block/Conv", names) == names[0]
    assert tables.resolve_name("Conv", names) == "Conv"
    with pytest.raises(StorageError, match="2 names"):
        tables.resolve_name("...block/Conv", names)
    with pytest.raises(StorageError, match="0 names"):
        tables.resolve_name("...other", names)


# --- model information ----------------------------------------------------------------------------


@pytest.mark.seed("L")
def test_the_documents_output_information_is_printed_again_to_the_character() -> None:
    text = fixture("yolop_info.txt")
    read = tables.parse_distance_table(text)
    assert read["det_out"] == (0.995352, 7.633481, 289.637665, 552.817566)
    outputs = tuple(distances(*row, output=name) for name, row in read.items())
    printed = "INFO:root:" + distance_table(Comparison(outputs=outputs, samples=1))
    assert printed == text.rstrip("\n")
    assert len(printed.split("\n")[1]) == 81


@pytest.mark.seed("L")
def test_output_information_without_its_blanks_is_read_all_the_same() -> None:
    text = fixture("yolop_info.txt")
    assert tables.parse_distance_table(collapsed(text)) == tables.parse_distance_table(text)


def test_an_output_that_cannot_be_compared_has_no_numbers() -> None:
    text = fixture("yolop_info.txt").replace("0.995352", "--      ")
    cosine, l1, *_ = tables.parse_distance_table(text)["det_out"]
    assert np.isnan(cosine)
    assert l1 == 7.633481


def test_nodes_are_listed_with_six_digits() -> None:
    rows = [
        NodeRow(node="Conv_0", op="Conv", cosine=0.9997012, threshold=1.00647601, qtype="int8"),
        NodeRow(node="Gather_1", op="Gather", cosine=None, threshold=1234.5678, qtype="int16"),
    ]
    description, title, header, rule, first, second = tables.node_table(rows).split("\n")
    assert description == "The main quantized node information:"
    assert title == "=" * len(header)
    assert header == "Node        Type    Cosine Similarity  Threshold  DataType  "
    assert rule == "-" * len(header)
    assert first == "Conv_0      Conv    0.999701           1.00648    int8      "
    assert second.split() == ["Gather_1", "Gather", "--", "1234.57", "int16"]


@pytest.mark.parametrize("text", ["", "Output Chebyshev Distance", "Chebyshev Distance a b c d e"])
def test_what_is_no_output_information_is_refused(text: str) -> None:
    with pytest.raises(StorageError):
        tables.parse_distance_table(text)


# --- scores and outputs ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", SCORES, ids=lambda path: path.stem)
def test_a_score_table_of_the_document_is_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    read = tables.parse_score_table(text)
    assert read == tables.parse_score_table(collapsed(text))
    for row in read:
        assert row.march == "nash-e"
        assert row.samples == 10000
        assert row.score / row.floating == pytest.approx(row.share, abs=1e-4)


def test_shares_above_one_hundred_percent_stand_as_they_are() -> None:
    (*_, lane) = tables.parse_score_table(fixture("yolop_int8_scores.txt"))
    assert lane.share == pytest.approx(1.0019)
    printed = score_table(
        model="yolop",
        march="nash-e",
        samples=10000,
        floating={"ll_seg": lane.floating},
        scores={"ll_seg": lane.score},
        shares={"ll_seg": lane.share},
        cosine=lane.cosine,
    )
    assert "0.65357(100.19%)" in printed
    assert tables.parse_score_table(printed)[0].share == pytest.approx(1.0019)


@pytest.mark.parametrize("path", OUTPUTS, ids=lambda path: path.stem)
def test_an_output_table_of_the_document_is_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    read = tables.parse_output_table(text)
    assert read == tables.parse_output_table(collapsed(text))
    assert len(read) == 11
    assert all(s.min <= s.mean <= s.max for s in read.values())


def test_negative_cosines_are_read_and_printed_as_they_are() -> None:
    read = tables.parse_output_table(fixture("lane_int8_ec_outputs.txt"))
    worst = read["box_arrow", "cosine-similarity"]
    assert worst == Spread(min=-0.301507, mean=0.829580, max=0.998179)
    output = OutputError(
        output="box_arrow",
        cosine=worst,
        l1=spread(0.0),
        l2=spread(0.0),
        chebyshev=spread(0.0),
        sqnr=spread(0.0),
    )
    printed = output_table(Comparison(outputs=(output,), samples=2))
    assert "-0.301507" in printed
    assert tables.parse_output_table(printed) == {("box_arrow", "cosine-similarity"): worst}


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (tables.parse_score_table, ""),
        (tables.parse_score_table, "calibrated_model\n-----  -----\n a b c"),
        (tables.parse_score_table, "calibrated_model\n-----  -----\n a b c d e f"),
        (tables.parse_output_table, "no grid"),
        (tables.parse_output_table, "| Output | Metric | Min | Max | Avg |\n| a | b | c | d | e |"),
    ],
)
def test_what_is_no_such_table_is_refused(parse: object, text: str) -> None:
    with pytest.raises(StorageError):
        parse(text)  # type: ignore[operator]
