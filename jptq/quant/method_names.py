"""Names of calibration methods in a quant_config: those that are known, and what others mean here.

The vendor's documents list more names than its configurations take. Source: hmct-spec 2.2, 2.3.
"""

from __future__ import annotations

from collections.abc import Mapping

from jptq.errors import ConfigError
from jptq.quant.config_values import Check, one_of

SEARCHABLE = ("max", "kl", "min-max")
"""Methods that several of can be named, to be tried against each other."""

ACTIVATION = (*SEARCHABLE, "mix", "load", "fixed", "skip", "default")
"""``mix`` chooses per tensor, ``load`` keeps what the model carries, ``fixed`` is 1, ``skip``
takes random samples, ``default`` is what happens if nothing is said: a search."""

WEIGHT = ("max", "load")

_PERCENTILE = "calibration_type max with a max_percentile below 1, for instance 0.99995"
_ELSEWHERE = {
    "percentile": _PERCENTILE,
    "max-percentile": _PERCENTILE,
    "per-channel": 'calibration_type max with "per_channel": true',
    "asymmetric": '"asymmetric": true beside the calibration_type',
    "equalization": "no method here rescales weights between layers; leave it out",
}
"""Names of the vendor that are no value of ``calibration_type`` here, and what to write."""

_WEIGHT_ELSEWHERE = {
    "bias_correction": '"bias_correction": {} in model_config.weight',
    "compensation": '"input1": "ec" for the nodes in node_config',
}


def _method(known: tuple[str, ...], elsewhere: Mapping[str, str], kind: str = "") -> Check[str]:
    plain = one_of(known, kind)

    def check(value: object, key: str, where: str) -> str:
        if isinstance(value, str) and value in elsewhere:
            raise ConfigError(
                f"{key or kind} is not {value!r} here", where=where, hint=elsewhere[value]
            )
        return plain(value, key, where)

    return check


activation_method = _method(ACTIVATION, _ELSEWHERE)
"""The check of ``activation.calibration_type``."""

searchable = _method(SEARCHABLE, {}, "calibration_type among several")
"""The check of one of several."""

weight_method = _method(WEIGHT, _WEIGHT_ELSEWHERE)
"""The check of ``weight.calibration_type``."""
