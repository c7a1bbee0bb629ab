"""``plot_distribution``: values before and after quantization, thresholds, errors of outputs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from jptq import diagnosis
from jptq.hmct.quantizer.debugger import arguments, loading
from jptq.hmct.quantizer.debugger.loading import ArgumentError, Data, ModelOrFile
from jptq.report import diagnosis_plots
from jptq.tuning import Prepared

SAVE_DIR = "./debug_result/"


def plot_distribution(
    model_or_file: ModelOrFile,
    calibrated_data: Data,
    nodes_list: str | arguments.Names,
    save_dir: str | os.PathLike[str] = SAVE_DIR,
) -> list[Path]:
    """Draw how values are spread, over all samples.

    A weight calibration gives the weight before and after; an activation calibration its input
    with the threshold; any other node the error of its outputs in the calibrated model.

    Args:
      model_or_file: A calibrated model.
      calibrated_data: Samples.
      nodes_list: Names of calibrations and nodes.
      save_dir: Gets ``weight_<n>.png``, ``activation_<n>.png`` and
        ``node_output_:<output>_of_<node>.png``.

    Returns:
      The files.

    Raises:
      ArgumentError: A name does not exist, or there is none.
      JptqError: The model or the data cannot be used.

    Source: hmct-spec 3.2, 3.4.
    """
    names = listed(nodes_list)
    network = loading.loaded(model_or_file, calibrated_data)
    calibrations, outputs = sorted_out(network, names)
    folder, written = Path(save_dir), []
    if calibrations:
        for one in diagnosis.distributions_of(
            network.runner, network.thresholds, network.configured, calibrations, network.samples
        ):
            kind = "weight" if one.kind == "weight" else "activation"
            path = folder / f"{kind}_{diagnosis_plots.file_name(one.calibration)}.png"
            written.append(diagnosis_plots.save(diagnosis_plots.draw_quantizer(one), path))
    if outputs:
        for output in diagnosis.output_distributions_of(
            network.runner, network.table(network.configured), list(outputs), network.samples
        ):
            title = f"node_output_:{output.tensor}_of_{output.node}"
            path = folder / f"{diagnosis_plots.file_name(title)}.png"
            written.append(diagnosis_plots.save(diagnosis_plots.draw_output(output), path))
    return written


def listed(given: str | arguments.Names) -> list[str]:
    """Return names without their inner lists, each once.

    Raises:
      ArgumentError: There are none.
    """
    flat: list[str] = []
    for one in [given] if isinstance(given, str) else given:
        flat += [one] if isinstance(one, str) else one
    if not flat:
        raise ArgumentError("nodes_list is empty", hint="name calibrations or nodes")
    return list(dict.fromkeys(flat))


def sorted_out(network: Prepared, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the calibrations among some names, and ``{output: node}`` of the other nodes.

    Raises:
      ArgumentError: A name does not exist, or a node computes nothing in float32.
    """
    outputs_of = diagnosis.by_node(diagnosis.Walk.of(network.runner))
    calibrations, outputs = [], dict[str, str]()
    for name in names:
        if name in network.plan.index:
            calibrations.append(name)
        elif name in outputs_of:
            outputs |= dict.fromkeys(outputs_of[name], name)
        elif name in network.calibrated.by_name:
            raise ArgumentError(
                f"{name} has no float output that depends on the input of the model"
            )
        else:
            raise loading.missing(name, _known(outputs_of, network), network.calibrated)
    return calibrations, outputs


def _known(nodes: Iterable[str], network: Prepared) -> list[str]:
    return [*nodes, *network.plan.index]
