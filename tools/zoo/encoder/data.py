"""Reviews that are drawn, not written: what does one say of the topic that is asked for?

A review is ``[CLS] topic [SEP] words [SEP]``, padded. Words are fillers and opinions; an opinion
belongs to a topic and has a strength of -2, -1, 1 or 2. A negation before it turns its sign, an
intensifier doubles it. The label is the sum over the opinions on the topic that is asked for, in
five grades. Everything follows from the seed.
"""

from __future__ import annotations

import dataclasses

import numpy as np

LENGTH = 32
GRADES = np.array([-2.5, -0.5, 0.5, 2.5])
"""Sums between two of them have the same label: -3 and less, -2 or -1, 0, 1 or 2, 3 and more."""
CLASSES = GRADES.size + 1

PAD, CLS, SEP = 0, 1, 2
_TOPICS = 4
_STRENGTHS = np.array([-2, -1, 1, 2])
_SYNONYMS = 3
_QUESTION = 3
_NEGATION, _NEGATIONS = _QUESTION + _TOPICS, 4
_INTENSIFIER, _INTENSIFIERS = _NEGATION + _NEGATIONS, 3
_OPINION = _INTENSIFIER + _INTENSIFIERS
_OPINIONS = _TOPICS * _STRENGTHS.size * _SYNONYMS
_FILLER = _OPINION + _OPINIONS
VOCABULARY = 96

_FEWEST_WORDS = 6
_MOST_WORDS = LENGTH - 4
_FILLERS, _NEGATED, _INTENSIFIED = 0.35, 0.12, 0.12
"""Shares of the words; the others are opinions."""
_ON_TOPIC = 0.4
"""Share of the opinions that are on the topic that is asked for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reviews:
    """Token ids and what they amount to.

    Attributes:
      input_ids: ``int64[n, LENGTH]``.
      attention_mask: ``int64[n, LENGTH]``, 1 up to the last ``[SEP]``.
      labels: ``int64[n]``, 0 (much against it) to 4 (much for it).
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray
    labels: np.ndarray


def reviews(seed: int, count: int) -> Reviews:
    """Draw a series of reviews.

    Args:
      seed: Of the series.
      count: Reviews in it.
    """
    rng = np.random.default_rng(seed)
    shape = (count, _MOST_WORDS)
    asked = rng.integers(_TOPICS, size=count)
    length = rng.integers(_FEWEST_WORDS, _MOST_WORDS + 1, size=count)

    kind = rng.random(shape)
    negation = kind < _NEGATED
    intensifier = ~negation & (kind < _NEGATED + _INTENSIFIED)
    filler = ~negation & ~intensifier & (kind < _NEGATED + _INTENSIFIED + _FILLERS)
    opinion = ~(negation | intensifier | filler)

    other = (asked[:, None] + rng.integers(1, _TOPICS, size=shape)) % _TOPICS
    topic = np.where(rng.random(shape) < _ON_TOPIC, asked[:, None], other)
    strength = rng.integers(_STRENGTHS.size, size=shape)
    word = (topic * _STRENGTHS.size + strength) * _SYNONYMS + rng.integers(_SYNONYMS, size=shape)
    words = _FILLER + rng.integers(VOCABULARY - _FILLER, size=shape)
    words = np.where(opinion, _OPINION + word, words)
    words = np.where(negation, _NEGATION + rng.integers(_NEGATIONS, size=shape), words)
    words = np.where(intensifier, _INTENSIFIER + rng.integers(_INTENSIFIERS, size=shape), words)

    factor = np.ones(shape)
    factor[:, 1:] -= 2 * negation[:, :-1]
    factor[:, 1:] += intensifier[:, :-1]
    inside = np.arange(_MOST_WORDS) < length[:, None]
    counted = opinion & (topic == asked[:, None]) & inside
    total = np.sum(counted * factor * _STRENGTHS[strength], axis=1)

    ids = np.full((count, LENGTH), PAD)
    ids[:, 0], ids[:, 1], ids[:, 2] = CLS, _QUESTION + asked, SEP
    ids[:, 3:-1] = np.where(inside, words, PAD)
    ids[np.arange(count), 3 + length] = SEP
    return Reviews(
        input_ids=ids,
        attention_mask=mask(ids),
        labels=np.searchsorted(GRADES, total),
    )


def mask(ids: np.ndarray) -> np.ndarray:
    """Return the attention mask of token ids, ``int64`` of the same shape."""
    kept: np.ndarray = ids != PAD
    return kept.astype(np.int64)
