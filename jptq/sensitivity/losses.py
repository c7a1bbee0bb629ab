"""Differentiable losses: of the outputs' error, or the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax.numpy as jnp
from jax import Array

from jptq import user_code
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
            if jnp.issubdtype(outputs[n].dtype, jnp.floating) and outputs[n].size
        ]
        if not errors:
            raise ConfigError(
                "no output that is compared has a derivative",
                where=", ".join(outputs),
                why="all of them are integers, or have no elements",
                hint="cut the network before them (--output_node), or rank with --method=metric",
            )
        return sum(errors[1:], errors[0]) / len(errors)

    return loss


def load_loss(spec: str) -> Loss:
    """Load ``path.py[:function]`` (default ``loss``) of the user.

    Returns:
      The function, which raises `ConfigError` with the user's own traceback if theirs fails, and
      if it returns something other than one number.

    Raises:
      ConfigError: The file or function is not there, or importing it fails.
    """
    found = user_code.load(
        spec,
        flag="--loss",
        function="loss",
        signature="def loss(outputs, feeds) -> scalar, in jax.numpy",
        error=ConfigError,
    )

    def loss(outputs: Mapping[str, Array], feeds: Mapping[str, Array]) -> Array:
        names = f"outputs: {', '.join(outputs)}; inputs: {', '.join(feeds)}"
        given = user_code.call(found, outputs, feeds, noun="loss", error=ConfigError, hint=names)
        try:
            value = jnp.asarray(given)
            what = f"{value.dtype} of shape {value.shape}"
        except (TypeError, ValueError):
            value, what = None, type(given).__name__
        if value is None or value.shape or not jnp.issubdtype(value.dtype, jnp.floating):
            raise ConfigError(
                f"the loss returned {what}",
                where=found.where,
                why="a sample's loss is one floating-point number",
                hint="take the mean or the sum",
            )
        return value

    return loss
