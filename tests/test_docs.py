"""What the documentation says holds: examples run, commands exist, pages are current."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import jptq
from jptq.cli import vocabulary
from jptq.cli.main import COMMANDS
from tools.bench.registry import BENCHES
from tools.bench.tables import filled
from tools.docs import commands, coverage, operators

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
MODULES = [
    module.name
    for module in pkgutil.walk_packages(jptq.__path__, "jptq.")
    if not module.name.endswith("__main__")
]
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS

_COMMAND = re.compile(
    r"(?:^\$ |[`(])(?:\.venv/bin/)?jptq (?P<name>[a-z]+(?:-[a-z]+)*)(?P<rest>[^`\n]*)", re.M
)
_FLAG = re.compile(r"--(?:no)?(?P<name>[a-z_0-9]+)")
_LINK = re.compile(r"\]\((?P<target>[^)#:\s]+)(?:#[^)]*)?\)")


def page_id(path: Path) -> str:
    return path.name


def ran(test: doctest.DocTest) -> int:
    """Run an example; return how many statements it has."""
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    shown: list[str] = []
    runner.run(test, out=shown.append)
    assert not runner.failures, "".join(shown)
    return len(test.examples)


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if ">>> " in p.read_text()], ids=page_id)
def test_the_examples_of_a_page_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    # Fences are not part of the expected output.
    source = re.sub(r"^```.*$", "", text, flags=re.M)
    assert ran(doctest.DocTestParser().get_doctest(source, {}, page.name, str(page), 0))


def test_the_python_page_has_examples() -> None:
    assert (ROOT / "docs" / "python.md").read_text(encoding="utf-8").count(">>> ") > 40


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_docstrings_run(name: str) -> None:
    module = importlib.import_module(name)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        if test.examples:
            ran(test)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_page_names_commands_and_flags_that_exist(page: Path) -> None:
    for match in _COMMAND.finditer(page.read_text(encoding="utf-8")):
        assert match["name"] in COMMANDS, match[0]
        command = importlib.import_module(COMMANDS[match["name"]])
        named = [found["name"] for found in _FLAG.finditer(match["rest"])]
        unknown = set(named) - set(command.FLAGS) - {"help"}
        assert not unknown, f"{match[0]}: {sorted(unknown)}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_flag_that_a_page_mentions_is_in_the_vocabulary(page: Path) -> None:
    spans = re.findall(r"`(--[a-z_]+)", page.read_text(encoding="utf-8"))
    assert {span.removeprefix("--") for span in spans} <= {*vocabulary.VOCABULARY, "help"}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_link_between_pages_leads_somewhere(page: Path) -> None:
    for match in _LINK.finditer(page.read_text(encoding="utf-8")):
        assert (page.parent / match["target"]).exists(), match[0]


def test_the_page_of_operators_is_current() -> None:
    assert (ROOT / operators.PAGE).read_text(encoding="utf-8") == operators.page(), "run make docs"


def test_the_page_of_commands_is_current() -> None:
    assert (ROOT / commands.PAGE).read_text(encoding="utf-8") == commands.page(), "run make docs"


def test_every_row_of_the_tuning_chapter_has_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = coverage.marked(coverage.TESTS)
    assert set(coverage.known_rows()) == set(found)


def test_the_page_of_coverage_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert coverage.PAGE.read_text(encoding="utf-8") == coverage.page(), "run make docs"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_tables_of_a_page_are_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert filled(text, ROOT / "docs" / "results") == text, "run make docs"


def test_every_benchmark_has_a_table_in_the_documentation() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert all(f"<!-- table: {name} -->" in text for name in BENCHES)


def test_every_page_stands_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(p.name in navigation for p in PAGES if p.parent.name == "docs")
