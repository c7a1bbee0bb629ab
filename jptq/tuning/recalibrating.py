"""The prepared float network: what ships to another tool, and the proof that it calibrates alike.

It is the network that was given with equivalents only: weights moved on their grid, corrected
biases, whatever else of its constants was changed. The proof reads the written file and does what
a tool does that knows nothing of a fit: optimize, place quantizers, calibrate by one method.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jptq import files, ir
from jptq.calibration import candidates
from jptq.calibration.weights import weight_thresholds
from jptq.engine import Runner, lower, memory
from jptq.ir import HORIZON, Model
from jptq.ir.expand import expand_units
from jptq.numerics.affine import affine, clean_thresholds
from jptq.numerics.fake_quant import on_grid
from jptq.numerics.qtypes import FLOAT32, INT8, qtype
from jptq.quant.assign import Assignment
from jptq.quant.attributes import attributes_of
from jptq.quant.calibrated import plan_of, thresholds_of, with_thresholds
from jptq.quant.compensate import compensate, compensations
from jptq.quant.originals import constant_digest
from jptq.quant.placement import place, tied_thresholds
from jptq.quant.plan import WEIGHT
from jptq.results.recalibration import Moved, Recalibration
from jptq.tuning.calibrating import thresholds
from jptq.tuning.journal import Journal
from jptq.tuning.prepare import UNKNOWN_METHOD, Prepared, Progress, quiet

STEP = "calibrate the prepared network"

_ROUNDING = 1e-4
"""Steps that a value may lie off its place: float32 has 127 of them to 1e-5."""


def prepared_float(prepared: Prepared, assignment: Assignment | None = None) -> Model:
    """Return the float network with the constants that the calibrated one computes with.

    Operators that were split for ec are whole, and the vendor's float units are written out in
    ONNX's operators: whoever calibrates it splits and fuses them again.

    Args:
      prepared: The calibrated network.
      assignment: Its final types; the configured ones if None.
    """
    network = prepared.unsplit or prepared.floating
    mixed = prepared.mixed(prepared.configured if assignment is None else assignment)
    changed = {name: mixed.initializers[name] for name in prepared.floats}
    model = expand_units(
        dataclasses.replace(network, initializers={**network.initializers, **changed})
    )
    if not any(node.domain == HORIZON for node in model.nodes):
        opsets = {domain: version for domain, version in model.opsets.items() if domain != HORIZON}
        model = dataclasses.replace(model, opsets=opsets)
    return ir.for_vendor(model)


def recalibrated(
    path: Path,
    prepared: Prepared,
    assignment: Assignment | None = None,
    *,
    journal: Journal | None = None,
    progress: Progress = quiet,
) -> Recalibration:
    """Calibrate a written `prepared_float` plainly, and compare with the calibrated network.

    Args:
      path: The file.
      prepared: What it was made of.
      assignment: Types that integers are compared under; the configured ones if None.
      journal: Keeps the answer.
      progress: Called as work goes on.

    Raises:
      JptqError: The file is no network that can be calibrated: another tool could not either.
    """
    journal, types = journal or Journal(None), assignment or prepared.configured
    key = (prepared.digest, files.digest(path), files.json_text(dict(sorted(types.items()))))
    stored = journal.load("recalibration", *key)
    if stored is not None:
        return Recalibration.from_json(stored)
    progress(STEP, 0, len(prepared.samples))
    runner = _plain(path, prepared)
    found = _constants(runner.model, prepared, types)
    unasked = _unasked(prepared)
    if unasked:
        found = dataclasses.replace(found, unasked=unasked)
    else:
        own = thresholds(
            runner,
            prepared.samples,
            prepared.target,
            prepared.config.calibrated_by(prepared.activation),
            reach=False,  # no other tool stops thresholds where its readers saturate
            progress=lambda done, total: progress(STEP, done, total),
        )
        # Those of a split feature follow from the grid that they belong to.
        anew = thresholds_of(own.write(runner.model))
        features = {
            one.name: anew[one.name]
            for one in prepared.plan.calibrations
            if not one.constant and one.name in anew
        }
        apart, limited = _moved(features, prepared), _limited(prepared)
        found = dataclasses.replace(
            found,
            method=own.method,
            features=len(features),
            moved=tuple(one for one in apart if one.name not in limited),
            stopped=tuple(one for one in apart if one.name in limited),
        )
        memory.release()
    progress(STEP, len(prepared.samples), len(prepared.samples))
    journal.save("recalibration", *key, content=found.to_json())
    return found


def _unasked(prepared: Prepared) -> str:
    """Return why features cannot be calibrated by the method again, empty if they can."""
    if prepared.method == UNKNOWN_METHOD:
        return "the model does not say by which method they were found"
    methods = candidates(prepared.activation)
    if prepared.config.layerwise is not None or methods[0].name == "mix":
        return "each was searched by itself"
    if methods[0].given:
        return "they were not found from samples"
    return ""


def _plain(path: Path, prepared: Prepared) -> Runner:
    """Return the runner of the file, with quantizers that have no thresholds yet.

    The programs are those of the calibrated network where the file is the same graph.
    """
    target, config, example = prepared.target, prepared.config, prepared.samples[0]
    shapes = {name: value.shape for name, value in example.items()}
    read = ir.for_vendor(ir.optimize(ir.load(path), input_shapes=shapes, float32=True))
    graph = compensate(
        read,
        compensations(config, read, target),
        target,
        unmatched=config.unmatched,
        where=config.where,
    )
    own = prepared.runner
    same = _skeleton(graph) == _skeleton(prepared.floating)
    dtypes = (own.program if same else lower(graph, example)).dtypes
    placed = place(
        graph,
        target,
        floats={name for name, dtype in dtypes.items() if dtype == np.float32},
        quantize_outputs=config.model_output_type is not None,
    )
    plan = plan_of(placed, target)
    changed = {
        name: value
        for name, value in placed.initializers.items()
        if not _same(value, own.model.initializers.get(name))
    }
    if same and own.serves(plan) and changed.keys() <= own.replaceable:
        return own.sharing(placed, plan=plan, changed=changed)
    return Runner(placed, example, plan=plan, batching=own.batching)


def _skeleton(model: Model) -> bytes:
    """Return all of a float graph but the values of its constants."""
    shapes = {n: np.asarray([v.dtype.num, *v.shape]) for n, v in model.initializers.items()}
    return ir.to_bytes(dataclasses.replace(model, initializers=shapes, metadata={}, ir_version=0))


def _constants(placed: Model, prepared: Prepared, types: Assignment) -> Recalibration:
    """Compare integers, scales and all other constants."""
    factor = prepared.config.weight.max_percentile
    found = weight_thresholds(placed, factor=factor)
    again = with_thresholds(placed, {n: clean_thresholds(t, where=n) for n, t in found.items()})
    theirs = _grids(again, types)
    total, same = np.zeros(2, np.int64), np.zeros(2, np.int64)
    wrong: dict[str, str] = {}
    mixed = prepared.mixed(types)
    weights = _grids(mixed, types)
    for name, (tensor, *own) in weights.items():
        sizes = np.asarray([values.size for values in own])
        other = theirs.get(name)
        alike = np.zeros(2, np.int64) if other is None else _alike(own, other[1:])
        total, same = total + sizes, same + alike
        parts = [
            f"{size - equal:,} of {size:,} {what} differ"
            for size, equal, what in zip(sizes, alike, ("integers", "scales"), strict=True)
            if size != equal
        ]
        fitted = tensor in prepared.floats and prepared.plan.calibration(name).kind == WEIGHT
        if fitted and types[name] == INT8.name and (off := _off_grid(prepared, name)):
            parts.append(f"{off:,} of {sizes[0]:,} values are off the grid")
        if parts:
            wrong[tensor] = "no quantizer" if other is None else ", ".join(parts)
    quantized = {tensor for tensor, *_ in weights.values()}
    held = mixed.initializers
    others = [name for name in held if name not in quantized]
    apart = [name for name in others if not _same(held[name], placed.initializers.get(name))]
    return Recalibration(
        changed=len(prepared.floats),
        weights=len(weights),
        elements=int(total[0]),
        same_elements=int(same[0]),
        scales=int(total[1]),
        same_scales=int(same[1]),
        constants=len(others),
        same_constants=len(others) - len(apart),
        wrong=wrong | {n: "another value" if n in placed.initializers else "absent" for n in apart},
    )


def _grids(model: Model, types: Assignment) -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """Return ``{quantizer of a constant: (constant, its integers, its scales)}`` under some types.

    What stays float has neither integers nor scales.
    """
    found = {}
    for node in model.nodes:
        constant = model.initializers.get(node.inputs[0]) if node.is_calibration else None
        kind = qtype(types.get(node.name, FLOAT32.name))
        if constant is None or not kind.quantizes:
            continue
        held = attributes_of(node)
        assert held.thresholds is not None
        grid = affine(held.thresholds, kind, asymmetric=held.asymmetric)
        integers = on_grid(constant, grid, held.axis if held.per_channel else None)
        found[node.name] = (node.inputs[0], integers, grid.scale)
    return found


def _alike(own: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> np.ndarray:
    """Return how many integers and how many scales are the same."""
    return np.asarray(
        [np.sum(a == b) if a.shape == b.shape else 0 for a, b in zip(own, other, strict=True)]
    )


def _off_grid(prepared: Prepared, name: str) -> int:
    """Return how many values of a weight are no whole number of INT8 steps, but for rounding.

    The largest of each channel is on its grid by definition, or beyond it where that is clipped.
    """
    one = prepared.plan.calibration(name)
    weight = prepared.calibrated.initializers[one.tensor]
    grid = affine(prepared.thresholds[name], INT8)
    axis = one.axis if grid.scale.size > 1 else None
    scale = grid.scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    off = np.abs(weight / scale - on_grid(weight, grid, axis)) > _ROUNDING
    others = tuple(i for i in range(weight.ndim) if i != one.axis)
    return int(np.sum(off & (np.abs(weight) < np.abs(weight).max(axis=others, keepdims=True))))


def _limited(prepared: Prepared) -> set[str]:
    """Return the quantizers that stop early, and those that hold one threshold with them."""
    found = {one.calibration for one in prepared.limits}
    ties = tied_thresholds(prepared.calibrated)
    return found.union(*(group for group in ties if found.intersection(group)))


def _moved(own: Mapping[str, np.ndarray], prepared: Prepared) -> tuple[Moved, ...]:
    """Return the features whose thresholds are others, the largest change first."""
    found = []
    for name, theirs in own.items():
        ours = prepared.thresholds[name]
        if ours.shape != theirs.shape:
            found.append(Moved(name=name, change=1.0))
        elif not np.array_equal(ours, theirs):
            size = np.maximum(np.abs(ours), np.abs(theirs)).astype(np.float64)
            apart = np.abs(ours.astype(np.float64) - theirs)
            change = np.divide(apart, size, out=np.zeros_like(size), where=size > 0)
            found.append(Moved(name=name, change=float(change.max())))
    return tuple(sorted(found, key=lambda one: -one.change))


def _same(one: np.ndarray, other: np.ndarray | None) -> bool:
    """Tell whether two constants are the same to the last bit."""
    return other is not None and constant_digest(one) == constant_digest(other)
