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
    path.write_text("loss = lambda outputs, feeds: 1.0\nother = lambda outputs, feeds: 2.0\n")
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


def test_a_loss_that_raises_shows_the_users_own_traceback(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def loss(outputs, feeds):\n    return outputs['logit'].sum()\n")
    with pytest.raises(ConfigError, match="the loss raised KeyError") as caught:
        load_loss(str(path))({"logits": jnp.ones(2)}, {"image": jnp.ones(2)})
    assert "outputs['logit'].sum()" in caught.value.why
    assert "losses.py" not in caught.value.why
    assert caught.value.hint == "outputs: logits; inputs: image"


@pytest.mark.parametrize(
    "value", ["outputs['y']", "outputs['y'].astype('int32').sum()", "3", "None", "'low'", "outputs"]
)
def test_a_loss_that_is_not_one_float_is_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"def loss(outputs, feeds):\n    return {value}\n")
    with pytest.raises(ConfigError, match="the loss returned"):
        load_loss(str(path))({"y": jnp.ones(2)}, {})


def test_integer_outputs_alone_are_refused() -> None:
    index = {"index": jnp.zeros(2, jnp.int32)}
    with pytest.raises(ConfigError, match="derivative"):
        output_error(index)({"index": np.zeros(2, np.int32)}, {})  # type: ignore[dict-item]
