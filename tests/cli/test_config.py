from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from jptq import ir
from jptq.api import timing
from jptq.quant.calibrated import assignment_of, plan_of, thresholds_of
from jptq.quant.config import load_config
from jptq.targets import load_target
from tests.cli.conftest import Ended, Files
from tests.graphs import Graph
from tests.quant.networks import branches

Jptq = Callable[..., Ended]

CONFIG = """
quant_config = {
    "model_config": {"all_node_type": "int16"},
    "node_config": {
        "stem": {"input1": "ec"},  # twice the same, as in the vendor's own
        "stem": {"input1": "ec"},
        "body": {"input1": "int16"},
    },
}
"""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Return a float network on disk."""
    path = tmp_path / "branches.onnx"
    onnx.save(branches().proto(), path)
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration on disk, as the vendor's document writes it."""
    path = tmp_path / "quant_config.py"
    path.write_text(CONFIG)
    return path


def calibrated(jptq: Jptq, files: Files, name: str, content: dict[str, object]) -> Path:
    """Calibrate the tiny network; return the calibrated model."""
    path, out = files.folder / f"{name}.json", files.folder / name
    path.write_text(json.dumps(content))
    assert jptq("calibrate", *files.flags, f"--quant_config={path}", f"--out={out}").code == 0
    return out / "calibrated_model.onnx"


@pytest.mark.seed("E1", "E3", "E5", "E6", "D1")
def test_every_operand_is_explained_with_its_rule_and_reason(
    jptq: Jptq, network: Path, config: Path
) -> None:
    ended = jptq("config", "explain", f"--model={network}", f"--quant_config={config}")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert "  input1 weight ec                node_config.input1" in lines
    assert "  input0        int16             all_node_type" in lines
    (body,) = [line for line in lines if "refused: input" in line]
    assert "int16 -> int8" in body
    assert body.endswith("input1 of Conv accepts int8 only (ec or dual-int16 would raise it)")
    assert "stem_split_low  Conv" in lines
    assert lines[-1].endswith("; 1 refused: asked for, but not applied")
    assert f"{config}, line 6: 'stem' stands twice" in ended.err


@pytest.mark.slow
def test_a_calibrated_model_explains_itself(jptq: Jptq, files: Files) -> None:
    model = calibrated(jptq, files, "int16", {"model_config": {"all_node_type": "int16"}})
    ended = jptq("config", "explain", f"--model={model}")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert "  input0        int16             calibrated model" in lines
    assert "  input1 weight int8              calibrated model" in lines
    assert lines[-1].endswith("0 refused: asked for, but not applied")
    plain = jptq("config", "explain", f"--model={files.model}")
    assert "  input0        int8              default" in plain.out.splitlines()


def test_a_node_that_is_fused_is_named_with_what_it_is_part_of(jptq: Jptq, tmp_path: Path) -> None:
    g = Graph()
    y = g.conv(g.input("x", (1, 2, 4, 4)), 2, 2, name="conv")
    g.output(g.conv(g.add("Mul", y, g.add("Sigmoid", y, name="gate"), name="act"), 2, 2))
    onnx.save(g.proto(), tmp_path / "net.onnx")
    (tmp_path / "c.json").write_text('{"node_config": {"gate": {"qtype": "int16"}}}')
    flags = (f"--model={tmp_path / 'net.onnx'}", f"--quant_config={tmp_path / 'c.json'}")
    ended = jptq("config", "explain", *flags)
    assert ended.code == 2
    assert "node 'gate' is fused into 'act'" in ended.err
    assert jptq("config", "explain", "--unmatched=warn", *flags).code == 0


def test_only_differences_are_shown_on_request(jptq: Jptq, network: Path, config: Path) -> None:
    command = ("config", "explain", f"--model={network}", f"--quant_config={config}", "--json")
    everything = json.loads(jptq(*command).out)
    differing = json.loads(jptq(*command, "--only=differences").out)
    assert differing == [one for one in everything if one["asked"] != one["applied"]]
    assert 0 < len(differing) < len(everything)


