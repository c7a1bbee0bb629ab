"""A pytest plugin that records how much of each tolerance the tests use."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

import jax
import numpy as np
import pytest

FILE = "JPTQ_MARGINS"
"""The environment variable that names the file: a line ``[place, share used]`` each."""

_TESTS = f"{os.sep}tests{os.sep}"
_LITERAL = re.compile(r"^(?P<left>[^<>]+?) <=? (?P<limit>[0-9.]+(?:e-?[0-9]+)?)$")
_SMALL = 0.05  # a limit above it is no tolerance of arithmetic

_worst: dict[str, float] = {}


def _place() -> str | None:
    """Return the line of the test, or of the tests' helper, that compares."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if _TESTS in name:
            return f"tests{os.sep}{name.rsplit(_TESTS, 1)[1]}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def _record(share: float, place: str | None = None) -> None:
    place = place or _place()
    if place is not None:
        # More than all of it fails, or is meant to differ: it must not hide what is near.
        _worst[place] = max(share if share <= 1 else 0.0, _worst.get(place, 0.0))


def _share(actual: Any, desired: Any, rtol: float, atol: float) -> float:
    """Return the largest error over what is allowed; 0 where nothing differs."""
    try:
        a, b = np.broadcast_arrays(np.asarray(actual, float), np.asarray(desired, float))
    except (TypeError, ValueError):
        return 0.0
    compared = np.isfinite(a) & np.isfinite(b) & (a != b)
    if not compared.any():
        return 0.0
    allowed = atol + rtol * np.abs(b[compared])
    with np.errstate(divide="ignore"):
        return float((np.abs(a[compared] - b[compared]) / allowed).max())


def _recording(compare: Callable[..., Any], rtol: float, atol: float) -> Callable[..., Any]:
    """Return `compare`, a function of NumPy's, that records before it compares."""

    def recorded(
        actual: Any, desired: Any, rtol: float = rtol, atol: float = atol, *rest: Any, **more: Any
    ) -> Any:
        _record(_share(actual, desired, float(rtol), float(atol)))
        return compare(actual, desired, rtol, atol, *rest, **more)

    return recorded


def _approximately(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Return the comparison of one number by ``pytest.approx``, recording."""

    def recorded(self: Any, actual: Any) -> bool:
        if isinstance(actual, (int, float, np.number)) and isinstance(
            self.expected, (int, float, np.number)
        ):
            error, allowed = abs(actual - self.expected), self.tolerance
            _record(float(error / allowed) if allowed else 0.0)
        return compare(self, actual)

    return recorded


def pytest_configure(config: pytest.Config) -> None:
    """Put the recording functions in the place of NumPy's and pytest's."""
    del config
    np.testing.assert_allclose = _recording(np.testing.assert_allclose, 1e-7, 0.0)
    np.allclose = _recording(np.allclose, 1e-5, 1e-8)
    scalar: Any = type(pytest.approx(1.0))
    scalar.__eq__ = _approximately(scalar.__eq__)


def pytest_assertion_pass(item: pytest.Item, lineno: int, orig: str, expl: str) -> None:
    """Record ``assert error < 1e-4``."""
    written, shown = _LITERAL.match(orig.strip()), _LITERAL.match(expl.strip())
    if written is None or shown is None or float(written["limit"]) > _SMALL:
        return
    try:
        value = float(shown["left"].split(" = ")[0])
    except ValueError:
        return
    name = str(item.path)
    if value >= 0 and _TESTS in name:
        place = f"tests{os.sep}{name.rsplit(_TESTS, 1)[1]}:{lineno}"
        _record(value / float(written["limit"]), place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    """Skip what XLA cannot run: without F16C it calls conversions of float16 that it lacks."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "Failed to materialize symbols" not in str(error):
            raise
        pytest.skip("XLA has no float16 for this instruction set")


def pytest_sessionfinish() -> None:
    """Append what this process has seen, in one piece: workers share the file."""
    file = os.environ.get(FILE)
    if file:
        lines = "".join(json.dumps([place, share]) + "\n" for place, share in _worst.items())
        with open(file, "ab", buffering=0) as stream:
            stream.write(lines.encode())
