"""The tables and configurations of the vendor's tuning chapter: read, checked, printed again.

Their numbers come from the chapter; line breaks and blanks were lost on the way to the fixtures, so
words count and blanks do not, except where the geometry is known (hmct-spec 3.3).
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from jptq.quant.config import load_config
from jptq.report.text import distance_table, output_table, sensitivity_table
from jptq.report.vendor_tables import (
    Ranking,
    parse_distance_table,
    parse_output_table,
    parse_score_table,
    parse_sensitivity_table,
    resolve_name,
)
from jptq.results import Comparison, OutputError, SensitivityTable, Spread
from jptq.results.sensitivity import BETTER
from jptq.tuning.sweep import selected

FIXTURES = Path(__file__).parents[1] / "fixtures" / "tuning"
RANKINGS = sorted(path.stem for path in FIXTURES.glob("*_ranking*.txt"))
CONFIGS = sorted(path.stem for path in FIXTURES.glob("*_config.txt"))
OUTPUTS = sorted(path.stem for path in FIXTURES.glob("*_outputs.txt"))
ZERO = Spread(min=0.0, mean=0.0, max=0.0)


def text(name: str, suffix: str = "txt") -> str:
    return (FIXTURES / f"{name}.{suffix}").read_text(encoding="utf-8")


def ranking(name: str) -> Ranking:
    return parse_sensitivity_table(text(name))


def table(name: str) -> SensitivityTable:
    """Return a printed ranking as the table that it was printed from."""
    read = ranking(name)
    score = np.asarray(list(read.rows.values()))[:, None, :]
    return SensitivityTable(
        rows=tuple(read.rows),
        kind="node",
        members=tuple((row,) for row in read.rows),
        candidates=("current",),
        metrics=read.metrics,
        score=score,
        stderr=np.zeros_like(score),
        outputs=("y",),
        method="metric",
        samples=1,
        seconds=0.0,
    )


def sweep(name: str) -> tuple[list[str], list[dict[str, str]]]:
    head, *rows = (line.split("\t") for line in text(name, "tsv").splitlines())
    return head, [dict(zip(head, row, strict=True)) for row in rows]


def share(cell: str) -> float:
    return float(cell.partition("(")[2].rstrip("%)")) / 100


def first_that_meets(name: str, goal: float = 0.99) -> str:
    """Return the threshold of the first row in which every column reaches a share of float."""
    head, rows = sweep(name)
    for row in rows:
        if all(share(row[task]) >= goal for task in head[1:]):
            return row["threshold"]
    return ""


@pytest.mark.seed("G", "H", "K")
@pytest.mark.parametrize("name", RANKINGS)
def test_a_ranking_is_read_and_stands_worst_first(name: str) -> None:
    read = ranking(name)
    values = [row[0] for row in read.rows.values()]
    worst_first = sorted(values, reverse=BETTER[read.metrics[0]] == "lower")
    assert values == worst_first
    assert len(values) == len(set(read.rows))


WHOLE = ("hybridnets_ranking", "lane_box_ranking", "lane_int8_ranking")
"""Excerpts that hold their table's longest name, so that the widths are known."""


@pytest.mark.seed("G", "K")
@pytest.mark.parametrize("name", WHOLE)
def test_a_ranking_is_printed_again_to_the_character(name: str) -> None:
    # Ties keep the order in which they are given, so equal scores stand as they did.
    assert sensitivity_table(table(name)) == text(name).rstrip("\n")


@pytest.mark.seed("H", "K")
@pytest.mark.parametrize("name", sorted({*RANKINGS} - {*WHOLE}))
def test_a_ranking_is_printed_again_word_by_word(name: str) -> None:
    def words(printed: str) -> list[str]:
        return [word for line in printed.splitlines() for word in line.strip("=-").split()]

    assert words(sensitivity_table(table(name))) == words(text(name))


@pytest.mark.seed("G")
def test_the_chosen_nodes_of_hybridnets_stand_at_or_below_its_threshold() -> None:
    chosen = load_config(FIXTURES / "hybridnets_config.txt")
    read = ranking("hybridnets_ranking")
    full = {resolve_name(name, list(chosen.nodes)): name for name in read.rows}
    threshold = float(first_that_meets("hybridnets_sweep"))
    assert threshold == 0.99994
    assert len(chosen.nodes) == 43
    assert all(entry.qtype == "int16" for entry in chosen.nodes.values())
    assert set(chosen.nodes) <= set(full)
    assert all(read.score(full[node]) <= threshold for node in chosen.nodes)
    assert {
        resolve_name(n, list(chosen.nodes))
        for n in selected(table("hybridnets_ranking"), threshold)
    } == set(chosen.nodes)


@pytest.mark.seed("G", "I", "K")
@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_reads_the_same_from_the_documents_form_and_from_json(
    name: str, tmp_path: Path
) -> None:
    read = load_config(FIXTURES / f"{name}.txt")
    plain = {
        "model_config": {
            "all_node_type": read.all_node_type,
            "activation": read.activation.to_json(),
        },
        "subgraph_config": {
            key: {"inputs": list(s.inputs), "outputs": list(s.outputs), "qtype": s.qtype}
            for key, s in read.subgraphs.items()
        },
        "node_config": {
            node: {
                **({"qtype": entry.qtype} if entry.qtype else {}),
                **{f"input{index}": qtype for index, qtype in entry.inputs.items()},
            }
            for node, entry in read.nodes.items()
        },
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(plain), encoding="utf-8")
    again = load_config(path)
    assert (again.nodes, again.subgraphs, again.activation) == (
        read.nodes,
        read.subgraphs,
        read.activation,
    )


