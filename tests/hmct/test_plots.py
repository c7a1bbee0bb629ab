from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jptq.diagnosis import NONE, Walk
from jptq.errors import JptqError
from jptq.hmct.quantizer import debugger
from jptq.hmct.quantizer.debugger import loading
from jptq.hmct.quantizer.debugger.loading import ArgumentError
from jptq.ir.model import Model
from jptq.quant.calibrated import plan_of, thresholds_of, with_assignment, with_thresholds
from jptq.quant.export import to_qdq
from jptq.quant.plan import Plan
from jptq.report import diagnosis_plots
from tests.agreements.figures import cosine
from tests.agreements.network import observed, run
from tests.hmct import debugged
from tests.hmct.debugged import SEG
from tests.quant.networks import TARGET

CONV = "Conv_559"
BEHIND = "Conv_707"
Figures = dict[str, Figure]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Figures:
    """Collect the figures instead of writing them, by path from the save_dir ``out``."""
    figures: Figures = {}

    def save(figure: Figure, path: Path) -> Path:
        figures[str(path.relative_to("out"))] = figure
        return path

    monkeypatch.setattr(diagnosis_plots, "save", save)
    return figures


def plan() -> Plan:
    return plan_of(debugged.calibrated(), TARGET)


def kind(name: str) -> set[str]:
    return {c.name for c in plan().calibrations if c.kind == name}


def axes_of(figure: Figure) -> Axes:
    return figure.axes[0]


def curves(figure: Figure) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes_of(figure).lines}


def vertical(axes: Axes) -> list[float]:
    ends = [np.asarray(line.get_xdata()) for line in axes.lines]
    return [float(x[0]) for x in ends if len(x) == 2 and x[0] == x[1]]


@functools.cache
def operators() -> tuple[tuple[str, str], ...]:
    """Return the operators and their outputs that stand on a curve."""
    walk = Walk.of(loading.loaded(debugged.calibrated(), debugged.samples()).runner)
    return tuple(zip(walk.nodes, walk.tensors, strict=True))


@functools.cache
def by_onnxruntime(members: frozenset[str]) -> np.ndarray:
    """Return the cosine at every node with some calibrations on, over the first sample."""
    model = debugged.calibrated()
    tensors = [tensor for _, tensor in operators()]
    on = {c.name: "int8" if c.name in members else "float32" for c in plan().calibrations}
    floating, quantized = (
        run(observed(to_qdq(with_assignment(model, types)), tensors), debugged.samples(1))[0]
        for types in (dict.fromkeys(on, "float32"), on)
    )
    return np.asarray([cosine(floating[t], quantized[t]) for t in tensors])


def acc_error(**options: object) -> list[Path]:
    return debugger.plot_acc_error(
        Path("out"), debugged.samples(), debugged.calibrated(), **options
    )


def test_every_operator_but_calibrations_stands_on_the_curve_in_graph_order() -> None:
    names = [node.name for node in debugged.calibrated().operators()]
    assert [node for node, _ in operators()] == names


def test_weights_and_activations_together_give_three_curves(drawn: Figures) -> None:
    acc_error(quantize_node=["weight", "activation"])
    (name,) = drawn
    assert name == "weight_activation_quantized_separately_cosine-similarity.png"
    found = curves(drawn[name])
    want = {
        "weight_activation_calibrated": kind("weight") | kind("feature"),
        "only_weight_calibrated": kind("weight"),
        "only_activation_calibrated": kind("feature"),
    }
    assert list(found) == list(want)
    for label, members in want.items():
        np.testing.assert_allclose(found[label], by_onnxruntime(frozenset(members)), atol=2e-4)


@pytest.mark.parametrize("word", ["weight", "activation"])
def test_one_type_gives_one_curve(drawn: Figures, word: str) -> None:
    acc_error(quantize_node=[word], metric="mse")
    (name,) = drawn
    assert name == f"{word}_quantized_mse.png"
    assert list(curves(drawn[name])) == [f"only_{word}_calibrated"]
    assert axes_of(drawn[name]).get_title(loc="left") == f"{word}_quantized"


def test_nodes_have_a_curve_each_beside_that_of_the_calibrated_model(drawn: Figures) -> None:
    acc_error(quantize_node=[CONV, BEHIND])
    (name,) = drawn
    assert name == "quantize_node_accumulate_err_of_node_cosine-similarity.png"
    found = curves(drawn[name])
    assert list(found) == ["default calibrated model", CONV, BEHIND]
    for node in (CONV, BEHIND):
        members = frozenset(plan().of_node(node).calibrations)
        np.testing.assert_allclose(found[node], by_onnxruntime(members), atol=2e-4)


