from __future__ import annotations

import pytest

from jptq.errors import UnknownNameError
from jptq.registry import lookup

TABLE = {"cosine-similarity": 1, "mse": 2}


def test_a_name_finds_its_entry() -> None:
    assert lookup(TABLE, "mse", "metric") == 2


def test_an_unknown_name_is_refused_with_near_names_and_its_place() -> None:
    with pytest.raises(UnknownNameError, match="unknown metric 'msee'") as caught:
        lookup(TABLE, "msee", "metric", where="--metric")
    assert "'mse'" in caught.value.hint
    assert caught.value.where == "--metric"
    assert caught.value.__cause__ is None


def test_a_falsy_entry_is_an_entry() -> None:
    assert lookup({"none": None}, "none", "method") is None
