"""Which of the three kinds of accuracy problem a network has, and what to do about it."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from jptq.results.evaluation import Evaluation, plain
from jptq.results.report import Goal
from jptq.results.sweep import SweepRow


class ProblemType(enum.IntEnum):
    """The vendor's three problem types, and the absence of one."""

    NONE = 0
    RANKING_WORKS = 1
    RANKING_FAILS = 2
    INT16_FAILS = 3

    def sentence(self, goal: str = "the goal") -> str:
        """Return a sentence for a person; ``goal`` is what is met or missed."""
        return {
            ProblemType.NONE: f"No problem: all-INT8 meets {goal}.",
            ProblemType.RANKING_WORKS: f"Problem type 1: all-INT16 meets {goal} and the ranking "
            "works, raising its first nodes meets it too.",
            ProblemType.RANKING_FAILS: f"Problem type 2: all-INT16 meets {goal} and the ranking "
            "fails, raising many of its first nodes does not meet it.",
            ProblemType.INT16_FAILS: f"Problem type 3: INT16 fails, all-INT16 misses {goal}.",
        }[self]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Advice:
    """One thing to try.

    Attributes:
      kind: ``metric``, ``ties``, ``output``, ``raise``, ``subgraph``, ``compensate``,
        ``calibration``, ``float``, ``remark`` (what the figures do not show).
      text: Why, with the numbers that say so.
      flags: What to add to the next command, if it is a flag.
    """

    kind: str
    text: str
    flags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leftover:
    """A quantizer that all-INT16 leaves INT8.

    Attributes:
      calibration: Its name.
      slots: The operands that keep it there, as ``<node>.input<i>``; the nodes that read it where
        an operator gives its result out as INT8.
      repairs: What the operands accept of ``ec`` and ``dual-int16``.
      cosine: Of the outputs if nothing but this quantizer is at work.
    """

    calibration: str
    slots: tuple[str, ...]
    repairs: tuple[str, ...]
    cosine: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """A diagnosis; every evaluation in it was measured.

    Attributes:
      type: See `ProblemType`.
      model: Name of the model file.
      march: Target.
      calibration: Tag of the calibration method, the same one for every evaluation here.
      goal: What was asked for.
      floating: The float model's scores.
      int8: All-INT8.
      int16: All-INT16 as the target allows it; None if all-INT8 is enough.
      true_int16: Every quantizer INT16, the ceiling of any compensation; only for type 3.
      steps: First steps along the ranking; empty unless all-INT16 meets the goal.
      ranked: Number of nodes in the ranking.
      failing: Scores or outputs that miss the goal: under INT8, for type 3 under all-INT16.
      culprits: Outputs whose error makes them fail.
      leftovers: What all-INT16 leaves INT8, worst first; only for type 3.
      advice: What to try, most promising first.
    """

    type: ProblemType
    model: str
    march: str
    calibration: str
    goal: Goal
    floating: Evaluation
    int8: Evaluation
    int16: Evaluation | None = None
    true_int16: Evaluation | None = None
    steps: tuple[SweepRow, ...] = ()
    ranked: int = 0
    failing: tuple[str, ...] = ()
    culprits: tuple[str, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    advice: tuple[Advice, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"schema": 1, **plain(dataclasses.asdict(self)), "type": int(self.type)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """The subgraph in front of a failing output that is run as INT16.

    Attributes:
      inputs: First nodes of the ``subgraph_config``.
      outputs: Its last nodes.
      nodes: Nodes that run finer than before.
      given_back: Quantizers inside that stay as they were.
      met: Whether the goal is met.
      assignment: Types of all quantizers.
      evaluation: What was measured.
      quant_config: With the ``subgraph_config``, and a line per node that gives something back.
      trials: Everything that was run to find it, in order.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]
    given_back: tuple[str, ...]
    met: bool
    assignment: Mapping[str, str]
    evaluation: Evaluation
    quant_config: Mapping[str, Any]
    trials: tuple[Evaluation, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        content: dict[str, Any] = plain(dataclasses.asdict(self))
        return content
