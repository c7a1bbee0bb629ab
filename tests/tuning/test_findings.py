"""Networks whose figures look well: what is said of them, and what tuning does about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from jptq.data import MemorySamples
from jptq.diagnosis.nonfinite import first_broken
from jptq.quant.config import Config
from jptq.results import Goal, Outcome
from jptq.results.problem import ProblemType
from jptq.sensitivity import exact, naive, rows_of
from jptq.tuning import Journal, Measurer, Prepared, findings, prepare
from jptq.tuning.classify import classify, ranked_leftovers
from jptq.tuning.goal import Judge
from jptq.tuning.loop import tune_network, tune_prepared
from jptq.tuning.options import Options
from jptq.tuning.ranking import rank
from jptq.tuning.source import data_notes
from tests.graphs import Graph
from tests.tuning.networks import CONFIG

BOX = 1000.0


def detector() -> onnx.ModelProto:
    """Give out boxes in pixels and probabilities, joined; DFL heads end like this too."""
    g = Graph(seed=12)
    x = g.add("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 3, 8, name="stem"))
    box = g.add("Mul", g.add("Sigmoid", g.conv(x, 8, 4, 1)), g.constant(BOX), name="pixels")
    score = g.add("Sigmoid", g.conv(x, 8, 3, 1, name="class"), name="score")
    g.output(g.add("Concat", box, score, axis=1, name="cat"))
    return g.proto()


def normalisation(*, chain: str = "layer") -> onnx.ModelProto:
    """Normalise tokens by operators, as exporters write a LayerNorm or a softmax."""
    g = Graph(opset=17, seed=8)
    x = g.input("x", (1, 16, 32))
    if chain == "layer":
        mean = g.add("ReduceMean", x, axes=[-1], name="mean")
        c = g.add("Sub", x, mean, name="sub")
        var = g.add("ReduceMean", g.add("Mul", c, c, name="square"), axes=[-1], name="var")
        sd = g.add("Sqrt", g.add("Add", var, g.constant(1e-6), name="eps"), name="sqrt")
        y = g.add("Div", c, sd, name="div")
    else:
        e = g.add("Exp", x, name="exp")
        total = g.add("ReduceSum", e, g.constant([-1]), name="sum")
        y = g.add("Div", e, total, name="div")
    g.output(g.add("MatMul", y, g.random(32, 8, scale=0.3), name="fc"))
    return g.proto()


def tokens(seed: int, quiet: float) -> np.ndarray:
    """Most tokens are quiet, two are loud."""
    x = np.random.default_rng(seed).normal(0, quiet, (1, 16, 32)).astype(np.float32)
    x[0, :2] *= np.float32(1 / quiet)
    return x


def prepared_of(
    model: onnx.ModelProto,
    samples: list[np.ndarray],
    folder: Path,
    config: Config | Mapping[str, Any] = CONFIG,
) -> Prepared:
    (folder / "x").mkdir()
    onnx.save(model, folder / "model.onnx")
    for i, sample in enumerate(samples):
        np.save(folder / "x" / f"{i}.npy", sample)
    return prepare(folder / "model.onnx", folder, march="nash-e", quant_config=config)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    rng = np.random.default_rng(1)
    samples = [rng.standard_normal((1, 3, 8, 8)).astype(np.float32) for _ in range(3)]
    return prepared_of(detector(), samples, tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="module")
def norm(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    samples = [tokens(seed, 0.02) for seed in range(3)]
    return prepared_of(normalisation(), samples, tmp_path_factory.mktemp("norm"))


@pytest.mark.slow
def test_a_detector_without_scores_misses_the_goal_and_its_concat_is_raised(
    boxes: Prepared,
) -> None:
    report = tune_prepared(boxes, Options())
    assert report.outcome is Outcome.MET
    assert report.int8.comparison is not None
    assert report.int8.comparison.min_cosine > 0.999
    assert "cat" in [node.node for node in report.raised]
    assert "all-INT8 3 channels of 'cat:0' lost" in report.headline
    (said,) = [note for note in report.notes if "loses" in note]
    assert "channels 4-6 (axis 1) of output 'cat:0'" in said
    assert "Concat 'cat'" in said
    found = report.final.comparison
    assert found is not None
    assert not found.outputs[0].lost
    stored = report.to_json()["int8"]["comparison"]["outputs"][0]["lost"]
    assert stored[0]["channels"] == [4, 5, 6]


@pytest.mark.slow
def test_diagnosing_names_the_concat_and_the_ratio(boxes: Prepared) -> None:
    measurer = Measurer(boxes, None, Journal(None))
    judge = Judge(Options().goal(boxes, None))
    problem = classify(measurer, judge, rank(boxes, boxes.all("int8")))
    assert problem.type is not ProblemType.NONE
    assert problem.failing == problem.culprits == ("cat:0",)
    grid = float(boxes.thresholds[boxes.plan.by_node["cat"].inputs[0]].max())
    assert f"{grid / problem.int8.comparison.outputs[0].lost[0].magnitude:.0f} : 1" in (  # type: ignore[union-attr]
        problem.advice[0].text
    )


def test_all_int16_keeps_every_channel(boxes: Prepared) -> None:
    found = Measurer(boxes, None, Journal(None)).compare(boxes.all("int16"))
    assert found.quality == found.min_cosine > 0.999
    assert findings.remarks(boxes, boxes.table(boxes.all("int16")), found) == ()


def test_a_constant_output_is_said_to_be_one(boxes: Prepared) -> None:
    found = Measurer(boxes, None, Journal(None)).compare(boxes.all("int16"))
    assert findings.constant(found) == ()
    still = dataclasses.replace(found.outputs[0], deviation=0.0)
    (said,) = findings.constant(dataclasses.replace(found, outputs=(still,)))
    assert "constant in float" in said


def test_a_normalisation_without_numbers_is_counted_and_named(norm: Prepared) -> None:
    int8 = norm.all("int8")
    found = Measurer(norm, None, Journal(None)).compare(int8)
    # The oracle: the forward itself, sample by sample.
    forward = norm.runner.forward(norm.table(int8))
    broken = [~np.isfinite(forward(norm.samples[i])["fc:0"]) for i in range(len(norm.samples))]
    (output,) = found.outputs
    assert output.broken == np.sum(broken) > 0
    assert output.elements == np.size(broken)
    said = findings.remarks(norm, norm.table(int8), found, what="All-INT8")
    assert said[0].startswith(
        f"All-INT8: output 'fc:0' is NaN or infinite in {np.mean(broken):.2%}"
    )
    assert "'div' (Div" in said[1]
    assert "'sqrt:0' rounds to 0" in said[1]


def test_numbers_end_at_the_first_operator_that_has_finite_inputs(norm: Prepared) -> None:
    feeds = {"x": np.stack([norm.samples[i]["x"] for i in range(3)])}
    (first,) = first_broken(norm.runner, norm.table(norm.all("int8")), feeds)
    assert (first.node, first.op, first.elements) == ("div", "Div", 3 * 16 * 32)
    assert first_broken(norm.runner, norm.table(norm.all("float32")), feeds) == ()


@pytest.mark.parametrize(
    ("chain", "want"),
    [("layer", ("square", "var", "eps", "sqrt", "div")), ("softmax", ("exp", "sum", "div"))],
)
def test_the_nodes_that_make_a_denominator_are_found(
    chain: str, want: tuple[str, ...], tmp_path: Path
) -> None:
    made = prepared_of(normalisation(chain=chain), [tokens(0, 0.5)], tmp_path)
    assert findings.raisable(made, "div") == want


@pytest.mark.slow
def test_where_int16_has_numbers_the_search_raises_what_makes_the_denominator(
    norm: Prepared,
) -> None:
    report = tune_prepared(norm, Options())
    assert report.outcome is Outcome.MET
    assert report.int8.comparison is not None
    assert report.int8.comparison.outputs[0].broken
    assert "all-INT8 87.50% of 'fc:0' not finite" in report.headline
    assert {"eps", "sqrt", "div"} <= {node.node for node in report.raised}
    assert any("begins at 'div'" in note for note in report.notes)


@pytest.mark.slow
def test_where_int16_has_no_number_the_chain_in_front_stays_float(tmp_path: Path) -> None:
    samples = [tokens(seed, 0.002) for seed in range(3)]
    norm = prepared_of(normalisation(), samples, tmp_path)
    before = Measurer(norm, None, Journal(None))("all-INT16", norm.all("int16"))
    assert before.quality < 0

    def again(config: Config) -> Prepared:
        (tmp_path / "again").mkdir()
        return prepared_of(normalisation(), samples, tmp_path / "again", config)

    report, made = tune_network(norm, Options(), again)
    assert report.outcome is Outcome.MET
    held = {node.node: node.candidate for node in report.raised}
    chain = ("square", "var", "eps", "sqrt", "div")
    assert {held[name] for name in chain} <= {"float16", "float32"}
    assert "begins at 'div'" in report.notes[0]
    forward = made.runner.forward(made.table(report.assignment))
    for i in range(3):
        found, want = (f(norm.samples[i])["fc:0"] for f in (forward, norm.runner.forward(None)))
        assert np.isfinite(found).all()
        assert found.ravel() @ want.ravel() > 0.99 * np.linalg.norm(found) * np.linalg.norm(want)


def test_a_ranking_says_which_rows_leave_no_number(norm: Prepared) -> None:
    rows = rows_of(norm.calibrated, norm.plan, "node")
    given = (norm.runner, norm.thresholds, norm.all("int8"), rows, [norm.samples[0]])
    fast, slow = (one.rank(*given, metrics=("cosine-similarity",)) for one in (exact, naive))
    assert fast.notes == slow.notes
    assert "'sqrt'" in fast.notes[0]
    assert "'fc'" not in fast.notes[0]


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Sample features at points of which a few lie behind the camera."""
    g = Graph(seed=26)
    features = g.conv(g.input("x", (1, 3, 8, 8)), 3, 4, name="stem")
    points = g.input("points", (1, 6, 6, 2))
    g.output(g.add("GridSample", features, points, mode="bilinear", name="sample"))
    folder, rng = tmp_path_factory.mktemp("sampled"), np.random.default_rng(5)
    for name in ("x", "points"):
        (folder / "data" / name).mkdir(parents=True)
    onnx.save(g.proto(), folder / "model.onnx")
    for i in range(2):
        grid = rng.uniform(-1, 1, (1, 6, 6, 2))
        grid[0, 0] *= 1e5
        np.save(folder / "data" / "points" / f"{i}.npy", grid.astype(np.float32))
        np.save(folder / "data" / "x" / f"{i}.npy", rng.normal(size=(1, 3, 8, 8)).astype("f"))
    model = folder / "model.onnx"
    # The far points set the grid here, as they do in the vendor's tool.
    return prepare(model, folder / "data", march="nash-e", quant_config=CONFIG, reach=False)


