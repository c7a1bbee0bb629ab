"""``get_sensitivity_of_nodes``: how much the outputs suffer from each one of them alone."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jptq import files
from jptq.engine.runner import SampleSet
from jptq.hmct.quantizer.debugger import arguments, loading
from jptq.hmct.quantizer.debugger.loading import ArgumentError, Data, ModelOrFile
from jptq.ir import Model
from jptq.numerics.qtypes import FLOAT32, qtype
from jptq.report import sensitivity_table
from jptq.report.vendor_tables import calibration_columns, sensitivity_log
from jptq.results import SensitivityTable
from jptq.sensitivity import CURRENT, Rows, exact, rows_of
from jptq.tuning import Prepared
from jptq.tuning.prepare import Progress, quiet

LOG = "node_sensitivity.log"
TABLE = "node_sensitivity.json"

_PERFECT = {
    "cosine-similarity": 1.0,
    "mre": 0.0,
    "mse": 0.0,
    "sqnr": float("inf"),
    "chebyshev": 0.0,
}
"""Scores of what changes nothing."""

# Scripts set the level of the root logger to see the tables, because the vendor logs there.
_log = logging.getLogger()


def get_sensitivity_of_nodes(
    model_or_file: ModelOrFile,
    metrics: str | Sequence[str] = "cosine-similarity",
    calibrated_data: Data | None = None,
    output_node: str | None = None,
    node_type: str = "node",
    data_num: int | None = 1,
    verbose: bool = False,
    interested_nodes: arguments.Names | None = None,
    save_dir: str | os.PathLike[str] | None = None,
    *,
    progress: Progress = quiet,
) -> dict[str, dict[str, str]]:
    """Score every node, weight or activation: only it is quantized, all else is float.

    What is switched on keeps the types and thresholds that the model holds; a float32 calibration
    changes nothing.

    Args:
      model_or_file: A calibrated model.
      metrics: One or several of `arguments.METRICS`; the first decides the order.
      calibrated_data: Its samples.
      output_node: Compare at this node's outputs; what cannot reach it is not listed.
      node_type: ``node``, ``weight`` or ``activation``.
      data_num: Use the first samples only; all of them for None.
      verbose: Log the table at level INFO.
      interested_nodes: Score these nodes only; an inner list is scored jointly, its names joined
        by ``+``. Forces ``node``.
      save_dir: Write `LOG` and `TABLE` there; the latter has all names in full.
      progress: ``progress(step, done, total)``.

    Returns:
      ``{name: {metric: number as a string in full precision}}``, worst first. Weights also have
      ``node``, activations ``node``, ``threshold`` and ``qtype``.

    Raises:
      ArgumentError: An argument is out of its range.
      JptqError: The model or the data cannot be used.

    Source: hmct-spec 3.1, 3.2.
    """
    folder = None if save_dir is None else arguments.writable(save_dir)
    network, table = ranking(
        model_or_file,
        calibrated_data,
        metrics=metrics,
        output_node=output_node,
        node_type=node_type,
        data_num=data_num,
        interested_nodes=interested_nodes,
        progress=progress,
    )
    columns = columns_of(network, table)
    if verbose:
        _log.info("%s", sensitivity_table(table, before=columns))
    if folder is not None:
        save(table, columns, folder / LOG)
    return as_strings(table, columns)


def ranking(
    model_or_file: ModelOrFile,
    calibrated_data: Data | None,
    *,
    metrics: str | Sequence[str] = "cosine-similarity",
    output_node: str | None = None,
    node_type: str = "node",
    data_num: int | None = 1,
    interested_nodes: arguments.Names | None = None,
    progress: Progress = quiet,
) -> tuple[Prepared, SensitivityTable]:
    """Return what `get_sensitivity_of_nodes` prints and saves; arguments as there."""
    names = arguments.metrics_of(metrics)
    kind = arguments.node_type_of(node_type)
    network = loading.loaded(model_or_file, calibrated_data, output_node=output_node)
    samples = arguments.first_samples(network.samples, data_num)
    groups = None
    if interested_nodes is not None:
        kind = "node"
        # The whole model's names: some of its nodes may lie behind the output node.
        groups = arguments.groups_of(interested_nodes, loading.model_of(model_or_file)[0])
    _log.info("Start calculating node sensitivity...")
    rows = _rows(network, kind, groups)
    return network, _scores(
        network,
        rows,
        samples,
        metrics=names,
        progress=lambda done, total: progress("Progress", done, total),
    )


def columns_of(network: Prepared, table: SensitivityTable) -> dict[str, list[str]]:
    """Return the columns beside the scores, see `calibration_columns`."""
    return calibration_columns(
        table,
        owners=network.plan.owners,
        thresholds=network.thresholds,
        qtypes=held(network.calibrated),
    )


def as_strings(
    table: SensitivityTable, columns: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, str]]:
    """Return the rows of a ranking as the vendor's functions do."""
    return {
        table.rows[i]: {name: values[i] for name, values in columns.items()}
        | {metric: str(float(table.column(metric)[i])) for metric in table.metrics}
        for i in table.order()
    }


def save(table: SensitivityTable, columns: Mapping[str, Sequence[str]], log: Path) -> None:
    """Write a ranking as the vendor's log, and beside it as a table with full names."""
    files.write_text(log, sensitivity_log(table, before=columns))
    table.save(log.with_suffix(".json"))


def held(model: Model) -> dict[str, str]:
    """Return the type of every calibration, whether it is switched on or not."""
    return {
        node.name: qtype(str(node.attributes.get("qtype", "int8")), where=node.name).name
        for node in model.nodes
        if node.is_calibration
    }


def _rows(network: Prepared, kind: str, groups: list[tuple[str, ...]] | None) -> Rows:
    model, plan = network.calibrated, network.plan
    if groups is None:
        return rows_of(model, plan, kind)
    # Nodes without calibrations, or behind the output node, add nothing to their group.
    present = {group: [name for name in group if name in plan.by_node] for group in groups}
    scored = {group: nodes for group, nodes in present.items() if nodes}
    if not scored:
        raise ArgumentError(
            "none of the interested nodes has a calibration that reaches the outputs",
            where=", ".join("+".join(group) for group in groups),
        )
    rows = rows_of(model, plan, kind, only=list(scored.values()))
    titles = {"+".join(nodes): "+".join(group) for group, nodes in scored.items()}
    return dataclasses.replace(rows, names=tuple(titles[name] for name in rows.names))


def _scores(
    network: Prepared,
    rows: Rows,
    samples: SampleSet,
    *,
    metrics: tuple[str, ...],
    progress: exact.Progress,
) -> SensitivityTable:
    """Run the exact sweep over the rows that quantize anything; the others are perfect."""
    types = held(network.calibrated)
    members = tuple(
        tuple(name for name in row if types[name] != FLOAT32.name) for row in rows.members
    )
    active = [i for i, row in enumerate(members) if row]
    score = np.tile([_PERFECT[name] for name in metrics], (len(rows.names), 1, 1))
    if active:
        score[active] = exact.rank(
            network.runner,
            network.thresholds,
            types,
            dataclasses.replace(rows, members=members).take(active),
            samples,
            metrics=metrics,
            progress=progress,
        ).score
    return SensitivityTable(
        rows=rows.names,
        kind=rows.kind,
        members=rows.members,
        candidates=(CURRENT,),
        metrics=metrics,
        score=score,
        stderr=np.zeros_like(score),
        outputs=rows.outputs,
        method="metric",
        samples=len(samples),
    )
