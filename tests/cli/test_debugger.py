from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from jptq.cli import debugger, info
from jptq.hmct.quantizer import debugger as functions
from jptq.report.vendor_tables import parse_distance_table, parse_sensitivity_table
from tests.cli.conftest import Ended
from tests.hmct import debugged

Program = Callable[..., Ended]

INT8 = (
    "hybridnets-384-640_calibrated_model.onnx",
    "yolop-384-640_calibrated_model.onnx",
    "lane_calibrated_model.onnx",
    "lane_calibrated_model_box.onnx",
)
FIVE = ("cosine-similarity", "mre", "mse", "sqnr", "chebyshev")
METRICS = "['cosine-similarity','mre','mse','sqnr','chebyshev']"
LINES = {
    f"hmct-debugger get-sensitivity-of-nodes {INT8[0]} calibration_data/ -n node -v True "
    "-s ./debug_result": ("cosine-similarity",),
    f"hmct-debugger get-sensitivity-of-nodes {INT8[1]} calibration_data/ -n node -v True "
    "-s ./debug_result": ("cosine-similarity",),
    f"hmct-debugger get-sensitivity-of-nodes {INT8[1]} calibration_data/ -n node "
    "-o Concat_1003 -v True -s det_debug_result/": ("cosine-similarity",),
    f"hmct-debugger get-sensitivity-of-nodes {INT8[1]} calibration_data/ -n node "
    "-o Concat_1003 -m mse -v True -s det_mse_debug_result/": ("mse",),
    f"hmct-info {INT8[1]} -c ./calibration_data/images/00.npy": (),
    "hmct-debugger get-sensitivity-of-nodes lane_calibrated_model_int16.onnx calibration_data/ "
    f"-m {METRICS} -n node -v True -s ./int16_debug_result": FIVE,
    f"hmct-debugger get-sensitivity-of-nodes {INT8[2]} calibration_data/ "
    f"-m {METRICS} -n node -v True -s ./debug_result": FIVE,
    f"hmct-debugger get-sensitivity-of-nodes {INT8[3]} calibration_data/ -m {METRICS} -n node "
    "-o Conv_404 -v True -s ./box_debug_result": FIVE,
}
"""The command lines of the tuning chapter, and the columns of what they print."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that the document's commands name."""
    made = tmp_path_factory.mktemp("tuning")
    debugged.save(made, *INT8)
    debugged.save(made, "lane_calibrated_model_int16.onnx", model=debugged.calibrated("int16"))
    return made


