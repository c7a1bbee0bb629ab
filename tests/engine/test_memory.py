"""Batches under a memory limit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jptq.engine import Batching, memory
from jptq.engine.memory import COPIES, FIXED
from jptq.results import SensitivityTable
from jptq.sensitivity import gradient, hessian, probe
from tests.graphs import Graph
from tests.sensitivity.networks import Case, case, smooth

MIB = 2**20
GLIBC = platform.libc_ver()[0] == "glibc"


@pytest.mark.parametrize(
    ("room", "per_sample", "samples"),
    [(100, 10, 8), (100, 30, 3), (100, 100, 1), (100, 101, 1), (-1, 1, 1)],
)
def test_a_batch_holds_what_the_limit_leaves_room_for_and_one_sample_at_least(
    room: int, per_sample: int, samples: int
) -> None:
    weights = 3 * MIB
    batching = Batching(samples=8, memory=FIXED + COPIES * weights + room * MIB)

    assert batching.of(per_sample * MIB, weights) == samples


@pytest.mark.parametrize(("spare", "said"), [(-1, True), (0, False)])
def test_a_limit_below_what_one_sample_takes_is_said(
    spare: int, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    program = case(smooth()).runner.program
    weights = sum(w.nbytes for w in program.weights.values())
    least = FIXED + COPIES * weights + memory.forward(program)
    caplog.clear()
    memory.warn_of_too_little(program, Batching(memory=int(least) + 1 + spare * MIB))
    assert [one.levelname for one in caplog.records] == ["WARNING"] * said
    if said:
        assert f"up to {-(-least // MIB):.0f} MiB" in caplog.text


def test_a_forward_needs_the_tensors_that_are_alive_together_not_all_of_them() -> None:
    program = case(smooth()).runner.program
    kept = sum(
        4 * int(np.prod(program.shapes[n])) for step in program.steps for n in step.outputs if n
    )

    assert 0 < memory.peak(program) < kept
    assert memory.backward(program, 1, 4) > kept > memory.peak(program)
    assert memory.backward(program, 2, 4) > memory.backward(program, 1, 4)


RANKS: tuple[Callable[[Case], SensitivityTable], ...] = (
    lambda own: own.exact(own.rows()),
    lambda own: probe.rank(*given(own), metrics=("mse",)),
    lambda own: hessian.rank(*given(own), metrics=hessian.METRICS),
    lambda own: gradient.rank(*given(own), metrics=("taylor",)),
)


def short() -> Graph:
    """Return the least that has a convolution, a bend and two outputs: ``x`` [1, 3, 5, 5]."""
    g = Graph()
    bent = g.add("Sigmoid", g.conv(g.input("x", (1, 3, 5, 5)), 3, 4, name="conv"), name="bend")
    g.output(bent, g.add("GlobalAveragePool", bent, name="pooled"))
    return g


def given(own: Case) -> tuple[Any, ...]:
    return own.runner, own.thresholds, own.int8, own.rows(), own.samples


@pytest.mark.parametrize("rank", RANKS, ids=("metric", "probe", "hessian", "gradient"))
def test_scores_do_not_depend_on_the_memory_limit(
    rank: Callable[[Case], SensitivityTable],
) -> None:
    found = []
    for limit in (Batching().memory, FIXED):
        own = case(short(), batch=3)
        own.runner.batching = Batching(samples=3, memory=limit)
        sizes = []
        batches = own.runner.batches
        own.runner.batches = lambda *args, s=sizes, b=batches: (  # type: ignore[method-assign]
            s.append(args[1]) or b(*args)
        )
        found.append(rank(own).score)
        assert set(sizes) == {3 if limit > FIXED else 1}

    # Programs of another batch size round differently in the last bits.
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-9)


FAULTS = """
import resource, numpy
from jptq.engine import memory
def faults():
    numpy.ones(64 * memory.MIB, numpy.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        numpy.ones(64 * memory.MIB, numpy.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = faults()
memory.hold()
print(given_back, faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(not GLIBC, reason="a setting of glibc")
@pytest.mark.parametrize("own", [False, True])
def test_memory_that_is_held_is_not_cleared_again(own: bool) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    if own:
        environment["MALLOC_TOP_PAD_"] = "4096"

    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=environment, capture_output=True, check=True
    )
    given_back, held = map(int, done.stdout.split())
    # A fault brings in a page, or a huge page of 2 MiB.
    assert given_back >= 4 * 64 // 2
    assert held >= 4 * 64 // 2 if own else held < 16
