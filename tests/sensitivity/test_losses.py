from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jptq.errors import ConfigError
from jptq.sensitivity import load_loss
from jptq.sensitivity.losses import output_error


def test_the_output_error_is_the_mean_over_outputs_of_the_mean_square() -> None:
    floats = {"a": jnp.zeros(4), "b": jnp.zeros(2), "index": jnp.zeros(2, jnp.int32)}
    found = output_error(floats)(
        {"a": jnp.ones(4), "b": 3 * jnp.ones(2), "index": jnp.ones(2, jnp.int32)}, {}
    )
    assert float(found) == pytest.approx((1 + 9) / 2)


def test_a_loss_is_loaded_by_its_default_name_or_the_one_given(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("loss = lambda outputs, feeds: 1\nother = lambda outputs, feeds: 2\n")
    assert load_loss(str(path))({}, {}) == 1
    assert load_loss(f"{path}:other")({}, {}) == 2


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match=r"no file absent\.py") as caught:
        load_loss("absent.py:loss")
    assert "path.py:function" in caught.value.hint


def test_a_function_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("loss = 3\n")
    for name in ("loss", "other"):
        with pytest.raises(ConfigError, match=f"no function '{name}'"):
            load_loss(f"{path}:{name}")


@pytest.mark.parametrize("content", ["import nowhere_at_all", "raise SystemExit(3)", "def f(:"])
def test_a_file_that_cannot_be_imported_says_why(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(ConfigError, match="cannot be imported") as caught:
        load_loss(str(path))
    assert caught.value.why


def test_integer_outputs_alone_are_refused() -> None:
    index = {"index": jnp.zeros(2, jnp.int32)}
    with pytest.raises(ConfigError, match="derivative"):
        output_error(index)({"index": np.zeros(2, np.int32)}, {})  # type: ignore[dict-item]
