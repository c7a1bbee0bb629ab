"""A program cut into pieces, so that a perturbation only reruns what comes after it.

Cuts lie where few bytes are live and the work before each is about even. The float values at the
cuts are cached; a perturbation runs its own piece with quantizers. What comes after it is plain
float: pieces as far as the next of a few stops, and from there one program (docs/engine.md).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax import Array

from jptq.engine import memory
from jptq.engine.program import Program, effort
from jptq.engine.quantizing import TableQuantizer
from jptq.engine.runner import Compilations, Packed
from jptq.quant.assign import Table

STRIDE = 8
"""Segments between stops. A program for the rest of the network costs compilation and saves time:
XLA fuses across what would be cuts, and runs branches side by side. One for every fourth segment
saves no more (docs/engine.md)."""

State = Mapping[str, Array]
"""Live tensors ``[S, ...]`` at a cut, physical axis order; the outputs at the end."""


@dataclasses.dataclass(frozen=True)
class Segment:
    """Steps ``[start, stop)``.

    Attributes:
      start: First step.
      stop: One past the last.
      live_in: Tensors that it and later segments need from before.
      live_out: Tensors that later segments need; empty for the last.
      weights: Keys of the packed weights that it reads.
    """

    start: int
    stop: int
    live_in: tuple[str, ...]
    live_out: tuple[str, ...]
    weights: tuple[str, ...]


def cut(program: Program, count: int) -> tuple[Segment, ...]:
    """Cut a program into at most ``count`` segments of about equal work."""
    steps = program.steps
    live = program.live
    work = np.cumsum([0.0, *(effort(step) for step in steps)])
    bytes_live = [memory.size(program, names) for names in live]
    bounds = [0]
    for i in range(1, count):
        window = [
            k
            for k in range(bounds[-1] + 1, len(steps))
            if abs(work[k] - work[-1] * i / count) <= work[-1] * 0.35 / count
        ]
        if window:
            bounds.append(min(window, key=lambda k: (bytes_live[k], k)))
    bounds.append(len(steps))
    return tuple(
        Segment(
            start=start,
            stop=stop,
            live_in=live[start],
            live_out=live[stop] if stop < len(steps) else (),
            weights=tuple(
                sorted({o.weight for step in steps[start:stop] for o in step.operands if o.weight})
            ),
        )
        for start, stop in itertools.pairwise(bounds)
    )


class Segmented:
    """The segments of a program, jitted in float and in quantized form.

    Args:
      program: To cut; must carry a plan.
      count: Number of segments.
      compilations: Counter to share with a `Runner`.
    """

    def __init__(self, program: Program, count: int, compilations: Compilations) -> None:
        self.program = program
        self.segments = cut(program, count)
        self._float = [
            compilations.jit(f"float segment {i}", self._float_segment(s))
            for i, s in enumerate(self.segments)
        ]
        self._quantized = [
            compilations.jit(f"quantized segment {i}", self._quantized_segment(s))
            for i, s in enumerate(self.segments)
        ]
        self._rest = {
            i: compilations.jit(f"float rest from {i}", self._float_segment(self._from(i)))
            for i in range(STRIDE, len(self.segments), STRIDE)
        }

    def __len__(self) -> int:
        return len(self.segments)

    def _from(self, index: int) -> Segment:
        """Return all that begins with a segment as one."""
        rest = self.segments[index:]
        return dataclasses.replace(
            rest[-1],
            start=rest[0].start,
            live_in=rest[0].live_in,
            weights=tuple(sorted({key for segment in rest for key in segment.weights})),
        )

    def _keep(self, segment: Segment) -> tuple[str, ...] | None:
        return segment.live_out or None

    def _float_segment(self, segment: Segment) -> Callable[..., State]:
        def run(packed: Mapping[str, Array], state: State) -> State:
            return self.program.run(
                packed,
                None,
                state,
                start=segment.start,
                stop=segment.stop,
                keep=self._keep(segment),
            )

        return jax.vmap(run, in_axes=(None, 0))

    def _quantized_segment(self, segment: Segment) -> Callable[..., State]:
        plan = self.program.plan
        assert plan is not None

        def run(packed: Mapping[str, Array], table: Table, state: State) -> State:
            return self.program.run(
                packed,
                TableQuantizer(plan, table),
                state,
                start=segment.start,
                stop=segment.stop,
                keep=self._keep(segment),
            )

        return jax.vmap(run, in_axes=(None, None, 0))

    def run_float(self, index: int, packed: Packed, state: State) -> State:
        """Run a segment without quantizers."""
        weights = {key: packed.weights[key] for key in self.segments[index].weights}
        return self._float[index](weights, {n: state[n] for n in self.segments[index].live_in})

    def stop(self, index: int) -> int:
        """Return the first stop behind a segment; the end of the network is the last one."""
        return min((s for s in self._rest if s > index), default=len(self.segments))

    def run_rest(self, stop: int, packed: Packed, state: State) -> State:
        """Run everything from a stop on without quantizers; return the outputs."""
        if stop == len(self.segments):
            return state
        rest = self._from(stop)
        weights = {key: packed.weights[key] for key in rest.weights}
        return self._rest[stop](weights, {n: state[n] for n in rest.live_in})

    def run_quantized(
        self, index: int, weights: Mapping[str, Array], table: Table, state: State
    ) -> State:
        """Run a segment with quantizers on features; weights come as the caller wants them."""
        own = {key: weights[key] for key in self.segments[index].weights}
        return self._quantized[index](
            own, table, {n: state[n] for n in self.segments[index].live_in}
        )

    def prefixes(self, packed: Packed, feeds: Mapping[str, np.ndarray]) -> list[State]:
        """Return the float state before each segment and, last, the outputs ``[S, ...]``.

        Args:
          packed: Float weights.
          feeds: ``[S, ...]``.
        """
        states: list[State] = [jax.device_put(dict(feeds))]
        for index in range(len(self.segments)):
            states.append(self.run_float(index, packed, states[-1]))
        return states

    @property
    def bytes_per_sample(self) -> float:
        """What each sample of a sweep adds: cached states and the row under way."""
        program = self.program
        held = sum(memory.size(program, s.live_in) for s in self.segments)
        return held + 2 * memory.forward(program)

    def span(self, calibrations: Sequence[int]) -> tuple[int, int]:
        """Return the first and last segment that quantizers act in."""
        positions = [p for k in calibrations for p in self._positions[k]]
        return min(positions), max(positions)

    @functools.cached_property
    def _positions(self) -> Mapping[int, tuple[int, ...]]:
        """Segments in which each quantizer acts."""
        by_slot = {key: slot.owner for key, slot in self.program.slots.items()}
        found: dict[int, list[int]] = {}
        for index, segment in enumerate(self.segments):
            for step in self.program.steps[segment.start : segment.stop]:
                if step.calibration is not None:
                    found.setdefault(step.calibration, []).append(index)
                for operand in step.operands:
                    k = by_slot.get(operand.weight)
                    if k is not None:
                        found.setdefault(k, []).append(index)
        return {k: tuple(where) for k, where in found.items()}
