"""All that must hold of a case, asked of many cases at once."""

from __future__ import annotations

import dataclasses
import functools
import traceback
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jptq.errors import JptqError
from jptq.ir import expand_units, from_bytes, to_bytes
from tools.fuzz import oracle, reasons, rewriting
from tools.fuzz.compare import Difference
from tools.fuzz.draw import Draw
from tools.fuzz.floats import FloatQuestion
from tools.fuzz.graphs import Case
from tools.fuzz.quantized import QuantizedQuestion
from tools.fuzz.settings import NothingToQuantizeError
from tools.fuzz.together import run_together

PLAIN_EVERY = 8
"""One operator in so many is also called with one sample: that is a compilation of its own."""

QUANTIZED_EVERY = 5
"""One operator in so many is quantized, and every network: that costs more than all else."""

FLOAT_EVERY = 2
"""One network in so many runs in float as it is, and every operator; optimized all of them do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that should not be.

    Attributes:
      kind: ``crash``, ``refused``, ``float``, ``plain``, ``optimizer``, ``file``, ``quantized``
        or ``config``.
      case: The graph.
      tensor: Where it shows.
      what: In words.
      explained: Name of the reason, if there is one.
      distance: As a share of the tensor's length, where it is one of numbers.
    """

    kind: str
    case: Case
    tensor: str
    what: str
    explained: str = ""
    distance: float = np.inf

    def __str__(self) -> str:
        return f"{self.kind}: {self.case.name}: {self.tensor}: {self.what}"


@dataclasses.dataclass
class Verdict:
    """What came of some cases.

    Attributes:
      findings: In order of the cases.
      cases: How many there were.
      quantized: How many had something to quantize.
    """

    findings: list[Finding] = dataclasses.field(default_factory=list)
    cases: int = 0
    quantized: int = 0


def judge(cases: Sequence[Case], *, everything: bool = False) -> Verdict:
    """Return what is wrong with some cases.

    Args:
      cases: Compiled together.
      everything: Ask everything of all of them.
    """
    verdict = Verdict(cases=len(cases))
    asked: list[tuple[str, Case, Any]] = []
    for case in cases:
        model = _guarded(verdict, case, functools.partial(from_bytes, case.content))
        if model is None:
            continue
        if everything or not case.long or _turn(case, FLOAT_EVERY):
            floats = _guarded(verdict, case, functools.partial(FloatQuestion, case, model))
            if floats is None:
                continue
            asked.append(("float", case, floats))
            if everything or (_turn(case, PLAIN_EVERY) and not case.long):
                _note(verdict, "plain", case, floats.plain)
        _note(verdict, "file", case, functools.partial(rewriting.round_trip, model))
        graph = _guarded(verdict, case, functools.partial(rewriting.optimized, case, model))
        if graph is None:
            continue
        _note(verdict, "optimizer", case,
              functools.partial(rewriting.optimizer_differences, case, graph))  # fmt: skip
        if everything or case.long or _turn(case, QUANTIZED_EVERY):
            question = _quantized(verdict, case, graph)
            if question is not None:
                verdict.quantized += 1
                asked.append(("quantized", case, question))
                _note(verdict, "config", case, question.round_trip)
    results = run_together([q.function for _, _, q in asked], [q.arguments for _, _, q in asked])
    for (kind, case, question), result in zip(asked, results, strict=True):
        if isinstance(result, Exception):
            verdict.findings.append(_raised(case, result))
        else:
            _note(verdict, kind, case, functools.partial(question.differences, result))
    _explain_rounding(verdict, {case.name for kind, case, _ in asked if kind == "quantized"})
    return verdict


def _explain_rounding(verdict: Verdict, taken_apart: set[str]) -> None:
    """Explain ends of networks that differ a little where no unit of them does."""
    wrong = {f.case.name for f in verdict.findings if f.kind == "quantized" and not f.explained}
    for i, one in enumerate(verdict.findings):
        name = one.case.name
        small = one.distance <= reasons.MOST_ROUNDING
        if one.kind in ("float", "optimizer") and small and name in taken_apart - wrong:
            verdict.findings[i] = dataclasses.replace(one, explained=reasons.ROUNDING)


def _number(case: Case) -> int:
    return zlib.crc32(case.name.encode())


def _turn(case: Case, every: int) -> bool:
    """Tell whether a case is the one of so many."""
    return _number(case) % every == 0


def _quantized(verdict: Verdict, case: Case, graph: Any) -> QuantizedQuestion | None:
    if reasons.of_model(case.model) is not None:
        return None  # the export would differ as the float graph does
    try:
        oracle.onnxruntime(to_bytes(expand_units(graph)), case.samples[:1])
    except oracle.Refused:
        return None  # it has no kernel for what would be exported
    draw = Draw(_number(case))
    try:
        return QuantizedQuestion(graph, case.samples, draw, runs=4 if case.long else 3)
    except NothingToQuantizeError:
        return None
    except Exception as error:
        verdict.findings.append(_raised(case, error))
        return None


def _guarded(verdict: Verdict, case: Case, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        verdict.findings.append(_raised(case, error))
        return None


def _note(
    verdict: Verdict, kind: str, case: Case, call: Callable[[], Sequence[Difference]]
) -> None:
    found = _guarded(verdict, case, call) or ()
    verdict.findings += [
        Finding(
            kind=kind,
            case=case,
            tensor=one.tensor,
            what=one.what,
            explained=one.explained,
            distance=one.distance,
        )
        for one in found
    ]


def _raised(case: Case, error: Exception) -> Finding:
    if isinstance(error, JptqError):
        return Finding(
            kind="refused",
            case=case,
            tensor=error.where,
            what=str(error),
            explained=reasons.of_refusal(str(error)),
        )
    where = "".join(traceback.format_exception(error)[-3:])
    return Finding(kind="crash", case=case, tensor="", what=f"{error!r}\n{where}")
