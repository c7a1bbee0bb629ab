from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jptq.errors import ModelError
from jptq.ir.model import Model
from jptq.quant.export import network_digest
from jptq.quant.originals import (
    ORIGINALS,
    REFERENCE,
    absent_constants,
    constant_digest,
    float_constants,
    original_constants,
    restored,
    with_originals,
)

HELD = {"a": np.zeros(3, np.float32), "b": np.ones((2, 2), np.float32)}
MODEL = Model(inputs=(), outputs=(), nodes=(), initializers=HELD)
VECTOR = np.asarray([0.1, -1e-38, 3e38], np.float32)
WEIGHT = np.full((2, 2), 1 / 3, np.float32)


def test_vectors_come_back_to_the_last_bit() -> None:
    model = with_originals(MODEL, {"a": VECTOR})
    found = original_constants(model)
    assert found["a"].tobytes() == VECTOR.tobytes()
    assert found["a"].shape == VECTOR.shape
    back = restored(model)
    assert back.metadata == {}
    np.testing.assert_array_equal(back.initializers["a"], VECTOR)
    np.testing.assert_array_equal(model.initializers["a"], HELD["a"])
    assert not absent_constants(model)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (1, 7), (7, 1, 1), (1, 1, 1)])
def test_what_has_one_long_axis_at_most_stays_in_the_file(shape: tuple[int, ...]) -> None:
    held = dataclasses.replace(MODEL, initializers={"a": np.zeros(shape, np.float32)})
    model = with_originals(held, {"a": np.ones(shape, np.float32)})
    assert original_constants(model)["a"].shape == shape
    assert REFERENCE not in model.metadata


def test_of_a_weight_there_is_a_digest() -> None:
    model = with_originals(MODEL, {"a": VECTOR, "b": WEIGHT})
    assert original_constants(model).keys() == {"a"}
    assert absent_constants(model) == {"b": constant_digest(WEIGHT)}
    assert len(model.metadata[REFERENCE]) < 100
    back = restored(model, {"b": WEIGHT})
    np.testing.assert_array_equal(back.initializers["b"], WEIGHT)
    assert back.metadata == {}


def test_the_digest_tells_content_shape_and_type() -> None:
    others = (
        WEIGHT.reshape(4),
        WEIGHT.astype(np.float16),
        WEIGHT + np.float32(1e-7),
        np.asarray([["1", "2"], ["3", "4"]], np.object_),
    )
    digests = {constant_digest(one) for one in (WEIGHT, *others)}
    assert len(digests) == 5
    assert constant_digest(WEIGHT.copy()) == constant_digest(WEIGHT)


def test_a_second_note_adds_to_the_first_and_changes_nothing_of_it() -> None:
    first = with_originals(MODEL, {"b": WEIGHT})
    second = with_originals(first, {"b": WEIGHT + 1, "a": VECTOR})
    assert absent_constants(second) == absent_constants(first)
    assert original_constants(second).keys() == {"a"}


def test_the_digest_of_the_network_is_that_of_the_float_one() -> None:
    floating = dataclasses.replace(MODEL, initializers={"a": VECTOR, "b": WEIGHT})
    model = with_originals(MODEL, floating.initializers)
    assert network_digest(model) == network_digest(floating)
    assert network_digest(MODEL) != network_digest(floating)
    assert float_constants(model, floating).keys() == {"a", "b"}


def test_a_model_without_changes_gets_no_note() -> None:
    assert with_originals(MODEL, {}).metadata == {}
    assert original_constants(MODEL) == {}
    assert absent_constants(MODEL) == {}


def test_constants_that_are_gone_or_have_another_size_are_left_out() -> None:
    model = with_originals(MODEL, {"a": np.ones(3, np.float32), "b": WEIGHT})
    changed = dataclasses.replace(model, initializers={"a": np.ones(5, np.float32)})
    assert original_constants(changed) == {}
    assert absent_constants(changed) == {}
    assert absent_constants(changed, gone=True).keys() == {"b"}


@pytest.mark.parametrize("note", ["{", "[1]", '{"a": "?"}', '{"a": "AAA="}', '{"a": 3}'])
def test_a_damaged_note_is_refused_with_what_to_do(note: str) -> None:
    model = dataclasses.replace(MODEL, metadata={ORIGINALS: note})
    with pytest.raises(ModelError, match="damaged"):
        original_constants(model)


@pytest.mark.parametrize("note", ["{", "[1]", '{"b": 3}', "3"])
def test_a_damaged_note_of_digests_is_refused_too(note: str) -> None:
    model = dataclasses.replace(MODEL, metadata={REFERENCE: note})
    with pytest.raises(ModelError, match="damaged"):
        absent_constants(model)
