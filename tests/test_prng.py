from __future__ import annotations

import jax
import numpy as np

from jptq import prng


def _bits(*purpose: str | int, seed: int = 0) -> tuple[int, ...]:
    return tuple(int(v) for v in np.ravel(jax.random.key_data(prng.key(seed, *purpose))))


def test_a_purpose_has_one_key() -> None:
    assert _bits("probe", 3) == _bits("probe", 3)


def test_purposes_seeds_and_orders_have_keys_of_their_own() -> None:
    found = [_bits("probe", 3), _bits("probe", 4), _bits("weight", 3), _bits(3, "probe"), _bits()]
    assert len(set(found)) == len(found)
    assert _bits("probe") != _bits("probe", seed=1)


def test_keys_do_not_depend_on_the_process() -> None:
    # hash() of a string differs between processes; these numbers must not.
    assert _bits("probe", 3) == (3083598836, 356732608)
    assert prng.generator(0, "split").integers(0, 1000, 3).tolist() == [267, 526, 233]


def test_host_generators_are_named_too() -> None:
    first = prng.generator(0, "split").standard_normal(4)
    np.testing.assert_array_equal(first, prng.generator(0, "split").standard_normal(4))
    assert not np.array_equal(first, prng.generator(0, "other").standard_normal(4))
    assert not np.array_equal(first, prng.generator(1, "split").standard_normal(4))
