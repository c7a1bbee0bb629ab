"""How far the exported file, run in onnxruntime, agrees with the quantized forward."""

from __future__ import annotations

import dataclasses
from typing import Any

MISSING = "onnxruntime is not installed: pip install onnxruntime"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputAgreement:
    """One output of the file in one kind of session.

    Attributes:
      output: Its name.
      optimized: Whether the session was the default one, with all graph optimisations, or one
        without any.
      cosine: Least cosine to the forward's output of any sample, over what is finite in both.
      difference: Largest difference, as a share of the forward's largest value.
      steps: The same in steps of the output's quantizer; None if it has none.
      broken: Values that are NaN or infinite in the file's output.
      broken_here: Values that are NaN or infinite in the forward's.
      explained: Whether rounding explains the difference (`jptq.api.agreement`).
    """

    output: str
    optimized: bool
    cosine: float
    difference: float
    steps: float | None = None
    broken: int = 0
    broken_here: int = 0
    explained: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """What running the exported file showed.

    Attributes:
      runtime: Name and version; empty if it is not installed.
      samples: Calibration samples that were run.
      outputs: Every output, first with optimisations, then without.
      failure: What the runtime said when it could not run the file, else empty.
      strict: The forward kept sums within the target's integers, which the file does not.
      strict: The forward kept biases and sums within the target's integers; a file adds exactly.
    """

    runtime: str = ""
    samples: int = 0
    outputs: tuple[OutputAgreement, ...] = ()
    failure: str = ""
    strict: bool = False

    @property
    def agrees(self) -> bool | None:
        """Whether every difference is explained by rounding; None if nothing was run."""
        if not self.runtime:
            return None
        return not self.failure and all(output.explained for output in self.outputs)

    @property
    def sentence(self) -> str:
        """What a person has to know, in one or two sentences."""
        if not self.runtime:
            return f"qdq_model.onnx was not run: {MISSING}"
        if self.failure:
            return f"{self.runtime} cannot run qdq_model.onnx: {self.failure}"
        if not self.outputs:
            return f"{self.runtime} runs qdq_model.onnx, which has no output of numbers to compare."
        said = []
        for optimized, session in (
            (True, "in its default session"),
            (False, "without graph optimisations"),
        ):
            found = [output for output in self.outputs if output.optimized == optimized]
            least = min(output.cosine for output in found)
            most = max(output.difference for output in found)
            said.append(f"{session} cosine {least:.7f} at least, {100 * most:.2g} % apart at most")
        verdict = "agrees with" if self.agrees else "differs from"
        text = (
            f"qdq_model.onnx in {self.runtime} {verdict} the quantized forward over {self.samples} "
            f"samples: {'; '.join(said)} (of the largest value of an output)."
        )
        if not self.agrees and self.strict:
            text += (
                " The file adds exactly, the forward within the target's integers "
                "(--strict_integers): where sums or biases leave them, the two are not the same."
            )
        elif not self.agrees:
            text += (
                " The forward keeps sums within the target's integers (--strict_integers), the "
                "file does not."
                if self.strict
                else " Rounding does not explain that."
            )
        text += " It runs there as it is, without options."
        if broken := [output for output in self.outputs if output.broken or output.broken_here]:
            worst = max(broken, key=lambda output: output.broken + output.broken_here)
            text += (
                f" Output {worst.output!r} has {worst.broken_here} values in the forward and "
                f"{worst.broken} in the file that are NaN or infinite."
            )
            if worst.broken_here > worst.broken:
                text += (
                    " onnxruntime quantizes NaN to the least value of a grid; the forward keeps it."
                )
        return text

    def to_json(self) -> dict[str, Any]:
        """Return plain values; ``agrees`` is null where nothing was run."""
        content = dataclasses.asdict(self)
        content["outputs"] = list(content["outputs"])
        return {"agrees": self.agrees, **content}
