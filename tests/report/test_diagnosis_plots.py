from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from jptq.diagnosis import (
    Channels,
    Histogram,
    OutputDistribution,
    QuantizerDistribution,
    TensorStatistics,
)
from jptq.report import canvas, channel_plots
from jptq.report import diagnosis_plots as plots

RNG = np.random.default_rng(0)


def histogram(values: np.ndarray, bins: int = 64) -> Histogram:
    counts, edges = np.histogram(values, bins, (-2.0, 2.0))
    return Histogram(edges=edges, counts=counts)


def quantizer(
    kind: str = "feature", limits: tuple[float, float] = (-1.5, 1.5)
) -> QuantizerDistribution:
    values = RNG.standard_normal(500).clip(-2, 2)
    return QuantizerDistribution(
        calibration="/a/b_HzCalibration",
        tensor="/a/b",
        kind=kind,
        qtype="int8",
        before=histogram(values),
        after=histogram(values.round(1).clip(*limits)),
        limits=limits,
        largest=2.0,
        clipped=0.1,
        cosine=0.98765432,
        samples=3,
    )


def spread(count: int) -> Channels:
    rows = RNG.standard_normal((count, 40))
    return Channels(
        name="conv.weight_HzCalibration",
        tensor="conv.weight",
        axis=0,
        quartiles=np.percentile(rows, [0, 25, 50, 75, 100], axis=1).T,
        mean=rows.mean(1),
        samples=0,
    )


