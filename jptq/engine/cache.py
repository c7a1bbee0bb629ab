"""The persistent compilation cache: a second process compiles nothing that the first one did."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jax


def cache_folder() -> Path:
    """Return the user's cache folder for compiled programs.

    ``JPTQ_CACHE`` overrides it; else the platform's convention.
    """
    if given := os.environ.get("JPTQ_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "jptq" / "compiled"


def enable_compilation_cache() -> None:
    """Keep compiled programs between processes, small ones too; a user's own setting wins."""
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
