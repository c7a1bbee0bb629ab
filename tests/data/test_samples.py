from __future__ import annotations

import errno
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jptq.data import Expected, MemorySamples, batches, load_samples
from jptq.data.layout import folder_name
from jptq.data.samples import write_samples
from jptq.errors import DataError

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
IMAGE = Expected(name="image", dtype=F32, shape=(1, 2, 3))
LENGTH = Expected(name="text/length", dtype=I64, shape=(1,))


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, 2, 3)).astype(np.float32)


def write(folder: Path, name: str, array: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    np.save(folder / name, array)


@pytest.fixture
def two_inputs(tmp_path: Path) -> Path:
    for i in range(3):
        write(tmp_path / "image", f"{i:02}.npy", image(i))
        write(tmp_path / "text_length", f"{i:02}.npy", np.array([i]))
    return tmp_path


def test_inputs_pair_by_the_order_of_their_files(two_inputs: Path) -> None:
    samples = load_samples(two_inputs, (IMAGE, LENGTH))
    assert len(samples) == 3
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(sample["image"], image(i))
        assert sample["text/length"] == [i]


def test_files_are_read_only_when_they_are_asked_for(two_inputs: Path) -> None:
    samples = load_samples(two_inputs, (IMAGE, LENGTH))
    (two_inputs / "image" / "01.npy").write_bytes(b"damaged")
    assert samples[0]["text/length"] == [0]
    with pytest.raises(DataError, match=r"not an \.npy file") as caught:
        samples[1]
    assert caught.value.where.endswith("01.npy")


def test_the_only_input_needs_no_folder_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "b.npy", image(1))
    write(tmp_path, "a.npy", image(0))
    samples = load_samples(tmp_path, (IMAGE,))
    np.testing.assert_array_equal(samples[0]["image"], image(0))


@pytest.mark.parametrize("suffix", [".bin", ".raw"])
def test_bare_bytes_take_the_layout_of_the_input(tmp_path: Path, suffix: str) -> None:
    image(0).tofile(tmp_path / f"0{suffix}")
    np.testing.assert_array_equal(load_samples(tmp_path, (IMAGE,))[0]["image"], image(0))


def test_bare_bytes_of_another_size_are_refused(tmp_path: Path) -> None:
    (tmp_path / "0.bin").write_bytes(bytes(23))
    with pytest.raises(DataError, match="23 bytes where 24"):
        load_samples(tmp_path, (IMAGE,))[0]
    open_shape = Expected(name="image", dtype=F32, shape=("batch", 2, 3))
    with pytest.raises(DataError, match="not fixed"):
        load_samples(tmp_path, (open_shape,))[0]


def test_an_archive_holds_all_inputs_of_a_sample(tmp_path: Path) -> None:
    for i in range(2):
        arrays = {"image": image(i), "text/length": np.array([i])}
        np.savez(tmp_path / f"{i}.npz", **arrays)
    samples = load_samples(tmp_path, (IMAGE, LENGTH))
    assert len(samples) == 2
    np.testing.assert_array_equal(samples[1]["image"], image(1))


def test_an_archive_without_an_input_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", picture=image(0))
    with pytest.raises(DataError, match="no array for input 'image'") as caught:
        load_samples(tmp_path, (IMAGE,))[0]
    assert "picture" in caught.value.why


def test_an_archive_that_would_unpack_to_more_than_the_input_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "0.npz", image=np.zeros(1 << 20, np.float32))
    with pytest.raises(DataError, match="bytes where 24 are needed"):
        load_samples(tmp_path, (IMAGE,))[0]


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_pickled_objects_are_refused(tmp_path: Path, suffix: str) -> None:
    array = np.array([print], object)
    if suffix == ".npy":
        np.save(tmp_path / "0.npy", array, allow_pickle=True)
    else:
        np.savez(tmp_path / "0.npz", image=array)
    with pytest.raises(DataError, match=f"not an \\{suffix} file"):
        load_samples(tmp_path, (IMAGE,))[0]


@pytest.mark.parametrize(
    ("array", "message", "hint"),
    [
        (np.zeros((1, 2, 3)), "takes float32, not float64", "astype"),
        (np.zeros((1, 2, 4), np.float32), "takes shape 1x2x3, not 1x2x4", ""),
        (np.zeros((2, 3), np.float32), "takes shape 1x2x3, not 2x3", "np.newaxis"),
        (np.full((1, 2, 3), np.nan, np.float32), "holds NaN", ""),
        (np.full((1, 2, 3), np.inf, np.float32), "holds an infinite value", ""),
    ],
)
def test_what_does_not_fit_the_input_is_refused_with_the_file(
    tmp_path: Path, array: np.ndarray, message: str, hint: str
) -> None:
    write(tmp_path, "7.npy", array)
    with pytest.raises(DataError, match=message) as caught:
        load_samples(tmp_path, (IMAGE,))[0]
    assert caught.value.where.endswith("7.npy")
    assert hint in caught.value.hint


