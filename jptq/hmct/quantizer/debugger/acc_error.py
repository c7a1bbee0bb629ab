"""``plot_acc_error``: how the error accumulates along the graph."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from jptq import diagnosis
from jptq.hmct.quantizer.debugger import arguments, loading
from jptq.hmct.quantizer.debugger.loading import ArgumentError, Data, ModelOrFile
from jptq.quant.assign import Table
from jptq.report import diagnosis_plots
from jptq.tuning import Prepared

KINDS = {"weight": "weight", "activation": "feature"}
"""Words that stand for all calibrations of a type."""

DEFAULT = "default calibrated model"


def plot_acc_error(
    save_dir: str | os.PathLike[str],
    calibrated_data: Data,
    model_or_file: ModelOrFile,
    quantize_node: arguments.Names | None = None,
    non_quantize_node: arguments.Names | None = None,
    metric: str = "cosine-similarity",
    average_mode: bool = False,
) -> list[Path]:
    """Draw a metric at every node's output against float, for partially quantized models.

    The first sample is run. Values that are not finite are left out.

    Args:
      save_dir: Gets the figures.
      calibrated_data: Samples.
      model_or_file: A calibrated model.
      quantize_node: An entry is a node (or calibration), a list of them, ``weight`` or
        ``activation``: one curve each, on which only these are quantized. ``weight`` and
        ``activation`` together also give the fully calibrated curve.
      non_quantize_node: All but these are quantized, one curve per entry.
      metric: One of `arguments.METRICS`.
      average_mode: Draw running means.

    Returns:
      The files.

    Raises:
      ArgumentError: Neither list is given, or an entry does not exist.
      JptqError: The model or the data cannot be used.

    Source: hmct-spec 3.2, 3.4.
    """
    (name,) = arguments.metrics_of(metric)
    if not quantize_node and not non_quantize_node:
        raise ArgumentError(
            "quantize_node and non_quantize_node are both empty",
            hint="name what to quantize, for example ['weight', 'activation']",
        )
    network = loading.loaded(model_or_file, calibrated_data)
    views = []
    if quantize_node:
        views.append(_quantized(network, _entries(quantize_node)))
    if non_quantize_node:
        views.append(_unquantized(network, _entries(non_quantize_node)))
    merged = {(view.prefix, label): t for view in views for label, t in view.tables.items()}
    keys = {f"{prefix}/{label}": t for (prefix, label), t in merged.items()}
    found = diagnosis.accumulate(network.runner, keys, [network.samples[0]], metrics=(name,))
    written = []
    for view in views:
        curves = {label: found.curve(f"{view.prefix}/{label}") for label in view.tables}
        if average_mode:
            curves = {label: _averaged(values) for label, values in curves.items()}
        figure = diagnosis_plots.draw_acc_error(view.prefix, name, curves)
        average = "average_" if average_mode else ""
        path = Path(save_dir) / f"{average}{view.prefix}_{name}.png"
        written.append(diagnosis_plots.save(figure, path))
    return written


@dataclasses.dataclass(frozen=True)
class _View:
    """One figure: its title and a table per curve."""

    prefix: str
    tables: dict[str, Table]


def _quantized(network: Prepared, entries: list[tuple[str, ...]]) -> _View:
    """Return the curves on which only the entries are quantized."""
    whole = network.table(network.configured)

    def only(entry: tuple[str, ...]) -> Table:
        return diagnosis.only(whole, network.plan, _members(network, entry))

    if all(len(entry) == 1 and entry[0] in KINDS for entry in entries):
        kinds = list(dict.fromkeys(entry[0] for entry in entries))
        tables = {f"only_{kind}_calibrated": only((kind,)) for kind in kinds}
        if len(kinds) == 1:
            return _View(f"{kinds[0]}_quantized", tables)
        both = {"weight_activation_calibrated": whole}
        return _View("weight_activation_quantized_separately", both | tables)
    return _View(
        f"quantize_node_accumulate_err_of_{_what(entries)}",
        {DEFAULT: whole} | {label: only(entry) for label, entry in _labels(entries).items()},
    )


def _unquantized(network: Prepared, entries: list[tuple[str, ...]]) -> _View:
    """Return the curves on which all but the entries are quantized."""
    whole = network.table(network.configured)
    everything = {calibration.name for calibration in network.plan.calibrations}
    for kind in (name for entry in entries for name in entry if name in KINDS):
        raise ArgumentError(
            f"{kind} is not allowed in non_quantize_node", hint="use it in quantize_node"
        )
    return _View(
        f"non_quantize_node_accumulate_err_of_{_what(entries)}",
        {DEFAULT: whole}
        | {
            label: diagnosis.only(whole, network.plan, everything - _members(network, entry))
            for label, entry in _labels(entries).items()
        },
    )


def _entries(given: arguments.Names) -> list[tuple[str, ...]]:
    names = [given] if isinstance(given, str) else given
    return [(one,) if isinstance(one, str) else tuple(one) for one in names]


def _what(entries: Collection[tuple[str, ...]]) -> str:
    return "node" if all(len(entry) == 1 for entry in entries) else "partial_qmodel"


def _labels(entries: list[tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    if _what(entries) == "partial_qmodel":
        return {f"partial_qmodel_{i}": entry for i, entry in enumerate(entries)}
    return {entry[0]: entry for entry in entries}


def _members(network: Prepared, entry: Iterable[str]) -> set[str]:
    """Return the calibrations that an entry names."""
    plan, found = network.plan, set[str]()
    for name in entry:
        if name in KINDS:
            found |= {c.name for c in plan.calibrations if c.kind == KINDS[name]}
        elif name in plan.index:
            found.add(name)
        elif name in plan.by_node:
            found |= set(plan.by_node[name].calibrations)
        elif name in network.calibrated.by_name:
            raise ArgumentError(f"{name} has no calibration on its inputs")
        else:
            raise loading.missing(name, [*plan.by_node, *plan.index], network.calibrated)
    return found


def _averaged(values: np.ndarray) -> np.ndarray:
    """Return the running mean of the finite values, in their places."""
    finite = np.isfinite(values)
    averaged = np.full_like(values, np.nan)
    averaged[finite] = diagnosis.running_mean(values[finite])
    return averaged
