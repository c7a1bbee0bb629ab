from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jptq import sensitivity
from jptq.cli import flags, inputs, vocabulary
from jptq.cli.main import COMMANDS, _command
from jptq.errors import ConfigError, StorageError, UnknownNameError
from jptq.targets import marches
from jptq.tuning import SEARCHES
from tests.cli.conftest import Ended

NAMES = ("model", "samples", "resume", "metric", "output_node", "min_score", "kind")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_known_flags_once(command: str) -> None:
    module = _command(command)
    assert set(module.FLAGS) <= set(vocabulary.VOCABULARY)
    assert len(set(module.FLAGS)) == len(module.FLAGS)
    assert set(module.REQUIRED) <= set(module.FLAGS)


def test_every_flag_is_of_some_command() -> None:
    used = {name for command in COMMANDS for name in _command(command).FLAGS}
    assert used == set(vocabulary.VOCABULARY)


@pytest.mark.parametrize(
    ("flag", "names"),
    [
        ("march", marches()),
        ("search", SEARCHES),
        ("method", tuple(sensitivity.METHODS)),
        ("metric", sensitivity.METRICS_OF["metric"]),
    ],
)
def test_the_help_names_every_choice(flag: str, names: tuple[str, ...]) -> None:
    for name in names:
        assert name in vocabulary.VOCABULARY[flag].help


def test_flags_are_read_by_their_kind() -> None:
    values = flags.parse(
        "test",
        NAMES,
        ("model",),
        [
            "--model=m.onnx",
            "--samples=3",
            "--noresume",
            "--metric=mse,sqnr",
            "--output_node=a,b",
            "--output_node=c",
            "--min_score",
            "0.5",
        ],
    )
    assert (values.model, values.samples, values.resume) == ("m.onnx", 3, False)
    assert values.metric == ["mse", "sqnr"]
    assert values.output_node == ["a,b", "c"]
    assert values.min_score == 0.5
    assert values.kind == "node"


def test_two_commands_do_not_share_values() -> None:
    one = flags.parse("test", NAMES, (), ["--samples=3"])
    other = flags.parse("test", NAMES, (), [])
    assert (one.samples, other.samples) == (3, 8)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--samples=0", "0 is not"),
        ("--samples=many", "samples"),
        ("--min_score=-1", "min_score"),
        ("--kind=nodes", "kind"),
        ("stray", "unexpected argument 'stray'"),
    ],
)
def test_an_impossible_value_is_refused(argument: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        flags.parse("test", NAMES, (), [argument])


def test_an_unknown_flag_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        flags.parse("test", NAMES, (), ["--modle=x"])
    assert "'--model'" in caught.value.hint


def test_a_flag_of_another_command_is_unknown() -> None:
    with pytest.raises(UnknownNameError, match="--latency_budget_us"):
        flags.parse("test", NAMES, (), ["--latency_budget_us=4"])


def test_a_missing_flag_is_named() -> None:
    with pytest.raises(ConfigError, match="--model is missing"):
        flags.parse("test", NAMES, ("model",), [])


def test_a_flag_file_gives_flags(tmp_path: Path) -> None:
    path = tmp_path / "flags"
    path.write_text("# a comment\n--samples=5\n--noresume\n")
    values = flags.parse("test", NAMES, (), [f"--flagfile={path}"])
    assert (values.samples, values.resume) == (5, False)


def test_a_missing_flag_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="--flagfile") as caught:
        flags.parse("test", NAMES, (), [f"--flagfile={tmp_path / 'none'}"])
    assert "none" in caught.value.why


def test_input_shapes_may_have_colons_in_names() -> None:
    assert inputs.shapes(["x:0:1x3x8", "y:2"]) == {"x:0": (1, 3, 8), "y": (2,)}


def test_a_malformed_input_shape_comes_back_as_it_may_be_meant() -> None:
    for text in ("x:0:1,3,8", "x:0:[1, 3, 8]"):
        with pytest.raises(ConfigError) as caught:
            inputs.shapes([text])
        assert caught.value.hint == "--input_shape=x:0:1x3x8"


@pytest.mark.parametrize("text", ["x", "1x3", "x:", "x:1xb", ":1x2"])
def test_a_malformed_input_shape_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="NAME:SHAPE"):
        inputs.shapes([text])


def test_input_values_are_numbers_rows_or_files(tmp_path: Path) -> None:
    path = tmp_path / "grid.npy"
    np.save(path, np.ones((1, 2, 3), np.float32))
    found = inputs.values(["sr:0:16000", "k:1.5, -2", f"grid:{path}", "on:True"])
    assert found["sr:0"].shape == ()
    assert found["sr:0"].dtype.kind == "i"
    np.testing.assert_array_equal(found["k"], [1.5, -2])
    assert found["grid"].shape == (1, 2, 3)
    assert found["on"].dtype == np.bool_


@pytest.mark.parametrize("text", ["x", "16000", "x:", "x:many", ":3", "x:1,,2", 'x:"1"', "x:[1]"])
def test_a_malformed_input_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="NAME:VALUE"):
        inputs.values([text])


def test_an_input_value_in_an_absent_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        inputs.values(["x:none.npy"])


def test_an_input_is_fixed_once() -> None:
    with pytest.raises(ConfigError, match="'x' twice"):
        inputs.values(["x:1", "x:1"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--min_score=0.9"], "--min_score needs --evaluator"),
        (["--min_cosine=0.9", "--evaluator=e.py"], "--min_cosine with --evaluator"),
        (["--min_cosine=1.5"], "above 1"),
        (["--latency_budget_us=1", "--latency_budget_ratio=1"], "both"),
        (["--search=mlip"], "unknown search 'mlip'"),
        (["--method=prob"], "unknown method 'prob'"),
        (["--method=probe,metric"], "takes one value"),
        (["--loss=l.py"], "--loss with --method=metric"),
        (["--input_shape=x"], "NAME:SHAPE"),
        (["--input_value=x"], "NAME:VALUE"),
    ],
)
def test_contradictions_are_refused_before_any_work(
    jptq: Callable[..., Ended], arguments: list[str], said: str
) -> None:
    ended = jptq("tune", "--model=none.onnx", "--calibration_data=none", *arguments)
    assert ended.code == 2
    assert said in ended.err
    assert ended.err.startswith("jptq: error: ")
