"""``python -m tools.bench.tables``: write the figures into the pages of ``docs``.

A page holds a pair of comments, ``<!-- table: NAME -->`` and ``<!-- end -->``; what stands between
them is replaced.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jptq import files
from tools.bench.record import environments, markdown, rows_of
from tools.bench.registry import BENCHES
from tools.docs import targets

DOCS = Path("docs")
_SLOT = re.compile(
    r"(?P<open><!-- table: (?P<name>\w+) -->\n).*?(?P<close><!-- end -->)", re.DOTALL
)


def filled(page: str, results: Path) -> str:
    """Return a page with its tables filled from ``<results>/<name>.json``."""

    def table(match: re.Match[str]) -> str:
        return f"{match['open']}{_table(match['name'], results)}\n{match['close']}"

    return _SLOT.sub(table, page)


def _table(name: str, results: Path) -> str:
    if name == "targets":
        return targets.table()
    path = results / f"{name}.json"
    command = f"`python -m tools.bench {name} MODELS`"
    if not path.is_file():
        return f"Not measured yet: {command}."
    content = files.read_json(path)
    measured = "; ".join(_machine(found) for found in environments(content))
    return f"{markdown(BENCHES[name], rows_of(content))}\n\n{command}, {measured}."


def _machine(environment: Mapping[str, Any]) -> str:
    versions = environment["versions"]
    shown = ", ".join(f"{name} {versions[name]}" for name in ("jax", "onnxruntime"))
    return (
        f"{environment['cores']} cores of {environment['processor']}, "
        f"Python {environment['python']}, {shown}"
    )


def main() -> None:
    """Fill every page that has a table."""
    for path in sorted(DOCS.rglob("*.md")):
        page = path.read_text(encoding="utf-8")
        new = filled(page, DOCS / "results")
        if new != page:
            path.write_text(new, encoding="utf-8")
            print(f"{path} is written", file=sys.stderr)


if __name__ == "__main__":
    main()
