from __future__ import annotations

import math

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jptq.errors import UnknownNameError
from jptq.metrics import similarity
from jptq.metrics.similarity import METRICS
from jptq.results.sensitivity import BETTER

NAMES = tuple(METRICS)
SHAPES = [(), (7,), (2, 5), (2, 3, 4), (1, 6, 4, 4), (1, 400, 3)]

CLOSE = 1e-6
"""Terms are added in float32, 256 at a time, before float64 takes over: 2**-24 * sqrt(256)."""


def _moments(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(similarity.compare(a, b, axes=0))


def found(names: list[str], *pairs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return ``float64[S, M]`` of pairs of float32 arrays."""
    sums = np.stack([_moments(a, b) for a, b in pairs])
    return similarity.evaluate(names, sums, pairs[0][0].size)


@pytest.mark.parametrize("shape", [(1000,), (900, 4), (1, 900, 4), (4, 64, 1, 1), (300,)])
def test_sums_take_no_more_room_than_the_tensors(shape: tuple[int, ...]) -> None:
    tensor = jax.ShapeDtypeStruct(shape, np.float32)
    with jax.enable_x64(True):
        program = jax.make_jaxpr(similarity.moments)(tensor, tensor)
    largest = max(v.aval.size for line in program.jaxpr.eqns for v in line.outvars)
    # Padding to whole chunks is all that may come on top.
    assert largest <= 2 * math.prod(shape)


def one(name: str, a: np.ndarray, b: np.ndarray) -> float:
    return float(found([name], (a, b))[0, 0])


def pair(*shape: int, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(shape).astype(np.float32)
    return a, (a + noise * rng.standard_normal(shape)).astype(np.float32)


def oracle(name: str, a: np.ndarray, b: np.ndarray) -> float:
    """The definitions, in float64, one by one."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    if name == "cosine-similarity":
        return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))
    if name == "mse":
        return float(((x - y) ** 2).mean())
    if name == "mae":
        return float(np.abs(x - y).mean())
    if name == "mre":
        return float((np.abs(x - y)[x != 0] / np.abs(x[x != 0])).mean())
    if name == "sqnr":
        return 10 * math.log10(np.linalg.norm(x) / np.linalg.norm(x - y))
    if name == "chebyshev":
        return float(np.abs(x - y).max())
    if name == "nsr":
        return float(((x - y) ** 2).sum() / (x**2).sum())
    assert name == "channel-nsr"
    u, v = a.astype(np.float64), b.astype(np.float64)
    if a.ndim < 3 or not 1 < a.shape[1] <= 256:
        return oracle("nsr", a, b)
    columns = [(u[:, c], v[:, c]) for c in range(a.shape[1])]
    return float(np.mean([((p - q) ** 2).sum() / (p**2).sum() for p, q in columns]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_their_definitions(name: str, shape: tuple[int, ...]) -> None:
    a, b = pair(*shape)
    assert one(name, a, b) == pytest.approx(oracle(name, a, b), rel=CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_equal_tensors_are_perfect(name: str) -> None:
    a, _ = pair(1, 3, 4)
    perfect = {"cosine-similarity": 1.0, "sqnr": math.inf}.get(name, 0.0)
    assert one(name, a, a) == perfect


@pytest.mark.parametrize("name", NAMES)
def test_more_noise_is_worse(name: str) -> None:
    little, much = (one(name, *pair(1, 3, 40, noise=noise)) for noise in (0.01, 0.5))
    assert (little > much) == (METRICS[name].better == "higher")


def test_sensitivity_tables_know_the_direction_of_every_metric() -> None:
    assert {name: metric.better for name, metric in METRICS.items()} == {
        name: BETTER[name] for name in METRICS
    }


def test_every_metric_is_named_in_a_direction() -> None:
    assert {metric.better for metric in METRICS.values()} == {"higher", "lower"}


def test_sqnr_is_half_of_the_usual_decibels() -> None:
    a = np.array([3.0, 0.0], np.float32)
    b = np.array([3.0, 0.3], np.float32)
    assert one("sqnr", a, b) == pytest.approx(10.0, rel=1e-6)  # the usual definition gives 20


def test_mre_is_relative_to_float_and_skips_zeros() -> None:
    a = np.array([2.0, -4.0, 0.0], np.float32)
    b = np.array([3.0, -4.0, 9.0], np.float32)
    assert one("mre", a, b) == pytest.approx(0.25)  # (1/2 + 0/4) / 2
    assert one("mre", np.zeros(3, np.float32), b) == 0.0


def test_zero_vectors_follow_the_conventions() -> None:
    zero, a = np.zeros(4, np.float32), np.ones(4, np.float32)
    assert one("cosine-similarity", zero, zero) == 1.0
    assert one("cosine-similarity", zero, a) == 0.0
    assert one("cosine-similarity", a, zero) == 0.0
    assert one("sqnr", zero, zero) == 0.0
    assert one("sqnr", a, a) == math.inf
    assert one("sqnr", zero, a) == -math.inf
    assert one("nsr", zero, zero) == 0.0
    assert one("nsr", zero, a) == 1.0


def test_opposite_tensors_have_cosine_minus_one() -> None:
    a, _ = pair(50)
    assert one("cosine-similarity", a, -a) == pytest.approx(-1.0, rel=1e-12)


@pytest.mark.parametrize("noise", [1e-2, 1e-4, 1e-6])
def test_one_minus_cosine_keeps_its_digits_for_nearly_equal_tensors(noise: float) -> None:
    a, b = pair(100_000, noise=noise)
    x, y = a.astype(np.longdouble), b.astype(np.longdouble)
    e = y - x
    # 1 - cos = (|e|^2 |a|^2 - (a.e)^2) / (2 |a|^4) to the leading order, without cancellation.
    aa, ae, ee = (x * x).sum(), (x * e).sum(), (e * e).sum()
    want = float((ee * aa - ae * ae) / (2 * aa * aa))
    assert 1 - one("cosine-similarity", a, b) == pytest.approx(
        want, rel=3 * noise + CLOSE, abs=2e-15
    )


def test_sums_are_float64_whatever_the_caller_has_set() -> None:
    a, b = pair(1000)
    assert not jax.config.values["jax_enable_x64"]
    assert _moments(a, b).dtype == np.float64


def test_large_values_do_not_overflow() -> None:
    a, b = pair(100)
    scaled = one("cosine-similarity", a * np.float32(1e37), b * np.float32(1e37))
    assert scaled == pytest.approx(one("cosine-similarity", a, b), rel=1e-6)


def test_the_noise_of_a_small_channel_counts_as_much_as_that_of_a_large_one() -> None:
    a = np.ones((1, 2, 8), np.float32)
    a[:, 0] *= 1000
    b = a.copy()
    b[:, 1] *= np.float32(1.5)
    assert one("nsr", a, b) < 1e-6
    assert one("channel-nsr", a, b) == pytest.approx(0.25 / 2)


@pytest.mark.parametrize(
    ("shape", "count"),
    [((1, 6, 4, 4), 6), ((1, 5, 9), 5), ((1, 5), 1), ((9,), 1), ((), 1), ((1, 257, 2), 1)],
)
def test_channels_are_axis_one_of_three_or_more_axes(shape: tuple[int, ...], count: int) -> None:
    assert similarity.channels(shape) == count


def test_pooled_metrics_add_samples_before_they_divide() -> None:
    first, second = pair(1, 3, 4), pair(1, 3, 4, seed=1)
    first = (first[0] * np.float32(1e-3), first[1])  # its own ratio is huge
    both = tuple(np.concatenate([u, v], axis=2) for u, v in zip(first, second, strict=True))
    values = found(["nsr", "channel-nsr", "mse"], first, second)
    for column, name in enumerate(("nsr", "channel-nsr")):
        want = oracle(name, both[0], both[1])
        np.testing.assert_allclose(values[:, column], want, rtol=CLOSE)
    assert values[0, 2] != values[1, 2]  # the others are per sample


def test_one_pass_serves_all_metrics_of_many_samples() -> None:
    pairs = [pair(1, 3, 4, seed=seed) for seed in range(3)]
    per_sample = ["cosine-similarity", "mse", "mre", "sqnr", "chebyshev", "mae"]
    values = found(per_sample, *pairs)
    want = [[oracle(name, a, b) for name in per_sample] for a, b in pairs]
    np.testing.assert_allclose(values, want, rtol=CLOSE)


def test_vmapped_moments_are_those_of_each_sample() -> None:
    pairs = [pair(1, 3, 4, seed=seed) for seed in range(3)]
    together = similarity.compare(np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs]))
    apart = np.stack([_moments(a, b) for a, b in pairs])
    np.testing.assert_allclose(np.asarray(together), apart, rtol=CLOSE)


def test_a_tensor_without_elements_is_perfect() -> None:
    empty = np.zeros((1, 3, 0), np.float32)
    assert one("mse", empty, empty) == 0.0
    assert one("cosine-similarity", empty, empty) == 1.0


def test_integer_outputs_are_compared_as_numbers() -> None:
    a, b = np.array([1, 2, 3], np.int32), np.array([1, 2, 5], np.int32)
    assert one("chebyshev", a, b) == 2.0
    assert one("mse", a, b) == pytest.approx(4 / 3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(1,), (2, 3, 4), (1, 400, 3)])
