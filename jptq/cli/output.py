"""What a command leaves: tables or JSON on stdout, files in a folder."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jptq.errors import StorageError, printable

if TYPE_CHECKING:
    from jptq.report import Table

WIDTH = 100
"""Columns of tables that do not go to a terminal."""


def folder(path: Path | str) -> Path:
    """Return an output folder, checked before any work is done.

    Raises:
      StorageError: It is a file, or nothing can be written there.
    """
    path = Path(path)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # a name that no file can have
        raise StorageError("--out cannot be written", why=error.strerror or str(error)) from None
    if path.exists() and not path.is_dir():
        raise StorageError("--out is a file", where=str(path), hint="give a folder")
    nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not os.access(nearest, os.W_OK):
        raise StorageError("--out cannot be written", where=str(nearest), why="no permission")
    return path


def print_json(content: Any) -> None:
    """Print JSON as the result files have it."""
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def print_text(*lines: str) -> None:
    """Print lines; what is not meant to be seen in them is written out."""
    sys.stdout.write(printable("\n".join(lines), lines=True) + "\n")


def print_paragraph(text: str, *, indent: str = "") -> None:
    """Print a paragraph, wrapped at the terminal's width; later lines are indented more."""
    width = shutil.get_terminal_size((WIDTH, 0)).columns if sys.stdout.isatty() else WIDTH
    lines = textwrap.wrap(
        text,
        min(width, WIDTH),
        initial_indent=indent,
        subsequent_indent=indent + "  " if indent else "",
        break_long_words=False,
        break_on_hyphens=False,
    )
    print_text(*lines)


def print_tables(tables: Iterable[Table]) -> None:
    """Print tables, aligned, at the terminal's width."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    console = Console(
        width=None if sys.stdout.isatty() else WIDTH, markup=False, highlight=False, emoji=False
    )
    for table in tables:
        console.print(Text(printable(table.title), style="bold"))
        if not table.rows:
            console.print()
            continue
        grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
        for index, (heading, align) in enumerate(zip(table.header, table.align, strict=True)):
            # Headings may be broken, numbers never.
            widest = max(len(row[index]) for row in table.rows)
            grid.add_column(
                Text(heading),
                justify=align,
                min_width=widest if align == "right" else None,
                overflow="fold",
            )
        for row in table.rows:
            grid.add_row(*(Text(printable(cell)) for cell in row))
        console.print(grid)
        console.print()