def test_a_list_of_nodes_is_one_partial_model(drawn: Figures) -> None:
    acc_error(quantize_node=[[CONV, BEHIND], SEG])
    (name,) = drawn
    assert name == "quantize_node_accumulate_err_of_partial_qmodel_cosine-similarity.png"
    found = curves(drawn[name])
    assert list(found) == ["default calibrated model", "partial_qmodel_0", "partial_qmodel_1"]
    both = {*plan().of_node(CONV).calibrations, *plan().of_node(BEHIND).calibrations}
    np.testing.assert_allclose(
        found["partial_qmodel_0"], by_onnxruntime(frozenset(both)), atol=2e-4
    )


def test_all_but_some_nodes_are_quantized(drawn: Figures) -> None:
    acc_error(non_quantize_node=[[CONV, SEG]])
    (name,) = drawn
    assert name == "non_quantize_node_accumulate_err_of_partial_qmodel_cosine-similarity.png"
    left = {*plan().of_node(CONV).calibrations, *plan().of_node(SEG).calibrations}
    rest = frozenset(set(plan().index) - left)
    np.testing.assert_allclose(
        curves(drawn[name])["partial_qmodel_0"], by_onnxruntime(rest), atol=2e-4
    )


def test_both_lists_give_two_figures(drawn: Figures) -> None:
    paths = acc_error(quantize_node=[CONV], non_quantize_node=[CONV])
    assert [path.name for path in paths] == list(drawn)
    assert [name.partition("_acc")[0] for name in drawn] == ["quantize_node", "non_quantize_node"]


@pytest.mark.parametrize("metric", ["cosine-similarity", "sqnr"])
def test_the_average_is_over_all_finite_values_so_far(drawn: Figures, metric: str) -> None:
    acc_error(quantize_node=[BEHIND], metric=metric)
    acc_error(quantize_node=[BEHIND], metric=metric, average_mode=True)
    plain, average = drawn
    assert average == f"average_{plain}"
    values = curves(drawn[plain])[BEHIND]
    want = [values[: i + 1].mean() for i in range(len(values))]
    assert curves(drawn[average])[BEHIND] == pytest.approx(want)
    # sqnr is infinite up to the first quantizer: those nodes are left out, not moved.
    assert len(values) == (len(operators()) if metric == "cosine-similarity" else len(values))
    line = next(one for one in axes_of(drawn[plain]).lines if one.get_label() == BEHIND)
    names = [operators()[int(i)][0] for i in np.asarray(line.get_xdata())]
    assert metric != "sqnr" or (names[0] != "Slice_4" and BEHIND in names)


def test_neither_list_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="both empty"):
        acc_error()


def test_weight_is_legal_in_quantize_node_only() -> None:
    with pytest.raises(ArgumentError, match="weight is not allowed"):
        acc_error(non_quantize_node=["weight"])


@pytest.mark.parametrize(
    "call",
    [
        lambda m, d: debugger.plot_acc_error("out", d, m, ["Conv_55"]),
        lambda m, d: debugger.plot_distribution(m, d, ["Conv_55"], "out"),
        lambda m, d: debugger.get_channelwise_data_distribution(m, d, ["Conv_55"], "out"),
        lambda m, d: debugger.tensor_analysis(m, d, ["Conv_55"], "out"),
        lambda m, d: debugger.get_calibration_nodes_stat_info(m, d, ["Conv_55"], "out"),
    ],
)
def test_a_node_that_does_not_exist_is_named(call: object) -> None:
    assert callable(call)
    with pytest.raises(ArgumentError, match="Conv_55 does not exist in the model"):
        call(debugged.calibrated(), debugged.samples())


def test_another_look_compiles_nothing_even_after_an_edit(drawn: Figures) -> None:
    acc_error(quantize_node=["weight"])
    runner = loading.loaded(debugged.calibrated(), debugged.samples()).runner
    before = dict(runner.compilations.counts)
    model = debugged.calibrated()
    halves = {name: t / 2 for name, t in thresholds_of(model).items()}
    model = with_assignment(with_thresholds(model, halves), dict.fromkeys(halves, "int16"))
    debugger.plot_acc_error("out", debugged.samples(), model, [CONV, BEHIND, SEG])
    assert loading.loaded(model, debugged.samples()).runner is runner
    assert runner.compilations.counts == before
    assert len(drawn) == 2


def distribution(names: Sequence[str], model: Model | None = None) -> list[Path]:
    return debugger.plot_distribution(
        model or debugged.calibrated(), debugged.samples(), names, Path("out")
    )


