"""The outcome of a calibration as a finding of the journal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jptq.calibration import Calibrated
from jptq.results import Limit, MethodTrial, Outlying
from jptq.tuning.journal import Journal

_FORMAT = "3"

_CONSTANT = -1
"""Stands in the place of a method for what is common to all of them."""


def save(journal: Journal, identity: str, found: Calibrated) -> None:
    """Keep the thresholds by all methods that were compared, the one taken first.

    Args:
      journal: Where.
      identity: Digest of what they depend on.
      found: What a calibration gave.
    """
    every = (found, *found.rivals)
    content = {
        "compared": [one.to_json() for one in found.compared],
        "methods": [
            {
                "method": one.method,
                "asymmetric": sorted(one.asymmetric),
                "axes": dict(one.axes),
                "types": dict(one.types),
                "limits": [limit.to_json() for limit in one.limited.values()],
                "outlying": [gone.to_json() for gone in one.outlying],
            }
            for one in every
        ],
    }
    arrays = {f"{i}:{n}": t for i, one in enumerate(every) for n, t in one.thresholds.items()}
    arrays |= {f"{_CONSTANT}:{n}": value for n, value in found.constants.items()}
    journal.save("methods", _FORMAT, identity, content=content)
    journal.save_arrays("thresholds", _FORMAT, identity, arrays=arrays)


def load(journal: Journal, identity: str) -> Calibrated | None:
    """Return what `save` kept, or None if there is nothing that can be read."""
    content = journal.load("methods", _FORMAT, identity)
    arrays = None if content is None else journal.load_arrays("thresholds", _FORMAT, identity)
    if content is None or arrays is None:
        return None
    grouped: dict[int, dict[str, np.ndarray]] = {}
    for key, values in arrays.items():
        number, _, name = key.partition(":")
        grouped.setdefault(int(number), {})[name] = values
    constants = grouped.get(_CONSTANT, {})
    first, *rest = (
        dataclasses.replace(_one(row, grouped.get(i, {})), constants=constants)
        for i, row in enumerate(content["methods"])
    )
    compared = tuple(MethodTrial.from_json(row) for row in content["compared"])
    return dataclasses.replace(first, compared=compared, rivals=tuple(rest))


def _one(row: Mapping[str, Any], thresholds: Mapping[str, np.ndarray]) -> Calibrated:
    return Calibrated(
        thresholds=thresholds,
        method=row["method"],
        asymmetric=frozenset(row["asymmetric"]),
        axes=row["axes"],
        types=row["types"],
        limited={limit.calibration: limit for limit in map(Limit.from_json, row["limits"])},
        outlying=tuple(map(Outlying.from_json, row["outlying"])),
    )
