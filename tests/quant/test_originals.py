from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jptq.errors import ModelError
from jptq.ir.model import Model
from jptq.quant.originals import ORIGINALS, original_constants, restored, with_originals

HELD = {"a": np.zeros(3, np.float32), "b": np.ones((2, 2), np.float32)}
MODEL = Model(inputs=(), outputs=(), nodes=(), initializers=HELD)


def test_originals_come_back_to_the_last_bit() -> None:
    values = {"a": np.asarray([0.1, -1e-38, 3e38], np.float32), "b": np.full((2, 2), 1 / 3, "f4")}
    model = with_originals(MODEL, values)
    found = original_constants(model)
    assert found.keys() == values.keys()
    for name, value in values.items():
        assert found[name].tobytes() == value.tobytes()
        assert found[name].shape == value.shape
    back = restored(model)
    assert back.metadata == {}
    np.testing.assert_array_equal(back.initializers["a"], values["a"])
    np.testing.assert_array_equal(model.initializers["a"], HELD["a"])


def test_a_model_without_corrections_gets_no_note() -> None:
    assert with_originals(MODEL, {}).metadata == {}
    assert original_constants(MODEL) == {}


def test_constants_that_are_gone_or_have_another_size_are_left_out() -> None:
    model = with_originals(MODEL, {"a": np.ones(3, np.float32), "b": np.ones((2, 2), np.float32)})
    changed = dataclasses.replace(model, initializers={"b": np.ones(5, np.float32)})
    assert original_constants(changed) == {}


@pytest.mark.parametrize("note", ["{", "[1]", '{"a": "?"}', '{"a": "AAA="}', '{"a": 3}'])
def test_a_damaged_note_is_refused_with_what_to_do(note: str) -> None:
    model = dataclasses.replace(MODEL, metadata={ORIGINALS: note})
    with pytest.raises(ModelError, match="damaged"):
        original_constants(model)
