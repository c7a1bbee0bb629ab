"""What Markdown is made of: tables, foreign words, names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jptq.errors import printable
from jptq.report.table import RIGHT, Align


def table(header: Sequence[str], rows: Iterable[Sequence[str]], align: Sequence[Align]) -> str:
    """Return a table that can be read without being rendered too."""
    body = [tuple(row) for row in rows]
    widths = [max(4, *(len(cell) for cell in column)) for column in zip(header, *body, strict=True)]
    # Nothing stands behind the last column: padding sentences would only make long lines.
    widths[-1] = min(widths[-1], 30)
    rule = tuple(
        "-" * (width - 1) + ":" if side == RIGHT else "-" * width
        for width, side in zip(widths, align, strict=True)
    )

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if side == RIGHT else cell.ljust(width)
            for cell, width, side in zip(cells, widths, align, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    return "\n".join((line(header), f"| {' | '.join(rule)} |", *(line(row) for row in body)))


def plain(words: str) -> str:
    """Keep a foreign text from ending its cell or starting markup."""
    for character in "\\|<*`[":
        words = words.replace(character, f"\\{character}")
    return " ".join(words.split())


def code(name: str) -> str:
    """Set a name in fixed width; a bar would end the cell even there."""
    fence, pad = ("``", " ") if "`" in name else ("`", "")
    return f"{fence}{pad}{printable(name)}{pad}{fence}".replace("|", "\\|")
