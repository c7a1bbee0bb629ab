"""Settings for all tests: strict dtype promotion, one compilation cache, shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import pytest
from hypothesis import HealthCheck, settings

from jptq.engine.cache import cache_folder, enable_compilation_cache

# Compiled programs are kept beside a user's, for all workers and the next run: two thirds of the
# time of the suite is XLA's. Commands that a test starts find the folder as a user's would.
os.environ.setdefault("JPTQ_CACHE", str(cache_folder().with_name("compiled-by-tests")))
enable_compilation_cache()
jax.config.update("jax_numpy_dtype_promotion", "strict")

# How long an example takes tells how busy the machine is and nothing about the code. All else stays
# as Hypothesis has it, in CI too.
settings.register_profile(
    "any machine", suppress_health_check=[HealthCheck.too_slow], deadline=None
)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """Return the folder of the real networks, for tests marked ``models``."""
    folder = os.environ.get("JPTQ_MODELS", "")
    if not folder:
        pytest.skip("set JPTQ_MODELS to the folder of the real networks")
    return Path(folder)
