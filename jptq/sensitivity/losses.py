"""Differentiable losses: of the outputs' error, or the user's own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax.numpy as jnp
from jax import Array

from jptq.errors import ConfigError

Loss: TypeAlias = Callable[[Mapping[str, Array], Mapping[str, Array]], Array]
"""``loss(outputs, feeds) -> scalar`` of one sample, in jax.numpy."""


def output_error(floats: Mapping[str, Array]) -> Loss:
    """Return the mean squared distance to the float outputs, averaged over outputs."""

    def loss(outputs: Mapping[str, Array], feeds: Mapping[str, Array]) -> Array:
        del feeds
        errors = [
            jnp.mean(jnp.square(outputs[n] - floats[n]))
            for n in outputs
            if jnp.issubdtype(outputs[n].dtype, jnp.floating)
        ]
        if not errors:
            raise ConfigError(
                "no output that is compared has a derivative",
                where=", ".join(outputs),
                why="all of them are integers",
                hint="cut the network before them (--output_node), or rank with --method=metric",
            )
        return sum(errors[1:], errors[0]) / len(errors)

    return loss


def load_loss(spec: str) -> Loss:
    """Load ``path.py[:function]`` (default ``loss``) of the user.

    Raises:
      ConfigError: The file or function is not there, or importing it fails.
    """
    path, _, function = spec.partition(":")
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"--loss: no file {path}", hint="give path.py or path.py:function")
    module_spec = importlib.util.spec_from_file_location(f"jptq_loss_{file.stem}", file)
    assert module_spec is not None
    assert module_spec.loader is not None
    module: Any = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"--loss: {path} cannot be imported", why=f"{type(error).__name__}: {error}"
        ) from error
    found = getattr(module, function or "loss", None)
    if not callable(found):
        raise ConfigError(f"--loss: {path} has no function {function or 'loss'!r}")
    return found
