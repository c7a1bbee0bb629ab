"""What the vendor's tuning chapter does with a calibrated model, as scripts of our own.

Each runs twice: with the package's name replaced, in this process, and with the vendor's names
under ``jptq run``.
"""

from __future__ import annotations

import dataclasses
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from jptq import ir
from jptq.cli.main import main
from jptq.hmct.calibration import CalibrationNode
from jptq.hmct.common import find_input_calibration
from jptq.hmct.executor import ORTExecutor
from jptq.hmct.ir import OnnxModel, load_model
from jptq.ir import Model
from jptq.quant.calibrated import assignment_of, plan_of, thresholds_of
from tests.hmct import networks
from tests.hmct.networks import STEM
from tests.quant.networks import TARGET, float_model

SAMPLE = networks.feeds()[0]
Types = Mapping[str, str]


def by_replaced_name(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script.write_text(script.read_text().replace("from hmct", "from jptq.hmct"))
    monkeypatch.setattr("sys.argv", [str(script)])
    runpy.run_path(str(script), run_name="__main__")


def by_jptq_run(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["run", str(script)]) == 0


@dataclasses.dataclass
class Edit:
    """A folder in which scripts edit ``calibrated_model.onnx``.

    Attributes:
      folder: Where.
      run: One of the two ways.
      monkeypatch: Of the test.
    """

    folder: Path
    run: Callable[[Path, pytest.MonkeyPatch], None]
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, text: str, model: Model) -> tuple[Types, Types]:
        """Return the types of all quantizers before and after a script."""
        ir.save(model, self.folder / "calibrated_model.onnx")
        script = self.folder / "script.py"
        script.write_text(text)
        self.run(script, self.monkeypatch)
        return assignment_of(model), assignment_of(self.edited)

    @property
    def edited(self) -> Model:
        """What the last script saved."""
        return ir.load(self.folder / "calibrated_model_modified.onnx")


