from __future__ import annotations

import argparse
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jptq.cli import words

NAMES = st.from_regex(re.compile(r"[A-Za-z/][A-Za-z0-9_./:-]{0,8}"), fullmatch=True)
NESTED = st.lists(st.one_of(NAMES, st.lists(NAMES, min_size=1)), min_size=1)


def quoted(value: object, mark: str) -> str:
    if isinstance(value, list):
        return "[" + ",".join(quoted(one, mark) for one in value) + "]"
    return f"{mark}{value}{mark}"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("mse", "mse"),
        ("'mse'", "mse"),
        ("[mse]", ["mse"]),
        ("mse,sqnr", ["mse", "sqnr"]),
        ("[cosine-similarity,mre,mse]", ["cosine-similarity", "mre", "mse"]),
        ("['cosine-similarity', \"mre\"]", ["cosine-similarity", "mre"]),
        ("[[Conv_1,/head/Conv],Conv_2]", [["Conv_1", "/head/Conv"], "Conv_2"]),
        ("[a,b,]", ["a", "b"]),
    ],
)
def test_lists_are_read_with_and_without_quotes(text: str, read: object) -> None:
    assert words.names(text) == read


@given(NESTED, st.sampled_from(["", "'", '"']))
def test_any_list_is_read_whatever_became_of_its_quotes(value: list[object], mark: str) -> None:
    assert words.names(quoted(value, mark)) == value


@pytest.mark.parametrize("text", ["", "[", "[a", "a]", "[a]b", "[,a]", "[a,,b]", "[]", "[a[b]]"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a list"):
        words.names(text)


def test_a_word_is_a_list_of_one_where_a_list_is_needed() -> None:
    assert words.listed("Conv_1") == ["Conv_1"]
    assert words.listed("[Conv_1,Conv_2]") == ["Conv_1", "Conv_2"]


@pytest.mark.parametrize(("text", "value"), [("True", True), ("False", False), ("0", False)])
def test_booleans_are_words(text: str, value: bool) -> None:
    assert words.boolean(text) is value


def test_another_word_is_no_boolean() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="neither True nor False"):
        words.boolean("maybe")


def test_a_list_that_the_shell_split_at_blanks_is_joined() -> None:
    assert words.joined(["-m", "[mse,", "[sqnr,", "mre]]", "-v", "True"]) == [
        "-m",
        "[mse,[sqnr,mre]]",
        "-v",
        "True",
    ]


def test_the_word_none_stands_for_nothing() -> None:
    assert words.or_none(int)("None") is None
    assert words.or_none(int)("3") == 3
