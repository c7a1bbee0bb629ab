"""What every node and every quantizer costs in error, and the problems that are made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from jptq import allocation, files, sensitivity
from jptq.results import SensitivityTable
from jptq.sensitivity import exact
from jptq.tuning.journal import Journal
from jptq.tuning.options import Options
from jptq.tuning.prepare import Prepared, Progress
from jptq.tuning.source import spread

VIEWS = ("channel-nsr", "nsr", "mse")
"""How the exact sweep's errors are looked at; none of them orders every network well."""


def rank_all(
    prepared: Prepared,
    options: Options,
    journal: Journal,
    progress: Progress,
    *,
    last: Callable[[], None] = lambda: None,
) -> tuple[SensitivityTable, SensitivityTable]:
    """Return the ranking of nodes (the vendor's) and the errors of groups for the search.

    Args:
      prepared: The network.
      options: The method, its samples and seed.
      journal: Keeps both.
      progress: Called as work goes on.
      last: Called before the last of the two.
    """
    samples = spread(prepared.samples, options.samples)
    base = prepared.all("int8")
    nodes = sensitivity.rows_of(prepared.calibrated, prepared.plan, "node")
    groups = sensitivity.rows_of(
        prepared.calibrated, prepared.plan, "group", candidates=("int8", "int16")
    )
    # A loss is code of the user: its errors are not kept between runs.
    kept_errors = Journal(None) if options.loss is not None else journal
    identity = files.digest(
        prepared.digest, str(options.samples), str(options.seed), options.leftovers
    )

    def kept(
        kind: str, journal: Journal, compute: Callable[[], SensitivityTable]
    ) -> SensitivityTable:
        stored = journal.load(kind, identity)
        if stored is not None:
            return SensitivityTable.from_json(stored)
        table = dataclasses.replace(compute(), digests=prepared.digests)
        journal.save(kind, identity, content=table.to_json())
        return table

    ranking = kept(
        "ranking",
        journal,
        lambda: exact.rank(
            prepared.runner,
            prepared.thresholds,
            base,
            nodes,
            samples,
            metrics=sensitivity.METRICS_OF["metric"],
            progress=lambda done, total: progress("rank nodes", done, total),
        ),
    )

    def errors() -> SensitivityTable:
        if options.method == "metric":
            return exact.rank(
                prepared.runner,
                prepared.thresholds,
                base,
                groups,
                samples,
                metrics=("mse", "nsr", "channel-nsr"),
                progress=lambda done, total: progress("rank quantizers", done, total),
            )
        extra: dict[str, Any] = {}
        if options.method in ("probe", "hessian"):
            extra["seed"] = options.seed
        if options.method in ("gradient", "hessian") and options.loss is not None:
            extra["loss"] = options.loss
        metric = "mse" if options.method == "probe" else sensitivity.METRICS_OF[options.method][-1]
        found = sensitivity.METHODS[options.method](
            prepared.runner,
            prepared.thresholds,
            base,
            groups,
            samples,
            metrics=(metric,),
            progress=lambda done, total: progress("rank quantizers", done, total),
            **extra,
        )
        if options.method == "probe":
            found = sensitivity.rescore(
                found, prepared.runner, prepared.thresholds, base, groups, samples
            )
        return found

    last()
    return ranking, kept(f"errors-{options.method}", kept_errors, errors)


def unranked(prepared: Prepared, metrics: tuple[str, ...]) -> SensitivityTable:
    """Return a table without rows: there was no time to rank."""
    return SensitivityTable(
        rows=(),
        kind="node",
        members=(),
        candidates=("current",),
        metrics=metrics,
        score=np.zeros((0, 1, len(metrics))),
        stderr=np.zeros((0, 1, len(metrics))),
        outputs=tuple(prepared.calibrated.output_names),
        method="metric",
        samples=0,
        seconds=0.0,
        digests=prepared.digests,
    )


def problems_of(prepared: Prepared, groups: SensitivityTable) -> dict[str, allocation.Problem]:
    """Return the error models: all views together first, then each alone.

    Each view is turned into shares of its own all-INT8 total, so that outputs and units mix.
    """
    # A loss has a view of its own.
    views = [name for name in VIEWS if name in groups.metrics] or list(groups.metrics)
    tables = []
    for name in views:
        column = groups.metrics.index(name)
        values = groups.score[:, :, column : column + 1]
        total = float(np.nansum(values[:, 0]))
        tables.append(
            dataclasses.replace(
                groups, metrics=("share",), score=values / (total or 1.0), stderr=values * 0.0
            )
        )
    together = allocation.build(
        prepared.plan,
        prepared.latency,
        *tables,
        metric="share",
        weights=[1.0 / len(tables)] * len(tables),
    )
    out = {"all views": together} if len(tables) > 1 else {}
    for name, one in zip(views, tables, strict=True):
        out[name] = allocation.build(prepared.plan, prepared.latency, one, metric="share")
    return out
