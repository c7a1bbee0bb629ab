"""Dropout at inference."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jptq.errors import ModelError
from jptq.ops import random

YES, HALF, NONE = np.asarray(True), np.asarray(0.5), np.asarray(0.0)


def test_dropout_keeps_everything() -> None:
    x = jnp.arange(4.0)
    for y, mask in (
        random.dropout_6(x, is_test=1),
        random.dropout_7(x),
        random.dropout_10(x, ratio=0.9),
        random.dropout(x, HALF),
        random.dropout(x, NONE, YES),
    ):
        assert y is x
        assert mask.all()


@pytest.mark.parametrize("ratio", [None, HALF])
def test_dropout_in_training_is_refused(ratio: np.ndarray | None) -> None:
    with pytest.raises(ModelError, match="training"):
        random.dropout(jnp.ones(3), ratio, YES)
