from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jptq.errors import ShapeError
from jptq.ops import windows


def test_same_upper_puts_the_odd_pad_at_the_end() -> None:
    assert windows.resolve_pads("SAME_UPPER", None, (5,), (2,), (1,), (1,)) == ((0, 1),)


def test_same_lower_puts_the_odd_pad_at_the_begin() -> None:
    assert windows.resolve_pads("SAME_LOWER", None, (5,), (2,), (1,), (1,)) == ((1, 0),)


def test_explicit_pads_are_begins_then_ends() -> None:
    pads = windows.resolve_pads("NOTSET", (1, 2, 3, 4), (9, 9), (3, 3), (1, 1), (1, 1))
    assert pads == ((1, 3), (2, 4))


def test_valid_ignores_pads() -> None:
    assert windows.resolve_pads("VALID", (1, 1), (5,), (3,), (1,), (1,)) == ((0, 0),)


def test_ceil_mode_adds_room_for_a_partial_window() -> None:
    pads = windows.resolve_pads("NOTSET", None, (6,), (3,), (2,), (1,), ceil_mode=True)
    assert pads == ((0, 1),)
    assert windows.output_lengths((6,), (3,), (2,), (1,), pads) == (3,)


def test_ceil_mode_never_starts_a_window_past_the_input() -> None:
    pads = windows.resolve_pads("NOTSET", (0, 1), (4,), (1,), (4,), (1,), ceil_mode=True)
    assert windows.output_lengths((4,), (1,), (4,), (1,), pads) == (1,)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3), st.booleans())
def test_same_gives_the_input_length_over_the_stride_rounded_up(
    length: int, taps: int, stride: int, dilation: int, upper: bool
) -> None:
    how = "SAME_UPPER" if upper else "SAME_LOWER"
    pads = windows.resolve_pads(how, None, (length,), (taps,), (stride,), (dilation,))
    outputs = windows.output_lengths((length,), (taps,), (stride,), (dilation,), pads)
    assert outputs == (-(-length // stride),)


def test_an_unknown_auto_pad_is_refused() -> None:
    with pytest.raises(ShapeError, match="SAME"):
        windows.resolve_pads("SAME", None, (5,), (3,), (1,), (1,))


def test_pads_of_the_wrong_count_are_refused() -> None:
    with pytest.raises(ShapeError, match="2 entries"):
        windows.resolve_pads("NOTSET", (1, 1), (5, 5), (3, 3), (1, 1), (1, 1))


@pytest.mark.parametrize(
    ("auto_pad", "pads", "expected"),
    [
        ("VALID", (1, 1), True),
        ("NOTSET", None, True),
        ("NOTSET", (0, 0), True),
        ("NOTSET", (0, 1), False),
        ("SAME_UPPER", None, False),
    ],
)
def test_no_padding_is_recognised(
    auto_pad: str, pads: tuple[int, ...] | None, expected: bool
) -> None:
    assert windows.is_unpadded(auto_pad, pads) is expected
