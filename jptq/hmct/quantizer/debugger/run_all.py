"""``runall``: every view of the debugger on one model, in one folder."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Sequence

from jptq.errors import JptqError
from jptq.hmct.quantizer import debugger
from jptq.hmct.quantizer.debugger import arguments, loading, sensitivity
from jptq.hmct.quantizer.debugger.loading import Data, ModelOrFile
from jptq.report import sensitivity_table
from jptq.results import SensitivityTable
from jptq.tuning.prepare import Progress, quiet

TOP = 5
"""Rows of each ranking that are drawn."""

# Scripts set the level of the root logger to see the tables, because the vendor logs there.
_tables = logging.getLogger()
_log = logging.getLogger(__name__)


def runall(
    model_or_file: ModelOrFile,
    calibrated_data: Data,
    save_dir: str | os.PathLike[str] = "./debug_result/",
    ns_metrics: str | Sequence[str] = "cosine-similarity",
    output_node: str | None = None,
    node_type: str | None = None,
    data_num: int | None = 1,
    verbose: bool = False,
    interested_nodes: arguments.Names | None = None,
    dis_nodes_list: Sequence[str] | None = None,
    cw_nodes_list: Sequence[str] | None = None,
    axis: int | None = None,
    quantize_node: arguments.Names | None = None,
    non_quantize_node: arguments.Names | None = None,
    ae_metric: str = "cosine-similarity",
    average_mode: bool = False,
    pick_threshold: float = 0.999,
    sensitive_nodes: Sequence[str] | None = None,
    *,
    progress: Progress = quiet,
) -> None:
    """Rank, draw what ranks worst, and show how the error accumulates and goes away.

    A step that cannot be done is left out with a warning; the others go on.

    Args:
      model_or_file: A calibrated model.
      calibrated_data: Its samples.
      save_dir: Gets the folders node_sensitivity, data_distribution, channelwise_distribution,
        accumulate_error and sensitivity_analysis.
      ns_metrics: Scores of the rankings.
      output_node: Rank by this node's outputs.
      node_type: Rank this type only; weights and activations if None.
      data_num: Samples of the rankings.
      verbose: Log the rankings.
      interested_nodes: Rank these nodes only.
      dis_nodes_list: Draw the distribution of these; the worst of each ranking if None.
      cw_nodes_list: Draw the channels of these; the worst of each ranking if None.
      axis: Channel axis of `cw_nodes_list`.
      quantize_node: Quantize only these for the accumulated error; the weights alone and the
        activations alone if neither this nor `non_quantize_node` is given.
      non_quantize_node: Quantize all but these.
      ae_metric: Of the accumulated error.
      average_mode: Draw running means of it.
      pick_threshold: Nodes up to this cosine are taken away one after the other.
      sensitive_nodes: Take these away instead.
      progress: ``progress(step, done, total)`` of the rankings.

    Raises:
      ArgumentError: An argument is out of its range.
      JptqError: The model or the data cannot be used.

    Source: hmct-spec 3.1, 3.2.
    """
    root = arguments.writable(save_dir)
    arguments.metrics_of(ns_metrics)
    types: Sequence[str] = ("weight", "activation") if node_type is None else (node_type,)
    if interested_nodes is not None:
        types = ("node",)
    for one in types:
        arguments.node_type_of(one)
    network = loading.loaded(model_or_file, calibrated_data)
    arguments.first_samples(network.samples, data_num)
    data = network.samples
    if quantize_node is None and non_quantize_node is None:
        quantize_node = ["weight", "activation"]

    worst: list[str] = []

    def rank(kind: str) -> None:
        found, table = sensitivity.ranking(
            model_or_file,
            data,
            metrics=ns_metrics,
            output_node=output_node,
            node_type=kind,
            data_num=data_num,
            interested_nodes=interested_nodes,
            progress=progress,
        )
        columns = sensitivity.columns_of(found, table)
        if verbose:
            _tables.info("%s", sensitivity_table(table, before=columns))
        folder = root / "node_sensitivity"
        sensitivity.save(table, columns, folder / f"sensitivity_of_{table.kind}.log")
        worst.extend(name for name in _drawable(table) if name not in worst)

    for kind in types:
        _attempt(f"the ranking of type {kind}", functools.partial(rank, kind))
    _attempt(
        "the distributions",
        lambda: debugger.plot_distribution(
            model_or_file=model_or_file,
            calibrated_data=data,
            nodes_list=_nodes(dis_nodes_list, worst),
            save_dir=root / "data_distribution",
        ),
    )
    _attempt(
        "the channels",
        lambda: debugger.get_channelwise_data_distribution(
            model_or_file=model_or_file,
            calibrated_data=data,
            nodes_list=_nodes(cw_nodes_list, worst),
            save_dir=root / "channelwise_distribution",
            axis=axis,
        ),
    )
    _attempt(
        "the accumulated error",
        lambda: debugger.plot_acc_error(
            save_dir=root / "accumulate_error",
            calibrated_data=data,
            model_or_file=model_or_file,
            quantize_node=quantize_node,
            non_quantize_node=non_quantize_node,
            metric=ae_metric,
            average_mode=average_mode,
        ),
    )
    _attempt(
        "the sensitivity analysis",
        lambda: debugger.sensitivity_analysis(
            model_or_file=model_or_file,
            calibrated_data=data,
            pick_threshold=pick_threshold,
            data_num=data_num,
            sensitive_nodes=sensitive_nodes,
            save_dir=root / "sensitivity_analysis",
        ),
    )


def _drawable(table: SensitivityTable) -> list[str]:
    """Return the calibrations of the worst rows: a node stands for those on its inputs."""
    found = [name for i in table.order()[:TOP] for name in table.members[i]]
    return list(dict.fromkeys(found))


def _nodes(given: Sequence[str] | None, worst: Sequence[str]) -> list[str]:
    names = list(worst if given is None else given)
    if not names:
        raise JptqError("there is no ranking to choose nodes from")
    return names


def _attempt(step: str, work: Callable[[], object]) -> None:
    try:
        work()
    except JptqError as error:
        _log.warning("left out: %s: %s", step, error)
