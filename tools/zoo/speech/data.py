"""Words of two syllables that are synthesized, at any loudness and in noise.

A syllable is a rising or falling chirp, one of two vowels (a hum with two formants) or a hiss.
Frequencies are in Hz, times in samples. Every word is a pure function of its seed and number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

RATE = 4000
FRAME, HOP, FRAMES = 64, 32, 48
SAMPLES = HOP * (FRAMES - 1) + FRAME
"""Of a word: 0.39 s."""

WORDS = ("ra", "fa", "ri", "fi", "sa", "as", "si", "is", "ai", "ia")
"""Letters are syllables: rising, falling, the vowels a and i, hiss (s)."""

LEVELS = 15
"""A word is stored as integers up to this magnitude, and a gain."""
_QUIETEST = 20.0
"""Decibels between the loudest word and the quietest."""
_NOISE = (-9.0, 18.0)
"""Decibels by which the word's power is above that of the noise, least and most."""

_SYLLABLE = (350, 620)
_GAP = (0, 120)
_FORMANTS = {"a": (600.0, 1150.0), "i": (450.0, 1500.0)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sounds:
    """Recorded words.

    Attributes:
      levels: ``int8[n, SAMPLES]``, up to `LEVELS` in each word.
      gains: ``float32[n]``, of a level.
      labels: ``int64[n]``, indices into `WORDS`.
    """

    levels: np.ndarray
    gains: np.ndarray
    labels: np.ndarray

    @property
    def frames(self) -> np.ndarray:
        """What the network is fed with, ``float32[n, FRAMES, FRAME]``, at most 1."""
        waves = self.levels.astype(np.float32) * self.gains[:, None]
        windows = np.lib.stride_tricks.sliding_window_view(waves, FRAME, axis=1)
        return np.ascontiguousarray(windows[:, ::HOP])


def sounds(seed: int, count: int) -> Sounds:
    """Synthesize a series of words.

    Args:
      seed: Of the series.
      count: Words in it.
    """
    levels = np.zeros((count, SAMPLES), np.int8)
    gains, labels = np.zeros(count, np.float32), np.zeros(count, np.int64)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        labels[number] = rng.integers(len(WORDS))
        wave = _word(rng, WORDS[labels[number]])
        power = np.mean(wave**2) * 10 ** (-rng.uniform(*_NOISE) / 10)
        wave += np.sqrt(power) * rng.standard_normal(SAMPLES)
        levels[number] = np.round(LEVELS * wave / np.abs(wave).max())
        gains[number] = 10 ** (-rng.uniform(0, _QUIETEST) / 20) / LEVELS
    return Sounds(levels=levels, gains=gains, labels=labels)


def _word(rng: np.random.Generator, letters: str) -> np.ndarray:
    """Return one syllable after the other, with silence around and between."""
    parts = [_syllable(rng, letter) for letter in letters]
    gap = int(rng.integers(*_GAP))
    start = int(rng.integers(SAMPLES - gap - sum(part.size for part in parts)))
    wave = np.zeros(SAMPLES)
    for part in parts:
        wave[start : start + part.size] = part
        start += part.size + gap
    return wave


def _syllable(rng: np.random.Generator, letter: str) -> np.ndarray:
    length = int(rng.integers(*_SYLLABLE))
    at = np.linspace(0, 1, length)
    sound = _KINDS[letter](rng, letter, length)
    envelope = np.minimum(1, at / rng.uniform(0.05, 0.3)) * np.minimum(1, (1 - at) / 0.2)
    sound = sound * envelope
    loudness: np.ndarray = sound / np.sqrt(np.mean(sound**2)) * rng.uniform(0.5, 1.0)
    return loudness


def _chirp(rng: np.random.Generator, letter: str, length: int) -> np.ndarray:
    low = rng.uniform(300, 700)
    high = low * rng.uniform(1.08, 1.8)
    path = np.geomspace(low, high, length)
    phase = 2 * np.pi * np.cumsum(path if letter == "r" else path[::-1]) / RATE
    return np.sin(phase) + 0.2 * np.sin(2 * phase)


def _vowel(rng: np.random.Generator, letter: str, length: int) -> np.ndarray:
    pitch = rng.uniform(90, 220) * np.linspace(1, rng.uniform(0.85, 1.15), length)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    tract = rng.uniform(0.85, 1.15)
    wave = np.zeros(length)
    for harmonic in range(1, int(0.45 * RATE / pitch.max()) + 1):
        away = harmonic * pitch.mean() - tract * np.array(_FORMANTS[letter])
        weight = np.sum(np.exp(-((away / 90) ** 2)) * (1.0, 0.5))
        wave += weight * np.sin(harmonic * phase + rng.uniform(0, 2 * np.pi))
    return wave + 0.02 * np.sin(phase)


def _hiss(rng: np.random.Generator, letter: str, length: int) -> np.ndarray:
    del letter
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.fft.rfftfreq(length, 1 / RATE)
    low = rng.uniform(900, 1300)
    return np.fft.irfft(spectrum * (frequency > low), length)


_KINDS: dict[str, Callable[[np.random.Generator, str, int], np.ndarray]] = {
    "r": _chirp,
    "f": _chirp,
    "a": _vowel,
    "i": _vowel,
    "s": _hiss,
}
