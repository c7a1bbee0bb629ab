"""The program ends when it is told to, whatever swallows the exception."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_PROGRAM = """
import gc, itertools, os, signal, sys, threading, time
from pathlib import Path
from jptq import files
from jptq.cli import main, signals

signals._AGAIN_S, signals._LEAVE_S = 0.2, 1.5

def in_a_callback(number):
    def callback(phase, info):
        if phase == "start" and not done:
            done.append(True)
            os.kill(os.getpid(), number)
            for _ in range(1000):
                pass
    done = []
    gc.callbacks.append(callback)
    gc.collect()
    while True:
        time.sleep(0.01)

def in_a_library(number):
    with files.atomic_path(Path("half")) as temporary:
        temporary.write_text("half")
        sent = []
        while True:
            try:
                if not sent:
                    sent.append(True)
                    os.kill(os.getpid(), number)
                while True:
                    time.sleep(60)
            except BaseException:
                pass

def work(arguments):
    number = getattr(signal, arguments[1])
    return main.guarded("program", arguments, lambda: globals()[arguments[0]](number))

main.entry(work)
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
@pytest.mark.parametrize("place", ["in_a_callback", "in_a_library"])
def test_a_swallowed_signal_ends_the_program(
    tmp_path: Path, place: str, name: str, code: int
) -> None:
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    folder = tmp_path / "work"
    folder.mkdir()
    ended = subprocess.run(
        [sys.executable, program, place, name],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert ("terminated" if code == 143 else "interrupted") in ended.stderr
    assert list(folder.iterdir()) == []


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        _PROGRAM.replace("0.2, 1.5", "60, 60").replace("os.kill(os.getpid(), number)", "print(1)")
    )
    command = [sys.executable, "-u", program, "in_a_library", "SIGTERM"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=30) == 143
