from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from jptq import __version__, ir
from jptq.cli.main import main
from jptq.engine import Runner
from jptq.errors import ConfigError, DataError, ModelError, ShapeError, UnknownNameError
from jptq.hmct import api
from jptq.hmct.api import ORTExecutor, build_model, check_model, load_model
from jptq.hmct.calibration import CalibrationNode
from tests.graphs import Graph
from tests.hmct import networks
from tests.oracles import run_onnx

MAX: dict[str, Any] = {"model_config": {"activation": {"calibration_type": "max"}}}
FILES = ("original_float_model", "optimized_float_model", "calibrated_model", "ptq_model")


def tiny(batch: int | str = 1) -> onnx.ModelProto:
    g = Graph()
    y = g.batch_norm(g.conv(g.input("x", (batch, 2, 4, 4)), 2, 3, 1, name="stem", bias=False), 3)
    g.output(g.conv(g.swish(y, name="act"), 3, 2, 1, name="head"))
    return g.proto()


def samples(count: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((1, 2, 4, 4)).astype(np.float32) for _ in range(count)]


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@pytest.fixture(scope="module")
def log() -> Lines:
    return Lines()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, log: Lines) -> Path:
    """Return a folder with the files of an all-INT16 build."""
    folder = tmp_path_factory.mktemp("built")
    config = {"model_config": {"all_node_type": "int16", **MAX["model_config"]}}
    logger = logging.getLogger("jptq")
    logger.addHandler(log)
    before = logger.level
    logger.setLevel(logging.INFO)
    build_model(
        onnx_file=_saved(tmp_path_factory.mktemp("given")),
        march="nash-e",
        cali_data=samples(),
        quant_config=config,
        name_prefix=str(folder / "net"),
    )
    logger.removeHandler(log)
    logger.setLevel(before)
    return folder


def test_a_build_leaves_the_vendors_files(built: Path) -> None:
    expected = {f"net_{name}.onnx" for name in FILES} | {"net_quant_info.json"}
    assert {path.name for path in built.iterdir()} == expected


def test_the_float_models_compute_what_was_given(built: Path) -> None:
    feeds = {"x": samples()[0]}
    (expected,) = run_onnx(tiny(), feeds).values()
    (original,) = run_onnx(built / "net_original_float_model.onnx", feeds).values()
    np.testing.assert_array_equal(original, expected)
    optimized = ORTExecutor(str(built / "net_optimized_float_model.onnx")).inference(feeds)
    np.testing.assert_allclose(next(iter(optimized.values())), expected, atol=1e-5)


def test_nodes_of_the_optimized_model_have_the_vendors_names(built: Path) -> None:
    names = load_model(built / "net_optimized_float_model.onnx").graph.node_names
    assert names == ("stem", "act", "head")


@pytest.mark.seed("E1")
def test_the_calibrated_model_has_the_types_that_were_asked_for(built: Path) -> None:
    model = load_model(built / "net_calibrated_model.onnx")
    found = {
        node.tensor_type: node.qtype
        for node in model.graph.type2nodes["HzCalibration"]
        if isinstance(node, CalibrationNode)
    }
    assert found == {"feature": "int16", "weight": "int8"}
    assert (built / "net_ptq_model.onnx").read_bytes() == (
        built / "net_calibrated_model.onnx"
    ).read_bytes()


def test_quant_info_tells_types_thresholds_and_similarity(built: Path) -> None:
    info = json.loads((built / "net_quant_info.json").read_text())
    assert list(info) == ["stem", "act", "head"]
    head = info["head"]
    largest = max(float(np.abs(x).max()) for x in samples())
    assert info["stem"]["input_threshold"][0] == round(largest, 6)
    assert head["type"] == "Conv"
    assert head["input_qtype"] == ["int16", "int8"]
    assert len(head["input_name"]) == 2
    assert 0.999 < head["cosine_similarity"] <= 1
    assert info["act"]["output_threshold"] == head["input_threshold"][0]
    assert info["act"]["output_qtype"] == "int16"
    assert head["output_threshold"] is None


def test_the_stages_and_the_tables_are_logged(built: Path, log: Lines) -> None:
    stages = [line for line in log.said if line.startswith(("Start", "End", "Saving"))]
    assert stages == [
        "Start to prepare the onnx model.",
        f"Saving model to: {built}/net_original_float_model.onnx.",
        "End to prepare the onnx model.",
        "Start to optimize the onnx model.",
        "End to optimize the onnx model.",
        "Start to calibrate the model.",
        "End to calibrate the model.",
        *(f"Saving model to: {built}/net_{name}.onnx." for name in FILES[1:]),
    ]
    settings = log.said.index("All nodes in the model are set to datatype: int16")
    assert log.said[settings + 1 : settings + 3] == [
        "The activation calibration parameters:",
        "    calibration_type     : max",
    ]
    assert "Run calibration model with max method." in log.said[settings:]
    tables = "\n".join(log.said)
    assert "The main quantized node information:" in tables
    assert "The quantized model output:" in tables


def _saved(folder: Path) -> Path:
    onnx.save(tiny(), folder / "tiny.onnx")
    return folder / "tiny.onnx"


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [(None, ""), ("", ""), ("a", "a_"), ("a_", "a_"), ("out/", "out/"), ("out/a", "out/a_")],
)
def test_the_prefix_is_set_apart_from_the_name(prefix: str | None, expected: str) -> None:
    assert api._prefix(prefix) == expected


