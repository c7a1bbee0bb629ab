from __future__ import annotations

import dataclasses

from jptq.report import terminal
from tests.report.factory import comparison, make_report


def test_configurations_stand_side_by_side_with_their_share_of_float() -> None:
    report = make_report()
    table = terminal.compared(report)
    cells = {row[0]: row[1:] for row in table.rows}
    assert table.header[1:] == ("float", "all-INT8", "all-INT16", "final")
    assert cells["box_f1 (measured)"] == (
        "0.8251",
        "0.7099",
        "0.8245",
        "0.8194",
    )
    assert table.rows[1] == ("  share of float", "-", "86.04 %", "99.93 %", "99.31 %")
    assert cells["latency, µs (modelled)"] == ("-", "1,180.4", "2,291.7", "1,324.9")
    assert cells["MACs in INT16 (counted)"] == ("-", "0.0 %", "100.0 %", "13.0 %")
    assert cells["nodes raised"] == ("-", "0", "300", "17")


def test_a_simulation_is_called_one() -> None:
    report = make_report()
    simulated = dataclasses.replace(report, true_int16=report.int16)
    assert "true INT16 (simulated)" in terminal.compared(simulated).header


def test_without_an_evaluator_cosines_remain() -> None:
    labels = [row[0] for row in terminal.compared(make_report(evaluator=False)).rows]
    assert labels[0] == "least mean cosine (measured)"


def test_outputs_show_mean_and_worst_of_the_final_configuration() -> None:
    report = make_report(outputs=11)
    expected = comparison(11, 2e-4, seed=1).outputs
    rows = terminal.outputs(report).rows
    assert [row[0] for row in rows] == [output.output for output in expected]
    assert [row[1] for row in rows] == [f"{output.cosine.mean:.6f}" for output in expected]
    assert [row[2] for row in rows] == [f"{output.cosine.min:.6f}" for output in expected]
    assert [float(row[5]) for row in rows] == [
        float(f"{output.chebyshev.max:.3g}") for output in expected
    ]


def test_at_most_twelve_raised_nodes_are_shown_and_the_rest_counted() -> None:
    rows = terminal.raised(make_report(raised=17)).rows
    assert len(rows) == 13
    assert rows[-1][0] == "and 5 more in report.md"
    assert len(terminal.raised(make_report(raised=12)).rows) == 12


def test_no_raised_node_is_said() -> None:
    table = terminal.raised(make_report(raised=0))
    assert table.rows == ()
    assert table.title == "Every node runs as INT8"


def test_every_table_is_rectangular() -> None:
    for table in terminal.tables(make_report(outputs=11, met=False)):
        assert {len(row) for row in table.rows} == {len(table.header)} == {len(table.align)}
