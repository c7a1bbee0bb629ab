"""Settings for all tests: strict dtype promotion, a private compilation cache, shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """Return the folder of the real networks, for tests marked ``models``."""
    folder = os.environ.get("JPTQ_MODELS", "")
    if not folder:
        pytest.skip("set JPTQ_MODELS to the folder of the real networks")
    return Path(folder)
