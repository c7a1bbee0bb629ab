"""Text of a quant_config: JSON, JSON with comments, a Python literal, the compile tool's YAML.

Whatever the file is called, one reader takes the first three: comments (``#``, ``//``, ``/* */``)
go, then the rest is JSON or else a Python literal (single quotes, trailing commas, ``True``,
perhaps behind ``quant_config =``). Nothing is executed. Only files called ``.yaml`` or ``.yml``
are YAML. A key that stands twice in one table is refused if it says two things, and named if it
says one: a configuration in the vendor's own document has such a key.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import logging
import re
import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from jptq import files
from jptq.errors import ConfigError, StorageError
from jptq.quant.compile_file import CompileFile, compile_file, is_compile_file
from jptq.quant.config_keys import Unmatched

_logger = logging.getLogger(__name__)

YAML = (".yaml", ".yml")


def read_file(path: Path, *, unmatched: Unmatched = "error") -> tuple[Any, str | None]:
    """Return the content of a quant_config file; of a compile file, what it says on precision.

    Args:
      path: The file.
      unmatched: What happens to keys of a compile file that do not exist.

    Returns:
      The content, and the target that a compile file names.

    Raises:
      StorageError: The file cannot be read or has none of the forms.
      ConfigError: A compile file is malformed.
    """
    return _read(path, (), unmatched=unmatched)


def load_compile_file(path: Path, *, unmatched: Unmatched = "error") -> CompileFile:
    """Read the YAML file of the vendor's compile tool (hmct-spec 4.4).

    Its ``quant_config`` may name a file, relative to the folder of this one.

    Raises:
      StorageError: A file cannot be read or is not YAML.
      ConfigError: It is malformed.
    """
    content = parse(_text(path), where=str(path), form="yaml")
    return _compile_file(content, path, (), unmatched=unmatched)


def _read(path: Path, above: tuple[Path, ...], *, unmatched: Unmatched) -> tuple[Any, str | None]:
    content = parse(_text(path), where=str(path), form="yaml" if path.suffix in YAML else "literal")
    if not is_compile_file(content):
        return content, None
    found = _compile_file(content, path, above, unmatched=unmatched)
    return found.quant_config, found.march


def _compile_file(
    content: object, path: Path, above: tuple[Path, ...], *, unmatched: Unmatched
) -> CompileFile:
    """Read a compile file; those in `above` have led to it."""
    found = compile_file(content, unmatched=unmatched, where=str(path))
    if found.quant_config_file is None:
        return found
    named = path.parent / found.quant_config_file
    chain = (*above, path.resolve())
    if named.resolve() in chain:
        raise ConfigError(
            "quant_config names the file that it stands in",
            where=str(path),
            why=" -> ".join(str(one) for one in (*chain, named.resolve())),
        )
    base, _ = _read(named, chain, unmatched=unmatched)
    if not isinstance(base, Mapping):
        raise ConfigError("an object {...} is expected", where=str(named))
    return dataclasses.replace(found, base=base, quant_config_file=None)


def parse(text: str, *, where: str, form: str = "literal") -> Any:
    """Return what a text says.

    Args:
      text: The whole text.
      where: Its file, for messages.
      form: ``literal`` (JSON or Python) or ``yaml``.

    Raises:
      StorageError: The text is not of the form.
      ConfigError: A key stands twice in one table, with different values.
    """
    content = _yaml(text, where=where) if form == "yaml" else _json(text, where=where)
    level, depth = [content], 0
    while level:  # not by a call per level: Python's limit of those is not the same everywhere
        if depth > _DEEPEST:
            raise StorageError(f"{where} holds no configuration", why=_DEEP)
        inside = [v for one in level if isinstance(one, dict) for v in one.values()]
        inside += [v for one in level if isinstance(one, list | tuple) for v in one]
        level, depth = list({id(v): v for v in inside}.values()), depth + 1  # aliases once
    return content


def _json(text: str, *, where: str) -> Any:
    plain = strip_comments(text)
    if not plain.strip():
        raise _empty(where)
    pairs = _Pairs()
    try:
        content = json.loads(plain, object_pairs_hook=pairs.table)
    except (ValueError, RecursionError) as error:
        return _python(plain, where=where, json_error=error)
    if pairs.twice:
        try:
            _name_duplicates(_parsed(plain, where=where), where=where)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            # Without lines: Python cannot read it.
            _name_repeated(((key, 0, value) for key, value in pairs.twice), where=where)
    return content


_COMMENT = re.compile(
    r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|\#[^\n]*|//[^\n]*|/\*.*?\*/""",
    re.DOTALL | re.VERBOSE,
)


def strip_comments(text: str) -> str:
    """Return a text without comments; strings keep what looks like one, lines their number."""
    return _COMMENT.sub(lambda match: match[1] or "\n" * match[0].count("\n") or " ", text)


