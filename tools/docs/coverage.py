"""``python -m tools.docs.coverage``: write ``docs/seed-coverage.md`` from the tests' marks.

A test that carries ``@pytest.mark.seed("B5")`` exercises row B5 of the vendor's tuning chapter.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from jptq import files

PAGE = Path("docs/seed-coverage.md")
TESTS = Path("tests")

SECTIONS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "A": (
        "Which of the three problems is it?",
        {
            "A1": "all-INT16 meets the goal and raising along the ranking helps: type 1",
            "A2": "all-INT16 meets the goal and raising along the ranking does not help: type 2",
            "A3": "all-INT16 misses the goal: type 3, with the ceiling and the INT8 leftovers",
            "A4": "INT8 is calibrated with the method that all-INT16 was chosen with",
            "A5": "the score table, with each score's share of float",
        },
    ),
    "B": (
        "Sensitivity of nodes",
        {
            "B1": "`get-sensitivity-of-nodes MODEL DATA -n node -v True -s DIR`",
            "B2": "`-o NODE`: measured there; what cannot reach it is not listed",
            "B3": "every metric sorts in its own direction, worst first",
            "B4": "several metrics in one sweep, quotes eaten by the shell or not",
            "B5": "the table, to the character",
            "B6": "equal scores behind one shared quantizer, to the last bit",
            "B7": "names of split, unit and fused nodes",
            "B8": "only this node is quantized, all else is float",
            "B9": "an all-INT16 model's ranking shows what is still INT8",
            "B10": "a compensated node and its `_split_low` score nearly alike",
            "B11": "results are saved under `-s`",
        },
    ),
    "C": (
        "Search for the set to raise",
        {
            "C1": "thresholds on cosine, inclusive on the rounded score, every row measured",
            "C2": "thresholds on mse, the other way round",
            "C3": "any number of scores or outputs per row; the first row is `None`",
            "C4": "a larger set may be worse: the first row that meets the goal is chosen",
            "C5": "smallest and mean similarity per output",
            "C6": "stops at the first row that meets the goal, prints the configuration",
            "C7": "large errors under a high cosine: advises mse",
            "C8": "one failing task: restricts the ranking to its output",
            "C9": "a subgraph at the failing head, found and addressable",
            "C10": "an accepted subgraph is thinned",
            "C11": "a mixed model is ranked again, what is left of it",
        },
    ),
    "D": (
        "Error compensation",
        {
            "D1": "what stays INT8 under all-INT16, from facts of the target",
            "D2": "the ceiling: every quantizer at INT16",
            "D3": "raising single weights and inputs through the IR",
            "D4": "`ec` adds an operator of the same kind, `<node>_split_low`",
            "D5": "close to INT16 and not equal; nearest sampling compensates the output too",
            "D6": "`ec` and `qtype` on one node",
            "D7": "`<node>_split_low` takes a type in the same configuration",
            "D8": "`ec` costs a second operator",
        },
    ),
    "E": (
        "quant_config",
        {
            "E1": "`all_node_type`",
            "E2": "the activation block",
            "E3": "`node_config`: `qtype`, `input0`, `input1`",
            "E4": "`subgraph_config`",
            "E5": "JSON, JSON with comments, Python literal, YAML",
            "E6": "a key that stands twice and says one thing warns; two things are refused",
            "E7": "nodes made by optimisation are addressable",
        },
    ),
    "F": (
        "Editing a calibrated model",
        {
            "F1": "`load_model`, `save_model`: an exact round trip",
            "F2": "`node_mappings`, `type2nodes`, `nodes`",
            "F3": "`qtype` is read and set, invalid ones refused",
            "F4": "`tensor_type`",
            "F5": "`find_input_calibration`, `find_output_calibration`",
            "F6": "`thresholds` are read and set, their number checked",
            "F7": "`name`, `op_type`, `inputs`, `attributes`",
            "F8": "an edited model is evaluated without a build",
        },
    ),
    "G-L": (
        "The document's tables and configurations",
        {
            "G": "HybridNets: ranking, sweep, configuration",
            "H": "YoloP: three rankings",
            "I": "YoloP: sweeps and head subgraph",
            "J": "Lane: output tables",
            "K": "Lane: rankings of five metrics, three configurations",
            "L": "YoloP: output table of `jptq-info`",
        },
    ),
}

_HEAD = """\
# Coverage of the vendor's tuning chapter

*Generated from the tests by `make docs`.*

What the chapter "precision tuning practice" of the vendor's documentation shows, row by row, and
the tests that exercise it here. Rows A to F run the behaviour on graphs; G to L read, check and
reproduce the chapter's tables and configurations. A row without a test fails the suite.
"""


def marked(folder: Path) -> dict[str, list[str]]:
    """Return ``{row: [file::test]}`` of a folder of tests."""
    found: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("test_*.py")):
        for test, rows in _tests(ast.parse(file.read_text(encoding="utf-8"))):
            for row in rows:
                found.setdefault(row, []).append(f"{file.as_posix()}::{test}")
    return found


def _tests(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            rows = [
                str(argument.value)
                for decorator in node.decorator_list
                if isinstance(decorator, ast.Call)
                and isinstance(decorator.func, ast.Attribute)
                and decorator.func.attr == "seed"
                for argument in decorator.args
                if isinstance(argument, ast.Constant)
            ]
            if rows:
                yield node.name, rows


def known_rows() -> list[str]:
    """Return all rows in order."""
    return [row for _, rows in SECTIONS.values() for row in rows]


def page() -> str:
    """Return the page."""
    tests = marked(TESTS)
    text = [_HEAD]
    for letter, (title, rows) in SECTIONS.items():
        lines = [f"## {letter}. {title}", "", "| row | what | tests |", "| --- | --- | --- |"]
        for row, what in rows.items():
            shown = "<br>".join(f"`{test}`" for test in tests.get(row, ())) or "**none**"
            lines.append(f"| {row} | {what} | {shown} |")
        text.append("\n".join(lines) + "\n")
    return "\n".join(text)


if __name__ == "__main__":
    files.write_text(PAGE, page())
