from __future__ import annotations

import numpy as np

from jptq import prng


def _drawn(*purpose: str | int, seed: int = 0) -> list[int]:
    return prng.generator(seed, *purpose).integers(0, 2**30, 4).tolist()


def test_a_purpose_has_one_stream() -> None:
    assert _drawn("probe", 3) == _drawn("probe", 3)


def test_purposes_seeds_and_orders_have_streams_of_their_own() -> None:
    found = [("probe", 3), ("probe", 4), ("weight", 3), (3, "probe"), ()]
    assert len({tuple(_drawn(*purpose)) for purpose in found}) == len(found)
    assert _drawn("probe") != _drawn("probe", seed=1)


def test_streams_do_not_depend_on_the_process() -> None:
    # hash() of a string differs between processes; these numbers must not.
    assert prng.generator(0, "split").integers(0, 1000, 3).tolist() == [267, 526, 233]


def test_signs_are_minus_one_and_one_alike_often() -> None:
    found = prng.signs(prng.generator(0, "probe"), (100, 1000))
    assert found.dtype == np.int8
    assert set(np.unique(found)) == {-1, 1}
    # Means of fair signs: 100,000 of them within four standard errors, rows and columns as well.
    assert abs(found.mean()) < 4 / np.sqrt(1e5)
    assert np.abs(found.mean(1)).max() < 5 / np.sqrt(1000)
    assert np.abs(found.mean(0)).max() < 5 / np.sqrt(100)
