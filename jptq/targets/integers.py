"""In which integers a target adds up products and biases, each width with its source."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jptq.errors import ConfigError, UnknownNameError
from jptq.targets.fact import Fact, parse_fact, parse_source

SATURATES = "saturates"
WRAPS = "wraps"

_BEHAVIOURS = (SATURATES, WRAPS)

_WIDEST = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Integers:
    """Widths of the sums of a matrix product, and what happens beyond them.

    Attributes:
      bias_bits: Of the integers that a bias is rounded to, in units of ``s_x s_w``. The compiler
        makes them, so that one beyond them becomes the nearest that there is.
      bias_int16_bits: The same where both operands are int16.
      int8_bits: Of a sum of products whose operands are both int8.
      int16_int8_bits: The same where one of them is int16.
      int16_bits: The same where both are.
      beyond: What a sum becomes that leaves its width: `SATURATES`, the nearest number that fits;
        or `WRAPS`, what its lowest bits mean.
      beyond_source: ``doc: ...`` or ``assumed: ...``.
    """

    bias_bits: Fact
    bias_int16_bits: Fact
    int8_bits: Fact
    int16_int8_bits: Fact
    int16_bits: Fact
    beyond: str
    beyond_source: str

    @property
    def sums(self) -> tuple[Fact, Fact, Fact]:
        """Widths of a sum, by how many of its two operands are int16."""
        return self.int8_bits, self.int16_int8_bits, self.int16_bits

    @property
    def biases(self) -> tuple[Fact, Fact, Fact]:
        """Widths of a bias, likewise."""
        return self.bias_bits, self.bias_bits, self.bias_int16_bits

    @property
    def wraps(self) -> bool:
        """Tell whether a sum that is too large begins again at the other end."""
        return self.beyond == WRAPS

    def facts(self) -> dict[str, Fact]:
        """Return the widths by name."""
        return {name: getattr(self, name) for name in WIDTHS}


WIDTHS = tuple(f.name for f in dataclasses.fields(Integers) if f.name.endswith("_bits"))
"""Names of the widths that a target file must give."""


def parse_integers(content: Mapping[str, Any], *, where: str) -> Integers:
    """Read the ``[integers]`` table of a target file.

    Args:
      content: ``{"<width>": {"value": bits, "source": "..."}, "beyond": {"value": "saturates",
        "source": "..."}}``.
      where: The file, for errors.

    Raises:
      ConfigError: An entry is missing or malformed.
    """
    known = (*WIDTHS, "beyond")
    for name in content:
        if name not in known:
            raise UnknownNameError("key", name, known, where=f"{where}: integers")
    for name in known:
        if name not in content:
            raise ConfigError(f"{name!r} is missing", where=f"{where}: integers")
    widths = {name: parse_fact(content[name], where=f"{where}: integers.{name}") for name in WIDTHS}
    for name, width in widths.items():
        if width.value != int(width.value) or not 2 <= width.value <= _WIDEST:
            raise ConfigError(
                f"{width.value:g} is no number of bits from 2 to {_WIDEST}",
                where=f"{where}: integers.{name}",
            )
    beyond, place = content["beyond"], f"{where}: integers.beyond"
    if not isinstance(beyond, dict) or set(beyond) != {"value", "source"}:
        raise ConfigError("'beyond' is a table of 'value' and 'source'", where=place)
    if beyond["value"] not in _BEHAVIOURS:
        raise UnknownNameError("behaviour", str(beyond["value"]), _BEHAVIOURS, where=place)
    return Integers(
        **widths,
        beyond=str(beyond["value"]),
        beyond_source=parse_source(beyond["source"], where=place),
    )
