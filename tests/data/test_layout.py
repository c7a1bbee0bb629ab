"""Whose samples the files of a folder are."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from jptq.data import Expected, load_samples
from jptq.errors import DataError

F32 = np.dtype(np.float32)


def inputs(*names: str) -> list[Expected]:
    return [Expected(name=name, dtype=F32, shape=(1,)) for name in names]


def write(path: Path, value: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array([value], np.float32))


def values(folder: Path, *names: str) -> list[tuple[float, ...]]:
    """Return what every sample holds, by the order of the inputs."""
    samples = load_samples(folder, inputs(*names))
    return [tuple(float(sample[name][0]) for name in names) for sample in samples]


# --- folders


@pytest.mark.parametrize("folder", ["input:0", "input_0"])
def test_the_folder_of_an_input_has_its_very_name_or_an_allowed_one(
    tmp_path: Path, folder: str
) -> None:
    write(tmp_path / folder / "0.npy", 1)
    assert values(tmp_path, "input:0") == [(1,)]


def test_inputs_that_share_an_allowed_name_may_have_folders_of_their_very_names(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a:b" / "0.npy", 1)
    write(tmp_path / "a_b" / "0.npy", 2)
    with pytest.raises(DataError, match="'a:b' has two folders"):
        values(tmp_path, "a:b")
    write(tmp_path / "scope" / "x" / "0.npy", 3)
    assert values(tmp_path, "scope/x", "a_b") == [(3, 2)]


def test_the_name_of_an_input_leads_nowhere_else(tmp_path: Path) -> None:
    write(tmp_path / "outside" / "0.npy", 1)
    (tmp_path / "data" / "x").mkdir(parents=True)
    for name in ("../outside", str(tmp_path / "outside")):
        with pytest.raises(DataError, match="no folder for input"):
            values(tmp_path / "data", name)


def test_folders_may_be_given_with_the_names_of_their_inputs(tmp_path: Path) -> None:
    write(tmp_path / "one" / "0.npy", 1)
    write(tmp_path / "two" / "0.npy", 2)
    given = f"y={tmp_path / 'two'}; x={tmp_path / 'one'}"
    (sample,) = load_samples(given, inputs("x", "y"))
    assert (sample["x"], sample["y"]) == (1, 2)
    with pytest.raises(DataError, match="no folder for input 'z'"):
        load_samples(given, inputs("x", "y", "z"))
    with pytest.raises(DataError, match="'x' is given two folders"):
        load_samples(f"x={tmp_path};x={tmp_path}", inputs("x", "y"))


# --- side by side


def test_files_side_by_side_pair_by_batch_whatever_their_prefix(tmp_path: Path) -> None:
    for batch in (0, 2, 10):
        write(tmp_path / f"b{batch}_input_data_imgs.npy", batch)
        write(tmp_path / f"b{batch}_input_data_da_mask.npy", batch + 0.5)
    assert values(tmp_path, "imgs", "da_mask") == [(0, 0.5), (2, 2.5), (10, 10.5)]


def test_files_side_by_side_need_no_prefix(tmp_path: Path) -> None:
    write(tmp_path / "b0_x.npy", 1)
    write(tmp_path / "b0_y:0.npy", 2)
    write(tmp_path / "b0_cam_z_0.npy", 3)
    assert values(tmp_path, "x", "y:0", "z:0") == [(1, 2, 3)]


def test_a_name_that_ends_like_another_is_told_apart(tmp_path: Path) -> None:
    for name, value in (("mask", 1), ("da_mask", 2), ("lane_da_mask", 3)):
        write(tmp_path / f"b0_input_data_{name}.npy", value)
    assert values(tmp_path, "mask", "lane_da_mask", "da_mask") == [(1, 3, 2)]


def test_what_cannot_be_told_apart_is_refused(tmp_path: Path) -> None:
    for prefix in ("left", "right"):
        for name in ("mask", "image"):
            write(tmp_path / f"b0_{prefix}_{name}.npy", 0)
    with pytest.raises(DataError, match="two files may be of input 'mask': b0_left_mask and"):
        values(tmp_path, "mask", "image")


def test_the_only_input_may_stand_among_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As after ``--input_value`` has made the other one a constant."""
    for batch in range(2):
        write(tmp_path / f"b{batch}_image.npy", batch)
        write(tmp_path / f"b{batch}_rate.npy", 16_000)
    assert values(tmp_path, "image") == [(0,), (1,)]
    assert "2 files belong to no input: b0_rate.npy, b1_rate.npy" in caplog.text


