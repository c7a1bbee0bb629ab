"""``tensor_analysis`` and ``get_calibration_nodes_stat_info``: tensors in numbers.

Of both, only names and options are published by the vendor; what they report is ours.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jptq import diagnosis, files
from jptq.diagnosis import TensorStatistics
from jptq.hmct.quantizer.debugger import arguments, loading
from jptq.hmct.quantizer.debugger.distribution import SAVE_DIR, listed
from jptq.hmct.quantizer.debugger.loading import ArgumentError, Data, ModelOrFile
from jptq.report import diagnosis_plots
from jptq.tuning import Prepared

STATISTICS = "tensor_analysis.json"
STAT_INFO = "cali_nodes_stat_info.npy"


def tensor_analysis(
    model_or_file: ModelOrFile,
    calibrated_data: Data,
    node_names: str | arguments.Names,
    save_dir: str | os.PathLike[str] = SAVE_DIR,
    num_processes: int = 16,
) -> dict[str, dict[str, Any]]:
    """Describe the tensors that quantizers work on: range, percentiles, clipping, used bits.

    Args:
      model_or_file: A calibrated model.
      calibrated_data: Samples; all of them are run.
      node_names: Calibrations, or nodes, which stand for the calibrations on their inputs.
      save_dir: Gets `STATISTICS` and a figure ``tensor_<calibration>.png`` each.
      num_processes: Accepted for the vendor's sake; one process does it.

    Returns:
      ``{calibration: fields of TensorStatistics}``.

    Raises:
      ArgumentError: A name does not exist, or there is none.
      JptqError: The model or the data cannot be used.
    """
    del num_processes
    network = loading.loaded(model_or_file, calibrated_data)
    names = _calibrations(network, listed(node_names))
    given = (network.runner, network.thresholds, network.configured, names, network.samples)
    statistics = diagnosis.statistics_of(*given)
    folder = Path(save_dir)
    for numbers, distribution in zip(statistics, diagnosis.distributions_of(*given), strict=True):
        path = folder / f"tensor_{diagnosis_plots.file_name(numbers.calibration)}.png"
        diagnosis_plots.save(diagnosis_plots.draw_quantizer(distribution, numbers), path)
    found = {one.calibration: _fields(one) for one in statistics}
    files.write_json(folder / STATISTICS, {"schema": 1, "tensors": found})
    return found


def get_calibration_nodes_stat_info(
    model_or_file: ModelOrFile,
    calibrated_data: Data,
    nodes_list: Sequence[str] | None = None,
    save_dir: str | os.PathLike[str] = SAVE_DIR,
    visualize: bool = False,
) -> dict[str, dict[str, np.ndarray]]:
    """Collect thresholds and the range of every channel at calibrations.

    Args:
      model_or_file: A calibrated model.
      calibrated_data: Samples.
      nodes_list: Calibrations; all of them if None.
      save_dir: Gets `STAT_INFO`: ``np.load(file, allow_pickle=True).item()`` is the result.
      visualize: Also draw the channels, ``<calibration>_boxplot.png``.

    Returns:
      ``{calibration: {"thresholds", "max_abs": per channel, "min_nonzero": per channel}}``; the
      least absolute value that is not 0 is infinite for a channel without one.

    Raises:
      ArgumentError: A name is no calibration.
      JptqError: The model or the data cannot be used.
    """
    network = loading.loaded(model_or_file, calibrated_data)
    plan = network.plan
    names = list(plan.index) if nodes_list is None else listed(nodes_list)
    for name in names:
        if name not in plan.index:
            raise loading.missing(name, list(plan.index), network.calibrated)
    ranges = diagnosis.channel_ranges_of(
        network.runner, network.table(network.configured), names, network.samples
    )
    found = {
        name: {
            "thresholds": np.asarray(network.thresholds.get(name, ()), np.float32),
            "max_abs": ranges[name].largest,
            "min_nonzero": ranges[name].least,
        }
        for name in names
    }
    with files.atomic_path(Path(save_dir) / STAT_INFO) as path:
        # The vendor's readers expect the dictionary itself.
        np.save(path, np.array(found, dtype=object), allow_pickle=True)
    if visualize:
        from jptq.hmct.quantizer.debugger.channels import get_channelwise_data_distribution

        get_channelwise_data_distribution(model_or_file, network.samples, names, save_dir)
    return found


def _calibrations(network: Prepared, names: Sequence[str]) -> list[str]:
    plan, found = network.plan, dict[str, None]()
    for name in names:
        if name in plan.index:
            found[name] = None
        elif name in plan.by_node:
            found |= dict.fromkeys(plan.by_node[name].calibrations)
        elif name in network.calibrated.by_name:
            raise ArgumentError(f"{name} has no calibration on its inputs")
        else:
            raise loading.missing(name, [*plan.by_node, *plan.index], network.calibrated)
    return list(found)


def _fields(statistics: TensorStatistics) -> dict[str, Any]:
    fields = dataclasses.asdict(statistics)
    fields["percentiles"] = {f"{p:g}": value for p, value in statistics.percentiles.items()}
    return fields
