"""The house rules that no linter knows (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "jptq").rglob("*.py"))
CODE = [*PACKAGE, *sorted((ROOT / "tools").rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))

LONGEST = 400
REASON = "Over 400 lines:"
VAGUE = {"utils", "util", "helpers", "common", "core", "misc"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_a_module_says_what_it_is_in_a_line(path: Path) -> None:
    doc = ast.get_docstring(tree(path))
    assert doc
    assert doc.splitlines()[0].endswith((".", ":", "?", "``", "...")), doc.splitlines()[0]


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_a_long_module_says_why_it_is_long(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST or REASON in (ast.get_docstring(tree(path)) or ""), (
        f"{lines} lines: split it, or begin a line of its docstring with {REASON!r}"
    )


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_only_graph_passes_ask_for_an_operator_by_name(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if {"passes", "hmct"} & set(path.relative_to(ROOT).parts):
        return
    assert not re.search(r"\bif [^\n]*\.op(_type)? (==|!=|in|not in) [\"({]", text)


def test_subpackages_say_what_they_are() -> None:
    folders = {path.parent for path in PACKAGE}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_no_module_has_a_name_that_says_nothing() -> None:
    # `jptq.hmct.common` is the vendor's name.
    found = [path for path in CODE if path.stem in VAGUE and "hmct" not in path.parts]
    assert not found


def test_errors_are_not_swallowed() -> None:
    for path in CODE:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{name_of(path)}:{node.lineno}: bare except"
                silent = all(isinstance(s, ast.Pass) for s in node.body)
                broad = isinstance(node.type, ast.Name) and node.type.id == "Exception"
                assert not (silent and broad), f"{name_of(path)}:{node.lineno}"


def test_every_street_contract_names_every_subpackage() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    street = next(
        contract
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    named = {name.strip() for layer in street["layers"] for name in re.split("[|:]", layer)}
    entries = {p.stem for p in (ROOT / "jptq").iterdir() if p.suffix == ".py" or p.is_dir()}
    ignored = {"__init__", "__main__", "__pycache__", "_configs", "py"}
    assert entries - ignored <= named


def test_tests_lie_where_the_package_lies() -> None:
    known = {p.name for p in (ROOT / "jptq").rglob("*") if p.is_dir()}
    known |= {"tests", "models", "tools", "golden"}
    assert {path.parent.name for path in TESTS} <= known


def test_names_of_tests_are_sentences() -> None:
    for path in TESTS:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                words = node.name.removeprefix("test_").split("_")
                assert len(words) >= 2, f"{name_of(path)}: {node.name}"


def test_locked_versions_are_exact_and_cover_the_dependencies() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==\S+", pin) for pin in pins)
    locked = {_normal(pin.partition("==")[0]) for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    needed = [*project["dependencies"], *(name for extra in extras for name in extra)]
    assert {_normal(re.split(r"[<>=!~\[; ]", need)[0]) for need in needed} <= locked


def test_every_dependency_has_a_reason() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    named = {
        _normal(name)
        for row in re.findall(r"^\| ([\w, -]+) \|", page, re.M)
        for name in row.split(",")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    needed = [*project["dependencies"], *(name for extra in extras for name in extra)]
    assert {_normal(re.split(r"[<>=!~\[; ]", need)[0]) for need in needed} <= named


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def test_importing_the_package_imports_no_jax() -> None:
    program = "import sys, jptq, jptq.cli.main; sys.exit('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == 0