def test_each_kind_of_name_has_its_figure(drawn: Figures) -> None:
    feature, weight = (plan().of_node(CONV).inputs[i] for i in (0, 1))
    distribution([weight, feature, "/encoder/_swish/Mul"])
    output = dict(operators())["/encoder/_swish/Mul"]
    assert set(drawn) == {
        f"weight_{weight.replace('/', '_')}.png",
        f"activation_{feature.replace('/', '_')}.png",
        f"node_output_:{output}_of_/encoder/_swish/Mul.png".replace("/", "_"),
    }


def test_threshold_lines_stand_at_the_models_thresholds(drawn: Figures) -> None:
    model = debugged.calibrated()
    feature = plan().of_node(CONV).inputs[0]
    model = with_thresholds(model, {feature: np.asarray([1.25], np.float32)})
    distribution([feature], model)
    (figure,) = drawn.values()
    assert vertical(axes_of(figure)) == [-1.25, 1.25]


def test_the_input_of_an_activation_is_counted_over_all_samples(drawn: Figures) -> None:
    name = next(c.name for c in plan().calibrations if c.tensor == "images")
    distribution([name])
    (figure,) = drawn.values()
    values = np.stack([feeds["images"] for feeds in debugged.samples()])
    (shape,) = axes_of(figure).patches
    counts, edges, _ = shape.get_data()
    want, _ = np.histogram(values, 1024, (edges[0], edges[-1]))
    assert len(counts) == 1024
    assert np.abs(np.where(counts == 0.5, 0, counts) - want).sum() <= 4
    marker = next(line for line in axes_of(figure).lines if line.get_marker() == "v")
    assert abs(marker.get_xdata()[0]) == np.abs(values).max()


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ArgumentError, match="nodes_list is empty"):
        distribution([])


def channels(names: Sequence[str], **options: int) -> list[Path]:
    return debugger.get_channelwise_data_distribution(
        debugged.calibrated(), debugged.samples(), names, Path("out"), **options
    )


def boxes(figure: Figure) -> np.ndarray:
    """Return the quartiles of the boxes, ``[C, 2]``."""
    corners = [patch.get_path().vertices[:, 1] for patch in axes_of(figure).patches]
    return np.asarray([(ys.min(), ys.max()) for ys in corners])


@pytest.mark.parametrize(("axis", "used"), [(None, 1), (2, 2)])
def test_boxes_of_an_activation_are_numpys(drawn: Figures, axis: int | None, used: int) -> None:
    name = next(c.name for c in plan().calibrations if c.tensor == "images")
    channels([name], **({} if axis is None else {"axis": axis}))
    assert list(drawn) == [f"{name}_boxplot.png"]
    values = np.stack([feeds["images"] for feeds in debugged.samples()])
    rows = np.moveaxis(values, used + 1, 0).reshape(values.shape[used + 1], -1)
    want = np.percentile(rows, [25, 75], axis=1).T
    np.testing.assert_allclose(boxes(drawn[f"{name}_boxplot.png"]), want, rtol=1e-6)


def test_boxes_of_a_weight_lie_along_its_own_axis(drawn: Figures) -> None:
    weight = plan().of_node(CONV).inputs[1]
    channels([weight])
    kernel = debugged.calibrated().initializers[plan().calibration(weight).tensor]
    want = np.percentile(kernel.reshape(len(kernel), -1), [25, 75], axis=1).T
    (figure,) = drawn.values()
    np.testing.assert_allclose(boxes(figure), want, rtol=1e-6)


def test_an_axis_that_a_tensor_lacks_is_refused() -> None:
    with pytest.raises(ArgumentError, match=f"axis 4 does not exist in {CONV}"):
        channels([CONV], axis=4)


def analysis(**options: object) -> dict[str, dict[str, float]]:
    return debugger.sensitivity_analysis(
        debugged.calibrated(), debugged.samples(), save_dir=Path("out"), **options
    )


def test_nodes_up_to_the_threshold_are_taken_away_worst_first(drawn: Figures) -> None:
    ranking = debugger.get_sensitivity_of_nodes(
        debugged.calibrated(), "cosine-similarity", debugged.samples()
    )
    scores = {name: float(row["cosine-similarity"]) for name, row in ranking.items()}
    threshold = sorted(scores.values())[4]
    found = analysis(pick_threshold=threshold)
    want = [name for name, score in scores.items() if score <= threshold]
    assert list(found) == [NONE, *want]
    assert {n: row["sensitivity"] for n, row in found.items() if n != NONE} == {
        n: scores[n] for n in want
    }
    _, series, crosses = axes_of(drawn["partial_quantization.png"]).lines
    assert list(series.get_ydata()) == [row["cumulative"] for row in found.values()]
    assert list(crosses.get_ydata()) == [scores[n] for n in want]