@pytest.mark.seed("H")
def test_ties_of_yolop_stay_in_the_order_of_the_document() -> None:
    for name in ("yolop_ranking", "yolop_ranking_concat_1003"):
        rows = list(ranking(name).rows)
        assert [table(name).rows[i] for i in table(name).order()] == rows


@pytest.mark.seed("H")
def test_the_detection_branch_scores_the_same_over_all_outputs_and_at_its_own() -> None:
    everywhere, there = ranking("yolop_ranking"), ranking("yolop_ranking_concat_1003")
    for node in ("Mul_943", "Mul_647", "Mul_795"):
        assert everywhere.score(node) == there.score(node)


@pytest.mark.seed("I")
@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("yolop_sweep", ""),
        ("yolop_sweep_concat_1003", ""),
        ("yolop_sweep_mse", "0.03"),
        ("hybridnets_sweep", "0.99994"),
    ],
)
def test_the_first_row_that_meets_the_goal_is_the_documents_choice(name: str, chosen: str) -> None:
    assert first_that_meets(name) == chosen


@pytest.mark.seed("I")
def test_a_larger_set_of_yolop_is_worse_than_a_smaller_one() -> None:
    _, rows = sweep("yolop_sweep_mse")
    shares = [share(row["det"]) for row in rows]
    assert shares != sorted(shares)


@pytest.mark.seed("I")
def test_the_head_of_yolop_is_a_subgraph_from_three_nodes_to_one() -> None:
    head = load_config(FIXTURES / "yolop_head_config.txt").subgraphs["det_head"]
    assert head.inputs == ("Conv_559", "Conv_707", "Conv_855")
    assert head.outputs == ("Concat_1003",)
    assert head.qtype == "int16"
    scores = parse_score_table(text("yolop_head_scores"))
    assert all(row.share >= 0.99 for row in scores)


@pytest.mark.seed("G", "I")
@pytest.mark.parametrize("name", sorted(p.stem for p in FIXTURES.glob("*_scores.txt")))
def test_a_share_of_the_score_table_is_the_score_over_float(name: str) -> None:
    for row in parse_score_table(text(name)):
        # The document's own shares are off by one in the last digit in places.
        assert row.share == pytest.approx(row.score / row.floating, abs=1.5e-4)
        assert row.march == "nash-e"


@pytest.mark.seed("J")
@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_table_is_printed_again_in_its_frame(name: str) -> None:
    read = parse_output_table(text(name))
    assert len(read) == 11
    comparison = Comparison(
        outputs=tuple(
            OutputError(output=output, cosine=spread, l1=ZERO, l2=ZERO, chebyshev=ZERO, sqnr=ZERO)
            for (output, _), spread in read.items()
        ),
        samples=100,
    )
    printed, given = output_table(comparison), text(name)
    assert printed.split() == given.split()
    assert [len(line) for line in printed.splitlines()] == [len(x) for x in given.splitlines()]


@pytest.mark.seed("K")
def test_every_metric_of_lane_is_read_under_its_own_heading() -> None:
    read = ranking("lane_int8_ranking")
    assert read.metrics == ("cosine-similarity", "mre", "mse", "sqnr", "chebyshev")
    assert read.score("Conv_3", "mse") == 27730.66992
    assert read.score("Conv_3_split_low", "sqnr") == 2.96429


@pytest.mark.seed("K")
def test_the_final_configuration_of_lane_names_a_node_twice_and_warns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="jptq"):
        final = load_config(FIXTURES / "lane_final_config.txt")
    assert "Conv_8" in caplog.text
    assert final.nodes["Conv_8"].qtype == "int16"
    assert final.nodes["GridSample_340"].inputs == {0: "ec"}
    assert final.nodes["Conv_3"].qtype == "int16"
    assert final.nodes["Conv_3"].inputs == {1: "ec"}
    assert final.compensations() == {"Conv_360": 1, "Conv_3": 1, "Conv_338": 1, "GridSample_340": 0}


@pytest.mark.seed("K")
@pytest.mark.parametrize(
    ("name", "ranked", "threshold"),
    [
        ("lane_arrow_config", "lane_int8_ranking", 0.9995),
        ("lane_final_config", "lane_box_ranking", 0.9995),
    ],
)
def test_the_nodes_of_a_lane_configuration_stand_at_or_below_its_threshold(
    name: str, ranked: str, threshold: float
) -> None:
    nodes = load_config(FIXTURES / f"{name}.txt").nodes
    raised = set(selected(table(ranked), threshold))
    # GridSample takes no int16: it is compensated.
    assert raised <= set(nodes)


@pytest.mark.seed("L")
def test_the_output_information_of_yolop_is_printed_again_to_the_character() -> None:
    read = parse_distance_table(text("yolop_info"))
    comparison = Comparison(
        outputs=tuple(
            OutputError(
                output=name,
                **{
                    key: Spread(min=value, mean=value, max=value)
                    for key, value in zip(("cosine", "l1", "l2", "chebyshev"), row, strict=True)
                },
                sqnr=ZERO,
            )
            for name, row in read.items()
        ),
        samples=1,
    )
    assert "INFO:root:" + distance_table(comparison) == text("yolop_info").rstrip("\n")
