"""What fitted weights and biases gain, layer by layer, at the outputs and in the user's score."""

from __future__ import annotations

import argparse
import time
from typing import Any

from jptq.engine.cache import enable_compilation_cache
from jptq.numerics.qtypes import INT8, INT16
from jptq.results.fit import BIAS, PLAIN, WEIGHTS, LayerFit
from jptq.tuning import Evaluator, Journal, Measurer, Prepared, prepare
from tools.bench.networks import LARGEST_VALUE, MARCH, Network
from tools.bench.record import Bench, Column, Row

_ERRORS = {WEIGHTS: "fitted", BIAS: "biased", PLAIN: "plain"}


def run(network: Network, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Prepare with and without a fit, and score both as all-INT8 and all-INT16."""
    del options
    enable_compilation_cache()
    began: list[float] = []

    def watch(step: str, done: int, total: int) -> None:
        if step == "fit weights" and not began:
            began.append(time.perf_counter())

    fitted = prepare(
        network.model,
        network.data,
        march=MARCH,
        quant_config=LARGEST_VALUE,
        fit="auto",
        progress=watch,
    )
    seconds = time.perf_counter() - began[0]
    found = fitted.fit
    assert found is not None
    evaluator = Evaluator.load(str(network.evaluator))
    return [
        {
            "network": network.name,
            "plain": found.plain,
            "fitted": found.fitted,
            "kept": {kept: found.count(kept) for kept in _ERRORS},
            "worst": max(_share(layer) for layer in found.layers),
            "fit_s": seconds,
            **{
                name: _scores(one, evaluator)
                for name, one in (("before", network.prepared), ("after", fitted))
            },
        }
    ]


def _share(layer: LayerFit) -> float:
    """Return a layer's held-out error as a share of that of plain rounding."""
    kept: float = getattr(layer, _ERRORS[layer.kept])
    return kept / layer.plain if layer.plain > 0 else 1.0


def _scores(prepared: Prepared, evaluator: Evaluator) -> dict[str, float]:
    """Return the first score in float, all-INT16 and all-INT8."""
    measurer = Measurer(prepared, evaluator, Journal(None))
    return {
        "float": _first(measurer.floating().scores),
        **{
            name: _first(measurer(name, prepared.all(name)).scores)
            for name in (INT16.name, INT8.name)
        },
    }


def _first(scores: Any) -> float:
    return float(next(iter(scores.values())))


def _both(row: Row, name: str) -> str:
    return f"{row['before'][name]:.4f} -> {row['after'][name]:.4f}"


def _kept(row: Row) -> str:
    return " / ".join(str(row["kept"][kept]) for kept in _ERRORS)


BENCH = Bench(
    name="fit",
    run=run,
    columns=(
        Column(title="network", cell=lambda row: row["network"]),
        Column(title="error at the outputs", cell=lambda row: f"{row['plain']:.2e}"),
        Column(title="fitted", cell=lambda row: f"{row['fitted']:.2e}"),
        Column(title="times less", cell=lambda row: f"{row['plain'] / row['fitted']:.1f}"),
        Column(title="layers: weights / bias / nothing", cell=_kept),
        Column(title="worst layer, share of plain", cell=lambda row: f"{row['worst']:.2f}"),
        Column(title="float, score", cell=lambda row: f"{row['before']['float']:.4f}"),
        Column(title="all-INT16, score", cell=lambda row: _both(row, "int16")),
        Column(title="all-INT8, score", cell=lambda row: _both(row, "int8")),
        Column(title="fit, s", cell=lambda row: f"{row['fit_s']:.0f}"),
    ),
)