@pytest.fixture
def program(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Program:
    """Return the programs, run in the folder."""
    monkeypatch.chdir(folder)

    def run(line: str) -> Ended:
        capsys.readouterr()
        name, *arguments = shlex.split(line)
        code = {"jptq-debugger": debugger.main, "jptq-info": info.main}[name](arguments)
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    return run


@pytest.mark.slow
@pytest.mark.seed("B1", "B2", "B4", "B5", "B11")
def test_the_documents_command_lines_run_unchanged_but_for_the_programs_name(
    program: Program, folder: Path
) -> None:
    for line, metrics in LINES.items():
        ended = program(line.replace("hmct-", "jptq-", 1))
        assert ended.code == 0, (line, ended.err)
        if not metrics:
            assert set(parse_distance_table(ended.out)) == {"Concat_1003:0", "Conv_404:0"}
            continue
        read = parse_sensitivity_table(ended.out)
        assert read.title == "node sensitivity"
        assert read.metrics == metrics
        scores = [read.score(name) for name in read.rows]
        assert scores == sorted(scores, reverse=metrics[0] == "mse")
        words = shlex.split(line)
        saved = folder / words[words.index("-s") + 1]
        assert parse_sensitivity_table((saved / "node_sensitivity.log").read_text()).rows == (
            read.rows
        )
        content = json.loads((saved / "node_sensitivity.json").read_text())
        assert {row["name"] for row in content["rows"]} == set(read.rows)
        if "Concat_1003" in words:
            assert "Conv_404" not in read.rows
        elif "Conv_404" in words:
            assert "Mul_943" not in read.rows
        else:
            assert {"Conv_404", "Mul_943"} <= set(read.rows)


@pytest.mark.slow
@pytest.mark.seed("B1")
def test_verbose_false_prints_no_table(program: Program) -> None:
    ended = program(f"jptq-debugger get-sensitivity-of-nodes {INT8[0]} calibration_data -v False")
    assert ended.code == 0
    assert "node sensitivity=" not in ended.out


@pytest.mark.slow
def test_sensitive_samples_are_shown_and_saved_as_calibration_data(
    program: Program, folder: Path
) -> None:
    ended = program(
        f"jptq-debugger select-sensitive-samples {INT8[0]} calibration_data -m mse -n 2 -s worst"
    )
    assert ended.code == 0, ended.err
    order = [int(line.split()[0]) for line in ended.out.splitlines() if line[:1].isdigit()]
    assert len(order) == 2
    for position, index in enumerate(order):
        saved = np.load(folder / "worst" / "images" / f"{position:03}.npy")
        np.testing.assert_array_equal(saved, debugged.samples()[index]["images"])


OPTIONS: Mapping[str, tuple[str, str, dict[str, object]]] = {
    "short": (
        "get-sensitivity-of-nodes",
        "-m [mse,sqnr] -o Conv_1 -n weight -d 3 -v True -i [[a,b],c] -s out",
        {
            "metrics": ["mse", "sqnr"],
            "output_node": "Conv_1",
            "node_type": "weight",
            "data_num": 3,
            "verbose": True,
            "interested_nodes": [["a", "b"], "c"],
            "save_dir": "out",
        },
    ),
    "long": (
        "get-sensitivity-of-nodes",
        "--metrics mse --output_node Conv_1 --node_type node --data_num None --verbose False "
        "--interested_nodes [a] --save_dir out",
        {
            "metrics": "mse",
            "output_node": "Conv_1",
            "node_type": "node",
            "data_num": None,
            "verbose": False,
            "interested_nodes": ["a"],
            "save_dir": "out",
        },
    ),
    "defaults": (
        "get-sensitivity-of-nodes",
        "",
        {
            "metrics": "cosine-similarity",
            "output_node": None,
            "node_type": "node",
            "data_num": 1,
            "verbose": False,
            "interested_nodes": None,
            "save_dir": None,
        },
    ),
    "plot-acc-error": (
        "plot-acc-error",
        "-q [weight,activation] -nq [[a,b]] -m mse -a True",
        {
            "quantize_node": ["weight", "activation"],
            "non_quantize_node": [["a", "b"]],
            "metric": "mse",
            "average_mode": True,
            "save_dir": "./debug_result/",
        },
    ),
    "plot-distribution": (
        "plot-distribution",
        "-n a -s out",
        {"nodes_list": ["a"], "save_dir": "out"},
    ),
    "channelwise": (
        "get-channelwise-data-distribution",
        "--nodes_list [a,b] --axis 0",
        {"nodes_list": ["a", "b"], "axis": 0, "save_dir": "./debug_result/"},
    ),
    "sensitivity-analysis": (
        "sensitivity-analysis",
        "-m sqnr -p 0.99 -d 2 -sn [a,b] -q int16 -sd out",
        {
            "metric": "sqnr",
            "pick_threshold": 0.99,
            "data_num": 2,
            "sensitive_nodes": ["a", "b"],
            "qtype": "int16",
            "save_dir": "out",
        },
    ),
    "tensor-analysis": (
        "tensor-analysis",
        "-n [a] -np 4",
        {"node_names": ["a"], "num_processes": 4, "save_dir": "./debug_result/"},
    ),
    "runall": (
        "runall",
        "-s out -nm mse -o a -nt node -dn 2 -v True -i [a] -dnl [b] -cn [c] -a 1 -qn [d] "
        "-nqn [e] -am sqnr -avm True -pt 0.9 -sn [f]",
        {
            "save_dir": "out",
            "ns_metrics": "mse",
            "output_node": "a",
            "node_type": "node",
            "data_num": 2,
            "verbose": True,
            "interested_nodes": ["a"],
            "dis_nodes_list": ["b"],
            "cw_nodes_list": ["c"],
            "axis": 1,
            "quantize_node": ["d"],
            "non_quantize_node": ["e"],
            "ae_metric": "sqnr",
            "average_mode": True,
            "pick_threshold": 0.9,
            "sensitive_nodes": ["f"],
        },
    ),
}


@pytest.mark.seed("B1", "B4")
@pytest.mark.parametrize("case", OPTIONS)
def test_every_option_reaches_its_function(
    case: str, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, options, want = OPTIONS[case]
    given: dict[str, object] = {}
    function = debugger.COMMANDS[command].function
    monkeypatch.setitem(functions.__dict__, function, lambda **options: given.update(options))
    ended = program(f"jptq-debugger {command} model.onnx data {options}")
    assert ended.code == 0, ended.err
    given.pop("progress", None)
    assert given == {"model_or_file": "model.onnx", "calibrated_data": "data", **want}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("get-sensitivity m.onnx data", "did you mean 'get-sensitivity-of-nodes'"),
        ("get-sensitivity-of-nodes m.onnx", "the following arguments are required: DATA"),
        ("get-sensitivity-of-nodes m.onnx data -v maybe", "'maybe' is neither True nor False"),
        ("get-sensitivity-of-nodes m.onnx data -m [mse", "'[mse' is not a list"),
        ("get-sensitivity-of-nodes m.onnx data -i [[[a]]]", "nests lists too deep"),
        ("get-sensitivity-of-nodes m.onnx data -d two", "invalid int value: 'two'"),
        ("get-sensitivity-of-nodes m.onnx data -x 1", "unrecognized arguments: -x 1"),
        ("get-sensitivity-of-nodes m.onnx data", "cannot read m.onnx"),
        (f"get-sensitivity-of-nodes {INT8[0]} nowhere", "the calibration data is not a folder"),
        (f"get-sensitivity-of-nodes {INT8[0]} calibration_data -m cos", "unavailable method: cos"),
        (f"get-sensitivity-of-nodes {INT8[0]} calibration_data -n all", "node_type:all is unavail"),
        (f"get-sensitivity-of-nodes {INT8[0]} calibration_data -o Conv_40", "does not exist in"),
        (f"get-sensitivity-of-nodes {INT8[0]} calibration_data -d 9", "There are only 3 data"),
        (f"plot-acc-error {INT8[0]} calibration_data", "quantize_node"),
        (f"plot-acc-error {INT8[0]} calibration_data -q [Conv_4]", "does not exist in the model"),
        (f"plot-distribution {INT8[0]} calibration_data", "the option -n/--nodes_list is needed"),
        (f"plot-distribution {INT8[0]} calibration_data -n [Conv_4]", "does not exist in the"),
        (
            f"get-channelwise-data-distribution {INT8[0]} calibration_data -n [Conv_4]",
            "does not exist in the model",
        ),
        (f"sensitivity-analysis {INT8[0]} calibration_data -p high", "invalid float value"),
        (f"sensitivity-analysis {INT8[0]} calibration_data -q int5", "int5"),
        (f"tensor-analysis {INT8[0]} calibration_data", "-n/--node_names is needed"),
        (f"select-sensitive-samples {INT8[0]} calibration_data -n 9", "There are only 3 data"),
        (f"runall {INT8[0]} calibration_data -nt all", "node_type:all is unavailable"),
        (f"runall {INT8[0]} calibration_data -nm cos", "unavailable method: cos"),
    ],
)
def test_wrong_usage_is_refused_in_words_that_name_it(
    line: str, message: str, program: Program
) -> None:
    ended = program(f"jptq-debugger {line}")
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.startswith("jptq-debugger: error: ")
    assert len(ended.err.splitlines()) <= 4
    assert "Traceback" not in ended.err


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(program: Program) -> None:
    for command, option in (
        ("get-sensitivity-of-nodes", "-s"),
        ("sensitivity-analysis", "-sd"),
        ("runall", "-s"),
    ):
        ended = program(
            f"jptq-debugger {command} {INT8[0]} calibration_data {option} {INT8[0]}/sub"
        )
        assert ended.code == 2
        assert "choose another save_dir" in ended.err
        assert ended.out == ""


