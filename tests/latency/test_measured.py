from __future__ import annotations

import json
from pathlib import Path

import pytest

from jptq.errors import ConfigError, JptqError, StorageError, UnknownNameError
from jptq.ir.fused import with_fused
from jptq.ir.model import Model, Node, Tensor
from jptq.latency import read_measured, with_measured
from jptq.results import LatencyTable, NodeTime

HEADER = "node,int8_us,int16_us,dual_int16_us\n"


def entry(name: str, **times: float) -> NodeTime:
    return NodeTime(
        node=name,
        op="Conv",
        first=("x",),
        second=("w",),
        macs=1,
        bytes=1,
        time_us={"int8": 1.0, "int16": 2.0, "dual-int16": 6.0, "float32": 9.0},
        limit="compute",
        assumed=("int16_factor", "dual_int16_factor"),
    )


TABLE = LatencyTable(target="test", nodes=(entry("a"), entry("b")))


def written(folder: Path, text: str, name: str = "times.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_and_json_say_the_same(tmp_path: Path) -> None:
    rows = {
        "a,b": {"int8_us": 1.5, "int16_us": 2, "dual_int16_us": 4},
        "c": {"int8_us": 0, "int16_us": 3},
    }
    table = written(tmp_path, HEADER + '"a,b",1.5,2,4\nc, 0 ,3,\n')
    other = written(tmp_path, json.dumps(rows), "times.json")
    expected = {
        "a,b": {"int8": 1.5, "int16": 2.0, "dual-int16": 4.0},
        "c": {"int8": 0.0, "int16": 3.0},
    }
    assert read_measured(table) == read_measured(other) == expected


def test_a_table_without_the_optional_column_and_with_a_byte_order_mark_is_read(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, "\ufeffnode,int8_us,int16_us\na,1,2\n")
    assert read_measured(path) == {"a": {"int8": 1.0, "int16": 2.0}}


def test_measured_times_replace_modelled_ones_and_say_so() -> None:
    table = with_measured(TABLE, {"b": {"int8": 10.0, "int16": 30.0}})
    assert table.nodes[0] == TABLE.nodes[0]
    measured = table.nodes[1]
    assert (measured.source, measured.limit) == ("measured", "")
    # dual-int16 was not measured: three times int16, as modelled; float32 is no cheaper.
    assert measured.time_us == {"int8": 10, "int16": 30, "dual-int16": 90, "float32": 90}
    assert measured.assumed == ("dual_int16_factor",)


def test_a_complete_measurement_depends_on_nothing_assumed() -> None:
    times = {"int8": 10.0, "int16": 30.0, "dual-int16": 31.0}
    measured = with_measured(TABLE, {"a": times}).nodes[0]
    assert measured.assumed == ()
    assert measured.time_us["dual-int16"] == 31.0


def test_a_node_that_the_network_lacks_is_refused_with_near_names() -> None:
    with pytest.raises(UnknownNameError, match="unknown node 'aa'"):
        with_measured(TABLE, {"aa": {"int8": 1.0, "int16": 1.0}})


def test_a_time_of_a_node_that_is_fused_says_into_what() -> None:
    a = Node(name="a", op="HzSwish", inputs=("x",), outputs=("y",), domain="horizon")
    x, y = (Tensor(name=name, dtype=None, shape=None) for name in "xy")
    model = with_fused(Model(inputs=(x,), outputs=(y,), nodes=(a,)), {"gate": "a"})
    with pytest.raises(ConfigError, match="'gate' is fused into 'a'"):
        with_measured(TABLE, {"gate": {"int8": 1.0, "int16": 1.0}}, model=model)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEADER + "a,-1,2,\n", r"int8_us is '-1'"),
        (HEADER + "a,1,nan,\n", r"int16_us is 'nan'"),
        (HEADER + "a,1,fast,\n", r"int16_us is 'fast'"),
        (HEADER + "a,1,,\n", "int16_us is missing"),
        (HEADER + "a,1,2,\na,1,2,\n", "twice"),
        (HEADER + "a,1,2,3,4\n", "more cells"),
        ("node,int8_us\na,1\n", "lacks columns int16_us"),
        ("node,int8_us,int16_us,int4_us\na,1,1,1\n", "unknown column 'int4_us'"),
        ("", "lacks columns"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(JptqError, match=words):
        read_measured(written(tmp_path, text))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1], "not a table"),
        ({"a": 1.0}, "not a table"),
        ({"a": {"int8_us": True, "int16_us": 1}}, "not a time"),
        ({"a": {"int8_us": 1}}, "int16_us is missing"),
        ({"a": {"int8_us": 1, "int16_us": 1, "us": 1}}, "unknown column 'us'"),
    ],
)
def test_json_that_makes_no_sense_is_refused(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(JptqError, match=words):
        read_measured(written(tmp_path, json.dumps(content), "times.json"))


def test_a_file_that_cannot_be_read_is_a_storage_error(tmp_path: Path) -> None:
    for name in ("none.csv", "none.json"):
        with pytest.raises(StorageError):
            read_measured(tmp_path / name)
