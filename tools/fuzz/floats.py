"""Our float forward of a case against the oracle's answers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jptq.engine import Batching, Forward, Packed, Runner
from jptq.ir import Model
from tools.fuzz import oracle, reasons
from tools.fuzz.compare import Allowance, Difference, distance, unequal
from tools.fuzz.graphs import Case

Arrays = Mapping[str, np.ndarray]


class FloatQuestion:
    """Does the forward that calibration and evaluation run give what onnxruntime gives?"""

    def __init__(self, case: Case, model: Model) -> None:
        self.case = case
        self.model = model
        self.runner = Runner(self.model, case.samples[0], batching=Batching(samples=8))
        program = self.runner.program
        stacked = {n: np.stack([one[n] for one in case.samples]) for n in program.inputs}
        self.arguments = [[dict(self.runner.weights), stacked]]

    def function(self, weights: Mapping[str, Any], feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run the samples as one batch."""
        program = self.runner.program
        packed = Packed({**program.prepare(weights, None)}, None)
        found = self.runner.run(packed, feeds)
        return {name: value for name, value in found.items() if name not in program.constants}

    def differences(self, results: Sequence[Arrays]) -> list[Difference]:
        """Return where a batch differs from its samples."""
        program = self.runner.program
        found: dict[str, Any] = {**results[0], **program.constants}
        alone = set(program.constants) if program.inputs else set(program.outputs)
        rows = [
            {
                name: np.asarray(found[name] if name in program.constants else found[name][k])
                for name in program.outputs
                for k in (0 if name in alone else i,)
            }
            for i in range(len(self.case.samples))
        ]
        return against_oracle(self.case, rows)

    def plain(self) -> list[Difference]:
        """Return where the call of one sample differs."""
        outputs = Forward(self.model, self.case.samples[0])(self.case.samples[0])
        return against_oracle(self.case, [{n: np.asarray(v) for n, v in outputs.items()}])


def against_oracle(case: Case, rows: Sequence[Arrays]) -> list[Difference]:
    """Return where results, sample by sample, differ from the answers of a case.

    Where onnxruntime is known to be wrong (`reasons`), ONNX's evaluator is asked.
    """
    found = _differences(case, rows, case.expected)
    if not found or (reason := reasons.of_model(case.model)) is None:
        return found
    try:
        right = oracle.reference(case.content, case.samples)
    except oracle.Refused:
        return found
    # The evaluator rounds too, in other places: each sample agrees with one of the two.
    for i in range(len(rows)):
        alone = dataclasses.replace(case, samples=case.samples[i : i + 1])
        if all(
            _differences(alone, rows[i : i + 1], expected[i : i + 1])
            for expected in (case.expected, right)
        ):
            return found
    return [dataclasses.replace(one, explained=reason.name) for one in found]


def _differences(
    case: Case, rows: Sequence[Arrays], expected: Sequence[Arrays]
) -> list[Difference]:
    allowance = Allowance(case.content, case.samples)
    found = []
    for name in expected[0]:
        for i, (got, right) in enumerate(zip(rows, expected, strict=False)):
            want = right[name]
            what = unequal(got[name], want, functools.partial(allowance, name, want, i))
            if what is not None:
                far = distance(got[name], want)
                found.append(Difference(tensor=name, what=f"sample {i}: {what}", distance=far))
                break
    return found
