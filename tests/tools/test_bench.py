"""Benchmarks: how figures are kept and shown. What they measure is not asserted."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jptq import files
from jptq.errors import DataError
from jptq.results import SensitivityTable
from tools.bench import clock, networks, record, tables
from tools.bench.record import Bench, Column
from tools.bench.registry import BENCHES


def table_of(scores: np.ndarray) -> SensitivityTable:
    return SensitivityTable(
        rows=tuple(f"n{i}" for i in range(len(scores))),
        kind="node",
        members=((),) * len(scores),
        candidates=("current",),
        metrics=("mse",),
        score=scores.reshape(-1, 1, 1),
        stderr=np.zeros((len(scores), 1, 1)),
        outputs=("y",),
        method="probe",
        samples=1,
    )


def toy(rows: list[dict[str, Any]]) -> Bench:
    return Bench(
        name="toy",
        run=lambda network, options: rows,
        columns=(
            Column(title="network", cell=lambda row: row["network"]),
            Column(title="f", cell=lambda row: f"{row['f']:.1f}"),
        ),
        summary=lambda found: [f"{len(found)} rows."],
    )


def test_every_round_runs_each_program_once_in_turn() -> None:
    order: list[str] = []
    programs = {name: (lambda name=name: order.append(name)) for name in ("a", "b")}
    times = clock.interleaved(programs, 3, warm=1)
    assert order == ["a", "b"] * 4
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}


def test_a_run_is_timed_to_its_end() -> None:
    assert clock.seconds(lambda: time.sleep(0.02)) >= 0.02


def test_a_ratio_is_taken_round_by_round() -> None:
    # The machine is ten times slower in the last round, for both.
    found = clock.ratio(np.array([2.0, 2.0, 20.0]), np.array([1.0, 1.0, 10.0]))
    assert found == {"median": 2.0, "p10": 2.0, "p90": 2.0}


def test_measuring_a_network_again_replaces_its_rows_and_keeps_others(tmp_path: Path) -> None:
    bench = toy([])
    record.store(tmp_path, bench, "b", [{"network": "b", "f": 1.0}])
    record.store(tmp_path, bench, "a", [{"network": "a", "f": 2.0}])
    path = record.store(tmp_path, bench, "b", [{"network": "b", "f": 3.0}])
    rows = record.rows_of(files.read_json(path))
    assert [(row["network"], row["f"]) for row in rows] == [("a", 2.0), ("b", 3.0)]


def test_a_machine_is_named_once_for_all_its_networks(tmp_path: Path) -> None:
    for name in ("a", "b"):
        path = record.store(tmp_path, toy([]), name, [])
    (found,) = record.environments(files.read_json(path))
    assert found["versions"]["numpy"] == np.__version__


def test_a_table_has_a_line_for_each_row_and_its_summary() -> None:
    rows = [{"network": "a", "f": 1.26}]
    assert record.markdown(toy(rows), rows).splitlines() == [
        "| network | f |",
        "| --- | --- |",
        "| a | 1.3 |",
        "",
        "1 rows.",
    ]


def test_filling_a_page_replaces_what_stood_in_its_slots_only(tmp_path: Path) -> None:
    page = "before\n<!-- table: forward -->\nold\n<!-- end -->\nafter\n"
    filled = tables.filled(page, tmp_path)
    assert filled.startswith("before\n<!-- table: forward -->\nNot measured yet")
    assert filled.endswith("<!-- end -->\nafter\n")
    assert tables.filled(filled, tmp_path) == filled


def test_a_folder_without_networks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such network"):
        networks.find([tmp_path])


def test_a_network_can_be_chosen_by_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").touch()
    assert [n.name for n in networks.find([tmp_path], ["b"])] == ["b"]
    assert [n.name for n in networks.find([tmp_path / "a"])] == ["a"]


def test_networks_of_several_folders_come_in_the_order_of_the_folders(tmp_path: Path) -> None:
    for name in ("theirs/c", "theirs/d", "ours/a"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "model.onnx").touch()
    folders = [tmp_path / "theirs", tmp_path / "ours"]
    assert [n.name for n in networks.find(folders)] == ["c", "d", "a"]
    assert [n.name for n in networks.find(folders, ["a", "d"])] == ["d", "a"]


@pytest.mark.slow
def test_every_way_of_computing_a_convolution_agrees_with_onnxruntime() -> None:
    (rows,) = [BENCHES["lowerings"].run(None, argparse.Namespace(rounds=1))]
    assert all(row["largest_error"] < 1e-5 for row in rows)
    assert all(len(row["ways"]) > 1 for row in rows)
