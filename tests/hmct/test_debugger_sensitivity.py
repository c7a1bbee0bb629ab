from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from jptq import ir
from jptq.errors import DataError, JptqError, ModelError
from jptq.hmct.ir import load_model
from jptq.hmct.quantizer import debugger
from jptq.hmct.quantizer.debugger import get_sensitivity_of_nodes, loading
from jptq.hmct.quantizer.debugger.loading import ArgumentError
from jptq.ir.model import Model
from jptq.quant.calibrated import plan_of, with_assignment
from jptq.report.vendor_tables import parse_sensitivity_table
from jptq.sensitivity import exact
from jptq.tuning import prepare
from tests.hmct import debugged
from tests.hmct.debugged import DET, SEG
from tests.quant.networks import TARGET, float_model

METRICS = ("cosine-similarity", "mre", "mse", "sqnr", "chebyshev")
ASCENDING = ("cosine-similarity", "sqnr")
BEHIND_THE_INPUT = ("Slice_4", "Slice_9", "Concat_40")

Ranking = dict[str, dict[str, str]]


def rank(model: Model, metrics: str | tuple[str, ...] = METRICS, **options: object) -> Ranking:
    return get_sensitivity_of_nodes(
        model, metrics, debugged.samples(), **{"data_num": None, **options}
    )


@functools.cache
def of_int8() -> Ranking:
    return rank(debugged.calibrated())


def values(ranking: Ranking, metric: str) -> list[float]:
    return [float(row[metric]) for row in ranking.values()]


def weights_of(model: Model) -> dict[str, list[str]]:
    """Return the weight calibrations of each node."""
    plan = plan_of(model, TARGET)
    return {
        slots.node: [c for c in slots.calibrations if plan.calibration(c).kind == "weight"]
        for slots in plan.slots
    }


def agree(row: dict[str, str], want: dict[str, float]) -> None:
    """Compare with onnxruntime; mre divides by elements near zero, whose last bits count."""
    for metric, score in row.items():
        near = 2e-2 if metric == "mre" else 2e-3
        assert float(score) == pytest.approx(want[metric], rel=near, abs=1e-7), metric
    assert 1 - float(row["cosine-similarity"]) == pytest.approx(
        1 - want["cosine-similarity"], rel=2e-3
    )


# --- what is measured ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.seed("B8")
@pytest.mark.parametrize("node", ["Conv_41", "/encoder/_swish/Mul", "Mul_943", SEG])
def test_a_score_is_that_of_an_export_in_which_only_this_node_is_quantized(node: str) -> None:
    model = debugged.calibrated()
    members = plan_of(model, TARGET).of_node(node).calibrations
    # Mul_943 stands in the detector's branch: the other output has no error to average in.
    heads = ("Concat_1003:0",) if node == "Mul_943" else ("Concat_1003:0", "Conv_404:0")
    want = debugged.by_onnxruntime(model, members, heads, debugged.samples())
    agree(of_int8()[node], want)


@pytest.mark.slow
@pytest.mark.seed("B2")
def test_at_an_output_node_its_own_error_is_scored_and_other_branches_are_left_out() -> None:
    model = debugged.calibrated()
    found = rank(model, output_node="Mul_943")
    assert not {SEG, "Conv_707", DET} & set(found)
    assert {"Conv_41", "Sigmoid_11", "Mul_943"} <= set(found)
    members = plan_of(model, TARGET).of_node("Conv_41").calibrations
    want = debugged.by_onnxruntime(model, members, ("Mul_943:0",), debugged.samples())
    agree(found["Conv_41"], want)


@pytest.mark.slow
@pytest.mark.seed("B6")
def test_nodes_behind_one_calibration_have_equal_scores_to_the_last_bit() -> None:
    rows = [of_int8()[node] for node in BEHIND_THE_INPUT]
    assert rows[0] == rows[1] == rows[2]
    assert of_int8()["Conv_41"] != rows[0]


@pytest.mark.slow
@pytest.mark.seed("B9")
def test_the_ranking_of_an_all_int16_model_begins_with_its_int8_leftovers() -> None:
    model = debugged.calibrated("int16")
    found = rank(model)
    # One value per channel lies on its own grid: this weight loses nothing as int8.
    left = {n for n, w in weights_of(model).items() if w} - {"UNIT_CONV_FOR_BatchNormalization_141"}
    assert set(list(found)[: len(left)]) == left
    rest = [float(row["cosine-similarity"]) for node, row in found.items() if node not in left]
    assert min(rest) > 1 - 1e-7
    assert float(found[next(iter(found))]["cosine-similarity"]) < 1 - 1e-6


