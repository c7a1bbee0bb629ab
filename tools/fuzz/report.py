"""Run many seeds, count, and say what is wrong."""

from __future__ import annotations

import dataclasses
import resource
from collections import Counter
from collections.abc import Iterator

import jax

from tools.fuzz.graphs import Case, case_of
from tools.fuzz.judge import Finding, judge

GROUP = 20
"""Graphs whose programs are compiled together."""

KEPT = 200
"""Graphs after which JAX forgets what it has traced: no two are alike, and it keeps everything."""


@dataclasses.dataclass
class Report:
    """What came of a run.

    Attributes:
      cases: Graphs.
      networks: Those of 30 to 60 nodes.
      nodes: In all of them.
      quantized: Graphs that were quantized.
      operators: How many nodes of each type.
      findings: Whatever is not as it should be, explained or not.
      seconds: Of processor time.
    """

    cases: int = 0
    networks: int = 0
    nodes: int = 0
    quantized: int = 0
    operators: Counter[str] = dataclasses.field(default_factory=Counter)
    findings: list[Finding] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    @property
    def unexplained(self) -> list[Finding]:
        """Findings that no reason covers."""
        return [finding for finding in self.findings if not finding.explained]

    @property
    def explained(self) -> Counter[str]:
        """How many graphs each reason covers."""
        pairs = {(f.explained, f.case.name) for f in self.findings if f.explained}
        return Counter(reason for reason, _ in pairs)

    def add(self, other: Report) -> None:
        """Count what another run found too."""
        self.cases += other.cases
        self.networks += other.networks
        self.nodes += other.nodes
        self.quantized += other.quantized
        self.operators.update(other.operators)
        self.findings += other.findings
        self.seconds += other.seconds

    def __str__(self) -> str:
        lines = [
            f"{self.cases} graphs ({self.networks} networks, {self.nodes} nodes, "
            f"{len(self.operators)} operators), {self.quantized} quantized, "
            f"{self.seconds:.0f} s of processor time",
            *(f"explained: {count} graphs: {name}" for name, count in self.explained.items()),
            f"unexplained: {len(self.unexplained)}",
        ]
        return "\n".join(lines)


def run(seed: int, start: int, count: int) -> Iterator[Report]:
    """Judge graphs ``start`` to ``start + count`` of a seed; yield the report as it grows."""
    report = Report()
    for first in range(start, start + count, GROUP):
        began = _processor_time()
        cases = [case_of(seed, i) for i in range(first, min(first + GROUP, start + count))]
        verdict = judge(cases)
        for case in cases:
            _count(report, case)
        report.quantized += verdict.quantized
        report.findings += verdict.findings
        if report.cases % KEPT == 0:
            jax.clear_caches()
        report.seconds += _processor_time() - began
        yield report


def _count(report: Report, case: Case) -> None:
    types = [node.op_type for node in case.model.graph.node if node.op_type != "Constant"]
    report.cases += 1
    report.networks += case.long
    report.nodes += len(types)
    report.operators.update(types)


def _processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