def test_a_needed_list_is_asked_for_if_somebody_is_there(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    given: dict[str, object] = {}

    def answer(question: str) -> str:
        asked.append(question)
        return "[a,b]"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setitem(functions.__dict__, "plot_distribution", lambda **o: given.update(o))
    assert program("jptq-debugger plot-distribution m.onnx data").code == 0
    assert asked == ["Specify nodes: "]
    assert given["nodes_list"] == ["a", "b"]


@pytest.mark.parametrize("command", ["", *debugger.COMMANDS])
def test_help_shows_every_option(command: str, program: Program) -> None:
    ended = program(f"jptq-debugger {command} -h")
    assert ended.code == 0
    named = debugger.COMMANDS[command].options if command else ()
    for option in named:
        assert all(flag in ended.out for flag in option.flags)
    if not command:
        assert all(name in ended.out for name in debugger.COMMANDS)


def test_without_arguments_the_help_is_shown(program: Program) -> None:
    ended = program("jptq-debugger")
    assert ended.code == 0
    assert "usage: jptq-debugger" in ended.out


def test_the_version_is_printed(program: Program) -> None:
    assert program("jptq-debugger --version").out.startswith("jptq-debugger ")


def test_help_starts_no_jax_and_is_quick() -> None:
    code = (
        "import sys\nfrom jptq.cli import debugger\n"
        "debugger.main(['runall', '-h'])\n"
        "assert not {'jax', 'numpy', 'onnx', 'matplotlib'} & set(sys.modules)"
    )
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert time.perf_counter() - started < 1.5
