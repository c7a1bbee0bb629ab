"""What all pictures share: size, style, colours. No window system, no user settings, no dates."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jptq.report.text import shorten

# Okabe and Ito's palette: told apart by readers of every colour vision, and in grey.
BLUE, ORANGE, GREEN, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#8A8A8A"

NAME_WIDTH = 44

DPI = 150

MOST_PIXELS = 30_000
"""Widest picture; matplotlib refuses more than 65536, and viewers less than that."""

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


def png(figure: Figure) -> bytes:
    """Return a PNG file; equal figures give equal bytes."""
    buffer = io.BytesIO()
    dpi = min(DPI, MOST_PIXELS / figure.get_figwidth())
    with styled():
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def label(name: str, width: int = NAME_WIDTH) -> str:
    """Shorten a name; what the bundled font lacks or mathematical text would eat is replaced."""
    plain = shorten(name, width).encode("ascii", "replace").decode()
    return plain.replace("$", r"\$")