def test_a_broken_element_is_worse_than_noise_and_still_a_number(
    name: str, value: float, shape: tuple[int, ...]
) -> None:
    a, noisy = pair(*shape)
    broken = a.copy()
    broken.flat[0] = value
    score, other = one(name, a, broken), one(name, a, noisy)
    assert math.isfinite(score)
    assert score < other if METRICS[name].better == "higher" else score > other


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mask", [-np.inf, np.nan])
def test_a_mask_in_both_tensors_is_no_error(name: str, mask: float) -> None:
    a, b = pair(2, 3, 4)
    expected = a.copy(), b.copy()
    for tensor in (a, b):
        tensor[0, 1] = mask
    for tensor in expected:
        tensor[0, 1] = 0
    assert one(name, a, b) == one(name, *expected)


def test_an_unknown_metric_is_refused() -> None:
    a, b = pair(3)
    with pytest.raises(UnknownNameError, match="unknown metric 'cosine'"):
        found(["cosine"], (a, b))


def test_means_of_batches_are_those_of_all_samples_at_once() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(2, 7, 1, 3, 5))
    b[2] = a[2]
    sums = np.asarray(similarity.compare(a, b))
    names = tuple(similarity.METRICS)
    means = similarity.Means(names, 15)
    for part in np.split(sums, [1, 4]):
        means.add(part)
    np.testing.assert_allclose(
        means.values(),
        [similarity.mean(column) for column in similarity.evaluate(names, sums, 15).T],
        rtol=1e-12,
    )