def test_an_archive_under_the_name_of_an_array_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", image=image(0))
    (tmp_path / "0.npz").rename(tmp_path / "0.npy")
    with pytest.raises(DataError, match=r"not an \.npy file") as caught:
        load_samples(tmp_path, (IMAGE,))[0]
    assert caught.value.where.endswith("0.npy")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    pixels = Expected(name="image", dtype=F32, shape=(100, 100))
    array = np.random.default_rng(0).standard_normal((100, 100)).astype(np.float32)
    np.savez_compressed(tmp_path / "0.npz", image=array)
    content = bytearray((tmp_path / "0.npz").read_bytes())
    for i in range(200, 400):
        content[i] ^= 0x5A
    (tmp_path / "0.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"not an \.npz file") as caught:
        load_samples(tmp_path, (pixels,))[0]
    assert caught.value.where.endswith("0.npz")


def test_an_archive_whose_header_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    claimed = Expected(name="image", dtype=F32, shape=("batch", 1024))
    header = io.BytesIO()
    layout = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 1024)}
    np.lib.format.write_array_header_1_0(header, layout)
    with zipfile.ZipFile(tmp_path / "0.npz", "w") as packed:
        packed.writestr("image.npy", header.getvalue() + bytes(64))
    with pytest.raises(DataError, match="bytes where") as caught:
        load_samples(tmp_path, (claimed,))[0]
    assert "0.npz, array 'image'" in caught.value.where


@pytest.mark.parametrize("suffix", [".npy", ".bin"])
def test_a_file_that_is_gone_is_named(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"0{suffix}").write_bytes(bytes(24))
    samples = load_samples(tmp_path, (IMAGE,))
    (tmp_path / f"0{suffix}").unlink()
    for use in (lambda: samples[0], lambda: samples.digest):
        with pytest.raises(DataError) as caught:
            use()
        assert caught.value.where.endswith(f"0{suffix}")


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path) -> object:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(DataError, match="cannot read") as caught:
        load_samples(tmp_path, (IMAGE,))
    assert caught.value.where == str(tmp_path)
    assert caught.value.why == "Permission denied"


def test_an_open_length_takes_any(tmp_path: Path) -> None:
    write(tmp_path, "0.npy", np.zeros((5, 2, 3), np.float32))
    inputs = (Expected(name="image", dtype=F32, shape=("batch", 2, None)),)
    assert load_samples(tmp_path, inputs)[0]["image"].shape == (5, 2, 3)


def test_different_counts_are_refused(two_inputs: Path) -> None:
    (two_inputs / "image" / "02.npy").unlink()
    with pytest.raises(DataError, match="different numbers") as caught:
        load_samples(two_inputs, (IMAGE, LENGTH))
    assert caught.value.why == "image: 2, text/length: 3"


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        load_samples(tmp_path / "absent", (IMAGE,))
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="no folder for input 'image'"):
        load_samples(tmp_path, (IMAGE,))
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / ".hidden.npy").touch()
    with pytest.raises(DataError, match="no samples of input 'image'"):
        load_samples(tmp_path, (IMAGE,))


@pytest.mark.parametrize(("name", "folder"), [("a/b:0", "a_b_0"), ("images", "images")])
def test_forbidden_characters_become_underscores(name: str, folder: str) -> None:
    assert folder_name(name) == folder


@pytest.mark.parametrize("name", ["", ".", "..", "a\0b"])
def test_an_input_that_no_folder_can_be_called_like_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot have a folder of its own"):
        write_samples(tmp_path / "in" / "side", MemorySamples(feeds=({name: image(0)},)))
    with pytest.raises(DataError, match="cannot have a folder of its own"):
        load_samples(tmp_path, [Expected(name=name, dtype=F32, shape=(1, 2, 3))])
    assert not list(tmp_path.iterdir())


def test_inputs_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a_b", "0.npy", image(0))
    inputs = [Expected(name=name, dtype=F32, shape=(1, 2, 3)) for name in ("a/b", "a_b")]
    with pytest.raises(DataError, match="'a/b' and 'a_b' have one folder") as caught:
        load_samples(tmp_path, inputs)
    assert ";" in caught.value.hint
    with pytest.raises(DataError, match="one folder"):
        write_samples(tmp_path, MemorySamples(feeds=({"a/b": image(0), "a_b": image(1)},)))
    paired = load_samples(f"{tmp_path / 'a_b'};{tmp_path / 'a_b'}", inputs)
    np.testing.assert_array_equal(paired[0]["a/b"], image(0))


def test_the_digest_follows_content_and_order(two_inputs: Path) -> None:
    before = load_samples(two_inputs, (IMAGE, LENGTH)).digest
    assert load_samples(two_inputs, (IMAGE, LENGTH)).digest == before
    assert load_samples(two_inputs, (IMAGE, LENGTH)).first(2).digest != before
    write(two_inputs / "image", "01.npy", image(9))
    assert load_samples(two_inputs, (IMAGE, LENGTH)).digest != before