def axes_of(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def labels_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def vertical(axes: Axes) -> list[float]:
    """Return where vertical lines stand."""
    return [
        float(np.asarray(line.get_xdata())[0])
        for line in axes.lines
        if len(line.get_xdata()) == 2 and len(set(np.asarray(line.get_xdata()))) == 1
    ]


def test_each_curve_is_a_line_through_its_finite_values() -> None:
    curves = {
        "only_weight_calibrated": np.asarray([1.0, np.inf, 0.9, np.nan, 0.8]),
        "only_activation_calibrated": np.asarray([0.5, 0.4, 0.3, 0.2, 0.1]),
    }
    axes = axes_of(plots.draw_acc_error("weight_quantized", "sqnr", curves))
    first, second = axes.lines
    assert np.array_equal(first.get_xydata(), [[0, 1.0], [2, 0.9], [4, 0.8]])
    assert np.array_equal(second.get_ydata(), curves["only_activation_calibrated"])
    assert labels_of(axes) == list(curves)


def test_an_error_figure_has_the_vendors_size_title_and_axes() -> None:
    figure = plots.draw_acc_error("weight_quantized", "mse", {"a": np.zeros(3)})
    axes = axes_of(figure)
    assert tuple(figure.get_size_inches()) == (8, 6)
    assert axes.get_title(loc="left") == "weight_quantized"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("node index", "mse")


def test_the_legend_of_many_long_names_stays_beside_the_curves_and_inside_the_figure() -> None:
    curves = {f"/backbone/some/very/long/block/name/{i}/Conv": np.zeros(3) for i in range(28)}
    figure = plots.draw_acc_error("t", "mse", curves)
    figure.draw_without_rendering()
    axes = axes_of(figure)
    legend = axes.get_legend()
    assert legend is not None
    box, plot = legend.get_window_extent(), axes.get_window_extent()
    assert box.x0 >= plot.x1
    assert box.x1 <= figure.bbox.x1 + 1
    assert box.y0 >= figure.bbox.y0
    assert plot.width > figure.bbox.width / 3
    drawn = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
    assert len(drawn) == 28


def test_an_activation_shows_its_input_its_thresholds_and_its_largest_value() -> None:
    given = quantizer()
    axes = axes_of(plots.draw_quantizer(given))
    assert vertical(axes) == [-1.5, 1.5]
    assert {line.get_linestyle() for line in axes.lines if line.get_label() != "max |x|: 2"} == {
        "--"
    }
    (shape,) = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    assert np.array_equal(shape.get_data().values, np.maximum(given.before.counts, 0.5))
    assert np.array_equal(shape.get_data().edges, given.before.edges)
    (marker,) = [line for line in axes.lines if line.get_marker() == "v"]
    assert list(marker.get_xdata()) == [2.0]
    assert axes.get_title(loc="left").splitlines() == [
        "Input data distribution",
        "/a/b_HzCalibration (int8)",
    ]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("data range", "Total number of data")


def test_a_range_of_two_thresholds_is_drawn_where_it_lies() -> None:
    axes = axes_of(plots.draw_quantizer(quantizer(limits=(-0.25, 1.75))))
    assert vertical(axes) == [-0.25, 1.75]
    assert "threshold: -0.25 to 1.75" in labels_of(axes)


def test_of_positive_values_only_the_upper_threshold_is_drawn() -> None:
    given = quantizer()
    positive = Histogram(edges=given.before.edges + 2.0, counts=given.before.counts)
    axes = axes_of(plots.draw_quantizer(dataclasses.replace(given, before=positive)))
    assert vertical(axes) == [1.5]
    assert "threshold: ±1.5" in labels_of(axes)


def test_one_of_several_thresholds_is_called_the_widest() -> None:
    axes = axes_of(plots.draw_quantizer(dataclasses.replace(quantizer("weight"), grids=8)))
    assert "widest of 8 thresholds: ±1.5" in labels_of(axes)


def test_a_quantizer_that_is_off_has_no_threshold_line() -> None:
    axes = axes_of(plots.draw_quantizer(quantizer(limits=(-np.inf, np.inf))))
    assert vertical(axes) == []


def test_a_weight_shows_both_distributions_and_their_cosine() -> None:
    given = quantizer("weight")
    axes = axes_of(plots.draw_quantizer(given))
    hit = given.after.counts > 0
    (points,) = [line for line in axes.lines if line.get_marker() == "."]
    assert np.array_equal(points.get_ydata(), given.after.counts[hit])
    assert np.array_equal(points.get_xdata(), given.after.centres[hit])
    assert labels_of(axes)[:2] == ["Before calibration", "After calibration"]
    assert axes.get_title(loc="left") == (
        "/a/b_HzCalibration weight distribution\ncosine-similarity:0.987654"
    )


def test_the_numbers_of_a_tensor_stand_beside_it() -> None:
    numbers = TensorStatistics(
        calibration="c",
        tensor="t",
        kind="feature",
        qtype="int8",
        minimum=-1.25,
        maximum=2.0,
        mean=0.5,
        std=0.1,
        zeros=0.25,
        percentiles={99.9: 1.875},
        threshold=1.5,
        clipped=0.001,
        used_bits=6.5,
        sqnr_db=31.0,
        samples=3,
    )
    axes = axes_of(plots.draw_quantizer(quantizer(), numbers))
    (text,) = axes.texts
    rows = {line[:11].strip(): line[11:] for line in text.get_text().splitlines()}
    assert rows["99.9 %"] == "1.875"
    assert rows["zeros"] == "25 %"
    assert (rows["used bits"], rows["sqnr"], rows["samples"]) == ("6.50", "31.0 dB", "3")
    assert "After calibration" in labels_of(axes)


def test_the_error_of_a_node_is_drawn_below_its_values() -> None:
    values = RNG.standard_normal(300).clip(-2, 2)
    given = OutputDistribution(
        node="/a/Conv",
        tensor="/a/Conv:0",
        before=histogram(values),
        after=histogram(values.round(1)),
        error=histogram(values.round(1) - values),
        mean_error=0.125,
        rms_error=0.5,
        samples=2,
    )
    top, bottom = plots.draw_output(given).axes
    before, after = [patch for patch in top.patches if isinstance(patch, StepPatch)]
    assert np.array_equal(before.get_data().values, np.maximum(given.before.counts, 0.5))
    assert np.array_equal(after.get_data().values, np.maximum(given.after.counts, 0.5))
    (error,) = [patch for patch in bottom.patches if isinstance(patch, StepPatch)]
    assert np.array_equal(error.get_data().values, np.maximum(given.error.counts, 0.5))
    assert vertical(bottom) == [0.125, 0.5]
    assert vertical(top) == []
    top, _ = plots.draw_output(dataclasses.replace(given, limits=(-1.5, 1.5))).axes
    assert vertical(top) == [-1.5, 1.5]
    assert bottom.get_title(loc="left") == "Quantization error distribution"


def test_boxes_hold_the_quartiles() -> None:
    given = spread(5)
    axes = axes_of(channel_plots.draw_channels(given))
    for channel, (box, quartiles) in enumerate(
        zip(axes.patches, given.quartiles.tolist(), strict=True)
    ):
        corners = box.get_path().vertices
        assert (corners[:, 1].min(), corners[:, 1].max()) == (quartiles[1], quartiles[3])
        assert corners[:, 0].mean() == pytest.approx(channel, abs=0.2)
    red, blue = (
        [line for line in axes.lines if line.get_color() == colour and len(line.get_ydata())]
        for colour in ("red", "blue")
    )
    assert [line.get_ydata()[0] for line in red] == given.quartiles[:, 2].tolist()
    assert [line.get_ydata()[0] for line in blue] == given.mean.tolist()
    assert {line.get_linestyle() for line in blue} == {"--"}
    ends = {float(y) for line in axes.lines for y in line.get_ydata()}
    assert set(given.quartiles[:, 0]) | set(given.quartiles[:, 4]) <= ends
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("channel", "Range of data in channel")


@pytest.mark.parametrize(("count", "width"), [(3, 8), (24, 12), (64, 16), (65, 16), (4096, 16)])
def test_a_box_plot_grows_with_its_channels_up_to_what_a_screen_shows(
    count: int, width: float
) -> None:
    figure = channel_plots.draw_channels(spread(count))
    assert figure.get_figwidth() == width
    figure.draw_without_rendering()
    axes = axes_of(figure)
    texts = [t for t in axes.get_xticklabels() if t.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) > 2
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
    bands = "bands instead of boxes" in axes.get_title(loc="left")
    assert bands == (count > 64)


def test_bands_hold_the_quartiles_of_every_channel() -> None:
    given = spread(300)
    axes = axes_of(channel_plots.draw_channels(given))
    assert labels_of(axes) == ["median", "mean", "least to largest", "quartiles"]
    red, blue = (
        next(line for line in axes.lines if line.get_color() == c and len(line.get_ydata()))
        for c in ("red", "blue")
    )
    assert red.get_ydata().tolist() == given.quartiles[:, 2].tolist()
    assert blue.get_ydata().tolist() == given.mean.tolist()
    for band, low, high in ((axes.collections[0], 0, 4), (axes.collections[1], 1, 3)):
        (path,) = band.get_paths()
        heights = set(path.vertices[:, 1].tolist())
        assert set(given.quartiles[:, low].tolist()) | set(given.quartiles[:, high].tolist()) <= (
            heights
        )


def test_of_many_nodes_some_are_named_and_none_collide() -> None:
    labels = ["none", *(f"/a/rather/long/name/of/a/node/{i}/Conv" for i in range(400))]
    figure = plots.draw_partial("mse", labels, np.linspace(1, 0, 401).tolist(), {})
    assert figure.get_figwidth() <= canvas.MOST_WIDTH
    axes = axes_of(figure)
    (series,) = [line for line in axes.lines if line.get_color() == "red"]
    assert len(series.get_ydata()) == 401
    assert axes.get_xlabel().endswith("is named")
    places = axes.get_xticks()
    assert np.min(np.diff(places)) / 401 * 13 > 0.15  # inches between slanted lines of text


def test_the_cumulative_series_starts_at_none_and_nodes_have_a_cross() -> None:
    labels = ["none", "/a/Conv", "/b/Conv"]
    figure = plots.draw_partial(
        "cosine-similarity", labels, [0.9, 0.95, 0.99], {"/a/Conv": 0.97, "/b/Conv": 0.98}
    )
    baseline, series, crosses = axes_of(figure).lines
    assert set(baseline.get_ydata()) == {1.0}
    assert baseline.get_linestyle() == "--"
    assert np.array_equal(series.get_xydata(), [[0, 0.9], [1, 0.95], [2, 0.99]])
    assert series.get_color() == "red"
    assert np.array_equal(crosses.get_xydata(), [[1, 0.97], [2, 0.98]])
    assert (crosses.get_color(), crosses.get_marker()) == ("green", "x")
    axes = axes_of(figure)
    assert [text.get_text() for text in axes.get_xticklabels()] == labels
    assert axes.get_title(loc="left") == "Partial Quantization Analysis"
    assert axes.get_ylabel() == "Cosine Similarity"
    assert [text.get_text() for text in figure.legends[0].get_texts()][1:] == [
        "partial quantization cumulative error",
        "per-node quantization sensitivity",
    ]


def test_another_metric_has_no_baseline_of_one() -> None:
    axes = axes_of(plots.draw_partial("mse", ["none", "a"], [0.2, 0.1], {"a": 0.1}, output="seg"))
    assert len(axes.lines) == 2
    assert axes.get_ylabel() == "mse"
    assert axes.get_title(loc="left").splitlines()[1] == "output seg"


def test_names_become_file_names() -> None:
    assert plots.file_name("/encoder/conv.weight") == "_encoder_conv.weight"
    assert plots.file_name("node_output_:/a:0_of_/a") == "node_output_:_a:0_of__a"
    assert len(plots.file_name("x" * 400 + "/Conv")) <= 200
    assert plots.file_name("x" * 400 + "/Conv").endswith("_Conv")


def test_equal_figures_give_equal_bytes_whatever_the_user_has_set(tmp_path: Path) -> None:
    given = quantizer()
    first = plots.save(plots.draw_quantizer(given), tmp_path / "a" / "x.png").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "savefig.dpi": 10, "savefig.facecolor": "red"}):
        second = plots.save(plots.draw_quantizer(given), tmp_path / "y.png").read_bytes()
    assert first == second
    assert first.startswith(b"\x89PNG")


def test_a_very_wide_picture_stays_within_what_viewers_take() -> None:
    with canvas.styled():
        png = canvas.png(canvas.blank(400, 0.5))
    assert int.from_bytes(png[16:20], "big") <= canvas.MOST_PIXELS


def test_odd_names_can_be_drawn() -> None:
    figure = plots.draw_partial("mse", ["none", "a$_{b}$ \u4e2d"], [0.0, 0.0], {})
    assert canvas.png(figure)


def test_a_tensor_of_zeros_can_be_drawn() -> None:
    empty = Histogram(edges=np.linspace(-0.5, 0.5, 65), counts=np.zeros(64, np.int64))
    given = dataclasses.replace(quantizer(), before=empty, after=empty, largest=0.0)
    assert canvas.png(plots.draw_quantizer(given))


@pytest.mark.slow
def test_the_plots_need_neither_jax_nor_a_window_system() -> None:
    code = (
        "import sys, jptq.report.diagnosis_plots;"
        "sys.exit('matplotlib.pyplot' in sys.modules or 'jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
