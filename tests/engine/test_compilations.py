from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from jptq.quant.assign import table, uniform
from jptq.sensitivity import exact
from tests.sensitivity.networks import Case, case, smooth

_COMPILED = "/jax/core/compile/backend_compile_duration"


_sinks: list[list[str]] = []


def _listen(event: str, duration: float, **_: object) -> None:
    del duration
    if event == _COMPILED:
        for sink in _sinks:
            sink.append(event)


# Once and for good: jax 0.8.0 cannot take a listener away.
jax.monitoring.register_event_duration_secs_listener(_listen)


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """Collect one entry per program that XLA compiles, whoever asked for it."""
    found: list[str] = []
    _sinks.append(found)
    try:
        yield found
    finally:
        _sinks.remove(found)


@pytest.fixture
def network() -> Case:
    return case(smooth())


def test_the_listener_hears_a_compilation() -> None:
    with compilations() as found:
        jax.jit(lambda x: x * 3 + 1)(np.float32(2))
    assert found


def test_types_thresholds_and_gates_are_data(network: Case) -> None:
    runner, plan = network.runner, network.plan
    feeds, _ = next(iter(runner.batches(network.samples)))
    settings = table(plan, network.thresholds, network.int8)
    results = [runner.run(runner.pack(settings), feeds)]
    before = dict(runner.compilations.counts)
    first = plan.calibrations[0].name
    half = {name: values / 2 for name, values in network.thresholds.items()}
    off = np.zeros_like(settings.gate)
    variants = {
        "int16": table(plan, network.thresholds, uniform(plan, "int16")),
        "one float": table(plan, network.thresholds, {**network.int8, first: "float32"}),
        "thresholds": table(plan, half, network.int8),
        "gates": dataclasses.replace(settings, gate=off),
    }
    with compilations() as found:
        results += [runner.run(runner.pack(variant), feeds) for variant in variants.values()]
    assert found == []
    assert runner.compilations.counts == before == {"prepare": 1, "quantized forward": 1}
    values = [np.asarray(result[network.model.output_names[1]]) for result in results]
    for i, one in enumerate(values):
        assert all((one != other).any() for other in values[:i])


@pytest.mark.slow
def test_a_second_sweep_with_other_thresholds_compiles_nothing(network: Case) -> None:
    rows = network.rows()

    def sweep(factor: float) -> np.ndarray:
        scaled = {n: v * np.float32(factor) for n, v in network.thresholds.items()}
        return exact.rank(
            network.runner,
            scaled,
            network.int8,
            rows,
            network.samples,
            metrics=("mse",),
            segments=3,
        ).score

    first = sweep(1.0)
    before = network.runner.compilations.total
    with compilations() as found:
        second = sweep(0.7)
    assert found == []
    assert network.runner.compilations.total == before
    assert (first != second).any()
