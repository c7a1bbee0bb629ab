"""``get_channelwise_data_distribution``: a box per channel."""

from __future__ import annotations

import os
from pathlib import Path

from jptq import diagnosis
from jptq.hmct.quantizer.debugger import arguments, loading
from jptq.hmct.quantizer.debugger.distribution import SAVE_DIR, listed, sorted_out
from jptq.hmct.quantizer.debugger.loading import ArgumentError, Data, ModelOrFile
from jptq.report import channel_plots, diagnosis_plots
from jptq.tuning import Prepared


def get_channelwise_data_distribution(
    model_or_file: ModelOrFile,
    calibrated_data: Data,
    nodes_list: str | arguments.Names,
    save_dir: str | os.PathLike[str] = SAVE_DIR,
    axis: int | None = None,
) -> list[Path]:
    """Draw the range of every channel of weights, activations and node outputs.

    Args:
      model_or_file: A calibrated model.
      calibrated_data: Samples; evenly spread ones of them where all would be too many values.
      nodes_list: Names of calibrations and nodes.
      save_dir: Gets ``<node>_boxplot.png``.
      axis: Channel axis; a weight's own, else 0, and 1 of an activation if None.

    Returns:
      The files.

    Raises:
      ArgumentError: A name does not exist, there is none, or a tensor has no such axis.
      JptqError: The model or the data cannot be used.

    Source: hmct-spec 3.1, 3.4.
    """
    names = listed(nodes_list)
    network = loading.loaded(model_or_file, calibrated_data)
    calibrations, outputs = sorted_out(network, names)
    tensors = {name: network.plan.calibration(name).tensor for name in calibrations}
    counts = {node: list(outputs.values()).count(node) for node in outputs.values()}
    for tensor, node in outputs.items():
        tensors[node if counts[node] == 1 else f"{node}_{tensor}"] = tensor
    axes = {name: _axis(network, name, tensor, axis) for name, tensor in tensors.items()}
    found = diagnosis.channels_of(
        network.runner, network.table(network.configured), tensors, network.samples, axes=axes
    )
    return [
        diagnosis_plots.save(
            channel_plots.draw_channels(one),
            Path(save_dir) / f"{diagnosis_plots.file_name(one.name)}_boxplot.png",
        )
        for one in found
    ]


def _axis(network: Prepared, name: str, tensor: str, given: int | None) -> int:
    constant = diagnosis.Walk.of(network.runner).constants.get(tensor)
    shape = network.runner.program.shapes[tensor] if constant is None else constant.shape
    rank = len(shape)
    axis = min(1, rank - 1) if given is None else given
    if given is None and name in network.plan.index:
        axis = diagnosis.channel_axis(
            network.plan.calibration(name), rank, constant=constant is not None
        )
    if not -rank <= axis < rank:
        raise ArgumentError(f"axis {axis} does not exist in {name}", why=f"its shape is {shape}")
    return axis
