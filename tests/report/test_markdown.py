from __future__ import annotations

import dataclasses
import re

import pytest

from jptq.report import markdown
from jptq.results import Outcome, Recalibration, Report
from jptq.results.recalibration import Moved
from tests.report.factory import make_report


def section(text: str, heading: str) -> str:
    """Return the part of a report under a heading that begins with some words."""
    match = re.search(rf"^## {heading}.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert match is not None, f"no section {heading!r}"
    return match.group()


def cells(text: str) -> list[list[str]]:
    """Return the tables' rows, header and rule included."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_answer_stands_before_the_first_section() -> None:
    report = make_report()
    answer = markdown.render(report).partition("\n## ")[0]
    assert f"**Goal met.** {report.headline}" in answer
    assert cells(answer)[2] == [
        "every score, share of float",
        "at least 99.00 %",
        "99.31 % (measured)",
        "met",
    ]


def test_a_missed_goal_says_by_how_much_and_what_is_reachable() -> None:
    text = markdown.render(make_report(met=False, budget_us=1300.0))
    answer = text.partition("\n## ")[0]
    assert "**1.88 points short**" in answer
    assert "**24.9 µs over**" in answer
    points = cells(section(text, "Nearest reachable points"))[2:]
    assert [row[0] for row in points] == ["`step 3`", "`step 9`"]
    assert points[0][1:3] == ["94.80 %", "1,292.4"]


def test_a_goal_missed_by_a_hair_is_not_rounded_to_met() -> None:
    report = make_report()
    near = dataclasses.replace(report.final, shares={"box_f1": 0.98999, "kernel_iou": 1.0})
    answer = markdown.render(dataclasses.replace(report, final=near)).partition("\n## ")[0]
    assert "**0.001 points short**" in answer


def test_a_cosine_goal_is_compared_with_the_least_mean_cosine() -> None:
    report = make_report(evaluator=False)
    assert report.final.comparison is not None
    reached = f"{report.final.comparison.min_cosine:.6f} (measured)"
    answer = cells(markdown.render(report).partition("\n## ")[0])
    assert answer[2][:3] == ["mean cosine of every output", "at least 0.999", reached]


def test_points_are_only_offered_if_the_goal_was_missed() -> None:
    assert "Nearest reachable points" not in markdown.render(make_report())


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_its_words(outcome: Outcome) -> None:
    words = [
        markdown.render(dataclasses.replace(make_report(), outcome=other)).splitlines()[2]
        for other in Outcome
    ]
    assert len(set(words)) == len(list(Outcome))
    assert words[list(Outcome).index(outcome)].startswith("**")


def test_every_configuration_has_its_numbers() -> None:
    rows = cells(section(markdown.render(make_report()), "What it costs"))
    numbers = {row[0]: row[1:] for row in rows}
    assert rows[0][1:] == ["float", "all-INT8", "all-INT16", "final"]
    assert numbers["kernel_iou (measured)"][0] == "0.5752"
    assert numbers["latency, µs (modelled)"] == ["-", "1,180.4", "2,291.7", "1,324.9"]
    assert numbers["nodes raised"][-1] == "17"


def test_the_documented_walk_is_compared() -> None:
    costs = section(markdown.render(make_report()), "What it costs")
    assert "needs 1,522.8 µs; this configuration needs 1,324.9 µs, 13.0 % less" in costs
    slower = section(
        markdown.render(dataclasses.replace(make_report(), walk_us=1200.0)), "What it costs"
    )
    assert "10.4 % more" in slower


def test_every_output_has_min_mean_and_max_under_three_configurations() -> None:
    report = make_report(outputs=11)
    rows = cells(section(markdown.render(report), "Outputs"))[2:]
    assert len(rows) == 33
    assert report.final.comparison is not None
    box = report.final.comparison.outputs[5]
    final = next(row for row in rows if row[:2] == ["`box`", "final"])
    assert final[2] == " / ".join(
        f"{value:.6f}" for value in (box.cosine.min, box.cosine.mean, box.cosine.max)
    )
    for cell, spread in zip(final[3:], (box.l1, box.l2, box.chebyshev), strict=True):
        values = [float(value) for value in cell.split(" / ")]
        assert values == pytest.approx([spread.min, spread.mean, spread.max], rel=5e-3)


def test_every_raised_node_is_listed_in_full_with_its_reason() -> None:
    report = make_report(raised=40)
    rows = cells(section(markdown.render(report), "Which nodes are raised"))[2:]
    assert [row[1] for row in rows] == [f"`{node.node}`" for node in report.raised]
    assert [row[0] for row in rows] == [str(node.rank) for node in report.raised]
    assert all(node.why == row[-1] for node, row in zip(report.raised, rows, strict=True))


def test_every_step_shows_predicted_against_measured() -> None:
    report = make_report(outputs=2)
    rows = cells(section(markdown.render(report), "What was tried"))
    header, body = rows[0], rows[2:]
    assert len(body) == len(report.steps)
    predicted, measured = header.index("error (predicted)"), header.index("error (measured)")
    step = report.steps[4]
    assert step.comparison is not None
    first, second = (output.l2.mean for output in step.comparison.outputs)
    assert float(body[4][predicted]) == pytest.approx(step.predicted_error, rel=5e-3)
    assert float(body[4][measured]) == pytest.approx((first + second) / 2, rel=5e-3)
    on_front = {row[0].strip("`") for row in body if row[-1] == "yes"}
    assert on_front == {step.name for step in report.steps} & {p.name for p in report.pareto}


def test_the_ranking_shows_its_head_in_the_vendors_form() -> None:
    report = make_report()
    ranking = section(markdown.render(report), "Ranking")
    lines = ranking.split("```")[1].splitlines()[1:]
    assert re.fullmatch(r"=+node sensitivity=+", lines[0])
    assert lines[1].split() == ["node", "mse", "cosine-similarity"]
    assert len(lines) == 3 + 20
    assert "(measured)" in ranking


def test_an_estimated_ranking_is_called_predicted() -> None:
    report = make_report()
    table = dataclasses.replace(report.sensitivity, method="probe")
    text = markdown.render(dataclasses.replace(report, sensitivity=table))
    assert "(predicted by probe)" in section(text, "Ranking")
    assert "as INT8 (predicted by probe)" in section(text, "Which nodes are raised")


def test_assumed_constants_name_the_raised_nodes_that_hang_on_them() -> None:
    report = make_report()
    rows = cells(section(markdown.render(report), "How far to trust"))[2:]
    assert [row[0] for row in rows] == ["`int16_factor`", "`node_overhead_us`"]
    raised = {node.node for node in report.raised}
    hanging = [n for n in report.latency.nodes if n.assumed and n.node in raised]
    assert rows[0][1:4] == ["2", "150", str(len(hanging))]


def test_notes_keep_their_order() -> None:
    report = make_report()
    notes = section(markdown.render(report), "What to know").splitlines()[2:]
    assert [note for note in notes if note] == [f"- {note}" for note in report.notes]


def test_the_configs_use_is_explained() -> None:
    use = section(markdown.render(make_report()), "Use it")
    assert 'march="nash-e"' in use
    assert 'quant_config="quant_config.json"' in use


def test_a_bar_in_a_name_does_not_break_its_row() -> None:
    report = make_report(raised=3)
    odd = dataclasses.replace(report.raised[0], node="a|b`c", why="x | y")
    text = markdown.render(dataclasses.replace(report, raised=(odd, *report.raised[1:])))
    rows = cells(section(text, "Which nodes are raised"))
    assert {len(row) for row in rows} == {7}
    assert rows[2][1] == r"`` a\|b`c ``"


def every_table(report: Report) -> list[list[list[str]]]:
    blocks = [b for b in markdown.render(report).split("\n\n") if b.startswith("|")]
    return [cells(block) for block in blocks]


@pytest.mark.parametrize("evaluator", [True, False])
@pytest.mark.parametrize("met", [True, False])
def test_every_table_is_rectangular(met: bool, evaluator: bool) -> None:
    report = make_report(met=met, evaluator=evaluator, outputs=3, budget_us=1300.0)
    for rows in every_table(report):
        assert len({len(row) for row in rows}) == 1


def test_a_report_without_steps_or_raised_nodes_still_reads() -> None:
    report = dataclasses.replace(make_report(raised=0), steps=(), pareto=(), notes=())
    text = markdown.render(report)
    assert "None: every node runs as INT8." in text
    assert "What was tried" not in text
    assert "What to know" not in text


AGAIN = Recalibration(
    changed=12,
    weights=3,
    elements=12_345,
    same_elements=12_345,
    scales=48,
    same_scales=48,
    constants=5,
    same_constants=5,
    method="max",
    features=40,
    moved=tuple(Moved(name=f"feature|{i}", change=0.25 / (i + 1)) for i in range(25)),
)


def test_a_changed_network_is_the_one_to_build_and_the_moved_thresholds_are_listed() -> None:
    text = markdown.render(dataclasses.replace(make_report(), recalibration=AGAIN))
    use = section(text, "Use it")
    assert 'onnx.load("prepared_float_model.onnx")' in use
    assert "12 of its constants changed" in use
    assert "within sampling noise" in use
    assert "--reference=optimized_float_model.onnx" in use
    again = section(text, "Calibrated again")
    assert "all 12,345 integers and 48 scales of 3 weights" in again
    assert "25 of 40 thresholds of features differ, by 25 % at most" in again
    rows = cells(again)[2:]
    assert rows[0] == ["`feature\\|0`", "25 %"]
    assert rows[-1][0] == "and 5 more in `result.json`"
    assert len(rows) == 21


def test_thresholds_that_stop_early_are_told_from_those_that_moved() -> None:
    stopped = (Moved(name="scores", change=0.98),)
    again = dataclasses.replace(AGAIN, moved=(), stopped=stopped)
    text = markdown.render(dataclasses.replace(make_report(), recalibration=again))
    use = section(text, "Use it")
    assert "It may be lower than the measured one above: 1 of the thresholds stop here" in use
    assert "within sampling noise" not in use
    part = section(text, "Cal")
    assert "1 of 40 thresholds of features stop where no reader tells larger values apart" in part
    assert cells(part)[2:] == [["`scores`", "98 %"]]
    assert Recalibration.from_json(again.to_json()) == again
    assert Recalibration.from_json(AGAIN.to_json()) == AGAIN


def test_a_network_that_does_not_come_back_says_what_differs() -> None:
    wrong = dataclasses.replace(
        AGAIN, same_elements=12_000, wrong={"w0": "345 of 400 integers differ"}, moved=()
    )
    text = markdown.render(dataclasses.replace(make_report(), recalibration=wrong))
    again = section(text, "Calibrated again")
    assert "does not give the same network: w0 (345 of 400 integers differ)" in again
    assert cells(again)[2:] == [["`w0`", "345 of 400 integers differ"]]


def test_without_changes_the_network_that_was_given_is_built() -> None:
    unchanged = dataclasses.replace(AGAIN, changed=0, moved=())
    for again in (None, unchanged):
        report = dataclasses.replace(make_report(), recalibration=again)
        use = section(markdown.render(report), "Use it")
        assert f'onnx.load("{report.model}.onnx")' in use
        assert "prepared_float_model" not in use