def test_every_operand_has_a_score_of_its_own(sampled: Prepared) -> None:
    kept = {one.slots[0]: one.cosine for one in ranked_leftovers(sampled)}
    assert kept["sample.input0"] > 0.999
    measurer, judge = Measurer(sampled, None, Journal(None)), Judge(Goal(min_cosine=0.99))
    problem = classify(measurer, judge, rank(sampled, sampled.all("int8")))
    assert problem.type is ProblemType.INT16_FAILS
    (blamed,) = [one.text for one in problem.advice if one.kind == "calibration"]
    assert "lost by sample.input1 (" in blamed
    assert "sample.input0" not in blamed


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"x": (0.0, 0.0)}, "All calibration data are zero"),
        ({"x": (0.0, 1.0)}, ""),
        ({"x": (1.0, 1.0)}, "All 2 calibration samples are the same one."),
        ({"x": (1.0,)}, "There is one calibration sample"),
        ({"x": (1.0, 2.0), "state": (0.0, 0.0)}, "Input 'state' is zero in all calibration data"),
        ({"x": (1.0, 2.0), "state": (0.0, 3.0)}, ""),
    ],
)
def test_what_samples_cannot_tell_is_said_in_a_line(
    values: dict[str, tuple[float, ...]], said: str
) -> None:
    count = len(values["x"])
    samples = [
        {name: np.full((1, 2), v[i], np.float32) for name, v in values.items()}
        for i in range(count)
    ]
    notes = data_notes(MemorySamples(feeds=tuple(samples)))
    assert len(notes) == bool(said)
    assert not said or notes[0].startswith(said)


def test_integers_may_be_always_zero() -> None:
    samples = [{"x": np.float32([i]), "type": np.int64([0])} for i in (1, 2)]
    assert data_notes(MemorySamples(feeds=tuple(samples))) == ()