@pytest.mark.slow
@pytest.mark.seed("B7")
def test_rows_have_the_names_of_units_made_by_optimisation() -> None:
    model = debugged.calibrated()
    assert {
        "UNIT_CONV_FOR_BatchNormalization_141",
        "/encoder/_swish/Mul",
        "/encoder/_blocks.0/GlobalAveragePool",
    } <= set(of_int8())
    swish = model.by_name["/encoder/_swish/Mul"]
    assert swish.op == "HzSwish"
    # Inside the unit there is nothing to quantize: it reads the convolution's calibration alone.
    assert len(plan_of(model, TARGET).of_node(swish.name).calibrations) == 1


@pytest.mark.slow
@pytest.mark.seed("B7", "B10")
def test_a_compensated_node_and_its_low_part_score_nearly_alike() -> None:
    found = rank(debugged.calibrated("int8", "Conv_559"))
    high, low = (found[name] for name in ("Conv_559", "Conv_559_split_low"))
    for metric in ("mse", "sqnr", "mre"):
        assert float(low[metric]) == pytest.approx(float(high[metric]), rel=0.02)
    order = list(found)
    assert abs(order.index("Conv_559") - order.index("Conv_559_split_low")) == 1


@pytest.mark.slow
def test_a_calibration_that_is_float32_changes_nothing_and_ranks_last() -> None:
    model = debugged.calibrated()
    names = plan_of(model, TARGET).of_node("Mul_943").calibrations
    found = rank(with_assignment(model, dict.fromkeys(names, "float32")), ("mse",))
    assert found["Mul_943"] == {"mse": "0.0"}
    assert list(found)[-1] == "Mul_943"


@pytest.mark.slow
def test_switches_of_the_model_do_not_matter() -> None:
    model = debugged.calibrated()
    nodes = tuple(
        dataclasses.replace(node, attributes={**node.attributes, "switch": "OFF"})
        if node.is_calibration
        else node
        for node in model.nodes
    )
    assert rank(dataclasses.replace(model, nodes=nodes)) == of_int8()


# --- order and metrics ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.seed("B3")
@pytest.mark.parametrize("metric", METRICS)
def test_rows_are_sorted_worst_first_in_the_direction_of_the_metric(metric: str) -> None:
    found = values(rank(debugged.calibrated(), metric), metric)
    assert found == sorted(found, reverse=metric not in ASCENDING)
    assert found[0] != found[-1]


