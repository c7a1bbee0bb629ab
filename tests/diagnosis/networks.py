"""A small calibrated network, and what onnxruntime computes at all of its tensors."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from jptq.ir import Model
from jptq.quant.assign import Table, table, uniform
from jptq.quant.calibrated import with_assignment
from jptq.quant.export import to_qdq
from tests.agreements.network import observed, run
from tests.sensitivity.networks import Case, smooth
from tests.sensitivity.networks import case as case_of

Values = dict[str, np.ndarray]


@functools.cache
def case() -> Case:
    """Return a network with two outputs whose batches of two do not divide its five samples."""
    return case_of(smooth(), samples=5)


def on(made: Case, names: Sequence[str] | None = None) -> Table:
    """Return the int8 table of some calibrations, of all for None; the others are off."""
    return table(made.plan, made.thresholds, types(made, names))


def types(made: Case, names: Sequence[str] | None = None) -> dict[str, str]:
    int8 = uniform(made.plan, "int8")
    if names is None:
        return int8
    return {name: held if name in names else "float32" for name, held in int8.items()}


def by_onnxruntime(made: Case, names: Sequence[str] | None, tensors: Sequence[str]) -> list[Values]:
    """Return tensors of every sample in the export of a network with some calibrations on."""
    exported: Model = to_qdq(with_assignment(made.model, types(made, names)))
    return run(observed(exported, tensors), made.samples)


def joined(found: Sequence[Mapping[str, np.ndarray]], tensor: str) -> np.ndarray:
    """Return one tensor of all samples, ``[S, *shape]``."""
    return np.stack([values[tensor] for values in found])
