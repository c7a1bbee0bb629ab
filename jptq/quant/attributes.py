"""What the attributes of an HzCalibration node mean, whoever wrote them. Source: hmct-spec 1.3."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from jptq.errors import ModelError
from jptq.ir.model import Model, Node
from jptq.numerics.affine import clean_thresholds
from jptq.quant.plan import FEATURE, WEIGHT

_logger = logging.getLogger(__name__)

ON, OFF = "ON", "OFF"

_KINDS = {FEATURE: FEATURE, WEIGHT: WEIGHT, "convt_weight": WEIGHT}
_AXIS = 1
"""Channel axis where there are several thresholds and none is named."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Attributes:
    """Of one quantizer.

    Attributes:
      kind: `FEATURE` or `WEIGHT`.
      thresholds: ``float32[C]``, ``[2]`` if asymmetric; None before calibration. They make a grid:
        what is infinite or not positive has been replaced as the vendor does (hmct-spec 2.1).
      asymmetric: Thresholds are a range [min, max].
      axis: Channel axis; None if none is named and there are no several thresholds.
    """

    kind: str
    thresholds: np.ndarray | None
    asymmetric: bool
    axis: int | None

    @property
    def per_channel(self) -> bool:
        """Whether every channel has a threshold of its own."""
        return self.thresholds is not None and self.thresholds.size > 1 and not self.asymmetric


def attributes_of(node: Node) -> Attributes:
    """Return what a quantizer says.

    Args:
      node: An HzCalibration node.

    Raises:
      ModelError: It says something impossible.
    """
    kind = node.attributes.get("tensor_type", FEATURE)
    if not isinstance(kind, str) or kind not in _KINDS:
        _damaged(node, f"tensor_type is {kind!r}", "it is feature or weight")
    if (switch := node.attributes.get("switch", ON)) not in (ON, OFF):
        _damaged(node, f"switch is {switch!r}", "it is ON or OFF")
    axis = node.attributes.get("axis")
    if axis is not None and not isinstance(axis, int):
        _damaged(node, f"axis is {axis!r}", "it is an integer")
    given, asymmetric = _given(node), is_range(node.attributes)
    if given is None:
        return Attributes(kind=_KINDS[kind], thresholds=None, asymmetric=asymmetric, axis=axis)
    if not asymmetric:
        values = clean_thresholds(np.maximum(given, 0), where=node.name)
        axis = _AXIS if axis is None and values.size > 1 else axis
    elif given.size != 2 or given[0] > given[1]:
        _damaged(node, f"its range is {given.tolist()}", "it is [min, max]")
    else:
        values = np.clip(given, np.finfo(np.float32).min, np.finfo(np.float32).max)
    return Attributes(kind=_KINDS[kind], thresholds=values, asymmetric=asymmetric, axis=axis)


def is_range(attributes: Mapping[str, Any]) -> bool:
    """Tell whether two thresholds are a range [min, max] instead of two channels.

    We write ``asymmetric``. The vendor does not: but no threshold of a channel is zero or less.
    """
    if "asymmetric" in attributes:
        return bool(attributes["asymmetric"])
    values = attributes.get("thresholds")
    if not isinstance(values, tuple) or len(values) != 2 or attributes.get("tensor_type") == WEIGHT:
        return False
    low, high = values
    return bool(_is_number(low) and _is_number(high) and low <= 0 <= high and low < high)


def with_sound_quantizers(model: Model) -> Model:
    """Return a calibrated model of any tool with quantizers in the form that we write.

    Thresholds that had to be replaced are named in a warning; scales stay as the file has them,
    nobody reads them.

    Raises:
      ModelError: A quantizer says something impossible.
    """
    nodes = []
    for node in model.nodes:
        if node.is_calibration:
            found, given = attributes_of(node), _given(node)
            if found.thresholds is not None and given is not None:
                node = _rewritten(node, found, given)
        nodes.append(node)
    return dataclasses.replace(model, nodes=tuple(nodes))


def _rewritten(node: Node, found: Attributes, given: np.ndarray) -> Node:
    assert found.thresholds is not None
    replaced = found.thresholds != given
    attributes = dict(node.attributes)
    if replaced.any():
        _logger.warning(
            "%s: %s of %d thresholds make no grid (%g): %g stands for them",
            node.name,
            int(replaced.sum()),
            given.size,
            given[replaced][0],
            found.thresholds[replaced][0],
        )
        attributes["thresholds"] = tuple(found.thresholds.tolist())
    if found.asymmetric:
        attributes["asymmetric"] = 1
    if attributes == node.attributes:
        return node
    return dataclasses.replace(node, attributes=attributes)


def _given(node: Node) -> np.ndarray | None:
    """Return the thresholds as they stand in the node; None if there are none."""
    given = node.attributes.get("thresholds", ())
    if isinstance(given, np.ndarray):
        given = tuple(given.ravel().tolist())
    values = given if isinstance(given, tuple) else (given,)
    if not all(_is_number(value) for value in values):
        _damaged(node, f"its thresholds are {given!r}", "they are numbers")
    if not values:
        return None
    found = np.asarray(values, np.float64).astype(np.float32)
    if np.isnan(found).any():
        _damaged(node, "a threshold is NaN", "they are numbers")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _damaged(node: Node, what: str, why: str) -> NoReturn:
    raise ModelError(
        f"a quantizer is damaged: {what}",
        where=node.name,
        why=why,
        hint="calibrate again: jptq calibrate",
    )
