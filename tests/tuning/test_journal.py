from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from jptq.tuning.journal import Journal


def test_a_finding_is_there_in_the_next_run(tmp_path: Path) -> None:
    Journal(tmp_path / "work").save("scores", "model", "a", content={"top1": 0.5})
    later = Journal(tmp_path / "work")
    assert later.load("scores", "model", "a") == {"top1": 0.5}
    assert later.reused == 1


def test_findings_are_told_apart_by_kind_and_every_part_of_the_key(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.save("scores", "ab", "c", content=1)
    for kind, *key in (("other", "ab", "c"), ("scores", "a", "bc"), ("scores", "ab")):
        assert journal.load(kind, *key) is None
    assert journal.reused == 0


def test_arrays_come_back_with_names_dtypes_and_bits(tmp_path: Path) -> None:
    arrays = {
        "t:/a/Conv": np.array([0.1, np.inf], np.float32),
        "a:x": np.asarray(True),
        "method": np.asarray("kl:num_bin=1024"),
    }
    Journal(tmp_path).save_arrays("thresholds", "key", arrays=arrays)
    found = Journal(tmp_path).load_arrays("thresholds", "key")
    assert found is not None
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_without_a_folder_nothing_is_kept() -> None:
    journal = Journal(None)
    journal.save("scores", "key", content=1)
    journal.save_arrays("thresholds", "key", arrays={"a": np.zeros(1)})
    assert journal.load("scores", "key") is None
    assert journal.load_arrays("thresholds", "key") is None


def test_without_reuse_findings_are_written_and_not_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path, reuse=False)
    journal.save("scores", "key", content=1)
    assert journal.load("scores", "key") is None
    assert Journal(tmp_path).load("scores", "key") == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"PK\x03\x04 cut off"])
def test_a_damaged_finding_is_ignored_with_a_word(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path)
    journal.save("scores", "key", content=1)
    journal.save_arrays("thresholds", "key", arrays={"a": np.zeros(1)})
    for path in tmp_path.iterdir():
        path.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        assert journal.load("scores", "key") is None
        assert journal.load_arrays("thresholds", "key") is None
    assert len(caplog.records) == 2
    assert journal.reused == 0


def test_arrays_that_were_cut_off_are_ignored(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.save_arrays("thresholds", "key", arrays={"a": np.zeros(1000)})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:500])
    assert journal.load_arrays("thresholds", "key") is None


def test_pickles_are_never_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.save_arrays("thresholds", "key", arrays={"a": np.zeros(1)})
    (path,) = tmp_path.iterdir()
    with path.open("wb") as handle:
        np.savez(handle, a=np.array([{"not": "data"}], dtype=object))
    assert journal.load_arrays("thresholds", "key") is None


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_no_changed_byte_is_taken_for_a_finding(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path)
    content = {"top1": 0.6875, "name": "x"}
    arrays = {"t:/a/Conv": np.array([0.5, 2.0], np.float32), "method": np.asarray("max")}
    if suffix == "json":
        journal.save("scores", "key", content=content)
    else:
        journal.save_arrays("scores", "key", arrays=arrays)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for place in range(len(whole)):
        for change in (1, 8):  # another digit, letter or bracket
            path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
            if suffix == "json":
                assert Journal(tmp_path).load("scores", "key") in (None, content)
                continue
            found = Journal(tmp_path).load_arrays("scores", "key")
            if found is not None:
                assert found.keys() == arrays.keys()
                assert all(
                    np.array_equal(found[n], a) and found[n].dtype == a.dtype
                    for n, a in arrays.items()
                )
    path.write_bytes(whole.replace(b"0.6875", b"0.9875"))
    if suffix == "json":
        with caplog.at_level(logging.WARNING):
            assert journal.load("scores", "key") is None
        assert "checksum" in caplog.messages[-1]