@pytest.mark.slow
def test_a_check_needs_no_data_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = check_model(tiny(), "nash-e")
    assert isinstance(found, onnx.ModelProto)
    thresholds = {
        node.thresholds
        for node in load_model(found).graph.type2nodes["HzCalibration"]
        if isinstance(node, CalibrationNode) and node.tensor_type == "feature"
    }
    assert thresholds == {(1.0,)}
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_builder_holds_all_models_and_open_shapes_can_be_given() -> None:
    found = build_model(
        tiny("n"),
        march="nash",
        cali_data={"x": samples()},
        cali_dict={"calibration_type": "max", "max_percentile": 0.9999},
        input_dict={"x": {"input_shape": [1, 2, 4, 4]}},
        output_nodes=["act"],
        save_model=False,
        return_builder=True,
        verbose=False,
        hbdk_dict={"jobs": 4},
    )
    assert isinstance(found, api.ModelBuilder)
    assert found.original_model.graph.input_shapes == [(1, 2, 4, 4)]
    assert found.optimized_model.graph.node_names == ("stem", "act")
    assert found.calibrated_model.graph.type2nodes["HzCalibration"]
    assert set(found.quant_info) == {"stem", "act"}


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"march": "nash-x"}, UnknownNameError, "unknown march 'nash-x'"),
        ({"march": "nash-h"}, ConfigError, "march 'nash-h' is not modelled"),
        ({"march": "bayes"}, UnknownNameError, "unknown march"),
        ({"cali_data": None}, DataError, "give cali_data"),
        ({"cali_data": {"y": samples()}}, UnknownNameError, "unknown input 'y'"),
        ({"onnx_model": None}, ConfigError, "give onnx_model or onnx_file"),
        ({"onnx_model": 3}, ModelError, "int is no model"),
        ({"prototxt_file": "a"}, ConfigError, "Caffe models are not read"),
        ({"node_dict": {"a": 1}}, ConfigError, "build_model has no node_dict"),
        ({"skip_step": ["skip_calibrater"]}, ConfigError, "has no skip_step"),
        ({"cali_date": 1}, UnknownNameError, "'cali_data'"),
        ({"cali_dict": {"calibration_typ": 1}}, UnknownNameError, "'calibration_type'"),
        ({"cali_dict": {"calibration_type": "kl"}}, ConfigError, "both say how to calibrate"),
        ({"input_dict": {"x": {"means": [1]}}}, ConfigError, "cannot set 'means'"),
        ({"output_nodes": ["hea"]}, UnknownNameError, "'head'"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_built(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    given = {"onnx_model": tiny(), "cali_data": samples(), "quant_config": MAX, **options}
    with pytest.raises(error, match=says):
        build_model(save_model=False, **given)


def test_a_list_of_samples_is_refused_where_there_are_several_inputs() -> None:
    with pytest.raises(DataError, match="the model has 2 inputs"):
        build_model(networks.floating(), cali_data=samples(), save_model=False)


def test_shapes_are_inferred() -> None:
    model = api.infer_shapes(tiny())
    assert model.graph.node_mappings["head"].output_shapes == ((1, 2, 4, 4),)
    with pytest.raises(ModelError, match="open"):
        api.infer_shapes(tiny("n"))


def test_the_version_is_ours() -> None:
    assert api.version == __version__


def test_exporting_without_pytorch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs PyTorch"):
        api.export_onnx(None, (), "x.onnx")


BUILD = """
import numpy as np
import sys
from hmct.api import build_model

rng = np.random.default_rng(0)
data = {"x": [rng.standard_normal((1, 2, 4, 4)).astype(np.float32) for _ in range(2)]}
config = {"model_config": {"activation": {"calibration_type": "max"}}}
built = build_model(onnx_file=sys.argv[1], march="nash-e", cali_data=data, quant_config=config,
                    name_prefix="output/net", verbose=False)
assert any(node.op_type == "HzCalibration" for node in built.graph.node)
"""


@pytest.mark.slow
def test_a_build_script_runs_with_the_vendors_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build.py").write_text(BUILD)
    assert main(["run", "build.py", str(_saved(tmp_path))]) == 0
    assert ir.load("output/net_calibrated_model.onnx").by_name["head"].op == "Conv"


def test_samples_of_another_shape_are_refused() -> None:
    with pytest.raises((DataError, ShapeError), match="takes shape 1x2x4x4"):
        build_model(tiny(), cali_data=[np.zeros((2, 4, 4), np.float32)], save_model=False)
    two = [np.zeros((n, 2, 4, 4), np.float32) for n in (1, 2)]
    with pytest.raises(DataError, match="takes shape 1x2x4x4, not 2x2x4x4") as caught:
        build_model(tiny("n"), cali_data=two, save_model=False)
    assert caught.value.where == "cali_data['x'][1]"
    with pytest.raises(DataError, match="NaN") as caught:
        build_model(tiny(), cali_data=[two[0] * np.nan], save_model=False)
    assert caught.value.where == "cali_data['x'][0]"


@pytest.mark.slow
def test_a_build_makes_one_runner_whose_programs_are_compiled_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    plain = Runner.__init__

    def counted(self: Runner, *args: Any, **options: Any) -> None:
        made.append(self)
        plain(self, *args, **options)

    monkeypatch.setattr(Runner, "__init__", counted)
    # Several methods are tried against each other: per channel and asymmetric ones too.
    build_model(tiny(), cali_data=samples(), save_model=False)
    assert len(made) == 1
    assert set(made[0].compilations.counts.values()) == {1}
    assert {"observe", "quantized forward", "walk"} <= {
        name.partition(" 0-")[0] for name in made[0].compilations.counts
    }