@pytest.mark.slow
@pytest.mark.seed("B4")
def test_five_metrics_take_one_sweep_and_the_first_sorts(monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps = []

    def counted(*args: object, **options: object) -> object:
        sweeps.append(options["metrics"])
        return rank_exactly(*args, **options)

    rank_exactly = exact.rank
    monkeypatch.setattr(exact, "rank", counted)
    metrics = ("mse", "cosine-similarity", "sqnr", "chebyshev", "mre")
    found = rank(debugged.calibrated(), metrics)
    assert sweeps == [metrics]
    assert all(tuple(row) == metrics for row in found.values())
    assert values(found, "mse") == sorted(values(found, "mse"), reverse=True)
    for metric in METRICS:
        alone = rank(debugged.calibrated(), metric)
        assert {n: row[metric] for n, row in found.items()} == {
            n: row[metric] for n, row in alone.items()
        }


@pytest.mark.slow
def test_by_default_only_the_first_sample_is_run() -> None:
    model = debugged.calibrated()
    found = get_sensitivity_of_nodes(model, METRICS, debugged.samples())
    members = plan_of(model, TARGET).of_node("Conv_41").calibrations
    heads = ("Concat_1003:0", "Conv_404:0")
    agree(found["Conv_41"], debugged.by_onnxruntime(model, members, heads, debugged.samples(1)))
    assert found["Conv_41"] != of_int8()["Conv_41"]


@pytest.mark.slow
def test_nodes_of_an_inner_list_are_quantized_together() -> None:
    model = debugged.calibrated()
    found = rank(model, interested_nodes=[["Conv_41", "Mul_943"], "Mul_943"], node_type="weight")
    assert set(found) == {"Conv_41+Mul_943", "Mul_943"}
    assert found["Mul_943"] == of_int8()["Mul_943"]
    plan = plan_of(model, TARGET)
    members = [c for node in ("Conv_41", "Mul_943") for c in plan.of_node(node).calibrations]
    heads = ("Concat_1003:0", "Conv_404:0")
    want = debugged.by_onnxruntime(model, members, heads, debugged.samples())
    assert float(found["Conv_41+Mul_943"]["mse"]) == pytest.approx(want["mse"], rel=2e-3)


# --- what comes out ------------------------------------------------------------------------------


@pytest.mark.slow
def test_values_are_numbers_as_strings_in_full_precision() -> None:
    for row in of_int8().values():
        for cell in row.values():
            assert isinstance(cell, str)
            assert str(float(cell)) == cell
    assert max(len(row["mse"]) for row in of_int8().values()) > 12


@pytest.mark.slow
def test_calibrations_come_with_their_nodes_thresholds_and_types() -> None:
    model = with_assignment(debugged.calibrated(), {"images_HzCalibration": "int16"})
    found = rank(model, "mse", node_type="activation")
    shared = found["images_HzCalibration"]
    assert list(shared) == ["node", "threshold", "qtype", "mse"]
    assert shared["node"] == "Slice_4;Slice_9;Concat_40"
    assert shared["qtype"] == "int16"
    largest = max(np.abs(feeds["images"]).max() for feeds in debugged.samples())
    assert float(shared["threshold"]) == pytest.approx(largest, abs=1e-5)
    weights = rank(model, "mse", node_type="weight")
    assert all(list(row) == ["node", "mse"] for row in weights.values())
    assert {row["node"] for row in weights.values()} == {
        node for node, names in weights_of(model).items() if names
    }


@pytest.mark.slow
@pytest.mark.seed("B5")
def test_the_logged_table_has_the_vendors_geometry(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        rank(debugged.calibrated(), ("cosine-similarity", "mse"), verbose=True)
    (record,) = [r for r in caplog.records if "sensitivity==" in r.getMessage()]
    assert record.name == "root"
    first, title, header, rule, *rows = record.getMessage().split("\n")
    longest = max(map(len, of_int8()))
    cell = max(len(str(round(v, 5))) for v in [*values(of_int8(), "mse")])
    total = (longest + 2) + (17 + 2) + (cell + 2)
    assert first == ""
    assert len(title) == total
    assert title.strip("=") == "node sensitivity"
    assert title.count("=", 0, title.index("n")) == (total - 16) // 2
    assert header.split() == ["node", "cosine-similarity", "mse"]
    assert rule == "-" * total
    assert all(len(line) == total for line in (header, *rows))
    for row, (name, scores) in zip(rows, of_int8().items(), strict=True):
        assert row.split() == [
            name,
            str(round(float(scores["cosine-similarity"]), 5)),
            str(round(float(scores["mse"]), 5)),
        ]


@pytest.mark.slow
def test_without_verbose_no_table_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        rank(debugged.calibrated(), "mse")
    assert not any("sensitivity==" in r.getMessage() for r in caplog.records)
    assert any(r.getMessage() == "Start calculating node sensitivity..." for r in caplog.records)


@pytest.mark.slow
@pytest.mark.seed("B11")
def test_the_ranking_is_saved_as_a_log_and_with_full_names(tmp_path: Path) -> None:
    found = rank(debugged.calibrated(), ("mse", "sqnr"), node_type="weight", save_dir=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "node_sensitivity.log",
        "node_sensitivity.json",
    }
    log = (tmp_path / "node_sensitivity.log").read_text()
    title, header, *_ = log.splitlines()
    assert title.strip("=") == "weight"
    assert header.split() == ["Node", "node", "mse", "sqnr"]
    read = parse_sensitivity_table(log)
    assert [row[0] for row in read.rows.values()] == [
        round(float(row["mse"]), 5) for row in found.values()
    ]
    content = json.loads((tmp_path / "node_sensitivity.json").read_text())
    assert {row["name"] for row in content["rows"]} == set(found)
    assert any(len(name) > 50 for name in found), "a long name shows that they are in full"


# --- what goes in --------------------------------------------------------------------------------


@pytest.mark.slow
def test_models_and_data_are_taken_in_any_form(tmp_path: Path) -> None:
    debugged.save(tmp_path, "m.onnx")
    path, folder = tmp_path / "m.onnx", tmp_path / "calibration_data"
    samples = debugged.samples()
    by_input = {"images": [feeds["images"] for feeds in samples]}
    forms = [
        (debugged.calibrated(), samples),
        (str(path), str(folder)),
        (path, folder / "images"),
        (path.read_bytes(), by_input),
        (load_model(path), samples),
        (ir.to_proto(debugged.calibrated()), folder),
    ]
    found = [get_sensitivity_of_nodes(m, "mse", d, data_num=None) for m, d in forms]
    assert all(one == found[0] for one in found)


@pytest.mark.slow
def test_a_model_edited_by_a_script_is_ranked_without_compiling_again() -> None:
    model, samples = load_model(ir.to_bytes(debugged.calibrated())), debugged.samples()
    before = get_sensitivity_of_nodes(model, "mse", samples)
    programs = loading.loaded(model, samples).runner.compilations.total
    for node in model.graph.type2nodes["HzCalibration"]:
        node.qtype = "int16"
    after = get_sensitivity_of_nodes(model, "mse", samples)
    assert loading.loaded(model, samples).runner.compilations.total == programs
    assert float(after["Conv_559"]["mse"]) < float(before["Conv_559"]["mse"]) / 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": "cosine"}, "metrics contain unavailable method: cosine"),
        ({"metrics": ["mse", "mae"]}, "metrics contain unavailable method: mae"),
        ({"metrics": []}, "metrics name none"),
        ({"node_type": "nodes"}, "node_type:nodes is unavailable."),
        ({"data_num": 4}, "There are only 3 data, but data_num is set to 4!"),
        ({"data_num": 0}, "data_num is set to 0"),
        ({"output_node": "Concat_1004"}, "Concat_1004 does not exist in the model."),
        ({"output_node": "images_HzCalibration"}, "images_HzCalibration is a calibration"),
        ({"interested_nodes": [["Conv_41", "Conv_42"]]}, "Conv_42 does not exist in the model."),
        (
            {"interested_nodes": [[["Conv_41"]]]},
            "interested_nodes holds ['Conv_41'], which is no node's name",
        ),
        ({"calibrated_data": None}, "there is no calibration data"),
    ],
)
def test_wrong_arguments_are_refused_with_the_vendors_words(
    options: dict[str, object], message: str
) -> None:
    given = {
        "model_or_file": debugged.calibrated(),
        "calibrated_data": debugged.samples(),
        **options,
    }
    with pytest.raises(ArgumentError) as refused:
        get_sensitivity_of_nodes(**given)  # type: ignore[arg-type]
    assert refused.value.what == message
    assert isinstance(refused.value, ValueError)


