"""What is known of an accelerator: numbers and operand rules, each with its source.

A target is a file ``configs/targets/<march>.toml``; adding one needs no code.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jptq import files
from jptq.errors import ConfigError, UnknownNameError
from jptq.targets.fact import Fact, parse_fact
from jptq.targets.folder import configs
from jptq.targets.integers import Integers, parse_integers
from jptq.targets.operands import Operands, parse_operands

SCHEMA = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """One accelerator.

    Attributes:
      march: The compiler's name of it (``nash-e``).
      title: Chip and board.
      peak_int8_tops: Dense int8 peak of all cores, 10^12 operations per second; a
        multiply-accumulate counts as two operations.
      cores: Number of equal cores.
      clock_ghz: Of a core.
      ddr_gbytes_s: Theoretical bandwidth of the memory that the cores share, 10^9 bytes/s.
      ddr_share: Share of it that is sustained.
      vector_gops: Elementary int8 operations of one core's vector unit, 10^9 per second.
      int16_factor: Time of a matrix product with one int16 operand over that of int8.
      dual_int16_factor: The same with both operands int16.
      int16_vector_factor: Time of a vector operation on int16 over that on int8.
      node_overhead_us: Fixed time of a scheduled operator.
      on_chip_bytes: Memory beside one core from which tensors are read without DDR traffic.
      cpu_gflops: Rate at which float32 operators run on the host CPU.
      cpu_overhead_us: Fixed time of leaving the accelerator for a float32 operator.
      operands: Types that operands accept.
      integers: Widths of sums and biases.
      digest: Of the file: findings made for another state of it are not reused.
    """

    march: str
    title: str
    peak_int8_tops: Fact
    cores: Fact
    clock_ghz: Fact
    ddr_gbytes_s: Fact
    ddr_share: Fact
    vector_gops: Fact
    int16_factor: Fact
    dual_int16_factor: Fact
    int16_vector_factor: Fact
    node_overhead_us: Fact
    on_chip_bytes: Fact
    cpu_gflops: Fact
    cpu_overhead_us: Fact
    operands: Operands
    integers: Integers
    digest: str

    @property
    def macs_per_us(self) -> float:
        """Return the int8 multiply-accumulates of one core per microsecond."""
        return self.peak_int8_tops.value * 1e6 / 2 / self.cores.value

    @property
    def bytes_per_us(self) -> float:
        """Return the sustained memory traffic per microsecond."""
        return self.ddr_gbytes_s.value * 1e3 * self.ddr_share.value

    def constants(self) -> dict[str, tuple[float, str]]:
        """Return ``{name: (value, source)}`` of every number."""
        return {name: (fact.value, fact.source) for name, fact in self._facts().items()}

    def assumed(self) -> tuple[str, ...]:
        """Return the names of the numbers that nothing published says."""
        return tuple(name for name, fact in self._facts().items() if fact.assumed)

    def allowed(self, op_type: str, input_index: int) -> tuple[str, ...]:
        """Return the types that an operand accepts under a plain ``qtype``, coarse to fine."""
        return self.operands.allowed(op_type, input_index)

    def dual(self, op_type: str, input_index: int) -> bool:
        """Tell whether an operand accepts int16 as part of a ``dual-int16`` node."""
        return self.operands.dual(op_type, input_index)

    def ec(self, op_type: str, input_index: int) -> bool:
        """Tell whether an int8 operand can be compensated by a second operator."""
        return self.operands.ec(op_type, input_index)

    def given_out(self, op_type: str) -> tuple[str, ...]:
        """Return the types that an operator gives its result out in, coarse to fine."""
        return self.operands.given_out(op_type)

    def _facts(self) -> dict[str, Fact]:
        return {name: getattr(self, name) for name in FACTS}


FACTS = tuple(f.name for f in dataclasses.fields(Target) if f.type == "Fact")
"""Names of the numbers that a target file must give."""


def marches(folder: Path | None = None) -> tuple[str, ...]:
    """Return the names of the known targets, sorted."""
    return tuple(sorted(p.stem for p in (folder or configs("targets")).glob("*.toml")))


def load_target(march: str, folder: Path | None = None) -> Target:
    """Read a target.

    Args:
      march: Its name, such as ``nash-e``.
      folder: Where the target files lie; the shipped ones if None.

    Raises:
      UnknownNameError: There is no such target.
      ConfigError: Its file is incomplete or malformed.
    """
    folder = folder or configs("targets")
    known = marches(folder)
    if march not in known:
        raise UnknownNameError("march", march, known)
    path = folder / f"{march}.toml"
    try:
        text = files.read_text(path)
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("not a target file", where=str(path), why=str(error)) from error
    return _target(march, content, where=str(path), digest=files.digest(text))


def _target(march: str, content: Mapping[str, Any], *, where: str, digest: str) -> Target:
    keys = ("schema", "title", "facts", "operands", "integers")
    for key in content:
        if key not in keys:
            raise UnknownNameError("key", key, keys, where=where)
    if content.get("schema") != SCHEMA:
        raise ConfigError(f"schema {content.get('schema')!r} where {SCHEMA} is read", where=where)
    given = content.get("facts", {})
    for name in given:
        if name not in FACTS:
            raise UnknownNameError("fact", name, FACTS, where=where)
    facts = {}
    for name in FACTS:
        if name not in given:
            raise ConfigError(f"the fact {name!r} is missing", where=where)
        facts[name] = parse_fact(given[name], where=f"{where}: facts.{name}")
    return Target(
        march=march,
        title=str(content.get("title", march)),
        operands=parse_operands(content.get("operands", {}), where=where),
        integers=parse_integers(content.get("integers", {}), where=where),
        digest=digest,
        **facts,
    )