class _Pairs:
    """Builds tables from pairs and keeps those whose key stands twice in one."""

    def __init__(self) -> None:
        self.twice: list[tuple[str, Any]] = []

    def table(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            self.twice += [(key, value) for key, value in pairs if counts[key] > 1]
        return built


def _name_repeated(found: Iterable[tuple[Hashable, int, Any]], *, where: str) -> None:
    """Name each key of a table that stands in it more than once.

    Args:
      found: Keys, their lines (0: not known), and their values or what tells these apart.
      where: The file.

    Raises:
      ConfigError: A key has different values.
    """
    entries: dict[Hashable, list[tuple[int, Any]]] = {}
    for key, line, value in found:
        entries.setdefault(key, []).append((line, value))
    for key, same in entries.items():
        if len(same) == 1:
            continue
        line, value = same[-1]
        place = f"{where}, line {line}" if line else where
        times = "twice" if len(same) == 2 else f"{len(same)} times"
        if any(other != value for _, other in same):
            lines = [str(line) for line, _ in same if line]
            raise ConfigError(
                f"{key!r} stands {times} in one table and says different things",
                where=place,
                why=f"lines {', '.join(lines)}" if lines else "",
                hint="leave one of them",
            )
        _logger.warning("%s: %r stands %s in one table and says the same", place, key, times)


def _text(path: Path) -> str:
    try:
        return files.read_text(path, "utf-8-sig")
    except OSError as error:
        raise StorageError(f"cannot read {path}", why=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise StorageError(
            f"{path} is not UTF-8 text", why=str(error), hint="save it as UTF-8"
        ) from error


def _empty(where: str) -> StorageError:
    return StorageError(f"{where} is empty", hint='{"model_config": {"all_node_type": "int8"}}')


_DEEP = "it is nested too deeply"
_DEEPEST = 50


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
    try:
        found = _literal(_parsed(text, where=where).body)
        if found is not None:
            tree = _JsonNames().visit(found)
            value = ast.literal_eval(tree)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        python_error: Exception = error
    else:
        if found is not None:
            _name_duplicates(tree, where=where)
            return value
        python_error = ValueError("there is no quant_config = {...} in it")
    said = _said(json_error), _said(python_error)
    raise StorageError(
        f"{where} is neither JSON nor a Python literal",
        why=said[0] if said[0] == said[1] else f"as JSON: {said[0]}; as Python: {said[1]}",
    ) from python_error


def _parsed(text: str, *, where: str) -> ast.Module:
    # The first line may be indented; messages still name the lines of the file.
    above = text[: len(text) - len(text.lstrip())].count("\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of JSON's escapes: "\/"
        return ast.parse("\n" * above + text.strip(), filename=where)


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


def _name_duplicates(tree: ast.AST, *, where: str) -> None:
    for table in ast.walk(tree):
        if isinstance(table, ast.Dict):
            found = (
                (ast.literal_eval(key), key.lineno, ast.dump(value))
                for key, value in zip(table.keys, table.values, strict=True)
                if key is not None
            )
            _name_repeated(found, where=where)


def _said(error: Exception) -> str:
    """Return what is wrong and on which line, without the interpreter's own words for it."""
    if isinstance(error, RecursionError) or "too many nested" in str(error):
        return _DEEP
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}: {error.msg}"
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    text = str(error).partition("\n")[0]
    found = re.match(r"malformed node or string(?: on (line \d+))?", text)
    if found is None:
        return text
    at = f"{found[1]}: " if found[1] else ""
    return f"{at}it holds more than text, numbers, lists and tables"


# --- YAML


class _Loader(yaml.SafeLoader):
    """The safe loader, for which ``ON`` and ``no`` are words and duplicate keys are seen.

    Attributes:
      text: The whole file.
    """

    text = ""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the class above it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a table; a key that stands twice is named or refused."""
        found = (
            (key.value, key.start_mark.line + 1, self._written(value))
            for key, value in node.value
            if isinstance(key, yaml.ScalarNode)
        )
        _name_repeated(found, where=self.name)
        return super().construct_mapping(node, deep)

    def _written(self, node: yaml.Node) -> str:
        """Return a value as it stands in the file: what it means may be huge, by aliases."""
        return self.text[node.start_mark.index : node.end_mark.index].strip()


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def _yaml(text: str, *, where: str) -> Any:
    try:
        loader = _Loader(text)
        loader.name, loader.text = where, text
        content = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = "" if mark is None else f"line {mark.line + 1}: "
        why = " ".join(filter(None, (error.context, error.problem)))
        raise StorageError(f"{where} is not YAML", why=f"{at}{why}") from error
    except RecursionError as error:
        raise StorageError(f"{where} is not YAML", why=_DEEP) from error
    except (yaml.YAMLError, ValueError) as error:
        why = " ".join(str(error).split())
        raise StorageError(f"{where} is not YAML", why=why) from error
    if content is None:
        raise _empty(where)
    return content
