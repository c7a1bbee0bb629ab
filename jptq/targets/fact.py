"""One number of a target and where it is from."""

from __future__ import annotations

import dataclasses

from jptq.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fact:
    """One number.

    Attributes:
      value: In the unit that its name ends with.
      source: ``doc: ...`` where it is published, ``assumed: ...`` where it is our guess.
    """

    value: float
    source: str

    @property
    def assumed(self) -> bool:
        """Tell whether nothing is published that says this number."""
        return self.source.startswith("assumed")


def parse_fact(entry: object, *, where: str) -> Fact:
    """Read ``{value = ..., source = "..."}``.

    Raises:
      ConfigError: It is not of that form, or not positive.
    """
    if not isinstance(entry, dict) or set(entry) != {"value", "source"}:
        raise ConfigError("a fact is a table of 'value' and 'source'", where=where)
    value = entry["value"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(f"{value!r} is no positive number", where=where)
    return Fact(value=float(value), source=parse_source(entry["source"], where=where))


def parse_source(source: object, *, where: str) -> str:
    """Read where something is from.

    Raises:
      ConfigError: It does not say whether it is published.
    """
    if not isinstance(source, str) or not source.startswith(("doc: ", "assumed: ")):
        raise ConfigError("a source begins with 'doc: ' or 'assumed: '", where=where)
    return source
