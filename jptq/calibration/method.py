"""What a calibration method is called and which settings it has."""

from __future__ import annotations

import dataclasses
import itertools

from jptq.quant.config import Activation

NUM_BIN = 1024
MAX_NUM_BIN = 16384
PERCENTILE = 0.99995
"""Defaults of hmct-spec 2.2 and 2.4."""

CARRIED, FIXED, RANDOM = "load", "fixed", "skip"
"""Methods that no sample decides on: what the model carries, 1 everywhere, random samples."""
_SINGLE = (CARRIED, FIXED, RANDOM)
_OUTRIGHT = ("kl", "min-max", *_SINGLE, "mix")
"""Methods whose tag begins with their name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """One way to find the thresholds of features.

    Attributes:
      name: A key of `CALIBRATORS`, or one of ``load``, ``fixed`` and ``skip``.
      percentile: Share of the absolute values that ``max`` keeps.
      num_bin: Bins that ``kl`` starts with.
      max_num_bin: Bins that it may grow to.
      per_channel: Features that only convolutions read get the largest value per channel.
      asymmetric: Features with negative values get a range.
    """

    name: str
    percentile: float = 1.0
    num_bin: int = NUM_BIN
    max_num_bin: int = MAX_NUM_BIN
    per_channel: bool = False
    asymmetric: bool = False

    @property
    def tag(self) -> str:
        """Return the name in the vendor's form (hmct-spec 2.2)."""
        name, settings = self.name, []
        if self.name == "kl":
            settings = [f"num_bin={self.num_bin}", f"max_num_bin={self.max_num_bin}"]
        elif self.percentile < 1.0:
            name, settings = "max-percentile", [f"percentile={self.percentile}"]
        settings += [flag for flag in ("per_channel", "asymmetric") if getattr(self, flag)]
        return f"{name}:{','.join(settings)}" if settings else name

    @property
    def given(self) -> bool:
        """Tell whether the thresholds are there without running anything."""
        return self.name in (CARRIED, FIXED)

    @property
    def counts(self) -> bool:
        """Tell whether the method needs histograms."""
        return self.name == "kl" or self.percentile < 1.0


def candidates(activation: Activation, *, layerwise: bool = False) -> tuple[Method, ...]:
    """Return the methods that a configuration asks for, in the order in which they are tried.

    A configuration that says nothing about activations asks for the default search. Symmetric
    per-tensor methods come first, then asymmetric ones, then those per channel; within each the
    types in their order and percentiles ascending. A layerwise search that names no method
    chooses between symmetric per-tensor ones.

    Args:
      activation: The settings.
      layerwise: Features will choose between the methods one by one.

    Source: hmct-spec 2.4.
    """
    if activation.calibration_type and activation.calibration_type[0] in _SINGLE:
        return (Method(name=activation.calibration_type[0]),)
    if layerwise and activation.calibration_type in ((), ("mix",)):
        return (Method(name="max", percentile=PERCENTILE), Method(name="max"), Method(name="kl"))
    silent = activation == Activation()
    types = activation.calibration_type or ("max", "kl")
    percentiles = sorted(activation.max_percentile or ((PERCENTILE, 1.0) if silent else (1.0,)))
    flags = (False, True) if silent else (False,)
    bins = activation.num_bin or (NUM_BIN,)
    max_bins = activation.max_num_bin or (max(MAX_NUM_BIN, *bins),)
    out = []
    for per_channel, asymmetric, name in itertools.product(
        sorted(activation.per_channel or flags), sorted(activation.asymmetric or flags), types
    ):
        settings = (
            [Method(name=name, num_bin=a, max_num_bin=b) for a in bins for b in max_bins]
            if name == "kl"
            else [Method(name=name, percentile=share) for share in percentiles]
            if name == "max"
            else [Method(name=name)]
        )
        out += [
            dataclasses.replace(method, per_channel=per_channel, asymmetric=asymmetric)
            for method in settings
        ]
    return tuple(out)


def activation_of(tag: str) -> Activation:
    """Return the settings that name a method outright: the inverse of `Method.tag`."""
    name, _, rest = tag.partition(":")
    settings = [part.partition("=") for part in rest.split(",") if part]
    values = {key: value for key, _, value in settings}
    return Activation(
        calibration_type=(name,) if name in _OUTRIGHT else ("max",),
        max_percentile=(float(values["percentile"]),) if "percentile" in values else (),
        num_bin=(int(values["num_bin"]),) if "num_bin" in values else (),
        max_num_bin=(int(values["max_num_bin"]),) if "max_num_bin" in values else (),
        per_channel=(True,) if "per_channel" in values else (),
        asymmetric=(True,) if "asymmetric" in values else (),
    )
