"""A tiny network with samples on disk, and the program called in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from jptq.cli.main import main
from tests.graphs import Graph


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a run of the program ended."""

    code: int
    out: str
    err: str


@dataclasses.dataclass(frozen=True)
class Files:
    """A network on disk; `flags` are what every command needs."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "tiny.onnx"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def flags(self) -> list[str]:
        return [f"--model={self.model}", f"--calibration_data={self.data}"]

    def sample(self, index: int, array: np.ndarray) -> None:
        """Replace a sample."""
        np.save(self.data / "x" / f"{index:03}.npy", array)


def tiny_network() -> onnx.ModelProto:
    """Return a classifier of one convolution and one matrix product."""
    g = Graph()
    x = g.input("x", (1, 2, 6, 6))
    y = g.add("Relu", g.conv(x, 2, 4, name="stem"))
    flat = g.add("Flatten", g.add("GlobalAveragePool", y))
    g.output(g.add("Gemm", flat, g.random(3, 4), g.random(3), transB=1, name="head"))
    return g.proto()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return a tiny network with four samples."""
    made = Files(tmp_path)
    onnx.save(tiny_network(), made.model)
    (made.data / "x").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(4):
        made.sample(index, rng.standard_normal((1, 2, 6, 6)).astype(np.float32))
    return made


@pytest.fixture
def jptq(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ended]:
    """Return the program; it runs in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        code = main(arguments)
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    return run