def test_the_series_runs_from_the_calibrated_model_to_float(drawn: Figures) -> None:
    nodes = [slots.node for slots in plan().slots if slots.calibrations]
    found = analysis(sensitive_nodes=nodes)
    outputs = debugged.calibrated().output_names
    tensors = [tensor for _, tensor in operators()]
    whole = by_onnxruntime(frozenset(plan().index))
    ends = [whole[tensors.index(name)] for name in outputs if name in tensors]
    assert len(ends) == len(outputs)
    assert found[NONE] == {"cumulative": pytest.approx(np.mean(ends), abs=2e-4)}
    left = set(plan().index) - {c for s in plan().slots for c in s.calibrations}
    assert not left
    *_, last = found.values()
    assert last["cumulative"] == pytest.approx(1.0, abs=1e-9)
    alone = [row["sensitivity"] for label, row in found.items() if label != NONE]
    assert alone == sorted(alone)
    assert set(found) == {NONE, *nodes}
    assert list(drawn) == ["partial_quantization.png"]


def test_nodes_may_get_another_type_instead(drawn: Figures) -> None:
    nodes = [slots.node for slots in plan().slots if slots.calibrations]
    found = analysis(sensitive_nodes=nodes, qtype="int16")
    *_, last = found.values()
    assert found[NONE]["cumulative"] < last["cumulative"] < 1
    assert len(drawn) == 1
    with pytest.raises(JptqError, match="int7"):
        analysis(sensitive_nodes=nodes, qtype="int7")


def test_outputs_can_be_looked_at_one_by_one(drawn: Figures) -> None:
    both = analysis(sensitive_nodes=[BEHIND, SEG])
    apart = analysis(sensitive_nodes=[BEHIND, SEG], output_separated=True)
    outputs = debugged.calibrated().output_names
    assert list(apart) == list(outputs)
    for label, row in both.items():
        mean = np.mean([apart[name][label]["cumulative"] for name in outputs])
        assert row["cumulative"] == pytest.approx(mean)
    det, seg = outputs
    assert apart[seg][BEHIND]["sensitivity"] == pytest.approx(1, abs=1e-12)
    assert apart[det][BEHIND]["sensitivity"] == both[BEHIND]["sensitivity"] < 1
    assert len(drawn) == 3


def test_no_sensitive_node_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ArgumentError, match="no node scores up to -1") as error:
        analysis(pick_threshold=-1)
    assert "pick_threshold" in error.value.hint


def test_tensors_are_described_in_numbers_and_pictures(tmp_path: Path) -> None:
    feature, weight = (plan().of_node(CONV).inputs[i] for i in (0, 1))
    found = debugger.tensor_analysis(debugged.calibrated(), debugged.samples(), [CONV], tmp_path)
    assert list(found) == [feature, weight]
    kernel = debugged.calibrated().initializers[plan().calibration(weight).tensor]
    assert found[weight]["maximum"] == kernel.max()
    stored = json.loads((tmp_path / "tensor_analysis.json").read_text())
    assert stored == {"schema": 1, "tensors": found}
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {f"tensor_{name.replace('/', '_')}.png" for name in found}


def test_thresholds_and_ranges_of_channels_are_saved(tmp_path: Path) -> None:
    found = debugger.get_calibration_nodes_stat_info(
        debugged.calibrated(), debugged.samples(), save_dir=tmp_path
    )
    assert list(found) == list(plan().index)
    stored = np.load(tmp_path / "cali_nodes_stat_info.npy", allow_pickle=True).item()
    for c in plan().calibrations:
        assert np.array_equal(
            stored[c.name]["thresholds"], thresholds_of(debugged.calibrated())[c.name]
        )
        # Thresholds of the fixture are largest absolute values.
        assert stored[c.name]["max_abs"].max() == pytest.approx(
            stored[c.name]["thresholds"].max(), rel=1e-5
        )
    assert not list(tmp_path.glob("*.png"))


def test_signatures_are_the_vendors() -> None:
    want = {
        "plot_acc_error": "save_dir calibrated_data model_or_file quantize_node "
        "non_quantize_node metric average_mode",
        "plot_distribution": "model_or_file calibrated_data nodes_list save_dir",
        "get_channelwise_data_distribution": "model_or_file calibrated_data nodes_list save_dir "
        "axis",
        "sensitivity_analysis": "model_or_file calibrated_data pick_threshold data_num "
        "sensitive_nodes metric qtype save_dir output_separated",
        "get_calibration_nodes_stat_info": "model_or_file calibrated_data nodes_list save_dir "
        "visualize",
    }
    for name, parameters in want.items():
        function = getattr(debugger, name)
        assert " ".join(inspect.signature(function).parameters) == parameters
