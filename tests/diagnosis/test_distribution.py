from __future__ import annotations

import numpy as np
import pytest

from jptq.diagnosis import Walk, distributions_of, output_distributions_of
from jptq.quant.assign import uniform
from tests.agreements.figures import cosine
from tests.diagnosis.networks import by_onnxruntime, case, joined, on, types

BINS = 32


def of_kind(kind: str) -> list[str]:
    return [c.name for c in case().plan.calibrations if c.kind == kind]


def rounded(values: np.ndarray, threshold: float, levels: int = 127) -> np.ndarray:
    """Quantize as hmct-spec 2.1 says, in float64; the result is float32 as in the network."""
    scale = np.float32(threshold) / np.float32(levels)
    steps = np.round(values.astype(np.float64) / scale)
    return (np.clip(steps, -levels - 1, levels) * np.float64(scale)).astype(np.float32)


def histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.histogram(values[values != 0], len(edges) - 1, (edges[0], edges[-1]))[0]


def test_an_activation_is_spread_as_numpy_says() -> None:
    made, names = case(), of_kind("feature")
    # Thresholds below the maximum, so that something is clipped.
    thresholds = {n: t * np.float32(0.6) for n, t in made.thresholds.items()}
    found = distributions_of(made.runner, thresholds, types(made), names, made.samples, bins=BINS)
    tensors = [made.plan.calibration(name).tensor for name in names]
    floats = by_onnxruntime(made, [], [t for t in tensors if t != "x"])
    for one, tensor in zip(found, tensors, strict=True):
        source = made.samples if tensor == "x" else floats
        values = joined(source, tensor)
        limit = float(np.float32(made.thresholds[one.calibration][0] * np.float32(0.6)))
        assert one.limits == pytest.approx((-limit, limit))
        assert one.largest == pytest.approx(np.abs(values).max(), rel=1e-5)
        after = rounded(values, limit)
        assert one.clipped == pytest.approx(
            np.mean((values > limit * 127.5 / 127) | (values < -limit * 128.5 / 127)), abs=0.002
        )
        assert one.clipped > 0
        assert one.cosine == pytest.approx(cosine(values, after), abs=1e-5)
        assert one.before.counts.sum() == np.count_nonzero(values)
        # A value on an edge may fall to either side of it.
        assert np.abs(one.before.counts - histogram(values, one.before.edges)).sum() <= 4
        assert np.abs(one.after.counts - histogram(after, one.after.edges)).sum() <= 8
        assert np.array_equal(one.before.edges, one.after.edges)
        assert one.samples == 5


def test_a_weight_is_rounded_per_channel() -> None:
    made = case()
    (name,) = [n for n in of_kind("weight") if made.plan.by_node["stem"].inputs[1] == n]
    calibration = made.plan.calibration(name)
    (one,) = distributions_of(
        made.runner, made.thresholds, types(made), [name], made.samples, bins=BINS
    )
    weight = made.model.initializers[calibration.tensor]
    after = np.stack([rounded(w, t) for w, t in zip(weight, made.thresholds[name], strict=True)])
    assert one.kind == "weight"
    assert one.samples == 0
    assert one.cosine == pytest.approx(cosine(weight, after), abs=1e-9)
    assert np.array_equal(one.before.counts, histogram(weight, one.before.edges))
    assert np.array_equal(one.after.counts, histogram(after, one.after.edges))
    widest = float(made.thresholds[name].max())
    assert one.limits == (-widest, widest)
    assert one.clipped == 0


def test_a_quantizer_that_is_off_changes_nothing_and_has_no_limits() -> None:
    made, name = case(), of_kind("feature")[0]
    (one,) = distributions_of(
        made.runner, made.thresholds, types(made, []), [name], made.samples[:1]
    )
    assert np.array_equal(one.before.counts, one.after.counts)
    assert one.limits == (-np.inf, np.inf)
    assert one.cosine == pytest.approx(1.0)


def test_float16_is_a_cast_there_and_back() -> None:
    made, name = case(), of_kind("feature")[0]
    held = {**uniform(made.plan, "int8"), name: "float16"}
    (one,) = distributions_of(made.runner, made.thresholds, held, [name], made.samples)
    values = joined(made.samples, "x")
    assert one.cosine == pytest.approx(cosine(values, values.astype(np.float16)), abs=1e-12)
    assert one.cosine < 1


def test_the_error_of_an_output_is_quantized_less_float() -> None:
    made = case()
    walk = Walk.of(made.runner)
    tensors = [walk.tensors[i] for i in (3, len(walk.tensors) - 1)]
    found = output_distributions_of(made.runner, on(made), tensors, made.samples, bins=BINS)
    floats, quantized = (by_onnxruntime(made, names, tensors) for names in ([], None))
    assert [one.tensor for one in found] == tensors
    for one in found:
        a, b = joined(floats, one.tensor), joined(quantized, one.tensor)
        error = b.astype(np.float64) - a
        assert one.rms_error == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-3)
        assert one.mean_error == pytest.approx(error.mean(), rel=1e-2, abs=1e-6)
        assert one.before.counts.sum() == np.count_nonzero(a)
        assert one.error.edges[[0, -1]] == pytest.approx([error.min(), error.max()], rel=1e-3)
        assert np.abs(one.before.counts - histogram(a, one.before.edges)).sum() <= 4
        assert np.array_equal(one.before.edges, one.after.edges)
        own = [c.name for c in made.plan.calibrations if c.tensor == one.tensor]
        limit = float(made.thresholds[own[0]][0]) if own else np.inf
        assert one.limits == pytest.approx((-limit, limit))
