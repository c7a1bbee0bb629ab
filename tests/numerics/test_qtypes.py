from __future__ import annotations

import pytest

from jptq.errors import UnknownNameError
from jptq.numerics.qtypes import FLOAT16, FLOAT32, INT8, INT16, QTYPES, qtype


def test_ranges_are_the_full_ones_of_twos_complement() -> None:
    assert (INT8.lower, INT8.upper) == (-128, 127)
    assert (INT16.lower, INT16.upper) == (-32768, 32767)


def test_float32_has_no_grid() -> None:
    assert not FLOAT32.quantizes
    assert (FLOAT32.lower, FLOAT32.upper) == (0, 0)


def test_types_stand_from_coarse_to_fine() -> None:
    assert tuple(QTYPES) == ("int8", "int16", "float16", "float32")


def test_float16_has_no_grid_of_integers() -> None:
    assert qtype("float16") is FLOAT16
    assert not FLOAT16.quantizes


def test_an_unknown_type_is_refused_with_near_names() -> None:
    with pytest.raises(UnknownNameError, match="unknown qtype 'in8'") as caught:
        qtype("in8", where="node_config")
    assert "'int8'" in caught.value.hint
    assert caught.value.where == "node_config"
