"""A table as plain data: whoever prints it decides how it looks."""

from __future__ import annotations

import dataclasses
from typing import Literal

Align = Literal["left", "right"]

RIGHT: Align = "right"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table without a look.

    Attributes:
      title: One line.
      header: Headings of C columns.
      rows: Rows of C cells.
      align: Alignment of each column.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: tuple[Align, ...]
