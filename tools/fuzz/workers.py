"""Blocks of graphs in processes of their own: a compiler that aborts takes only its block along."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import jax

from tools.fuzz.graphs import case_of
from tools.fuzz.judge import Finding
from tools.fuzz.minimize import ABORTED
from tools.fuzz.report import Report, run

BLOCK = 250
"""Graphs of a process. Starting one costs as much as twenty of them."""


def quiet() -> None:
    """Set a process up as the tests are: strict types, no warnings of ours."""
    logging.disable(logging.WARNING)  # networks of random numbers deserve many
    jax.config.update("jax_numpy_dtype_promotion", "strict")


def run_apart(seed: int, start: int, count: int, *, jobs: int = 1) -> Iterator[Report]:
    """Judge graphs of a seed in processes; yield the report of each block, in order of its end.

    A graph that ends its process is a finding of kind ``crash``.
    """
    end = start + count
    blocks = [(first, min(BLOCK, end - first)) for first in range(start, end, BLOCK)][::-1]
    running: dict[Connection, tuple[BaseProcess, int, int]] = {}
    while blocks or running:
        while blocks and len(running) < jobs:
            first, size = blocks.pop()
            reader, process = _started(seed, first, size)
            running[reader] = process, first, size
        ready = set(multiprocessing.connection.wait(list(running)))
        for reader in [one for one in running if one in ready]:
            process, first, size = running.pop(reader)
            try:
                yield reader.recv()
            except EOFError:
                process.join()
                if size == 1:
                    yield _aborted(seed, first, process.exitcode)
                else:
                    half = size // 2
                    blocks += [(first + half, size - half), (first, half)]
            process.join()


def _started(seed: int, first: int, size: int) -> tuple[Connection, BaseProcess]:
    spawn = multiprocessing.get_context("spawn")
    reader, writer = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_work, args=(writer, seed, first, size), daemon=True)
    process.start()
    writer.close()
    return reader, process


def _work(writer: Connection, seed: int, first: int, size: int) -> None:
    quiet()
    *_, done = run(seed, first, size)
    writer.send(done)


def _aborted(seed: int, index: int, exitcode: int | None) -> Report:
    finding = Finding(
        kind="crash",
        case=case_of(seed, index),
        tensor="",
        what=f"{ABORTED} with {exitcode}",
    )
    return Report(cases=1, findings=[finding])
