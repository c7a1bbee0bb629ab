"""Signal processing: Fourier transforms, windows and mel filters.

Source of every function here: ONNX operator specification, the version last in ``since``.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jptq.errors import ShapeError
from jptq.ops.cast import element_type
from jptq.ops.precision import widened
from jptq.ops.registry import op
from jptq.ops.traits import Traits

_FLOAT32 = 1
"""ONNX's code of float32, the type that windows have unless told."""


def _as_complex(x: Array) -> Array:
    """Return ``[..., 1]`` (real) or ``[..., 2]`` (real and imaginary part) as ``[...]``.

    Raises:
      ShapeError: The last axis has another length.
    """
    if x.shape[-1] not in (1, 2):
        raise ShapeError(
            f"a signal whose last axis has length {x.shape[-1]}",
            why="it is 1 for real signals and 2 for complex ones",
        )
    wide = widened(x)
    return wide[..., 0] if x.shape[-1] == 1 else lax.complex(wide[..., 0], wide[..., 1])


def _as_pairs(y: Array) -> Array:
    """Return complex numbers ``[...]`` as ``[..., 2]``."""
    return jnp.stack((y.real, y.imag), axis=-1)


def _transform(
    x: Array, length: np.ndarray | None, axis: int, *, inverse: bool, onesided: bool
) -> Array:
    """Transform along an axis of ``[..., 1]`` or ``[..., 2]``."""
    along = axis % x.ndim
    signal = _as_complex(x)
    n = None if length is None else int(length.item())
    if inverse and onesided:
        y = jnp.fft.irfft(signal, n, axis=along)[..., np.newaxis]
    elif inverse:
        y = _as_pairs(jnp.fft.ifft(signal, n, axis=along))
    elif onesided:
        y = _as_pairs(jnp.fft.rfft(signal.real, n, axis=along))
    elif jnp.iscomplexobj(signal):
        y = _as_pairs(jnp.fft.fft(signal, n, axis=along))
    else:
        y = _as_pairs(_mirrored(jnp.fft.rfft(signal, n, axis=along), n or x.shape[along], along))
    return y.astype(x.dtype)