def test_unmatched_names_are_errors_unless_a_warning_is_asked_for(
    jptq: Jptq, network: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mistyped.json"
    path.write_text('{"node_config": {"stam": {"qtype": "int16"}, "gate": {"qtyp": "int16"}}}')
    command = ("config", "explain", f"--model={network}", f"--quant_config={path}")
    ended = jptq(*command)
    assert ended.code == 2
    assert "unknown key 'qtyp'" in ended.err
    path.write_text('{"node_config": {"stam": {"qtype": "int16"}}}')
    ended = jptq(*command)
    assert ended.code == 2
    assert "did you mean 'stem'" in ended.err
    ended = jptq(*command, "--unmatched=warn")
    assert ended.code == 0
    assert "unknown node 'stam' is ignored; did you mean 'stem'" in ended.err


@pytest.mark.slow
def test_calibrate_takes_unmatched_names_as_a_warning_on_request(jptq: Jptq, files: Files) -> None:
    path = files.folder / "mistyped.json"
    activation = {"calibration_type": "max"}
    content = {
        "model_config": {"activation": activation},
        "node_config": {"hed": {"input0": "int16"}},
    }
    path.write_text(json.dumps(content))
    command = ("calibrate", *files.flags, f"--quant_config={path}", "--out=out")
    ended = jptq(*command)
    assert ended.code == 2
    assert "did you mean 'head'" in ended.err
    ended = jptq(*command, "--unmatched=warn")
    assert ended.code == 0
    assert ended.err.count("unknown node 'hed' is ignored; did you mean 'head'") == 1


def test_ec_of_a_calibrated_model_is_explained_as_not_applied(jptq: Jptq, files: Files) -> None:
    settings = {"model_config": {"activation": {"calibration_type": "max"}}}
    model = calibrated(jptq, files, "int8", settings)
    path = files.folder / "ec.json"
    path.write_text('{"node_config": {"stem": {"input1": "ec"}}}')
    ended = jptq("config", "explain", f"--model={model}", f"--quant_config={path}")
    assert ended.code == 0
    assert "ec -> int8" in ended.out
    assert "has no stem_split_low; calibrate the float model with this quant_config" in ended.out


def test_check_names_what_another_graph_lacks_and_its_counterpart(
    jptq: Jptq, network: Path, config: Path, tmp_path: Path
) -> None:
    command = ("config", "check", f"--quant_config={config}")
    ended = jptq(*command, f"--against={network}")
    assert (ended.code, ended.out.splitlines()) == (
        0,
        [f"{network} has every node that {config} names"],
    )
    proto = branches().proto()
    for node in proto.graph.node:
        node.name = {"stem": "Conv_0", "body": "Conv_1"}.get(node.name, node.name)
    theirs = tmp_path / "theirs.onnx"
    onnx.save(proto, theirs)
    ended = jptq(*command, f"--against={theirs}", f"--model={network}")
    assert ended.code == 2
    first, second = ended.out.splitlines()
    assert first.startswith(f"node_config: no node 'stem' in {theirs}; likeliest 'Conv_0'")
    assert "same constants 4x4x3x3" in first
    assert "likeliest 'Conv_1'" in second
    found = json.loads(jptq(*command, f"--against={theirs}", f"--model={network}", "--json").out)
    assert [one["counterpart"] for one in found] == ["Conv_0", "Conv_1"]


@pytest.mark.slow
def test_configs_and_models_are_compared_by_their_tensors(jptq: Jptq, files: Files) -> None:
    base = {"activation": {"calibration_type": "max"}}
    int8 = calibrated(jptq, files, "int8", {"model_config": base})
    int16 = calibrated(jptq, files, "int16", {"model_config": {**base, "all_node_type": "int16"}})
    plan = plan_of(ir.load(int8), load_target("nash-e"))
    features = {c.tensor for c in plan.calibrations if c.kind == "feature"}
    command = ("config", "diff", "--json")
    found = json.loads(jptq(*command, str(int8), str(int16)).out)
    assert {one["tensor"] for one in found} == features
    assert {(one["first"]["qtype"], one["second"]["qtype"]) for one in found} == {("int8", "int16")}
    assert all(one["factor"] is None for one in found)

    exported = files.folder / "exported"
    assert jptq("export", f"--model={int16}", f"--out={exported}").code == 0
    qdq = exported / "qdq_model.onnx"
    ended = jptq("config", "diff", str(int16), str(qdq))
    assert (ended.code, ended.out) == (0, "no difference\n")
    ended = jptq("config", "diff", str(int8), str(qdq))
    assert f"{len(features)} tensors differ" in ended.out

    settings = (files.folder / "int16.json", files.folder / "int8.json")
    ended = jptq("config", "diff", *map(str, settings), f"--model={int8}")
    assert all(f"{tensor}  int16 -> int8" in ended.out for tensor in features)
    assert "thresholds" not in ended.out


@pytest.mark.slow
@pytest.mark.seed("E2")
def test_the_activation_settings_decide_the_thresholds(jptq: Jptq, files: Files) -> None:
    samples = np.concatenate([np.load(path) for path in sorted((files.data / "x").glob("*.npy"))])

    def of_input(**activation: object) -> np.ndarray:
        content = {"model_config": {"activation": {"calibration_type": "max", **activation}}}
        model = calibrated(jptq, files, f"run_{len(list(files.folder.iterdir()))}", content)
        return thresholds_of(ir.load(model))["x_HzCalibration"]

    magnitudes = np.abs(samples)
    np.testing.assert_allclose(of_input(), [magnitudes.max()], rtol=1e-6)
    share = 0.9
    least, most = np.quantile(magnitudes, [share - 0.02, share + 0.02])
    assert least <= of_input(max_percentile=share).item() <= most
    per_channel = magnitudes.max(axis=(0, 2, 3))
    np.testing.assert_allclose(of_input(per_channel=True), per_channel, rtol=1e-6)
    limits = [samples.min(), samples.max()]
    np.testing.assert_allclose(of_input(asymmetric=True), limits, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.seed("E5")
def test_every_text_form_gives_the_same_calibrated_model(jptq: Jptq, files: Files) -> None:
    forms = {
        "a.json": '{"model_config": {"all_node_type": "int16", '
        '"activation": {"calibration_type": "max"}}}',
        "b.jsonc": '{"model_config": {"all_node_type": "int16", // all\n'
        '"activation": {"calibration_type": "max"}}}',
        "c.py": "quant_config = {\n  'model_config': {  # all\n    'all_node_type': 'int16',\n"
        "    'activation': {'calibration_type': 'max'},\n  },\n}\n",
        "d.yaml": "model_parameters: {march: nash-e}\ncalibration_parameters:\n"
        "  calibration_type: max\n  optimization: set_all_nodes_int16\n",
    }
    found = []
    for name, text in forms.items():
        path, out = files.folder / name, files.folder / f"out_{name}"
        path.write_text(text)
        assert jptq("calibrate", *files.flags, f"--quant_config={path}", f"--out={out}").code == 0
        found.append(assignment_of(ir.load(out / "calibrated_model.onnx")))
    assert all(types == found[0] for types in found)
    assert "int16" in found[0].values()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "unknown action"),
        (("explian",), "did you mean 'explain'"),
        (("explain",), "--model is missing"),
        (("check", "--quant_config=q.json"), "--against is missing"),
        (("check", "extra", "--quant_config=q.json", "--against=m.onnx"), "argument 'extra'"),
        (("diff", "a.onnx"), "two files are compared, not 1"),
        (("diff", "a.json", "b.json"), "--model is missing"),
        (("explain", "--only=all"), "only"),
    ],
)
def test_wrong_usage_is_named(jptq: Jptq, words: tuple[str, ...], message: str) -> None:
    ended = jptq("config", *words)
    assert ended.code == 2
    assert message in ended.err


