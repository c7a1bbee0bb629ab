"""Whatever is wrong with the input: one clear error, and no result file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.conftest import Ended, Files
from tests.graphs import Graph

Jptq = Callable[..., Ended]


def refused(jptq: Jptq, files: Files, *said: str, flags: tuple[str, ...] = ()) -> None:
    out = files.folder / "out"
    ended = jptq("tune", *files.flags, f"--out={out}", *flags)
    assert ended.code == 2, ended.err
    assert ended.err.count("jptq: error: ") == 1
    assert ended.out == ""
    for text in said:
        assert text in ended.err
    # Findings of steps that were fine may stay, to be reused; results may not.
    assert {path.name for path in out.glob("*")} <= {".jptq"}
    assert not list(Path.cwd().glob("jptq-error*"))


def test_a_nan_in_a_late_sample_names_its_file(jptq: Jptq, files: Files) -> None:
    array = np.zeros((1, 2, 6, 6), np.float32)
    array[0, 1, 2, 3] = np.nan
    files.sample(3, array)
    refused(jptq, files, "NaN", "003.npy", "(0, 1, 2, 3)")


def test_a_wrong_shape_names_the_file_and_both_shapes(jptq: Jptq, files: Files) -> None:
    files.sample(2, np.zeros((1, 2, 6, 7), np.float32))
    refused(jptq, files, "002.npy", "1x2x6x6", "1x2x6x7")


def test_one_sample_of_another_size_is_named_where_the_network_leaves_the_size_open(
    jptq: Jptq, files: Files
) -> None:
    g = Graph()
    g.output(g.conv(g.input("x", ("n", 2, "height", "width")), 2, 4, name="stem"))
    onnx.save(g.proto(), files.model)
    files.sample(2, np.zeros((1, 2, 6, 8), np.float32))
    refused(jptq, files, "002.npy", "1x2x6x6, not 1x2x6x8", "nx2xheightxwidth open", "000.npy")


def test_a_wrong_dtype_says_how_to_convert(jptq: Jptq, files: Files) -> None:
    files.sample(0, np.zeros((1, 2, 6, 6), np.float64))
    refused(jptq, files, "float64", "astype")


def test_an_empty_folder_is_named(jptq: Jptq, files: Files) -> None:
    for path in (files.data / "x").iterdir():
        path.unlink()
    refused(jptq, files, "no samples", str(files.data))


def test_an_absent_folder_is_named(jptq: Jptq, files: Files) -> None:
    refused(jptq, files, "nowhere", flags=("--calibration_data=nowhere",))


def test_a_shape_that_contradicts_the_file_is_not_blamed_on_the_samples(
    jptq: Jptq, files: Files
) -> None:
    said = ("cannot have shape [1, 2, 8, 8]", "declares it [1, 2, 6, 6]")
    refused(jptq, files, *said, flags=("--input_shape=x:1x2x8x8",))


def test_a_shape_or_value_of_no_input_names_the_inputs(jptq: Jptq, files: Files) -> None:
    refused(jptq, files, "unknown input 'y'", "x", flags=("--input_shape=y:1x2",))
    refused(jptq, files, "unknown input 'y'", "x", flags=("--input_value=y:1",))


def test_a_network_whose_only_input_is_fixed_is_refused(jptq: Jptq, files: Files) -> None:
    refused(jptq, files, "takes no input", flags=("--input_value=x:1",))


def test_unequal_counts_are_told(jptq: Jptq, files: Files) -> None:
    g = Graph()
    a, b = g.input("a", (1, 4)), g.input("b", (1, 4))
    g.output(g.add("Gemm", g.add("Add", a, b), g.random(4, 3)))
    onnx.save(g.proto(), files.model)
    for name, count in (("a", 2), ("b", 3)):
        (files.data / name).mkdir()
        for index in range(count):
            np.save(files.data / name / f"{index}.npy", np.zeros((1, 4), np.float32))
    refused(jptq, files, "different numbers", "a: 2, b: 3")


def test_a_truncated_model_is_called_damaged(jptq: Jptq, files: Files) -> None:
    files.model.write_bytes(files.model.read_bytes()[:-40])
    refused(jptq, files, "not a readable ONNX model", str(files.model))


def test_an_absent_model_is_named(jptq: Jptq, files: Files) -> None:
    files.model.unlink()
    refused(jptq, files, f"cannot read {files.model}")


def test_a_quantized_model_is_refused(jptq: Jptq, files: Files) -> None:
    g = Graph()
    scale, zero = g.constant(0.1), g.constant(np.int8(0))
    y = g.add("QuantizeLinear", g.input("x", (1, 2, 6, 6)), scale, zero)
    g.output(g.add("DequantizeLinear", y, scale, zero))
    onnx.save(g.proto(), files.model)
    refused(jptq, files, "quantized already", "give the float model")


def test_an_unknown_march_is_refused(jptq: Jptq, files: Files) -> None:
    refused(jptq, files, "unknown march 'nash-q'", "nash-e", flags=("--march=nash-q",))


def test_an_unknown_node_in_a_config_names_the_nearest(jptq: Jptq, files: Files) -> None:
    config = files.folder / "config.json"
    config.write_text(
        '{"model_config": {"activation": {"calibration_type": "max"}},'
        ' "node_config": {"steam": {"qtype": "int16"}}}'
    )
    refused(jptq, files, "'steam'", "'stem'", flags=(f"--quant_config={config}",))


def test_an_output_folder_that_is_a_file_is_refused_first(jptq: Jptq, files: Files) -> None:
    path = files.folder / "file"
    path.write_text("keep me")
    ended = jptq("tune", "--model=none", "--calibration_data=none", f"--out={path}")
    assert ended.code == 2
    assert "--out is a file" in ended.err
    assert path.read_text() == "keep me"


RUN = "import numpy as np; forward({'x': np.zeros((1, 2, 6, 6), np.float32)})"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ZeroDivisionError('user')", "ZeroDivisionError: user"),
        ("return float('nan')", "'score' is nan"),
        ("return 'good'", "not a number"),
        ("return {}", "no score"),
        ("return forward({'y': 0})", "'x'"),
        ("return 1.0", "without running the model"),
        (f"{RUN}; return 0.0", "the float model scores 0"),
        (f"{RUN}; import random; return random.random()", "differently each time"),
    ],
)
def test_an_unusable_evaluator_is_shown(jptq: Jptq, files: Files, body: str, said: str) -> None:
    script = files.folder / "score.py"
    script.write_text(f"def evaluate(forward):\n    {body}\n")
    config = files.folder / "config.json"
    config.write_text('{"model_config": {"activation": {"calibration_type": "max"}}}')
    refused(jptq, files, said, flags=(f"--evaluator={script}", f"--quant_config={config}"))


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "no function 'evaluate'"), ("import nothing_here", "nothing_here"), ("x =", "Syntax")],
)
def test_an_evaluator_that_cannot_be_loaded_is_refused(
    jptq: Jptq, files: Files, text: str, said: str
) -> None:
    script = files.folder / "score.py"
    script.write_text(text)
    refused(jptq, files, "--evaluator", said, flags=(f"--evaluator={script}",))


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--threads=100000", "100000"),
        ("--seed=99999999999999999999", "99999999999999999999"),
        ("--latency_budget_us=1e300", "1e+300"),
        (f"--out={'o' * 300}", "--out cannot be written"),
        ("--flagfile=/dev/zero", "no regular file"),
        ("--quant_config=/dev/zero", "it is a device"),
        ("--latency_table=/dev/zero", "it is a device"),
        ("--model=/dev/zero", "it is a device"),
    ],
)
def test_values_beyond_all_measure_are_refused(
    jptq: Jptq, files: Files, flag: str, said: str
) -> None:
    refused(jptq, files, said, flags=(flag,))


def test_flag_files_that_name_each_other_are_refused(jptq: Jptq, files: Files) -> None:
    one, other = files.folder / "one", files.folder / "other"
    one.write_text(f"--flagfile={other}\n")
    other.write_text(f"--march=nash-e\n--flagfile {one}\n")
    refused(jptq, files, "names itself", flags=(f"--flagfile={one}",))


def test_a_time_beyond_all_measure_names_its_node(jptq: Jptq, files: Files) -> None:
    table = files.folder / "times.csv"
    table.write_text("node,int8_us,int16_us\nstem,1,1e308\n")
    ended = jptq("latency", f"--model={files.model}", f"--latency_table={table}")
    assert (ended.code, "1e308" in ended.err, "stem" in ended.err) == (2, True, True)


def test_a_number_of_bins_beyond_all_measure_is_refused(jptq: Jptq, files: Files) -> None:
    config = files.folder / "config.json"
    config.write_text('{"model_config": {"activation": {"num_bin": 100000000000}}}')
    refused(jptq, files, "num_bin", "1048576", flags=(f"--quant_config={config}",))


@pytest.mark.parametrize("shape", ["(-1, 2, 6, 6)", "(1, 2, -6, -6)"])
def test_a_header_with_a_negative_length_names_the_file(
    jptq: Jptq, files: Files, shape: str
) -> None:
    path = files.data / "x" / "002.npy"
    content = path.read_bytes().replace(b"(1, 2, 6, 6), }" + b" " * 2, f"{shape}, }}".encode())
    content = content.replace(b"(1, 2, 6, 6), }", f"{shape}, }}".encode())
    header = content.index(b"\n")
    path.write_bytes(content[:header][: 127 - 0].ljust(127) + b"\n" + content[header + 1 :])
    refused(jptq, files, "002.npy", "not an .npy file")