def test_more_samples_than_there_are_cannot_be_taken(two_inputs: Path) -> None:
    samples = load_samples(two_inputs, (IMAGE, LENGTH))
    assert len(samples.first(None)) == 3
    with pytest.raises(DataError, match="only 3 samples, but 4"):
        samples.first(4)


def test_samples_in_memory_are_checked_and_digested() -> None:
    samples = MemorySamples(feeds=({"image": image(0)}, {"image": image(1) * np.inf}))
    np.testing.assert_array_equal(samples[0]["image"], image(0))
    with pytest.raises(DataError, match="infinite"):
        samples[1]
    assert samples.digest != samples.first(1).digest


def test_batches_get_an_axis_of_their_own_and_are_filled_up() -> None:
    samples = MemorySamples(feeds=tuple({"image": image(i)} for i in range(5)))
    found = list(batches(samples, 2))
    assert [real for _, real in found] == [2, 2, 1]
    assert {feeds["image"].shape for feeds, _ in found} == {(2, 1, 2, 3)}
    np.testing.assert_array_equal(found[2][0]["image"][1], image(4))
    (named,) = batches([{"image": image(0), "label": np.zeros(3)}], 1, ["image"])
    assert set(named[0]) == {"image"}
    (whole,) = batches(samples, 99)
    assert whole[0]["image"].shape == (5, 1, 2, 3)
    assert list(batches(samples.first(0), 2)) == []


@pytest.mark.parametrize(
    ("odd", "said"),
    [(np.zeros((1, 2, 4), np.float32), r"\(1, 2, 4\)"), (np.zeros((1, 2, 3)), "is float64")],
)
def test_samples_that_differ_cannot_be_put_side_by_side(odd: np.ndarray, said: str) -> None:
    feeds = [{"image": image(i)} for i in range(5)] + [{"image": odd}]
    with pytest.raises(DataError, match=said) as caught:
        list(batches(feeds, 3))
    assert caught.value.where == "sample 5"
    assert "sample 3 is float32 of shape (1, 2, 3)" in caught.value.why


def test_a_folder_of_pictures_says_what_a_sample_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no samples of input 'x'") as caught:
        load_samples(tmp_path, [Expected(name="x", dtype=np.dtype(np.float32), shape=(1, 3))])
    assert caught.value.why == "the folder is empty"
    (tmp_path / "a.png").touch()
    (tmp_path / "b.jpg").touch()
    with pytest.raises(DataError) as caught:
        load_samples(tmp_path, [Expected(name="x", dtype=np.dtype(np.float32), shape=(1, 3))])
    assert caught.value.why == "the files here are .jpg, .png"
    assert ".npy" in caught.value.hint


def test_files_of_one_input_where_there_are_two_do_not_count(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.zeros((1, 3), np.float32))
    inputs = [Expected(name=n, dtype=np.dtype(np.float32), shape=(1, 3)) for n in "ab"]
    with pytest.raises(DataError, match="no folder for input 'a'"):
        load_samples(tmp_path, inputs)


def test_a_network_without_inputs_has_nothing_to_be_fed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes no input"):
        load_samples(tmp_path, [])


def test_an_input_of_text_is_refused_before_its_folder_is_missed(two_inputs: Path) -> None:
    text = Expected(name="text", dtype=np.dtype(object), shape=(1,))
    with pytest.raises(DataError, match="'text' takes text"):
        load_samples(two_inputs, (IMAGE, text))


def test_folders_may_be_named_input_by_input(two_inputs: Path) -> None:
    given = f"{two_inputs / 'image'}; {two_inputs / 'text_length'}"
    found = load_samples(given, (IMAGE, LENGTH))
    beside = load_samples(two_inputs, (IMAGE, LENGTH))
    assert found.paths == beside.paths
    assert found.digest == beside.digest


def test_another_number_of_folders_than_inputs_is_refused(two_inputs: Path) -> None:
    given = f"{two_inputs / 'image'};{two_inputs / 'text_length'};{two_inputs}"
    with pytest.raises(DataError, match="3 folders of calibration data for 2 inputs"):
        load_samples(given, (IMAGE, LENGTH))
    with pytest.raises(DataError, match="not a folder"):
        load_samples(f"{two_inputs / 'image'};{two_inputs / 'nowhere'}", (IMAGE, LENGTH))


def test_what_is_written_is_read_again(two_inputs: Path, tmp_path: Path) -> None:
    given = load_samples(two_inputs, (IMAGE, LENGTH))
    write_samples(tmp_path / "dump", given)
    again = load_samples(tmp_path / "dump", (IMAGE, LENGTH))
    assert len(again) == len(given)
    for one, other in zip(given, again, strict=True):
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])