@pytest.fixture(params=[by_replaced_name, by_jptq_run])
def edit(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Edit:
    monkeypatch.chdir(tmp_path)
    return Edit(tmp_path, request.param, monkeypatch)


def differing(before: Types, after: Types) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def input_of(model: Model, node: str, index: int) -> str:
    """Return the quantizer of an operand that is quantized directly."""
    return model.producers[model.by_name[node].inputs[index]].name


def kinds(model: Model) -> Types:
    return {c.name: c.kind for c in plan_of(model, TARGET).calibrations}


HEAD = """\
from hmct.common import find_input_calibration, find_output_calibration
from hmct.ir import load_model, save_model

model = load_model("calibrated_model.onnx")
"""
TAIL = """
save_model(model, "calibrated_model_modified.onnx")
"""

ONE_QUANTIZER = f"""
calibration = model.graph.node_mappings["{STEM}_HzCalibration"]
assert calibration.qtype == "int8"
calibration.qtype = "QTYPE"
"""


@pytest.mark.seed("F1", "F2", "F3")
@pytest.mark.parametrize("qtype", ["int16", "float16", "float32"])
def test_one_quantizer_takes_another_type(edit: Edit, qtype: str) -> None:
    script = HEAD + ONE_QUANTIZER.replace("QTYPE", qtype) + TAIL
    before, after = edit(script, networks.calibrated())
    assert after == {**before, f"{STEM}_HzCalibration": qtype}


BY_KIND = """
for calibration in model.graph.type2nodes["HzCalibration"]:
    if calibration.tensor_type == "KIND":
        calibration.qtype = "int16"
"""


@pytest.mark.seed("F2", "F4")
@pytest.mark.parametrize("kind", ["feature", "weight"])
def test_all_quantizers_of_a_kind_take_int16(edit: Edit, kind: str) -> None:
    model = networks.calibrated()
    before, after = edit(HEAD + BY_KIND.replace("KIND", kind) + TAIL, model)
    assert differing(before, after) == {name for name, k in kinds(model).items() if k == kind}


ALL = """
for calibration in model.graph.type2nodes["HzCalibration"]:
    calibration.qtype = "int16"
"""


@pytest.mark.seed("D2", "F2")
def test_all_quantizers_take_int16_and_keep_their_thresholds(edit: Edit) -> None:
    model = networks.calibrated("int16")
    before, after = edit(HEAD + ALL + TAIL, model)
    assert set(after.values()) == {"int16"}
    assert set(before.values()) == {"int8", "int16"}
    kept, thresholds = thresholds_of(edit.edited), thresholds_of(model)
    for name, values in thresholds.items():
        np.testing.assert_array_equal(kept[name], values)


INPUTS_OF_A_NODE = """
for node in model.graph.nodes:
    if node.name in ["Conv_0"]:
        for position in range(len(node.inputs)):
            found = find_input_calibration(node, position)
            if found and found.tensor_type == "feature":
                found.qtype = "int16"
"""


@pytest.mark.seed("F5", "F7")
def test_the_feature_inputs_of_one_node_take_int16(edit: Edit) -> None:
    before, after = edit(HEAD + INPUTS_OF_A_NODE + TAIL, networks.calibrated())
    assert differing(before, after) == {"x_HzCalibration"}


# The chapter's own lines look for the quantizer behind the node and then set the one before it,
# a variable left over from the lines above. What its comment says is meant here.
OUTPUT_OF_A_NODE = """
for node in model.graph.nodes:
    if node.name in ["Conv_0"]:
        found = find_output_calibration(node)
        if found and found.tensor_type == "feature":
            found.qtype = "int16"
"""


@pytest.mark.seed("F5")
def test_the_output_of_one_node_takes_int16(edit: Edit) -> None:
    before, after = edit(HEAD + OUTPUT_OF_A_NODE + TAIL, networks.calibrated())
    assert differing(before, after) == {f"{STEM}_HzCalibration"}


INPUTS_OF_A_TYPE = INPUTS_OF_A_NODE.replace('node.name in ["Conv_0"]', 'node.op_type in ["Conv"]')


@pytest.mark.seed("F5", "F7")
def test_the_feature_inputs_of_all_nodes_of_a_type_take_int16(edit: Edit) -> None:
    before, after = edit(HEAD + INPUTS_OF_A_TYPE + TAIL, networks.calibrated())
    assert differing(before, after) == {"x_HzCalibration", "Add_7:0_HzCalibration"}


THRESHOLDS = f"""
import numpy as np

calibration = model.graph.node_mappings["{STEM}_HzCalibration"]
assert tuple(calibration.thresholds) == (8.0,)
calibration.thresholds = VALUES
"""


@pytest.mark.seed("F6")
@pytest.mark.parametrize("values", ["[4.23]", "np.array([4.23])"])
def test_thresholds_are_set_as_a_list_or_an_array(edit: Edit, values: str) -> None:
    edit(HEAD + THRESHOLDS.replace("VALUES", values) + TAIL, networks.calibrated())
    found = thresholds_of(edit.edited)[f"{STEM}_HzCalibration"]
    np.testing.assert_array_equal(found, np.asarray([4.23], np.float32))


TRIAL = """
raised = NODES
for node in model.graph.nodes:
    if node.name not in raised:
        continue
    if node.op_type in ["Conv", "ConvTranspose", "MatMul"]:
        second = find_input_calibration(node, 1)
        if second and second.tensor_type == "weight":
            second.qtype = "int16"
    for op_type, default in (("Resize", "nearest"), ("GridSample", "bilinear")):
        if node.op_type == op_type:
            first = find_input_calibration(node, 0)
            if first and first.tensor_type == "feature":
                first.qtype = "int16"
            if node.attributes.get("mode", default) == "nearest":
                behind = find_output_calibration(node)
                if behind and behind.tensor_type == "feature":
                    behind.qtype = "int16"
"""


@pytest.mark.seed("D3")
@pytest.mark.parametrize(
    ("node", "inputs", "behind"),
    [
        ("Conv_0", [1], []),
        ("ConvTranspose_2", [1], []),
        ("MatMul_10", [1], []),
        ("Resize_3", [0], ["Resize_3:0_HzCalibration"]),  # nearest
        ("Resize_4", [0], []),  # linear
        ("GridSample_5", [0], ["GridSample_5:0_HzCalibration"]),  # nearest
        ("GridSample_6", [0], []),  # bilinear
    ],
)
def test_the_compensation_trial_raises_what_compensation_would(
    edit: Edit, node: str, inputs: list[int], behind: list[str]
) -> None:
    model = networks.calibrated()
    before, after = edit(HEAD + TRIAL.replace("NODES", repr([node])) + TAIL, model)
    expected = {input_of(model, node, index) for index in inputs} | set(behind)
    assert differing(before, after) == expected
    assert {after[name] for name in expected} == {"int16"}


@pytest.mark.seed("D3")
def test_the_compensation_trial_leaves_a_dynamic_second_operand_alone(edit: Edit) -> None:
    model = networks.calibrated()
    before, after = edit(HEAD + TRIAL.replace("NODES", "['MatMul_12']") + TAIL, model)
    assert before == after


# --- what the edits do to the numbers ------------------------------------------------------------


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    ORTExecutor(networks.calibrated()).inference(SAMPLE)  # compiles what the tests run
    return ORTExecutor(networks.floating()).inference(SAMPLE)["Conv_8:0"]


def score(model: OnnxModel | Model, reference: np.ndarray) -> float:
    return cosine(ORTExecutor(model).inference(SAMPLE)["Conv_8:0"], reference)


def calibrations(model: OnnxModel) -> list[CalibrationNode]:
    found = model.graph.type2nodes["HzCalibration"]
    return [node for node in found if isinstance(node, CalibrationNode)]


def raised(model: OnnxModel, node: str) -> OnnxModel:
    """Raise a node's second operand, as the trial does."""
    found = find_input_calibration(model.graph.node_mappings[node], 1)
    assert found is not None
    found.qtype = "int16"
    return model


@pytest.mark.seed("D2")
def test_true_int16_is_the_ceiling_far_above_all_int16(reference: np.ndarray) -> None:
    int8, int16 = (score(networks.calibrated(q), reference) for q in ("int8", "int16"))
    true = load_model(networks.calibrated("int16"))
    for node in calibrations(true):
        node.qtype = "int16"
    ceiling = score(true, reference)
    assert int8 < int16 < ceiling
    assert ceiling > 0.9999
    assert 1 - ceiling < (1 - int16) / 100


@pytest.mark.seed("D3")
def test_each_raised_node_brings_all_int16_nearer_to_the_ceiling(reference: np.ndarray) -> None:
    model = load_model(networks.calibrated("int16"))
    before = score(model, reference)
    for name in ("Conv_0", "ConvTranspose_2", "Conv_8"):
        raised(model, name)
    assert score(model, reference) > before


X = {"x": SAMPLE["x"]}


@pytest.mark.slow
@pytest.mark.seed("B8")
def test_only_this_nodes_quantizers_work_while_it_is_ranked() -> None:
    from jptq.hmct.quantizer.debugger import get_sensitivity_of_nodes

    printed = get_sensitivity_of_nodes(networks.small(), calibrated_data=[X])
    plain = ORTExecutor(float_model(networks.small_graph())).inference(X)
    for name, row in printed.items():
        model = load_model(networks.small())
        node = model.graph.node_mappings[name]
        own = {find_input_calibration(node, index) for index in range(len(node.inputs))}
        for calibration in calibrations(model):
            calibration.switch = "ON" if calibration in own else "OFF"
        naive = cosine(*(next(iter(o.values())) for o in (ORTExecutor(model).inference(X), plain)))
        assert float(row["cosine-similarity"]) == pytest.approx(naive, abs=1e-7)
    assert {"Conv_0", "MaxPool_1", "Slice_2", "Conv_6"} <= set(printed)


@pytest.mark.seed("B6")
def test_nodes_behind_one_quantizer_score_equal_to_the_last_bit_before_and_after_an_edit() -> None:
    from jptq.hmct.quantizer.debugger import get_sensitivity_of_nodes

    model = load_model(networks.small())
    views = [model.graph.node_mappings[name] for name in ("MaxPool_1", "Slice_2", "Tanh_3")]
    (shared,) = {find_input_calibration(node, 0) for node in views}
    assert shared is not None
    seen = set()
    for qtype in ("int8", "int16"):
        shared.qtype = qtype
        printed = get_sensitivity_of_nodes(model, calibrated_data=[X])
        scores = {printed[node.name]["cosine-similarity"] for node in views}
        assert len(scores) == 1
        seen |= scores
    assert len(seen) == 2


@pytest.mark.seed("B9")
def test_the_ranking_of_an_all_int16_model_begins_with_what_is_still_int8() -> None:
    from jptq.hmct.quantizer.debugger import get_sensitivity_of_nodes

    model = load_model(networks.small("int16"))
    left = {node.name for node in calibrations(model) if node.qtype == "int8"}
    assert left == {"constant_0_HzCalibration", input_of(networks.small(), "Conv_6", 1)}
    printed = get_sensitivity_of_nodes(model, calibrated_data=[X])
    assert set(list(printed)[:2]) == {"Conv_0", "Conv_6"}
    lost = [1 - float(row["cosine-similarity"]) for row in printed.values()]
    assert min(lost[:2]) > 10 * max(map(abs, lost[2:]))
