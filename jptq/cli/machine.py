"""Where the numeric work runs, settled before JAX starts, and where its programs are kept."""

from __future__ import annotations

import os
import sys

from jptq.errors import ConfigError

_PLATFORMS = {"cpu": "cpu", "gpu": "cuda,cpu", "tpu": "tpu,cpu"}


def settle(device: str | None, threads: int | None) -> None:
    """Choose the device and the number of CPU threads.

    Args:
      device: ``cpu``, ``gpu``, ``tpu``, or None for JAX's own choice.
      threads: Of XLA's CPU client, or None for one per core. It is read when JAX starts, so that
        it has no effect on a program that computed before.

    Raises:
      ConfigError: There is no such device.
    """
    if threads is not None:
        # The size of XLA:CPU's thread pool; OpenMP and BLAS have their own.
        for name in ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(threads)
    if device is not None:
        _use(device)
    from jptq.engine import memory
    from jptq.engine.cache import enable_compilation_cache

    memory.hold()
    enable_compilation_cache()


def _use(device: str) -> None:
    if "jax" not in sys.modules:
        os.environ["JAX_PLATFORMS"] = _PLATFORMS[device]
    import jax

    jax.config.update("jax_platforms", _PLATFORMS[device])
    try:
        found = jax.default_backend()
    except RuntimeError as error:
        raise ConfigError(
            f"--device={device} cannot be used", why=str(error).partition("\n")[0]
        ) from error
    if found != device:
        raise ConfigError(
            f"--device={device}: JAX finds none",
            why=f"the best device it finds is {found}",
            hint=f"install JAX with {device} support, or leave --device out",
        )
