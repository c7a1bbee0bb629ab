from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from jptq import files
from jptq.errors import StorageError


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a" / "b.txt", "grüße")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "grüße".encode()


def test_the_new_content_is_not_visible_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")
    with files.atomic_path(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent  # a rename across file systems is a copy
        assert temporary.suffix == path.suffix
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert _names(tmp_path) == ["result.txt"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_a_failure_half_way_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, kind: type[BaseException]
) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")

    def interrupted() -> None:
        with files.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise kind

    with pytest.raises(kind):
        interrupted()
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["result.txt"]


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk_is_told_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "write":
        monkeypatch.setattr(Path, "write_bytes", full)
    elif call == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match=r"cannot write .*result\.txt") as caught:
        files.write_text(path, "new")
    assert caught.value.why == os.strerror(errno.ENOSPC)
    assert "--out" in caught.value.hint
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["result.txt"]


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match="cannot write"):
        files.write_text(tmp_path / "taken" / "result.txt", "new")


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
def test_results_are_as_readable_as_other_files_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    files.write_text(tmp_path / "ours", "")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")]
    assert modes[0] == modes[1]


def test_json_has_one_form(tmp_path: Path) -> None:
    content = {"b": [1, 2.5, None], "a": "größer"}
    files.write_json(tmp_path / "one.json", content)
    files.write_json(tmp_path / "two.json", json.loads((tmp_path / "one.json").read_text("utf-8")))
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert files.read_json(tmp_path / "one.json") == content


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_without_numbers_that_json_lacks(tmp_path: Path, value: float) -> None:
    path = tmp_path / "result.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"score": value})
    assert path.read_text() == "{}"


def test_reading_tells_an_absent_file_from_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        files.read_json(tmp_path / "absent.json")
    (tmp_path / "damaged.json").write_text("{")
    with pytest.raises(StorageError, match="is not JSON"):
        files.read_json(tmp_path / "damaged.json")
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(StorageError, match="is not JSON"):
        files.read_json(tmp_path / "deep.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StorageError, match="is not JSON"):
        files.read_json(tmp_path / "binary.json")


def test_digests_do_not_change_between_versions() -> None:
    known = "1aad730737579680ff08389d2e752a45f307819dec95b55a90782c4ed1d5f2fc"
    assert files.digest("model", b"data") == files.digest(b"model", "data") == known


def test_digests_tell_where_a_part_ends() -> None:
    assert files.digest("ab", "c") != files.digest("a", "bc")
    assert files.digest("ab") != files.digest("ab", "")
    assert files.digest("a", "b") != files.digest("b", "a")


def test_the_digest_of_a_path_is_that_of_its_content(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000  # more than one chunk
    (tmp_path / "one").write_bytes(content)
    assert files.digest(tmp_path / "one") == files.digest(content)


def test_a_key_twice_in_one_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": {"x": 1}, "b": [{"x": 1, "x": 1}]}')
    with pytest.raises(StorageError, match="a key stands twice in one table") as caught:
        files.read_json(tmp_path / "a.json")
    assert caught.value.why == "x"
