from __future__ import annotations

import inspect

import pytest

from jptq import errors
from jptq.errors import JptqError, UnknownNameError, printable

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, JptqError)]


def test_an_error_says_what_where_why_and_what_to_try() -> None:
    error = JptqError("it broke", where="node 'a'", why="too hot", hint="cool it")
    assert str(error).splitlines() == [
        "it broke",
        "  at:  node 'a'",
        "  why: too hot",
        "  try: cool it",
    ]


def test_what_is_not_known_is_left_out() -> None:
    assert str(JptqError("it broke", why="too hot")).splitlines() == ["it broke", "  why: too hot"]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_of_a_user_exits_with_the_code_for_unusable_input(
    kind: type[JptqError],
) -> None:
    assert kind.exit_code == 2


def test_an_unknown_name_lists_the_nearest_names() -> None:
    error = UnknownNameError("metric", "cosine-similarty", ["cosine-similarity", "mse", "sqnr"])
    assert error.what == "unknown metric 'cosine-similarty'"
    assert "did you mean 'cosine-similarity'" in error.hint


def test_of_few_names_all_are_listed_if_none_is_near() -> None:
    error = UnknownNameError("march", "zzz", ["nash-p", "nash-e"])
    assert error.hint == "known: nash-e, nash-p"


def test_of_many_names_none_is_listed_if_none_is_near() -> None:
    assert UnknownNameError("node", "zzz", [f"Conv_{i}" for i in range(100)]).hint == ""


def test_names_may_come_from_an_iterator() -> None:
    assert "'mse'" in UnknownNameError("metric", "mes", iter(["mse"])).hint


@pytest.mark.parametrize(
    "bad", ["\x1b", "\r", "\n", "\u202e", "\u2066", "\u2028", "\x9b", "\udc80"]
)
def test_what_a_terminal_acts_on_is_written_out(bad: str) -> None:
    shown = printable(f"Conv{bad}1")
    assert shown.isprintable()
    assert shown != f"Conv{bad}1"
    assert printable("Konv_ü/層 1") == "Konv_ü/層 1"
    assert bad not in str(JptqError("x", where=f"node {bad}")) or bad == "\n"
