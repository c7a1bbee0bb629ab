"""Modelled or measured time of every node under every candidate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jptq import files
from jptq.errors import StorageError

SCHEMA = 1

CANDIDATES = ("int8", "int16", "dual-int16", "float32")
"""What a node may run as, from cheap to dear. A node runs as ``int16`` if any feature operand is
int16, as ``dual-int16`` if both operands of its matrix product are."""

WIDTHS = ("int8", "int16", "float32")
"""Types by which a calibration is timed, from narrow to wide."""


def width(qtype: str) -> str:
    """Return the type as long as which another one takes.

    float16 counts as int16: only the vector unit computes in it, on as many bytes an element.
    """
    return "int16" if qtype == "float16" else qtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeTime:
    """One node.

    Attributes:
      node: Its name.
      op: Operator type.
      first: Calibrations of its plain feature operands.
      second: Calibrations of the second operand of a matrix product (weights, MatMul input 1).
      macs: Multiply-accumulates of one run.
      bytes: Bytes read and written with every operand int8.
      time_us: ``{candidate: microseconds}``.
      source: ``modelled``, ``measured`` or ``fused`` (its time is in its producer's).
      limit: What bounds the int8 time: ``compute``, ``vector``, ``memory``, ``overhead`` or "".
      assumed: Names of assumed constants that the time depends on.
    """

    node: str
    op: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    macs: int
    bytes: int
    time_us: Mapping[str, float]
    source: str = "modelled"
    limit: str = ""
    assumed: tuple[str, ...] = ()

    def candidate(self, assignment: Mapping[str, str]) -> str:
        """Return what the node runs as under an assignment of types to calibrations."""
        first = {width(assignment[name]) for name in self.first}
        second = {width(assignment[name]) for name in self.second}
        if "float32" in first or "float32" in second:
            return "float32"
        if "int16" in second and ("int16" in first or not first):
            return "dual-int16"
        # int16 in either operand alone costs the same (hmct-spec 6.1: the factor is assumed).
        return "int16" if "int16" in first | second else "int8"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Boundary:
    """The cost of a node writing a wider type than it computes in.

    `NodeTime` takes the output for as wide as the widest of the node's operands. A wider one
    moves more bytes, which is charged here; a narrower one is not credited, so that raising a
    calibration never makes a network faster.

    Attributes:
      first: Calibrations of the producer's operands.
      second: The calibration of what it produces.
      time_us: Microseconds if `second` is wider than each of `first`.
    """

    first: tuple[str, ...]
    second: str
    time_us: float

    def crossed(self, assignment: Mapping[str, str]) -> bool:
        """Tell whether an assignment pays for this boundary."""
        computed = max((WIDTHS.index(width(assignment[name])) for name in self.first), default=0)
        return WIDTHS.index(width(assignment[self.second])) > computed


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Times of all nodes on one target.

    Attributes:
      target: March.
      nodes: In graph order; nodes without quantizers have one time for every candidate.
      boundaries: Extra costs between neighbours.
      constants: ``{name: (value, source)}`` of the target facts used; the source says
        ``assumed`` where nothing is published.
      digests: Of the float network (``model``).
    """

    target: str
    nodes: tuple[NodeTime, ...]
    boundaries: tuple[Boundary, ...] = ()
    constants: Mapping[str, tuple[float, str]] = dataclasses.field(default_factory=dict)
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Say where the times are from: ``modelled``, ``measured``, or ``measured in part``."""
        sources = {node.source for node in self.nodes} - {"fused"}
        if "measured" not in sources:
            return "modelled"
        return "measured in part" if len(sources) > 1 else "measured"

    def node_us(self, assignment: Mapping[str, str]) -> dict[str, float]:
        """Return ``{node: microseconds}`` under an assignment, boundaries left out."""
        return {n.node: n.time_us[n.candidate(assignment)] for n in self.nodes}

    def total_us(self, assignment: Mapping[str, str]) -> float:
        """Return the modelled time of one inference under an assignment."""
        return sum(self.node_us(assignment).values()) + sum(
            boundary.time_us for boundary in self.boundaries if boundary.crossed(assignment)
        )

    def macs_share(self, assignment: Mapping[str, str]) -> float:
        """Return the share of multiply-accumulates that run with an int16 operand."""
        total = sum(n.macs for n in self.nodes)
        raised = sum(
            n.macs for n in self.nodes if n.candidate(assignment) in ("int16", "dual-int16")
        )
        return raised / total if total else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``latency.json``."""
        return {
            "schema": SCHEMA,
            "origin": self.origin,
            **{k: v for k, v in dataclasses.asdict(self).items() if k != "constants"},
            "constants": {k: {"value": v, "source": s} for k, (v, s) in self.constants.items()},
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, where: str = "") -> LatencyTable:
        """Read back what `to_json` wrote.

        Raises:
          StorageError: The content is of another schema or incomplete.
        """
        try:
            if content["schema"] != SCHEMA:
                raise StorageError(f"latency table of schema {content['schema']}", where=where)
            return cls(
                target=content["target"],
                nodes=tuple(
                    NodeTime(
                        **{
                            **node,
                            "first": tuple(node["first"]),
                            "second": tuple(node["second"]),
                            "assumed": tuple(node["assumed"]),
                        }
                    )
                    for node in content["nodes"]
                ),
                boundaries=tuple(
                    Boundary(**{**b, "first": tuple(b["first"])}) for b in content["boundaries"]
                ),
                constants={k: (v["value"], v["source"]) for k, v in content["constants"].items()},
                digests=dict(content["digests"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError("not a latency table", where=where, why=str(error)) from error

    def save(self, path: Path) -> None:
        """Write ``latency.json``."""
        files.write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> LatencyTable:
        """Read ``latency.json``."""
        return cls.from_json(files.read_json(path), where=str(path))
