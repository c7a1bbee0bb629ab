"""Text of a quant_config: JSON, JSON with comments, a Python literal, the compile tool's YAML.

Whatever the file is called, one reader takes the first three: comments (``#``, ``//``, ``/* */``)
go, then the rest is JSON or else a Python literal (single quotes, trailing commas, ``True``,
perhaps behind ``quant_config =``). Nothing is executed. Only files called ``.yaml`` or ``.yml``
are YAML. A key that stands twice in one table gets a warning, the last one counts, as in Python.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import logging
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from jptq.errors import StorageError
from jptq.quant.compile_file import CompileFile, compile_file, is_compile_file
from jptq.quant.config_keys import Unmatched

_logger = logging.getLogger(__name__)

YAML = (".yaml", ".yml")


def read_file(path: Path, *, unmatched: Unmatched = "error") -> Any:
    """Return the content of a quant_config file; of a compile file, what it says on precision.

    Args:
      path: The file.
      unmatched: What happens to keys of a compile file that do not exist.

    Raises:
      StorageError: The file cannot be read or has none of the forms.
      ConfigError: A compile file is malformed.
    """
    content = parse(_text(path), where=str(path), form="yaml" if path.suffix in YAML else "literal")
    if not is_compile_file(content):
        return content
    return load_compile_file(path, unmatched=unmatched).quant_config


def load_compile_file(path: Path, *, unmatched: Unmatched = "error") -> CompileFile:
    """Read the YAML file of the vendor's compile tool (hmct-spec 4.4).

    Its ``quant_config`` may name a file, relative to the folder of this one.

    Raises:
      StorageError: A file cannot be read or is not YAML.
      ConfigError: It is malformed.
    """
    content = parse(_text(path), where=str(path), form="yaml")
    found = compile_file(content, unmatched=unmatched, where=str(path))
    if found.quant_config_file is None:
        return found
    named = path.parent / found.quant_config_file
    return dataclasses.replace(found, base=read_file(named), quant_config_file=None)


def parse(text: str, *, where: str, form: str = "literal") -> Any:
    """Return what a text says.

    Args:
      text: The whole text.
      where: Its file, for messages.
      form: ``literal`` (JSON or Python) or ``yaml``.

    Raises:
      StorageError: The text is not of the form.
    """
    if form == "yaml":
        return _yaml(text, where=where)
    plain = strip_comments(text)
    pairs = _Pairs()
    try:
        content = json.loads(plain, object_pairs_hook=pairs.table)
    except (ValueError, RecursionError) as error:
        return _python(plain, where=where, json_error=error)
    for key in pairs.twice:
        _warn_twice(key, where=where)
    return content


_COMMENT = re.compile(
    r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|\#[^\n]*|//[^\n]*|/\*.*?\*/""",
    re.DOTALL | re.VERBOSE,
)


def strip_comments(text: str) -> str:
    """Return a text without comments; strings keep what looks like one, lines their number."""
    return _COMMENT.sub(lambda match: match[1] or "\n" * match[0].count("\n") or " ", text)


class _Pairs:
    """Builds tables from pairs and keeps the keys that stand twice in one."""

    def __init__(self) -> None:
        self.twice: list[str] = []

    def table(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(key for key, _ in pairs)
        self.twice += [key for key, count in counts.items() if count > 1]
        return dict(pairs)


def _warn_twice(key: object, *, where: str, line: int | None = None) -> None:
    at = where if line is None else f"{where}, line {line}"
    _logger.warning("%s: %r stands twice in one table; the last one counts", at, key)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"cannot read {path}", why=str(error)) from error


# --- Python


class _JsonNames(ast.NodeTransformer):
    """Turns the names that JSON has for constants into these constants."""

    _VALUES: Mapping[str, bool | None] = {"true": True, "false": False, "null": None}

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self._VALUES:
            return node
        return ast.copy_location(ast.Constant(self._VALUES[node.id]), node)


def _python(text: str, *, where: str, json_error: Exception) -> Any:
    """Return the value of a Python literal, alone or assigned to a name."""
    # The first line may be indented; messages still name the lines of the file.
    above = text[: len(text) - len(text.lstrip())].count("\n")
    try:
        found = _literal(ast.parse("\n" * above + text.strip(), filename=where).body)
        if found is not None:
            tree = _JsonNames().visit(found)
            value = ast.literal_eval(tree)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        python_error: Exception = error
    else:
        if found is not None:
            _warn_of_duplicates(tree, where=where)
            return value
        python_error = ValueError("there is no quant_config = {...} in it")
    raise StorageError(
        f"{where} is neither JSON nor a Python literal",
        why=f"as JSON: {json_error}; as Python: {_first_line(python_error)}",
    ) from python_error


def _literal(statements: Iterable[ast.stmt]) -> ast.expr | None:
    """Return the expression that stands alone, or what is assigned to ``quant_config``."""
    statements = list(statements)
    assigned = {
        target.id: statement.value
        for statement in statements
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    if "quant_config" in assigned or len(statements) != 1:
        return assigned.get("quant_config")
    if isinstance(statements[0], ast.Expr):
        return statements[0].value
    return next(iter(assigned.values()), None)


def _warn_of_duplicates(tree: ast.AST, *, where: str) -> None:
    for table in ast.walk(tree):
        if not isinstance(table, ast.Dict):
            continue
        seen = set()
        for key in table.keys:
            name = ast.literal_eval(key) if key is not None else None
            if name in seen and key is not None:
                _warn_twice(name, where=where, line=key.lineno)
            seen.add(name)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


# --- YAML


class _Loader(yaml.SafeLoader):
    """The safe loader, for which ``ON`` and ``no`` are words and duplicate keys are seen."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the class above it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a table; a key that stands twice is named."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                _warn_twice(key.value, where=self.name, line=key.start_mark.line + 1)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def _yaml(text: str, *, where: str) -> Any:
    try:
        loader = _Loader(text)
        loader.name = where
        return loader.get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise StorageError(f"{where} is not YAML", why=why) from error
