"""LSTM, GRU, RNN."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tools.fuzz.builder import Builder, Value
from tools.fuzz.catalogue.registry import operator

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@operator("LSTM", "GRU", "RNN", ranks=(3,), lengths=(1, 4), weight=1.0)
def recurrent(b: Builder, x: Value) -> Sequence[Value]:
    """Add a recurrent layer with some of its optional inputs and all its outputs."""
    draw = b.draw
    op = draw.pick(list(_GATES))
    steps, batch, width = x.shape
    hidden, gates = draw.integer(1, 3), _GATES[op]
    direction = draw.pick([None, "forward", "reverse", "bidirectional"])
    ways = 2 if direction == "bidirectional" else 1
    kernel = b.weight((ways, gates * hidden, width))
    recurrence = b.weight((ways, gates * hidden, hidden))
    bias = b.weight((ways, 2 * gates * hidden)) if draw.chance(0.6) else None
    lengths = None
    if draw.chance(0.2):
        lengths = b.constant(draw.array((batch,), np.dtype(np.int32), (1, steps)))
    state = b.operand((ways, batch, hidden)) if draw.chance(0.3) else None
    more: list[Value | None] = []
    if op == "LSTM":
        cell = b.operand((ways, batch, hidden)) if draw.chance(0.3) else None
        peep = b.weight((ways, 3 * hidden)) if draw.chance(0.2) else None
        more = [cell, peep]
    return b.node(
        op, x, kernel, recurrence, bias, lengths, state, *more,
        outputs=3 if op == "LSTM" else 2,
        hidden_size=hidden,
        direction=direction,
        linear_before_reset=draw.pick([None, 1]) if op == "GRU" else None,
        clip=draw.pick([None, None, None, 1.0]),
    )  # fmt: skip