def test_a_float_model_has_nothing_to_compare(jptq: Jptq, network: Path) -> None:
    ended = jptq("config", "diff", str(network), str(network))
    assert ended.code == 2
    assert "the model has no quantizers" in ended.err


def test_an_open_batch_is_one_and_other_open_lengths_come_from_samples(
    jptq: Jptq, files: Files
) -> None:
    path = files.folder / "c.json"
    path.write_text('{"model_config": {"all_node_type": "int16"}}')
    command = ("config", "explain", f"--model={files.model}", f"--quant_config={path}")
    closed = jptq(*command)
    proto = onnx.load(files.model)
    lengths = proto.graph.input[0].type.tensor_type.shape.dim
    lengths[0].dim_param = "batch"
    onnx.save(proto, files.model)
    assert jptq(*command) == closed
    lengths[2].dim_param = lengths[3].dim_param = "side"
    onnx.save(proto, files.model)
    ended = jptq(*command)
    assert ended.code == 2
    assert "--input_shape=x:" in ended.err
    assert jptq(*command, f"--calibration_data={files.data}") == closed
    assert jptq(*command, "--input_shape=x:1x2x6x6") == closed


@pytest.mark.slow
def test_float16_is_calibrated_exported_compared_and_timed(jptq: Jptq, files: Files) -> None:
    base = {"activation": {"calibration_type": "max"}}
    types = {"op_config": {"GlobalAveragePool": {"qtype": "float16"}}}
    refused = calibrated(jptq, files, "refused", {"model_config": base, **types})
    assert "float16" not in assignment_of(ir.load(refused)).values()
    # nash-p takes float16 in all vector operators.
    path, out = files.folder / "refused.json", files.folder / "half"
    flags = (f"--quant_config={path}", "--march=nash-p")
    ended = jptq("calibrate", *files.flags, *flags, f"--out={out}")
    assert "1 float16" in ended.out
    model = out / "calibrated_model.onnx"
    ended = jptq("export", f"--model={model}", f"--out={out}")
    assert "QuantizeLinear and DequantizeLinear, 1 as casts to float16" in ended.out
    assert jptq("config", "diff", str(model), str(out / "qdq_model.onnx")).out == "no difference\n"
    ended = jptq("config", "diff", str(refused), str(model))
    assert "int16 -> float16" in ended.out
    assert jptq("latency", f"--model={model}", "--march=nash-p").code == 0
    ended = jptq("config", "explain", files.flags[0], *flags)
    assert "  input0        float16           op_config.GlobalAveragePool.qtype" in ended.out


