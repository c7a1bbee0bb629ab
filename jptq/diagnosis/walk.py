"""Every node's output under several tables, in pieces that fit into memory.

The pieces are compiled once and serve every table: what is quantized, and how finely, is data.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import jax
import numpy as np
from jax import Array

from jptq.engine import memory
from jptq.engine.layouts import canonical, convert
from jptq.engine.quantizing import TableQuantizer
from jptq.engine.runner import Packed, Runner
from jptq.errors import UnknownNameError
from jptq.quant.assign import Table
from jptq.quant.plan import Plan

PIECE_BYTES = 128 << 20
"""Outputs that a piece shows of one sample: with the reference and one table under way, and
XLA's own copies, some 500 MiB at most."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Piece:
    """Steps ``[start, stop)``, what they need and what they show."""

    start: int
    stop: int
    needs: tuple[str, ...]
    leaves: tuple[str, ...]
    weights: tuple[str, ...]
    shown: tuple[str, ...]
    run: Callable[..., tuple[dict[str, Array], dict[str, Array]]]


class Walk:
    """A network cut into pieces that show the float32 output of every operator.

    Args:
      runner: Of a calibrated graph.
      limit: Bytes that a piece shows of one sample; a single larger output is a piece alone.

    Attributes:
      nodes: Name of the operator that computes each of `tensors`.
      tensors: What can be shown, in graph order.
    """

    def __init__(self, runner: Runner, limit: int = PIECE_BYTES) -> None:
        self.runner = runner
        program = runner.program
        rows = [
            (step.node, name)
            for step in program.steps
            if step.calibration is None
            for name in step.outputs
            if name and program.dtypes[name] == np.float32
        ]
        self.nodes = tuple(node for node, _ in rows)
        self.tensors = tuple(name for _, name in rows)
        self._pieces = tuple(self._cut(limit))

    @classmethod
    def of(cls, runner: Runner) -> Walk:
        """Return the walk of a runner: its pieces are made once, like other programs."""
        made = runner.compilations.once("walk", lambda: cls(runner))
        if made.runner is runner:
            return made
        other = copy.copy(made)  # a runner that shares these programs
        other.__dict__.pop("constants", None)
        other.runner = runner
        return other

    @property
    def plan(self) -> Plan:
        """The quantizers."""
        plan = self.runner.program.plan
        assert plan is not None
        return plan

    @functools.cached_property
    def constants(self) -> Mapping[str, np.ndarray]:
        """Initializers and what is computed from them alone, by tensor."""
        return {**self.runner.model.initializers, **self.runner.program.weights}

    def __call__(
        self,
        packed: Sequence[Packed],
        feeds: Mapping[str, np.ndarray],
        wanted: Collection[str] | None = None,
    ) -> Iterator[tuple[int, dict[str, Array]]]:
        """Run some samples under every table.

        Args:
          packed: Tables with their weights (`Runner.pack`); `as_float` makes the float one.
          feeds: ``[S, ...]``.
          wanted: Tensors to show, graph inputs among them; all of `tensors` if None. The network
            is run no further than the last of them.

        Yields:
          ``(index into packed, {tensor: [S, *shape]})``: piece by piece, within a piece in the
          order of ``packed``. Drop them before asking for more: memory is bounded by a piece.

        Raises:
          UnknownNameError: A tensor cannot be shown.
        """
        chosen = set(self.tensors if wanted is None else wanted)
        inputs = jax.device_put({name: feeds[name] for name in self.runner.program.inputs})
        for name in sorted(chosen - {*self.tensors, *inputs}):
            raise UnknownNameError("float tensor", name, self.tensors)
        last = max((i for i, p in enumerate(self._pieces) if chosen & {*p.shown}), default=-1)
        states = [inputs] * len(packed)
        fed = {name: value for name, value in inputs.items() if name in chosen}
        if fed:
            yield from ((index, fed) for index in range(len(packed)))
        for piece in self._pieces[: last + 1]:
            for index, one in enumerate(packed):
                weights = {key: one.weights[key] for key in piece.weights}
                needed = {name: states[index][name] for name in piece.needs}
                states[index], shown = piece.run(weights, one.table, needed)
                values = {name: value for name, value in shown.items() if name in chosen}
                del shown
                if values:
                    yield index, values

    def _cut(self, limit: int) -> Iterator[_Piece]:
        program = self.runner.program
        showable = set(self.tensors)
        start, held, shown = 0, 0.0, list[str]()
        for position, step in enumerate(program.steps):
            new = [name for name in step.outputs if name in showable]
            size = memory.size(program, new)
            if shown and held + size > limit:
                yield self._piece(start, position, tuple(shown))
                start, held, shown = position, 0.0, []
            held += size
            shown += new
        if shown:
            yield self._piece(start, len(program.steps), tuple(shown))

    def _piece(self, start: int, stop: int, shown: tuple[str, ...]) -> _Piece:
        program, plan = self.runner.program, self.plan
        leaves = program.live[stop] if stop < len(program.steps) else ()
        keep = (*leaves, *(name for name in shown if name not in leaves))

        def run(
            weights: Mapping[str, Array], table: Table, state: Mapping[str, Array]
        ) -> tuple[dict[str, Array], dict[str, Array]]:
            found = program.run(
                weights, TableQuantizer(plan, table), state, start=start, stop=stop, keep=keep
            )
            in_order = {
                n: convert(found[n], program.perms[n], canonical(found[n].ndim)) for n in shown
            }
            return {n: found[n] for n in leaves}, in_order

        return _Piece(
            start=start,
            stop=stop,
            needs=program.live[start],
            leaves=leaves,
            weights=tuple(
                sorted(
                    {o.weight for s in program.steps[start:stop] for o in s.operands if o.weight}
                )
            ),
            shown=shown,
            run=self.runner.compilations.jit(
                f"walk {start}-{stop}", jax.vmap(run, in_axes=(None, None, 0))
            ),
        )

    def batch(self, tables: int) -> int:
        """Return the samples of a run under so many tables, by the memory that they take."""
        program = self.runner.program
        piece = max((memory.size(program, p.shown) for p in self._pieces), default=0.0)
        live = max((memory.size(program, p.needs) for p in self._pieces), default=0.0)
        return self.runner.batch_for(
            2 * memory.OBSERVED * piece + tables * live + memory.forward(program)
        )


def off(table: Table) -> Table:
    """Return the table with every quantizer passing its tensor."""
    return dataclasses.replace(table, gate=np.zeros_like(np.asarray(table.gate)))


def as_float(runner: Runner, table: Table) -> Packed:
    """Return what makes the programs of a table run the float network, biases uncorrected.

    They are the same programs, so that what no quantizer touches compares equal to the last bit.

    Args:
      runner: Of a calibrated graph.
      table: Any of its tables; only its form counts.
    """
    return runner.pack(off(table), runner.floats)


def only(table: Table, plan: Plan, names: Collection[str]) -> Table:
    """Return the table with just some quantizers at work, of those that were."""
    keep = np.asarray([c.name in names for c in plan.calibrations])
    return dataclasses.replace(table, gate=np.where(keep, np.asarray(table.gate), np.float32(0)))
