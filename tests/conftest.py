"""Settings for all tests: strict dtype promotion, one compilation cache, shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import pytest

from jptq.engine.cache import cache_folder, enable_compilation_cache

# Compiled programs are kept beside a user's, for all workers and the next run: two thirds of the
# time of the suite is XLA's. Commands that a test starts find the folder as a user's would.
os.environ.setdefault("JPTQ_CACHE", str(cache_folder().with_name("compiled-by-tests")))
enable_compilation_cache()
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """Return the folder of the real networks, for tests marked ``models``."""
    folder = os.environ.get("JPTQ_MODELS", "")
    if not folder:
        pytest.skip("set JPTQ_MODELS to the folder of the real networks")
    return Path(folder)