def test_files_of_the_only_input_may_be_called_anything(tmp_path: Path) -> None:
    write(tmp_path / "b0_cat.npy", 1)
    write(tmp_path / "b1_dog_x.npy", 2)
    assert values(tmp_path, "x") == [(1,), (2,)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["b0_x", "b1_x", "b0_y"], "batch 1 has no file for input 'y'"),
        (["b0_x", "b0_z"], "there is no file for input 'y'"),
        (["b0_x", "b0_y", "b00_y"], "batch 0 is there twice"),
    ],
)
def test_what_is_missing_or_twice_is_named(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        write(tmp_path / f"{name}.npy", 0)
    with pytest.raises(DataError, match=message):
        values(tmp_path, "x", "y")


# --- what is no file


@pytest.mark.parametrize("inside", ["", "x"], ids=["direct", "own folder"])
@pytest.mark.parametrize(
    ("kind", "title"),
    [
        ("link", "a broken link to nowhere.npy"),
        ("circle", "a broken link to 1.npy"),
        ("pipe", "a pipe"),
        ("folder", "a folder"),
        ("socket", "a socket"),
        ("device", "a device"),
    ],
)
def test_what_is_called_like_a_sample_and_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, title: str, inside: str
) -> None:
    write(tmp_path / inside / "0.npy", 0)
    monkeypatch.chdir(tmp_path / inside)  # names of sockets are short
    bound = socket.socket(socket.AF_UNIX)
    made = {
        "link": lambda: os.symlink("nowhere.npy", "1.npy"),
        "circle": lambda: os.symlink("1.npy", "1.npy"),
        "pipe": lambda: os.mkfifo("1.npy"),
        "folder": lambda: os.mkdir("1.npy"),
        "socket": lambda: bound.bind("1.npy"),
        "device": lambda: os.symlink(os.devnull, "1.npy"),
    }
    try:
        made[kind]()
        with pytest.raises(DataError, match=f"a sample is {title}") as caught:
            values(tmp_path, "x")
    finally:
        bound.close()
    assert caught.value.where == str(tmp_path / inside / "1.npy")


def test_links_that_lead_to_files_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "store" / "a.npy", 1)
    (tmp_path / "data" / "x.npy").mkdir(parents=True)  # the folder of an input, not a sample
    (tmp_path / "data" / "x.npy" / "0.npy").symlink_to(tmp_path / "store" / "a.npy")
    assert values(tmp_path / "data", "x.npy") == [(1,)]


def test_a_broken_link_in_the_place_of_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("nowhere")
    write(tmp_path / "y" / "0.npy", 0)
    with pytest.raises(DataError, match="no folder for input 'x'") as caught:
        values(tmp_path, "x", "y")
    assert caught.value.why == "x is a broken link to nowhere; folders here: y"


# --- open lengths


@pytest.mark.parametrize("archive", [False, True])
def test_the_first_sample_decides_on_lengths_that_the_network_leaves_open(
    tmp_path: Path, archive: bool
) -> None:
    shape = (1, "height", "width")
    expected = [Expected(name=name, dtype=F32, shape=shape) for name in ("x", "y")]
    for index, width in enumerate((8, 8, 10)):
        arrays = {"x": np.zeros((1, 4, 8), np.float32), "y": np.zeros((1, 2, width), np.float32)}
        if archive:
            np.savez(tmp_path / f"{index}.npz", **arrays)
            continue
        for name, array in arrays.items():
            (tmp_path / name).mkdir(exist_ok=True)
            np.save(tmp_path / name / f"{index}.npy", array)
    samples = load_samples(tmp_path, expected).closed()
    assert [e.shape for e in samples.inputs] == [(1, 4, 8), (1, 2, 8)]
    assert samples[1]["y"].shape == (1, 2, 8)
    with pytest.raises(DataError, match="'y' takes shape 1x2x8, not 1x2x10") as caught:
        samples[2]
    last, first = ("2.npz, array 'y'", "0.npz") if archive else ("y/2.npy", "y/0.npy")
    assert caught.value.where == f"{tmp_path}/{last}"
    assert f"leaves 1xheightxwidth open, and the first sample, {tmp_path}/{first}, is 1x2x8" in (
        caught.value.why
    )
    closed = load_samples(tmp_path, samples.inputs)
    assert closed.closed() is closed
