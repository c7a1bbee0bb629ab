"""The problem as linear constraints over binaries, and HiGHS as what solves them.

Columns: ``x[g]``, one binary per group (1 = int16), then continuous columns that the constraints
force to 0 or 1 once ``x`` is binary: the *or* and the *and* of others. With f the or of a node's
first operands and s that of its second ones, its time is

    int8 + (int16 - int8) * or(f, s) + (dual - int16) * and(f, s)

and a boundary costs ``and(second, not or(first))``. Where a second operand is only int16 beside
the same first operand, ``or(f, s) = f`` and ``and(f, s) = s``: no further column is needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jptq.allocation.problem import Problem, Term

if TYPE_CHECKING:
    from scipy import sparse

_Row = tuple[dict[int, float], float, float]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Linear:
    """Constraints over V columns, of which the first G are the groups.

    Attributes:
      time_us: ``float64[V]``, microseconds per unit of each column.
      constant_us: Microseconds of the choice in which every column is 0.
      matrix: ``[R, V]``.
      lower: ``float64[R]``.
      upper: ``float64[R]``.
    """

    time_us: np.ndarray
    constant_us: float
    matrix: sparse.csr_array
    lower: np.ndarray
    upper: np.ndarray

    @property
    def columns(self) -> int:
        """Return V."""
        return len(self.time_us)

    def pad(self, values: np.ndarray) -> np.ndarray:
        """Return ``float64[V]`` of values per group, zero for the other columns."""
        return np.pad(values, (0, self.columns - len(values)))


@dataclasses.dataclass(frozen=True)
class Answer:
    """What HiGHS said.

    Attributes:
      raised: ``bool[G]``, or None if it found nothing.
      bound: A lower bound on the objective; -inf if none is known.
      infeasible: It proved that nothing fits.
    """

    raised: np.ndarray | None
    bound: float
    infeasible: bool


def linearise(problem: Problem) -> Linear:
    """Return the time of a problem and its couplings in linear form."""
    builder = _Builder(problem)
    for coupling in problem.couplings:
        row = {coupling.second: -1.0}
        for g in coupling.first:
            row[g] = row.get(g, 0.0) + 1.0
        builder.rows.append((row, 0.0, np.inf))
    for term in problem.terms:
        builder.add_term(term)
    for edge in problem.edges:
        if edge.cost > 0:
            builder.spend(builder.excess_of(edge.second, edge.first), edge.cost)
    from scipy import sparse  # a third of a second, which most commands need not wait for

    time_us = np.zeros(builder.columns)
    for column, cost in builder.time.items():
        time_us[column] = cost
    # Whatever is the same in every choice enters here, through the one exact evaluation.
    lowest = problem.lowest()
    varying = sum(part.time_us(lowest) for part in problem.parts)
    constant = problem.time_us(lowest) - varying + sum(term.int8 for term in problem.terms)
    entries = [(r, c, v) for r, (row, _, _) in enumerate(builder.rows) for c, v in row.items()]
    where_r, where_c, values = zip(*entries, strict=True) if entries else ((), (), ())
    return Linear(
        time_us=time_us,
        constant_us=constant,
        matrix=sparse.csr_array(
            (np.array(values, float), (np.array(where_r, int), np.array(where_c, int))),
            shape=(len(builder.rows), builder.columns),
        ),
        lower=np.array([low for _, low, _ in builder.rows]),
        upper=np.array([high for _, _, high in builder.rows]),
    )


def minimise(
    linear: Linear,
    objective: np.ndarray,
    *,
    constant: float,
    rows: Sequence[tuple[np.ndarray, float]],
    least: np.ndarray,
    most: np.ndarray,
    relative_gap: float,
    node_limit: int,
) -> Answer:
    """Minimise ``objective @ columns + constant``.

    Args:
      linear: V columns, the first G binary.
      objective: ``float64[V]``, scaled such that 1 is a large value and 1e-6 a negligible one.
      constant: Makes the solver's relative gap refer to the whole.
      rows: ``(float64[V], upper limit)`` of further constraints, scaled likewise.
      least: ``bool[G]``, lower bounds of the binaries.
      most: ``bool[G]``, upper bounds.
      relative_gap: Where to stop.
      node_limit: Likewise: nodes of the search tree.
    """
    from scipy import optimize, sparse  # as in `linearise`

    groups, columns = len(least), linear.columns
    # The last column is the constant, fixed at 1.
    low, high = np.zeros(columns + 1), np.ones(columns + 1)
    low[:groups], high[:groups], low[-1] = least, most, 1.0
    matrix = sparse.vstack(
        [linear.matrix, *(sparse.csr_array(row.reshape(1, -1)) for row, _ in rows)], format="csr"
    )
    constraints = optimize.LinearConstraint(
        sparse.hstack([matrix, sparse.csr_array((matrix.shape[0], 1))], format="csr"),
        np.concatenate([linear.lower, np.full(len(rows), -np.inf)]),
        np.concatenate([linear.upper, [limit for _, limit in rows]]),
    )
    integer = np.zeros(columns + 1)
    integer[:groups] = 1
    with _quiet_stdout():
        result = optimize.milp(
            np.append(objective, constant),
            integrality=integer,
            bounds=optimize.Bounds(low, high),
            constraints=constraints if matrix.shape[0] else None,
            options={"mip_rel_gap": relative_gap, "node_limit": node_limit},
        )
    bound = result.mip_dual_bound
    return Answer(
        raised=None if result.x is None else np.asarray(result.x[:groups] > 0.5),
        bound=-np.inf if bound is None else float(bound),
        infeasible=result.status == 2,
    )


@contextlib.contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Keep a forgotten ``printf`` of HiGHS 1.8 to 1.12 out of the results on standard output.

    It comes from native code, past HiGHS's own log options and past ``sys.stdout``; where the
    output is no terminal it also waits in the C library's buffer.
    """
    try:
        kept = os.dup(1)
    except OSError:  # the process has no standard output
        yield
        return
    c_library = ctypes.CDLL(None) if os.name == "posix" else ctypes.cdll.msvcrt
    sys.stdout.flush()
    c_library.fflush(None)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        c_library.fflush(None)
        os.dup2(kept, 1)
        os.close(nowhere)
        os.close(kept)


