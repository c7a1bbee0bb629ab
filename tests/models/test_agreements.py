"""Agreement with onnxruntime on whole networks (design 6); every test prints what it measured.

Three networks are part of the project; the others are looked for where JPTQ_MODELS says.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests import agreements
from tests.agreements import Figure, Network
from tools.zoo.folder import NETWORKS

pytestmark = pytest.mark.slow

OWN = {"demo": agreements.DEMO, **{n: NETWORKS / n for n in ("encoder", "speech")}}
NAMES = ("ppocr_cls", "ppocr4_rec", "yolov8n_face", "ppocr4_det", "doc_orientation")
SAMPLES = 4
IN_DEPTH = "ppocr_cls"
"""The network that every run compares by all rows; `deep` are the others' further rows.

Those of our own that are not the demo are compared in breadth.
"""
IN_BREADTH = ("float", "int8 teacher-forced", "int8")


def _marks(name: str, row: str) -> list[pytest.MarkDecorator]:
    if name in OWN:
        return []
    deep = [] if name == IN_DEPTH or row in IN_BREADTH else [pytest.mark.deep]
    # One worker for a network: what it prepares serves all rows.
    return [pytest.mark.models, pytest.mark.xdist_group(name), *deep]


def measures(name: str) -> Mapping[str, Callable[[Network], Figure]]:
    """Return the rows of a network; the demo's sweep is the one that users get.

    Its pieces would be most of what there is to compile here: tests/sensitivity cuts small ones.
    """
    return {**agreements.ROWS, **({"sweep": agreements.whole} if name == "demo" else {})}


CASES = [
    pytest.param(name, row, marks=_marks(name, row), id=f"{name}-{row}")
    for name, row in itertools.product((*OWN, *NAMES), agreements.ROWS)
    if name in ("demo", *NAMES) or row in IN_BREADTH
]


@functools.lru_cache(maxsize=1)
def load(folder: Path) -> Network:
    """Tests run network by network: one is held at a time."""
    return agreements.load_network(folder, samples=SAMPLES)


@pytest.fixture(scope="module")
def network(request: pytest.FixtureRequest) -> Network:
    if request.param in OWN:
        return load(OWN[request.param])
    models: Path = request.getfixturevalue("models_folder")
    folder = models / str(request.param)
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    return load(folder)


@pytest.mark.parametrize(("network", "row"), CASES, indirect=["network"])
def test_a_network_agrees_with_onnxruntime(
    network: Network, row: str, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = measures(network.name)[row](network)
    with capsys.disabled():
        sys.stdout.write(f"\n{network.name}: {figure}\n")
    assert figure.holds, str(figure)
