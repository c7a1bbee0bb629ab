"""``sensitivity_analysis``: what taking the quantizers of sensitive nodes away would gain."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jptq import diagnosis
from jptq.engine.runner import SampleSet
from jptq.hmct.quantizer.debugger import arguments, sensitivity
from jptq.hmct.quantizer.debugger.distribution import SAVE_DIR
from jptq.hmct.quantizer.debugger.loading import ArgumentError, Data, ModelOrFile
from jptq.metrics import similarity
from jptq.numerics.qtypes import qtype as known_type
from jptq.report import diagnosis_plots
from jptq.results import SensitivityTable
from jptq.tuning import Prepared

PLOT = "partial_quantization"


def sensitivity_analysis(
    model_or_file: ModelOrFile,
    calibrated_data: Data,
    pick_threshold: float = 0.999,
    data_num: int | None = 1,
    sensitive_nodes: Sequence[str] | None = None,
    metric: str = "cosine-similarity",
    qtype: str = "float32",
    save_dir: str | os.PathLike[str] = SAVE_DIR,
    output_separated: bool = False,
) -> dict[str, Any]:
    """Take the quantizers of sensitive nodes away, worst first, and draw what each step gains.

    Args:
      model_or_file: A calibrated model.
      calibrated_data: Its samples.
      pick_threshold: Nodes that score up to this (down to it, where lower is better) are
        sensitive.
      data_num: Use the first samples only; all of them for None.
      sensitive_nodes: Take these instead, worst first too.
      metric: One of `arguments.METRICS`.
      qtype: What their quantizers get.
      save_dir: Gets ``partial_quantization.png``.
      output_separated: Draw and return each graph output by itself, with the output's name added
        to the file's.

    Returns:
      ``{"none" or node: {"cumulative": metric so far, "sensitivity": of this node alone}}``; the
      first has no sensitivity. ``{output: such a mapping}`` if separated.

    Raises:
      ArgumentError: An argument is out of its range, or no node is sensitive.
      JptqError: The model or the data cannot be used.

    Source: hmct-spec 3.2, 3.4.
    """
    (name,) = arguments.metrics_of(metric)
    held = known_type(qtype, where="qtype").name
    network, table = sensitivity.ranking(
        model_or_file,
        calibrated_data,
        metrics=name,
        data_num=data_num,
        interested_nodes=sensitive_nodes or None,
    )
    scores = {row: float(score) for row, score in zip(table.rows, table.column(name), strict=True)}
    nodes = _picked(table, name, None if sensitive_nodes else pick_threshold)
    if not nodes:
        raise ArgumentError(
            f"no node scores up to {pick_threshold}", hint="raise pick_threshold, or name nodes"
        )
    members = dict(zip(table.rows, table.members, strict=True))
    assignments = diagnosis.unquantized(
        network.configured, {node: members[node] for node in nodes}, held
    )
    samples = arguments.first_samples(network.samples, data_num)
    found = diagnosis.output_scores(
        network.runner,
        {label: network.table(assignment) for label, assignment in assignments.items()},
        samples,
        metric=name,
    )
    series = {"": (found.mean, scores)}
    if output_separated:
        series = _separated(network, found, {node: members[node] for node in nodes}, samples)
    result: dict[str, dict[str, dict[str, float]]] = {}
    for output, (values, alone) in series.items():
        figure = diagnosis_plots.draw_partial(
            name, found.labels, values.tolist(), alone, output=output
        )
        suffix = f"_{diagnosis_plots.file_name(output)}" if output else ""
        diagnosis_plots.save(figure, Path(save_dir) / f"{PLOT}{suffix}.png")
        result[output] = {
            label: {"cumulative": value} | ({"sensitivity": alone[label]} if label in alone else {})
            for label, value in zip(found.labels, values.tolist(), strict=True)
        }
    return dict(result) if output_separated else dict(result[""])


def _separated(
    network: Prepared,
    found: diagnosis.OutputScores,
    members: Mapping[str, Sequence[str]],
    samples: SampleSet,
) -> dict[str, tuple[np.ndarray, dict[str, float]]]:
    """Return ``{output: (cumulative series, {node: its own score})}``."""
    whole = network.table(network.configured)
    alone = diagnosis.output_scores(
        network.runner,
        {node: diagnosis.only(whole, network.plan, names) for node, names in members.items()},
        samples,
        metric=found.metric,
    )
    return {
        output: (
            found.scores[:, i],
            dict(zip(alone.labels, alone.scores[:, i].tolist(), strict=True)),
        )
        for i, output in enumerate(found.outputs)
    }


def _picked(table: SensitivityTable, metric: str, threshold: float | None) -> list[str]:
    """Return the nodes that are sensitive, all of them for None, worst first."""
    higher = similarity.METRICS[metric].better == "higher"
    scores = table.column(metric)
    return [
        table.rows[i]
        for i in table.order()
        if threshold is None or (scores[i] <= threshold if higher else scores[i] >= threshold)
    ]