class _Builder:
    """Collects columns, their times and rows."""

    def __init__(self, problem: Problem) -> None:
        self.columns = len(problem.groups)
        self.rows: list[_Row] = []
        self.time: dict[int, float] = {}
        self._made: dict[tuple[str, tuple[int, ...]], int] = {}
        self._beside = {(c.second, frozenset(c.first)) for c in problem.couplings}
        self._never = {g for g, group in enumerate(problem.groups) if group.types == ("int8",)}

    def add_term(self, term: Term) -> None:
        raising, doubling = term.int16 - term.int8, term.dual - term.int16
        if not term.second:
            if term.first:
                self.spend(self.any_of(term.first), raising)
            return
        second = self.any_of(term.second)
        if not term.first:
            self.spend(second, term.dual - term.int8)
            return
        first = self.any_of(term.first)
        if all(g in self._never or (g, frozenset(term.first)) in self._beside for g in term.second):
            either, both = first, second
        else:
            either, both = self.any_of((first, second)), self.both_of(first, second)
        self.spend(either, raising)
        self.spend(both, doubling)

    def any_of(self, columns: Sequence[int]) -> int:
        """Return the column that is 1 where any of some columns is."""
        parts = tuple(sorted(set(columns)))
        if len(parts) == 1:
            return parts[0]

        def rows(made: int) -> list[_Row]:
            reaches: list[_Row] = [({made: 1.0, part: -1.0}, 0.0, np.inf) for part in parts]
            return [*reaches, ({made: -1.0, **dict.fromkeys(parts, 1.0)}, 0.0, np.inf)]

        return self._make(("any", parts), rows)

    def both_of(self, one: int, other: int) -> int:
        """Return the column that is 1 where two columns are."""
        parts = tuple(sorted({one, other}))
        if len(parts) == 1:
            return parts[0]

        def rows(made: int) -> list[_Row]:
            stays: list[_Row] = [({part: 1.0, made: -1.0}, 0.0, np.inf) for part in parts]
            return [*stays, ({made: 1.0, **dict.fromkeys(parts, -1.0)}, -1.0, np.inf)]

        return self._make(("both", parts), rows)

    def excess_of(self, column: int, others: Sequence[int]) -> int:
        """Return a column that is at least 1 where a column is and none of others is.

        It has a positive cost, so its least value is the one that counts.
        """
        parts = tuple(sorted(set(others)))

        def rows(made: int) -> list[_Row]:
            return [({made: 1.0, column: -1.0, **dict.fromkeys(parts, 1.0)}, 0.0, np.inf)]

        return self._make(("excess", (column, *parts)), rows)

    def spend(self, column: int, time_us: float) -> None:
        self.time[column] = self.time.get(column, 0.0) + time_us

    def _make(self, key: tuple[str, tuple[int, ...]], rows: Callable[[int], list[_Row]]) -> int:
        if key not in self._made:
            self._made[key] = self.columns
            self.rows.extend(rows(self.columns))
            self.columns += 1
        return self._made[key]
