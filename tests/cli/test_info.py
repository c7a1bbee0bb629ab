from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jptq import ir
from jptq.cli import info
from jptq.quant.calibrated import with_assignment
from jptq.quant.export import to_qdq
from jptq.report.vendor_tables import parse_distance_table
from tests.agreements import run
from tests.agreements.figures import angle
from tests.agreements.network import observed
from tests.cli.conftest import Ended
from tests.hmct import debugged, networks

Program = Callable[..., Ended]
Arrays = dict[str, np.ndarray]

NODES = "INFO:root:The main quantized node information:"
OUTPUTS = "INFO:root:The quantized model output:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model of one input and one of two, and their samples."""
    made = tmp_path_factory.mktemp("info")
    debugged.save(made, "m.onnx")
    ir.save(networks.calibrated(), made / "two.onnx")
    ir.save(networks.floating(), made / "float.onnx")
    for index, feeds in enumerate(networks.feeds(2)):
        for name, array in feeds.items():
            path = made / "two" / name / f"{index}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array)
    return made


@pytest.fixture
def program(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Program:
    """Return the program, run in the folder."""
    monkeypatch.chdir(folder)

    def run_program(*arguments: str) -> Ended:
        capsys.readouterr()
        code = info.main(arguments)
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    return run_program


def by_onnxruntime(names: list[str], behind: dict[str, str]) -> tuple[Arrays, Arrays]:
    """Return tensors of the float model, and what is behind them in the calibrated one."""
    model = debugged.calibrated()
    off = {node.name: "float32" for node in model.nodes if node.is_calibration}
    floating = to_qdq(observed(with_assignment(model, off), names))
    quantized = to_qdq(observed(model, [behind.get(name, name) for name in names]))
    (f,), (q,) = (run(one, debugged.samples(1)) for one in (floating, quantized))
    return f, q


def node_rows(text: str) -> dict[str, list[str]]:
    lines = text.splitlines()
    start, stop = lines.index(NODES), lines.index(OUTPUTS)
    return {line.split()[0]: line.split()[1:] for line in lines[start + 4 : stop]}


@pytest.mark.slow
@pytest.mark.seed("L")
def test_outputs_have_the_distances_that_onnxruntime_finds(program: Program) -> None:
    ended = program("m.onnx", "-c", "./calibration_data/images/00.npy")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0] == (
        "INFO:root:model file: m.onnx, calibration data: ['calibration_data/images/00.npy']"
    )
    title, header, rule, *rows = lines[lines.index(OUTPUTS) + 1 :]
    assert title == "=" * len(header)
    assert rule == "-" * len(header)
    assert {len(row) for row in rows} == {len(header)}
    f, q = by_onnxruntime([], {})
    found = parse_distance_table(ended.out)
    assert set(found) == {"Concat_1003:0", "Conv_404:0"}
    for name, (cosine, l1, l2, most) in found.items():
        error = np.abs(f[name] - q[name]).astype(np.float64)
        # Values on a rounding boundary fall to either side in two programs of one network.
        assert 1 - cosine == pytest.approx(angle(f[name], q[name]), rel=0.1, abs=1e-6)
        assert l1 == pytest.approx(error.mean(), rel=0.05)
        assert l2 == pytest.approx((error**2).mean(), rel=0.1)
        assert most == pytest.approx(error.max(), rel=0.1)


@pytest.mark.slow
@pytest.mark.seed("L")
def test_nodes_are_compared_behind_their_own_quantizer(program: Program) -> None:
    ended = program("m.onnx", "-c", "calibration_data/images/00.npy")
    rows = node_rows(ended.out)
    model = debugged.calibrated()
    behind = {n.inputs[0]: n.outputs[0] for n in model.nodes if n.is_calibration}
    tensors = {node.name: node.outputs[0] for node in model.operators()}
    assert list(rows) == [name for name in tensors if name in rows]
    f, q = by_onnxruntime(list(tensors.values()), behind)
    for name, (op, cosine, _, qtype) in rows.items():
        tensor = tensors[name]
        want = angle(f[tensor], q[behind.get(tensor, tensor)])
        assert 1 - float(cosine) == pytest.approx(want, rel=0.1, abs=1e-6), name
        assert (op, qtype) == (model.by_name[name].op, "int8")


@pytest.mark.slow
def test_a_node_has_the_threshold_of_its_first_input(program: Program) -> None:
    rows = node_rows(program("m.onnx", "-c", "calibration_data/images/00.npy").out)
    largest = max(np.abs(feeds["images"]).max() for feeds in debugged.samples())
    assert rows["Slice_4"][2] == rows["Concat_40"][2] == f"{largest:.6}"


@pytest.mark.slow
def test_a_folder_stands_for_its_first_sample(program: Program) -> None:
    by_file = program("m.onnx", "-c", "calibration_data/images/00.npy").out.splitlines()
    for given in ("calibration_data", "calibration_data/images"):
        assert program("m.onnx", "-c", given).out.splitlines()[1:] == by_file[1:]


@pytest.mark.slow
def test_several_inputs_take_a_file_or_folder_each_in_their_order(program: Program) -> None:
    by_file = program("two.onnx", "-c", "two/x/0.npy", "-c", "two/grid/0.npy")
    assert by_file.code == 0, by_file.err
    assert len(parse_distance_table(by_file.out)) == 2
    for given in (("-c", "two"), ("-c", "two/x", "-c", "two/grid/0.npy")):
        assert program("two.onnx", *given).out.splitlines()[1:] == by_file.out.splitlines()[1:]


@pytest.mark.slow
def test_without_data_a_random_sample_is_run_and_that_is_said(program: Program) -> None:
    ended = program("m.onnx")
    assert ended.code == 0
    assert "jptq-info: warning: the similarities mean nothing" in ended.err
    assert node_rows(ended.out).keys() >= {"Conv_41", "Mul_943"}
    assert program("m.onnx").out == ended.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: MODEL"),
        (("no.onnx",), "cannot read no.onnx"),
        (("two.onnx", "-c", "two/x/0.npy"), "1 files of calibration data for 2 inputs"),
        (("m.onnx", "-c", "m.onnx"), "not an .npy file"),
        (("m.onnx", "-c", "two/x/0.npy"), "takes shape 1x3x16x16, not 1x4x8x8"),
        (("m.onnx", "-c", "nothing.npy"), "cannot read nothing.npy"),
        (("float.onnx",), "the model has no quantizers"),
    ],
)
def test_wrong_usage_is_refused_in_words_that_name_it(
    arguments: tuple[str, ...], message: str, program: Program
) -> None:
    ended = program(*arguments)
    assert ended.code == 2
    assert message in ended.err
    assert "Traceback" not in ended.err


def test_the_version_is_printed(program: Program) -> None:
    assert program("--version").out.startswith("jptq-info ")


def test_help_starts_no_jax() -> None:
    code = (
        "import sys\nfrom jptq.cli import info\ninfo.main(['-h'])\n"
        "assert not {'jax', 'numpy', 'onnx', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
