"""Processes that a script starts under ``jptq run``."""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing import spawn
from pathlib import Path

import pytest

from jptq.cli.main import main
from jptq.hmct.overlay import overlay

CHAIN = """\
import multiprocessing, os, shlex, subprocess, sys

RUN = "import runpy; runpy.run_path(%r, run_name='__main__')"
NEXT = {
    "executable": lambda rest: [sys.executable, __file__, *rest],
    "python": lambda rest: ["python", __file__, *rest],
    "python3": lambda rest: ["python3", __file__, *rest],
    "module": lambda rest: [sys.executable, "-m", "chain", *rest],
    "isolated": lambda rest: [sys.executable, "-I", __file__, *rest],
    "environment": lambda rest: [sys.executable, "-E", __file__, *rest],
    "code": lambda rest: [sys.executable, "-c", RUN % __file__, *rest],
}


def go_on(links):
    if not links:
        import hmct.ir, horizon_nn.debug, jptq

        print(hmct.ir.OnnxModel.__module__, horizon_nn.debug.__name__, jptq.__file__)
        return
    link, *rest = links
    if link in ("spawn", "forkserver"):
        process = multiprocessing.get_context(link).Process(target=go_on, args=(rest,))
        process.start()
        process.join()
        assert process.exitcode == 0
    elif link == "shell":
        subprocess.run("python " + shlex.join([__file__, *rest]), shell=True, check=True)
    elif link == "own":
        own = {**os.environ, "PYTHONPATH": "/nowhere"}
        subprocess.run([sys.executable, __file__, *rest], check=True, env=own, cwd="/")
    elif link == "bare":
        subprocess.run([sys.executable, __file__, *rest], check=True, env={})
    elif link == "program":
        subprocess.run(["hmct-info", "--version"], check=True)
        go_on(rest)
    else:
        here = os.path.dirname(os.path.abspath(__file__))
        subprocess.run(NEXT[link](rest), check=True, cwd=here)


if __name__ == "__main__":
    go_on(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "links",
    [
        ("executable", "shell", "python", "spawn", "own", "program"),
        ("forkserver", "python3", "code", "module", "isolated", "environment", "bare"),
    ],
    ids=" ".join,
)
def test_the_vendors_names_are_found_at_any_depth(
    links: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "chain.py"
    script.write_text(CHAIN)
    assert main(["run", str(script), *links]) == 0
    import jptq

    printed = capfd.readouterr().out.splitlines()
    assert printed.pop() == (f"jptq.hmct.model jptq.hmct.quantizer.debugger {jptq.__file__}")
    assert printed == ([f"jptq-info {jptq.__version__}"] if "program" in links else [])


def test_what_leads_to_the_interpreter_is_put_back() -> None:
    def leads() -> tuple[object, ...]:
        return sys.executable, os.environ["PATH"], spawn.get_executable(), list(sys.path)

    before = leads()
    with overlay():
        assert Path(sys.executable).parent == Path(os.environ["PATH"].split(os.pathsep)[0])
        folder = Path(sys.executable).parents[1]
        assert folder.is_dir()
    assert leads() == before
    assert not folder.exists()


def test_a_package_of_the_vendor_is_hidden_from_the_script_and_stays_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hmct").mkdir()
    (tmp_path / "hmct" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = "import importlib.util; print(importlib.util.find_spec('hmct').origin)"
    below = sys.executable
    with overlay():
        outside, inside = (
            subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
            for python in (below, sys.executable)
        )
    assert outside == f"{tmp_path / 'hmct' / '__init__.py'}\n"
    assert "jptq-run-" in inside