def test_nodes_that_no_output_feels_are_refused() -> None:
    with pytest.raises(JptqError, match="none of the interested nodes"):
        rank(debugged.calibrated(), output_node="Mul_943", interested_nodes=[SEG])


def test_a_float_model_is_refused() -> None:
    model = debugged.calibrated()
    off = ir.extract(model, ["images"])
    with pytest.raises(ModelError, match="no quantizers"):
        rank(off)


def test_data_that_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="takes shape"):
        get_sensitivity_of_nodes(
            debugged.calibrated(), "mse", [{"images": np.zeros((1, 3, 8, 8), np.float32)}]
        )


def test_the_functions_have_the_vendors_parameters() -> None:
    want = {
        "get_sensitivity_of_nodes": "model_or_file metrics calibrated_data output_node node_type "
        "data_num verbose interested_nodes save_dir",
        "select_sensitive_samples": "calibrated_model calibration_data metric num_sample",
        "runall": "model_or_file calibrated_data save_dir ns_metrics output_node node_type "
        "data_num verbose interested_nodes dis_nodes_list cw_nodes_list axis quantize_node "
        "non_quantize_node ae_metric average_mode pick_threshold sensitive_nodes",
    }
    for name, parameters in want.items():
        found = inspect.signature(getattr(debugger, name)).parameters.values()
        assert [p.name for p in found if p.kind is p.POSITIONAL_OR_KEYWORD] == parameters.split()


@pytest.mark.parametrize("name", debugger.__all__)
def test_every_name_of_the_vendors_module_can_be_imported(name: str) -> None:
    assert callable(getattr(debugger, name))
    assert name in dir(debugger)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="plot_nothing"):
        _ = debugger.plot_nothing


@pytest.mark.slow
def test_a_calibrated_model_remembers_its_target(tmp_path: Path) -> None:
    ir.save(float_model(debugged.graph()), tmp_path / "float.onnx")
    debugged.save(tmp_path)
    settings = {"model_config": {"activation": {"calibration_type": "max"}}}
    made = prepare(
        tmp_path / "float.onnx",
        tmp_path / "calibration_data",
        march="nash-p",
        quant_config=settings,
    )
    ir.save(made.calibrated, tmp_path / "calibrated.onnx")
    network = loading.loaded(tmp_path / "calibrated.onnx", debugged.samples())
    assert network.target.march == "nash-p"


def test_a_model_that_names_no_target_is_taken_for_the_default_one() -> None:
    assert loading.loaded(debugged.calibrated(), debugged.samples()).target.march == "nash-e"
