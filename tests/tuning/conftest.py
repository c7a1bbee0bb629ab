"""A prepared network, shared by the tests of measuring and of the loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from jptq.tuning import Prepared, prepare
from tests.tuning.networks import CONFIG, classifier, save


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    save(classifier(), folder)
    return folder


@pytest.fixture(scope="session")
def prepared(folder: Path) -> Prepared:
    return prepare(folder / "model.onnx", folder / "data", march="nash-e", quant_config=CONFIG)
