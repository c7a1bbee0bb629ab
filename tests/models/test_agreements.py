"""Agreement with onnxruntime on whole networks (design 6); every test prints what it measured.

The demo network is part of the project; the others are looked for where JPTQ_MODELS says.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest

from tests import agreements
from tests.agreements import Network

pytestmark = pytest.mark.slow

NAMES = ("ppocr_cls", "ppocr4_rec", "yolov8n_face", "ppocr4_det", "doc_orientation")
SAMPLES = 4


@functools.lru_cache(maxsize=1)
def load(folder: Path) -> Network:
    """Tests run network by network: one is held at a time."""
    return agreements.load_network(folder, samples=SAMPLES)


@pytest.fixture(
    params=[
        "demo",
        # One worker for a network: what it prepares serves all rows.
        *(
            pytest.param(name, marks=(pytest.mark.models, pytest.mark.xdist_group(name)))
            for name in NAMES
        ),
    ],
    scope="module",
)
def network(request: pytest.FixtureRequest) -> Network:
    if request.param == "demo":
        return load(agreements.DEMO)
    models: Path = request.getfixturevalue("models_folder")
    folder = models / str(request.param)
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
