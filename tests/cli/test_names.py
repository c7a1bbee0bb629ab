"""Names of a file that a terminal or a page would act on."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest

from tests.cli.conftest import Ended, Files, tiny_network

Jptq = Callable[..., Ended]

EVIL = "stem\x1b[2J\x1b[31m\r\u202e\nhead"


@pytest.fixture
def evil(files: Files) -> Files:
    """Return a network with such names at nodes and tensors."""
    proto = tiny_network()
    for node in proto.graph.node:
        if node.name == "stem":
            node.name = EVIL
    for place in (*(n.output for n in proto.graph.node), *(n.input for n in proto.graph.node)):
        for index, name in enumerate(place):
            if name == proto.graph.output[0].name:
                place[index] = EVIL
    proto.graph.output[0].name = EVIL
    onnx.save(proto, files.model)
    return files


def harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.slow
def test_tables_and_reports_write_them_out_and_json_keeps_them(jptq: Jptq, evil: Files) -> None:
    ended = jptq("tune", *evil.flags, "--out=tuned")
    assert ended.code == 0, ended.err
    assert harmless(ended.out)
    assert harmless(ended.err)
    written = evil.folder / "here" / "tuned"
    assert harmless((written / "report.md").read_text(encoding="utf-8"))
    assert "\\u001b" in (written / "result.json").read_text(encoding="utf-8")


def test_errors_and_tables_of_a_command_write_them_out(jptq: Jptq, evil: Files) -> None:
    ended = jptq("latency", f"--model={evil.model}")
    assert ended.code == 0, ended.err
    assert harmless(ended.out)
    assert "stem\\x1b[2J" in ended.out
    ended = jptq("calibrate", f"--model={EVIL}", f"--calibration_data={evil.data}")
    assert ended.code == 2
    assert harmless(ended.err)
