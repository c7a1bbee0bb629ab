"""Quantizers of a graph under the vendor's names: type and thresholds can be read and set."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from jptq.errors import ConfigError
from jptq.hmct.node import OnnxNode
from jptq.ir import Model, Tensor
from jptq.numerics.affine import clean_thresholds
from jptq.numerics.qtypes import QTYPES
from jptq.quant.attributes import is_range
from jptq.quant.calibrated import with_assignment
from jptq.quant.plan import FEATURE, WEIGHT

_log = logging.getLogger(__name__)

SETTABLE = tuple(QTYPES)
"""The types that a script may give a quantizer (hmct-spec 1.3)."""

SWITCH = ("ON", "OFF")


class CalibrationValueError(ConfigError, ValueError):
    """A value that a quantizer cannot hold; a `ValueError` too, which scripts expect."""


class CalibrationNode(OnnxNode):
    """An HzCalibration node: simulates one type on one tensor (hmct-spec 1.3)."""

    @property
    def tensor_type(self) -> str:
        """``feature`` or ``weight``."""
        kind = self.attributes.get("tensor_type")
        if kind is None:  # older files say it in another way; a weight is a constant
            return WEIGHT if self.inputs[0].is_param else FEATURE
        return WEIGHT if WEIGHT in str(kind) else str(kind)

    @property
    def qtype(self) -> str:
        """The type: int8, int16, float16 or float32.

        Setting it keeps the thresholds and makes new scales: another grid over the same range.
        What the target would refuse (an int16 weight) is set as well: it is a simulation.

        Raises:
          CalibrationValueError: (when set) the type does not exist.
        """
        return str(self.attributes.get("qtype", "int8"))

    @qtype.setter
    def qtype(self, qtype: str) -> None:
        if qtype not in SETTABLE:
            raise CalibrationValueError(
                f"qtype cannot be {qtype!r}", where=self.name, hint="one of " + ", ".join(SETTABLE)
            )
        self.attributes["qtype"] = qtype
        self._derive()

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """One per tensor or one per channel, ``(min, max)`` if asymmetric; None before calibration.

        Setting them (list, tuple or array) makes new scales.

        Raises:
          CalibrationValueError: (when set) another number of them than the tensor needs, or NaN.
        """
        found = self.attributes.get("thresholds")
        return None if found is None else tuple(float(value) for value in found)

    @thresholds.setter
    def thresholds(self, thresholds: Sequence[float] | np.ndarray) -> None:
        try:
            values = np.asarray(thresholds, np.float32).reshape(-1)
        except (TypeError, ValueError) as error:
            raise CalibrationValueError(
                "thresholds are no list of numbers", where=self.name, why=str(error)
            ) from error
        self._refuse_count(values.size)
        if np.isnan(values).any():
            raise CalibrationValueError("a threshold is NaN", where=self.name)
        if not self.asymmetric:
            values = self._usable(values)
            if values.size > 1:
                self.attributes.setdefault("axis", 1)
        else:
            self.attributes["asymmetric"] = 1
        self.attributes["thresholds"] = tuple(values.tolist())
        self._derive()

    @property
    def scales(self) -> tuple[float, ...] | None:
        """Width of a step per tensor or channel; None without thresholds or for a float type."""
        found = self.attributes.get("scales")
        return None if found is None else tuple(float(value) for value in found)

    @property
    def zero_point(self) -> tuple[int, ...] | None:
        """The integer that stands for zero, per scale; None where there are no scales."""
        found = self.attributes.get("zero_point")
        return None if found is None else tuple(int(value) for value in found)

    @property
    def axis(self) -> int | None:
        """Channel axis; without meaning if there is one threshold."""
        found = self.attributes.get("axis")
        return None if found is None else int(found)

    @property
    def group(self) -> int:
        """Groups of a transposed convolution's weight."""
        return int(self.attributes.get("group", 1))

    @property
    def constant(self) -> int:
        """0: calibrated from data; 1: fixed (weights); 2: thresholds come from given scales."""
        return int(self.attributes.get("constant", 0))

    @property
    def switch(self) -> str:
        """``ON``, or ``OFF``: the tensor passes as it is.

        Raises:
          CalibrationValueError: (when set) it is neither.
        """
        return str(self.attributes.get("switch", "ON"))

    @switch.setter
    def switch(self, switch: str) -> None:
        if switch not in SWITCH:
            raise CalibrationValueError(
                f"switch cannot be {switch!r}", where=self.name, hint="ON or OFF"
            )
        self.attributes["switch"] = switch

    @property
    def asymmetric(self) -> bool:
        """Whether the two thresholds are a range."""
        return is_range(self.attributes)

    @property
    def granularity(self) -> str:
        """``per-tensor`` or ``per-channel``."""
        count = len(self.thresholds or ())
        return "per-channel" if count > 1 and not self.asymmetric else "per-tensor"

    @property
    def quantize_type(self) -> str:
        """``scale``: steps need not be powers of two."""
        return "scale"

    def _refuse_count(self, count: int) -> None:
        if self.asymmetric:
            if count != 2:
                raise self._miscounted(count, "a range [min, max]")
            return
        if count == 1:  # fits every tensor
            return
        shape, axis = self.inputs[0].shape, 1 if self.axis is None else self.axis
        known = shape is not None and -len(shape) <= axis < len(shape)
        channels = shape[axis] if shape is not None and known else None
        if not isinstance(channels, int):
            channels = len(self.thresholds or (0,))
        if count != channels:
            raise self._miscounted(count, f"1 (whole) or {channels} (per channel, axis {axis})")

    def _miscounted(self, count: int, expected: str) -> CalibrationValueError:
        return CalibrationValueError(
            f"{count} thresholds", where=self.name, why=f"the tensor takes {expected}"
        )

    def _usable(self, values: np.ndarray) -> np.ndarray:
        """Return thresholds that make a grid (hmct-spec 2.1)."""
        for broken, title in ((values <= 0, "not positive"), (np.isinf(values), "infinite")):
            if broken.any():
                _log.warning("%s: %d thresholds are %s", self.name, int(broken.sum()), title)
        return clean_thresholds(np.maximum(values, 0), where=self.name)

    def _derive(self) -> None:
        """Make scales and zero points from type and thresholds, by the one rule there is."""
        switch = self.attributes.get("switch")
        node = self.freeze()
        alone = Model(
            inputs=(Tensor(name=node.inputs[0], dtype=None, shape=None),),
            outputs=(Tensor(name=node.outputs[0], dtype=None, shape=None),),
            nodes=(node,),
        )
        (derived,) = with_assignment(alone, {node.name: self.qtype}).nodes
        self.attributes_from(derived)
        if switch is None:
            self.attributes.pop("switch", None)
        else:
            self.attributes["switch"] = switch
