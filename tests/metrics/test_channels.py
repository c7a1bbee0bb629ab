from __future__ import annotations

import jax
import numpy as np
import pytest

from jptq.metrics import channels

SHAPE = (3, 1, 5, 6)
FIELDS = {name: i for i, name in enumerate(channels.FIELDS)}


def pairs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    scale = np.asarray([1.0, 1e-3, 1e4, 1e-40, 1.0]).reshape(5, 1)
    a = (rng.standard_normal(SHAPE) * scale + 3 * scale).astype(np.float32)
    b = (a + 0.3 * scale * rng.standard_normal(SHAPE)).astype(np.float32)
    b[:, :, 4] = 2.0
    return a, b


@pytest.mark.parametrize("axis", [1, 2])
def test_correlations_of_channels_are_numpys(axis: int) -> None:
    a, b = pairs()
    rows = channels.merged(np.asarray(channels.compare(a, b, axis)))
    moved = [np.moveaxis(v, axis + 1, 0).reshape(SHAPE[axis + 1], -1).astype(float) for v in (a, b)]
    for channel, (x, y) in enumerate(zip(*moved, strict=True)):
        # Row 4 of axis 1 is constant after quantization; a mixture of rows is not.
        want = np.corrcoef(x, y)[0, 1] if y.std() else 0.0
        assert channels.correlation(rows)[channel] == pytest.approx(want, abs=1e-9)
        assert rows[FIELDS["mean"], channel] == pytest.approx(x.mean())
        assert rows[FIELDS["magnitude"], channel] == np.abs(x).max()
        assert rows[FIELDS["low_quantized"], channel] == y.min()


def test_statistics_of_batches_and_of_joined_channels_are_those_of_the_whole() -> None:
    a, b = pairs()
    rows = np.asarray(channels.compare(a, b, 1))
    apart = channels.merged(np.stack([channels.merged(rows[:1]), channels.merged(rows[1:])]))
    np.testing.assert_allclose(apart, channels.merged(rows), rtol=1e-12)
    joined = channels.merged(channels.merged(rows)[:, :3], axis=1)
    x, y = (v[:, :, :3].ravel().astype(float) for v in (a, b))
    assert channels.correlation(joined[:, np.newaxis])[0] == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_elements_without_a_number_are_left_out() -> None:
    a, b = pairs()
    a[0, 0, 0, 0], b[0, 0, 0, 1] = -np.inf, np.nan
    rows = channels.merged(np.asarray(channels.compare(a, b, 1)))
    assert rows[FIELDS["count"]].tolist() == [16.0, 18.0, 18.0, 18.0, 18.0]
    assert np.isfinite(channels.correlation(rows)).all()


def test_a_shape_is_compiled_once() -> None:
    a, b = pairs()
    assert not jax.config.values["jax_enable_x64"]
    compiled = channels._compiled(1)
    channels.compare(a, b, 1)
    before = compiled._cache_size()  # type: ignore[attr-defined]
    channels.compare(a * np.float32(1e-40), b, 1)
    assert compiled._cache_size() == before  # type: ignore[attr-defined]