def test_two_networks_are_not_compared(jptq: Jptq, network: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    proto = branches().proto()
    path = tmp_path / "c.json"
    path.write_text("{}")
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        value.name = f"other_{value.name}"
    for node in proto.graph.node:
        node.input[:] = [name and f"other_{name}" for name in node.input]
        node.output[:] = [f"other_{name}" for name in node.output]
    onnx.save(proto, other)
    sides = []
    for model in (network, other):
        target = load_target("nash-e")
        placed = timing.placed(model, load_config(path), target)
        sides.append(tmp_path / f"calibrated_{model.name}")
        ir.save(placed, sides[-1])
    ended = jptq("config", "diff", *map(str, sides))
    assert ended.code == 2
    assert "no tensor in common" in ended.err


@pytest.mark.slow
def test_int16_ec_of_an_operator_type_splits_its_nodes(jptq: Jptq, files: Files) -> None:
    base = {"activation": {"calibration_type": "max"}}
    content = {"model_config": base, "op_config": {"Conv": {"qtype": "int16-ec"}}}
    model = ir.load(calibrated(jptq, files, "compensated", content))
    assert {"stem_split_low", "stem_split_add"} <= model.by_name.keys()
    assert "head_split_low" not in model.by_name
    types = assignment_of(model)
    assert types["x_HzCalibration"] == "int16"
    command = ("config", "explain", files.flags[0])
    ended = jptq(*command, f"--quant_config={files.folder / 'compensated.json'}")
    assert "  input1 weight ec                op_config.Conv.qtype" in ended.out
    assert ended.out.rstrip().endswith("0 refused: asked for, but not applied")
