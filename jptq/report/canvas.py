"""What all pictures share: size, style, colours. No window system, no user settings, no dates."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Sequence

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter

from jptq.report.text import shorten

# Okabe and Ito's palette: told apart by readers of every colour vision, and in grey.
BLUE, ORANGE, GREEN, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#8A8A8A"

NAME_WIDTH = 44

DPI = 150

MOST_WIDTH = 16.0
"""Inches: a picture that is wider is read on no screen."""

MOST_PIXELS = 4_000
"""Longest side of a picture."""

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "font.size": 9.5,
    "grid.color": "#E3E3E3",
    "legend.frameon": False,
    "savefig.dpi": DPI,
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw in our style; the user's own matplotlib settings do not reach it."""
    with matplotlib.style.context(["default", STYLE]):
        yield


def blank(width: float, height: float) -> Figure:
    """Return an empty figure in inches; call it inside `styled`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


class Plain(Formatter):
    """Writes every tick in full: as many digits as tell them apart, no offset, no factor."""

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """Return the texts of all ticks."""
        places = np.unique(np.asarray(values, float))
        step = float(np.min(np.diff(places))) if places.size > 1 else 1.0
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        # Ticks stand at round numbers: a step of 2.5 takes a digit more than one of 2.
        scaled = step * 10.0**digits
        return [_number(value, digits + (abs(scaled - round(scaled)) > 1e-6)) for value in values]

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Return the text of one number."""
        return f"{x:,g}"


def _number(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.,") else text


def png(figure: Figure) -> bytes:
    """Return a PNG file; equal figures give equal bytes."""
    buffer = io.BytesIO()
    dpi = min(DPI, MOST_PIXELS / max(figure.get_figwidth(), figure.get_figheight()))
    with styled():
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def step_of_names(wanted: float, room: float) -> int:
    """Return how many places are named together by one name: 1, 2, 5, 10, ...

    Args:
      wanted: Room that the names of all places take.
      room: That there is.
    """
    steps: Iterator[int] = (m * 10**e for e in range(12) for m in (1, 2, 5))
    return next(step for step in steps if wanted / step <= room)


def label(name: str, width: int = NAME_WIDTH) -> str:
    """Shorten a name; what the bundled font lacks or mathematical text would eat is replaced."""
    plain = shorten(name, width).encode("ascii", "replace").decode()
    return plain.replace("$", r"\$")
