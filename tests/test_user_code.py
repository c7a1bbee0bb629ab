from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jptq import user_code
from jptq.errors import ConfigError, DataError
from jptq.user_code import UserFunction


def loaded(spec: Path | str) -> UserFunction:
    return user_code.load(
        str(spec), flag="--f", function="run", signature="def run()", error=ConfigError
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file that imports a module, which imports one of a package, which has a relative import."""
    (tmp_path / "mine.py").write_text(
        "def run():\n    import near_module\n    return near_module.value\ndef other(): pass\n"
    )
    (tmp_path / "near_module.py").write_text("from near_package import part\nvalue = part.value\n")
    package = tmp_path / "near_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("from .deep import value\n")
    (package / "deep.py").write_text("value = 7\n")
    (tmp_path / "stranger.py").write_text("value = 1\n")
    return tmp_path


def test_two_functions_of_one_file_have_two_digests(folder: Path) -> None:
    assert loaded(folder / "mine.py").digest == loaded(f"{folder / 'mine.py'}:run").digest
    assert loaded(folder / "mine.py").digest != loaded(f"{folder / 'mine.py'}:other").digest


@pytest.mark.parametrize(
    "changed", ["mine.py", "near_module.py", "near_package/__init__.py", "near_package/deep.py"]
)
def test_the_digest_follows_what_the_file_imports_from_its_folder(
    folder: Path, changed: str
) -> None:
    before = loaded(folder / "mine.py").digest
    path = folder / changed
    path.write_text(path.read_text() + "# changed\n")
    assert loaded(folder / "mine.py").digest != before


def test_the_digest_is_not_moved_by_files_that_are_not_imported(folder: Path) -> None:
    before = loaded(folder / "mine.py").digest
    (folder / "stranger.py").write_text("value = 2\n")
    assert loaded(folder / "mine.py").digest == before


def test_a_call_finds_modules_beside_the_file_and_leaves_the_path_as_it_was(folder: Path) -> None:
    found = loaded(folder / "mine.py")
    path = list(sys.path)
    with user_code.importable(found.folder):
        assert found.call() == 7
    assert sys.path == path
    for name in ("near_module", "near_package", "near_package.part", "near_package.deep"):
        sys.modules.pop(name)


def test_a_name_that_is_no_function_is_told_with_how_to_write_one(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no function 'absent'") as caught:
        loaded(f"{folder / 'mine.py'}:absent")
    assert caught.value.hint == "def run()"


def test_what_the_users_code_prints_goes_to_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stdout may be JSON that another program reads."""
    (tmp_path / "mine.py").write_text("print('imported')\ndef run():\n    print('called')\n")
    found = loaded(tmp_path / "mine.py")
    user_code.call(found, noun="function", error=ConfigError)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "imported\ncalled\n")


def test_an_error_of_ours_names_the_line_of_the_users_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from jptq.errors import DataError\ndef run():\n    raise DataError('no', where='there')\n"
    )
    with pytest.raises(DataError) as caught:
        user_code.call(loaded(tmp_path / "mine.py"), noun="function", error=ConfigError)
    assert caught.value.where == "mine.py:3, there"
