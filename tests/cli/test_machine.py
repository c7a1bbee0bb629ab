from __future__ import annotations

import subprocess
import sys

import jax
import pytest

from jptq.cli import machine
from jptq.errors import ConfigError


def in_a_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_device_is_settled_before_jax_starts() -> None:
    code = (
        "from jptq.cli import machine; machine.settle('cpu', None);import jax; print(jax.devices())"
    )
    assert "Cpu" in in_a_new_process(code)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_threads_bound_the_pool_of_the_cpu_client() -> None:
    code = (
        "from jptq.cli import machine; machine.settle('cpu', 5); import jax.numpy as jnp, os;"
        "x = jnp.ones((64, 64)); (x @ x).block_until_ready();"
        "names = [open(f'/proc/self/task/{t}/comm').read() for t in os.listdir('/proc/self/task')];"
        "print(sum('Eigen' in name for name in names))"
    )
    assert in_a_new_process(code) == "5"


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    before = jax.config.jax_platforms
    try:
        with pytest.raises(ConfigError, match="--device=gpu"):
            machine.settle("gpu", None)
    finally:
        jax.config.update("jax_platforms", before)