def _mirrored(half: Array, length: int, axis: int) -> Array:
    """Return all frequencies of a real signal from the first half.

    Half is computed, and what is real there is so exactly: the middle one and that of zero.
    """
    rest = lax.slice_in_dim(half, 1, (length + 1) // 2, axis=axis)
    return jnp.concatenate((half, jnp.flip(jnp.conj(rest), axis)), axis)


@op("DFT", since=(17,), static=("dft_length",), traits=Traits.float_only())
def dft_17(
    input: Array,
    dft_length: np.ndarray | None = None,
    *,
    axis: int = 1,
    inverse: int = 0,
    onesided: int = 0,
) -> Array:
    """Transform as `dft` does; up to opset 19 the axis is an attribute."""
    return _transform(input, dft_length, axis, inverse=bool(inverse), onesided=bool(onesided))


@op("DFT", since=(20,), static=("dft_length", "axis"), traits=Traits.float_only())
def dft(
    input: Array,
    dft_length: np.ndarray | None = None,
    axis: np.ndarray | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Array:
    """Compute the discrete Fourier transform along an axis.

    Args:
      input: ``[..., 1]`` real or ``[..., 2]`` complex.
      dft_length: Scalar: the signal is cut or padded with zeros to it; its own length if absent.
      axis: Scalar, never the last axis; the one before that if absent.

    Returns:
      ``[..., 2]``; with ``onesided`` the first half of the frequencies of a real signal, or, if
      also ``inverse``, the real signal ``[..., 1]`` of such a half.

    Source: ONNX operator specification, DFT-20.
    """
    along = -2 if axis is None else int(axis.item())
    return _transform(input, dft_length, along, inverse=bool(inverse), onesided=bool(onesided))


@op("STFT", since=(17,), static=("frame_step", "frame_length"), traits=Traits.float_only())
def stft(
    signal: Array,
    frame_step: np.ndarray,
    window: Array | None = None,
    frame_length: np.ndarray | None = None,
    *,
    onesided: int = 1,
) -> Array:
    """Transform each frame of a signal.

    Args:
      signal: ``[batch, length, 1]`` real or ``[batch, length, 2]`` complex.
      frame_step: Scalar: positions from one frame to the next.
      window: ``[frame_length]``: factors of a frame; ones if absent.
      frame_length: Scalar; the window's length, or the signal's, if absent.

    Returns:
      ``[batch, frames, frequencies, 2]``; with ``onesided`` the first half of the frequencies.

    Source: ONNX operator specification, STFT-17.
    """
    step = int(frame_step.item())
    if frame_length is not None:
        taps = int(frame_length.item())
    else:
        taps = signal.shape[1] if window is None else window.shape[0]
    frames = (signal.shape[1] - taps) // step + 1
    places = np.arange(frames)[:, None] * step + np.arange(taps)
    cut = jnp.take(signal, places, axis=1)
    weighted = cut if window is None else cut * window[:, None]
    return _transform(weighted, None, -2, inverse=False, onesided=bool(onesided))


def _window(
    size: np.ndarray, terms: tuple[float, ...], periodic: int, output_datatype: int
) -> np.ndarray:
    """Return a sum of cosines of 0, 1, 2, ... periods over a window."""
    length = int(size.item())
    period = length if periodic else length - 1
    angles = 2 * np.pi * np.arange(length) / max(period, 1)
    y = sum(factor * np.cos(k * angles) for k, factor in enumerate(terms))
    return np.asarray(y, element_type(output_datatype))


@op("HannWindow", since=(17,), static=("size",), traits=Traits.shape_only())
def hann_window(
    size: np.ndarray, *, output_datatype: int = _FLOAT32, periodic: int = 1
) -> np.ndarray:
    """Return a Hann window of ``size`` values."""
    return _window(size, (0.5, -0.5), periodic, output_datatype)


@op("HammingWindow", since=(17,), static=("size",), traits=Traits.shape_only())
def hamming_window(
    size: np.ndarray, *, output_datatype: int = _FLOAT32, periodic: int = 1
) -> np.ndarray:
    """Return a Hamming window of ``size`` values."""
    return _window(size, (25 / 46, -21 / 46), periodic, output_datatype)


@op("BlackmanWindow", since=(17,), static=("size",), traits=Traits.shape_only())
def blackman_window(
    size: np.ndarray, *, output_datatype: int = _FLOAT32, periodic: int = 1
) -> np.ndarray:
    """Return a Blackman window of ``size`` values."""
    return _window(size, (0.42, -0.5, 0.08), periodic, output_datatype)


_MEL_INPUTS = (
    "num_mel_bins",
    "dft_length",
    "sample_rate",
    "lower_edge_hertz",
    "upper_edge_hertz",
)


@op("MelWeightMatrix", since=(17,), static=_MEL_INPUTS, traits=Traits.shape_only())
def mel_weight_matrix(
    num_mel_bins: np.ndarray,
    dft_length: np.ndarray,
    sample_rate: np.ndarray,
    lower_edge_hertz: np.ndarray,
    upper_edge_hertz: np.ndarray,
    *,
    output_datatype: int = _FLOAT32,
) -> np.ndarray:
    """Return triangles that turn a spectrum into bands equally wide on the mel scale.

    All inputs are scalars.

    Returns:
      ``[dft_length // 2 + 1, num_mel_bins]``: each triangle rises from the frequency of one edge to
      one at the next and falls to zero at the one after that.

    Source: ONNX operator specification, MelWeightMatrix-17. Edges lie where its reference
    evaluator and onnxruntime put them.
    """
    bands, length = int(num_mel_bins.item()), int(dft_length.item())
    low, high = (
        2595 * np.log10(1 + float(edge.item()) / 700)
        for edge in (lower_edge_hertz, upper_edge_hertz)
    )
    mels = low + np.arange(bands + 2) * (high - low) / (bands + 2)
    hertz = 700 * (10 ** (mels / 2595) - 1)
    edges = ((length + 1) * hertz // float(sample_rate.item())).astype(int)
    begin, centre, end = edges[:-2], edges[1:-1], edges[2:]
    place = np.arange(length // 2 + 1)[:, None]
    # A band narrower than one frequency keeps its peak alone.
    rising = np.where(centre > begin, (place - begin) / np.maximum(centre - begin, 1), 1)
    falling = (end - place) / np.maximum(end - centre, 1)
    y = np.where(
        (place >= begin) & (place <= centre),
        np.where(place == centre, 1, rising),
        np.where((place > centre) & (place < end), falling, 0),
    )
    return y.astype(element_type(output_datatype))
