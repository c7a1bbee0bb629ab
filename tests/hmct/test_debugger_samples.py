from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from jptq.hmct.quantizer import debugger
from jptq.hmct.quantizer.debugger import get_sensitivity_of_nodes, runall, select_sensitive_samples
from jptq.hmct.quantizer.debugger.loading import ArgumentError
from jptq.quant.calibrated import with_assignment
from jptq.quant.export import to_qdq
from tests.agreements import ORACLES, run
from tests.hmct import debugged

TREE = {
    "node_sensitivity",
    "data_distribution",
    "channelwise_distribution",
    "accumulate_error",
    "sensitivity_analysis",
}


def scores_by_onnxruntime(samples: list[debugged.Feeds]) -> list[float]:
    """Return the mean squared error of each sample, mean over the outputs."""
    model = debugged.calibrated()
    off = {node.name: "float32" for node in model.nodes if node.is_calibration}
    floating, quantized = (to_qdq(with_assignment(model, types)) for types in (off, {}))
    return [
        float(np.mean([ORACLES["mse"](f[name], q[name]) for name in f]))
        for f, q in zip(run(floating, samples), run(quantized, samples), strict=True)
    ]


@pytest.mark.slow
def test_the_worst_samples_come_first() -> None:
    samples = debugged.samples()
    # Far outside the thresholds: this one is clipped.
    samples[1] = {"images": samples[1]["images"] * 4}
    want = scores_by_onnxruntime(samples)
    found = select_sensitive_samples(debugged.calibrated(), samples, "mse", 2)
    assert list(found.indices) == list(np.argsort(want)[::-1][:2])
    assert found.indices[0] == 1
    np.testing.assert_allclose(found.scores, [want[i] for i in found.indices], rtol=0.05)
    np.testing.assert_array_equal(found[0]["images"], samples[1]["images"])


@pytest.mark.slow
def test_the_chosen_samples_are_calibration_data_again() -> None:
    model, samples = debugged.calibrated(), debugged.samples()
    chosen = select_sensitive_samples(model, samples, num_sample=1)
    assert len(chosen) == 1
    by_choice = get_sensitivity_of_nodes(model, "mse", chosen)
    by_hand = get_sensitivity_of_nodes(model, "mse", [samples[chosen.indices[0]]])
    assert by_choice == by_hand


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_sample": 4}, "There are only 3 data, but num_sample is set to 4!"),
        ({"num_sample": 0}, "num_sample is set to 0"),
        ({"metric": "cos"}, "metrics contain unavailable method: cos"),
    ],
)
def test_wrong_wishes_for_samples_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        select_sensitive_samples(
            debugged.calibrated(),
            debugged.samples(),
            **options,  # type: ignore[arg-type]
        )
    assert refused.value.what == message


@pytest.mark.slow
def test_runall_leaves_the_vendors_tree(tmp_path: Path) -> None:
    runall(
        debugged.calibrated(), debugged.samples(), tmp_path, ns_metrics="mse", pick_threshold=1.0
    )
    assert {path.name for path in tmp_path.iterdir()} == TREE
    assert {path.name for path in (tmp_path / "node_sensitivity").glob("*.log")} == {
        "sensitivity_of_weight.log",
        "sensitivity_of_activation.log",
    }
    for folder in TREE - {"node_sensitivity"}:
        assert list((tmp_path / folder).glob("**/*.png")), folder


def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, object]]:
    """Put functions that only note their arguments in the place of those that draw."""
    calls: dict[str, dict[str, object]] = {}
    for name in (
        "plot_distribution",
        "get_channelwise_data_distribution",
        "plot_acc_error",
        "sensitivity_analysis",
    ):
        monkeypatch.setitem(
            debugger.__dict__,
            name,
            lambda name=name, **options: calls.__setitem__(name, options),
        )
    return calls


@pytest.mark.slow
def test_runall_draws_the_five_worst_of_each_ranking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorded(monkeypatch)
    model, samples = debugged.calibrated(), debugged.samples()
    runall(model, samples, tmp_path, "mse")
    worst = [
        name
        for kind in ("weight", "activation")
        for name in list(get_sensitivity_of_nodes(model, "mse", samples, node_type=kind))[:5]
    ]
    assert calls["plot_distribution"]["nodes_list"] == worst
    assert calls["get_channelwise_data_distribution"]["nodes_list"] == worst
    assert calls["plot_acc_error"]["quantize_node"] == ["weight", "activation"]


@pytest.mark.slow
def test_runall_of_nodes_draws_the_calibrations_on_their_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorded(monkeypatch)
    runall(
        debugged.calibrated(),
        debugged.samples(),
        tmp_path,
        interested_nodes=["Slice_4", "Conv_559"],
        cw_nodes_list=["Conv_41"],
        non_quantize_node=["Conv_41"],
    )
    drawn = calls["plot_distribution"]["nodes_list"]
    assert isinstance(drawn, list)
    assert set(drawn) == {
        "images_HzCalibration",
        "BatchNormalization_141:0_HzCalibration",
        *(name for name in drawn if name.startswith("constant_")),
    }
    assert calls["get_channelwise_data_distribution"]["nodes_list"] == ["Conv_41"]
    assert calls["plot_acc_error"]["quantize_node"] is None
    assert (tmp_path / "node_sensitivity" / "sensitivity_of_node.log").exists()


@pytest.mark.slow
def test_runall_goes_on_without_a_step_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = recorded(monkeypatch)

    def failing(**options: object) -> None:
        raise ArgumentError("Conv_1 does not exist in the model.")

    monkeypatch.setitem(debugger.__dict__, "plot_distribution", failing)
    with caplog.at_level(logging.WARNING):
        runall(debugged.calibrated(), debugged.samples(), tmp_path, dis_nodes_list=["Conv_1"])
    assert "left out: the distributions: " in caplog.text
    assert "Conv_1 does not exist" in caplog.text
    assert set(calls) == {
        "get_channelwise_data_distribution",
        "plot_acc_error",
        "sensitivity_analysis",
    }