def test_a_sample_without_error_is_left_out_of_the_mean_ratio() -> None:
    a, b = pair(2, 1, 3, 5)
    b[1] = a[1]
    sums = np.asarray(similarity.compare(a, b))
    means = similarity.Means(("sqnr",), 15)
    means.add(sums)
    ratio = one("sqnr", a[0], b[0])
    assert means.values() == pytest.approx([ratio])
    values = similarity.evaluate(("sqnr",), sums, 15)[:, 0]
    assert list(values) == [pytest.approx(ratio), math.inf]
    assert similarity.mean(values) == pytest.approx(ratio)
    assert similarity.mean(values[1:]) == math.inf


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
"""Every finite float32, denormals included."""

MAGNITUDES = st.one_of(
    FLOATS,
    st.builds(
        lambda digits, exponent: float(np.float32(digits * 2.0**exponent)),
        st.floats(-1, 1),
        st.integers(-149, 127),
    ),
)

WHOLE = (1, 2, 3)
"""One shape: a program is compiled per shape, never per value."""


def _tensors() -> st.SearchStrategy[np.ndarray]:
    numbers = st.lists(MAGNITUDES, min_size=6, max_size=6)
    return numbers.map(lambda values: np.asarray(values, np.float32).reshape(WHOLE))


def whole(name: str, a: np.ndarray, b: np.ndarray) -> float:
    """The definitions of `oracle` with their conventions, in NumPy's float64."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    e = y - x

    def share(noise: float, signal: float) -> float:
        return 0.0 if noise == 0 else 1.0 if signal == 0 else noise / signal

    if name == "cosine-similarity":
        norms = np.linalg.norm(x) * np.linalg.norm(y)
        if norms == 0:
            return float(not x.any() and not y.any())
        return float(np.clip((x * y).sum() / norms, -1, 1))
    if name == "mre":
        return float((np.abs(e)[x != 0] / np.abs(x[x != 0])).mean()) if x.any() else 0.0
    if name == "sqnr":
        signal, noise = float(np.linalg.norm(x)), float(np.linalg.norm(e))
        if noise == 0:
            return math.inf if signal else 0.0
        return 10 * (math.log10(signal) - math.log10(noise)) if signal else -math.inf
    if name == "nsr":
        return share(float((e**2).sum()), float((x**2).sum()))
    if name == "channel-nsr":
        noise, signal = (e**2).sum((0, 2)), (x**2).sum((0, 2))
        return float(np.mean([share(n, s) for n, s in zip(noise, signal, strict=True)]))
    return {
        "mse": float((e**2).mean()),
        "mae": float(np.abs(e).mean()),
        "chebyshev": float(np.abs(e).max()),
    }[name]


@given(_tensors(), _tensors())
@example(np.full(WHOLE, 3.4e38, np.float32), np.full(WHOLE, -3.4e38, np.float32))
@example(np.full(WHOLE, 1e-45, np.float32), np.full(WHOLE, 3e-45, np.float32))
@example(np.full(WHOLE, 1e-45, np.float32), np.full(WHOLE, 3.4e38, np.float32))
@example(np.full(WHOLE, 1e9, np.float32), np.full(WHOLE, 1e-9, np.float32))
@example(
    np.float32([0.5, 0, 0, 0, 0, 0]).reshape(WHOLE),
    np.float32([0.5, 0, 0, 0, 0.5, 2.0**-14]).reshape(WHOLE),
)
@settings(max_examples=150, deadline=None)
def test_metrics_are_exact_over_the_whole_range_of_float32(a: np.ndarray, b: np.ndarray) -> None:
    sums = _moments(a, b)[np.newaxis]
    alone = similarity.evaluate(NAMES, sums, a.size)[0]
    streamed = similarity.Means(NAMES, a.size)
    streamed.add(sums)
    want = [whole(name, a, b) for name in NAMES]
    for found in (alone, streamed.values()):
        for name, value, exact in zip(NAMES, found, want, strict=True):
            # Decibels are a logarithm: near 0 dB its last bits are of the ratio, which is near 1.
            atol = 1e-12 if name == "sqnr" else 0
            np.testing.assert_allclose(value, exact, rtol=1e-9, atol=atol, err_msg=name)


@given(_tensors(), _tensors())
@settings(max_examples=60, deadline=None)
def test_pooled_metrics_are_exact_over_the_whole_range(a: np.ndarray, b: np.ndarray) -> None:
    means = similarity.Means(("nsr", "channel-nsr"), a.size)
    for pair_of in ((a, b), (b, a)):
        means.add(_moments(*pair_of)[np.newaxis])
    both = np.concatenate([a, b], axis=2), np.concatenate([b, a], axis=2)
    want = [whole(name, *both) for name in ("nsr", "channel-nsr")]
    np.testing.assert_allclose(means.values(), want, rtol=1e-9)


def test_no_value_compiles_another_program() -> None:
    before = similarity._compiled(0)._cache_size()
    for scale in (1e-45, 1e-38, 1.0, 3e38):
        _moments(np.full(WHOLE, scale, np.float32), np.zeros(WHOLE, np.float32))
    assert similarity._compiled(0)._cache_size() <= before + 1


def test_elements_that_quantization_breaks_are_counted() -> None:
    a, b = pair(1, 3, 4)
    a[0, 0, 0] = b[0, 0, 0] = np.nan
    a[0, 0, 1] = b[0, 0, 1] = -np.inf
    b[0, 1, :2] = np.nan, np.inf
    counts = _moments(a, b)[[similarity.FIELDS.index(n) for n in ("broken", "undefined")]]
    assert counts.tolist() == [2.0, 1.0]
