"""Fourier transforms, windows and mel filters, against NumPy and onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jptq.errors import ShapeError
from jptq.ops import signal
from tests.ops.agreement import check_against_onnxruntime, normal, together


@pytest.mark.parametrize(
    ("parts", "inverse", "onesided"), [(1, 0, 0), (1, 0, 1), (2, 0, 0), (2, 1, 0), (2, 1, 1)]
)
def test_transforms_are_those_of_numpy(parts: int, inverse: int, onesided: int) -> None:
    x = normal(2, 7, parts)
    wide = x.astype(np.float64)
    values = wide[..., 0] if parts == 1 else wide[..., 0] + 1j * wide[..., 1]
    functions: dict[tuple[int, int], Callable[..., Any]] = {
        (0, 0): np.fft.fft,
        (0, 1): np.fft.rfft,
        (1, 0): np.fft.ifft,
        (1, 1): np.fft.irfft,
    }

    def ours(length: int | None) -> Callable[..., jax.Array]:
        given = None if length is None else np.asarray(length)
        return lambda x: signal.dft(x, given, np.asarray(1), inverse=inverse, onesided=onesided)

    found = together({length: ours(length) for length in (None, 5, 6, 9)}, x)
    for length, got in found.items():
        y = functions[inverse, onesided](values, length, axis=1)
        expected = np.stack([y.real, y.imag], -1) if np.iscomplexobj(y) else y[..., None]
        np.testing.assert_allclose(got, expected, atol=1e-5, err_msg=str(length))


def test_what_is_real_of_a_real_signal_is_so_exactly() -> None:
    y = np.asarray(signal.dft(jnp.asarray(normal(1, 10, 1))))
    assert (y[0, [0, 5], 1] == 0).all()
    np.testing.assert_array_equal(y[0, 1:5, 0], y[0, :5:-1, 0])


def test_a_signal_is_real_or_complex() -> None:
    with pytest.raises(ShapeError, match="length 3"):
        signal.dft(jnp.zeros((1, 4, 3)))


@pytest.mark.parametrize("onesided", [0, 1])
def test_frames_agree_with_onnxruntime(onesided: int) -> None:
    window = np.hanning(8).astype(np.float32)
    inputs = [normal(2, 37, 1), np.asarray(5), window, np.asarray(8)]
    check_against_onnxruntime("STFT", inputs, {"onesided": onesided}, opset=17, atol=1e-4)


@pytest.mark.parametrize("periodic", [0, 1])
@pytest.mark.parametrize("name", ["HannWindow", "HammingWindow", "BlackmanWindow"])
def test_windows_agree_with_onnxruntime(name: str, periodic: int) -> None:
    check_against_onnxruntime(name, [np.asarray(9)], {"periodic": periodic}, opset=17, atol=1e-6)


def test_mel_filters_agree_with_onnxruntime() -> None:
    inputs = [np.asarray(n) for n in (16, 128, 8000)] + [
        np.asarray(edge, np.float32) for edge in (20, 3000)
    ]
    check_against_onnxruntime("MelWeightMatrix", inputs, {}, opset=17, atol=1e-5)
