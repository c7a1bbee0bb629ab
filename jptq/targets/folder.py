"""Where the shipped configurations lie."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def configs(name: str) -> Path:
    """Return the folder ``configs/<name>`` of this installation.

    A wheel carries the folder inside the package (``jptq/_configs``); an editable installation
    reads the one at the root of the checkout.
    """
    packaged = _PACKAGE / "_configs" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / "configs" / name
