"""Agreement with onnxruntime on real networks (design 6); every test prints what it measured."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest

from tests import agreements
from tests.agreements import Network

pytestmark = [pytest.mark.models, pytest.mark.slow]

NAMES = ("ppocr_cls", "ppocr4_rec", "yolov8n_face", "ppocr4_det", "doc_orientation")
SAMPLES = 4


@functools.lru_cache(maxsize=1)
def load(folder: Path) -> Network:
    """Tests run network by network: one is held at a time."""
    return agreements.load_network(folder, samples=SAMPLES)


@pytest.fixture(params=NAMES, scope="module")
def network(request: pytest.FixtureRequest, models_folder: Path) -> Network:
    folder = models_folder / str(request.param)
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    return load(folder)


@pytest.mark.parametrize("row", agreements.ROWS)
def test_a_network_agrees_with_onnxruntime(
    network: Network, row: str, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = agreements.ROWS[row](network)
    with capsys.disabled():
        sys.stdout.write(f"\n{network.name}: {figure}\n")
    assert figure.holds, str(figure)
