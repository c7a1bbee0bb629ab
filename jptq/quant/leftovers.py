"""What stays int8 when every node is asked to be int16, and what can be done about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from jptq.numerics.qtypes import DUAL_INT16, INT16
from jptq.quant.config import EC
from jptq.quant.plan import Plan
from jptq.targets import Target


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leftover:
    """A quantizer that the target keeps at int8.

    Attributes:
      calibration: Its name.
      kind: `FEATURE` or `WEIGHT`.
      repairs: ``{(node, input index): what the operand accepts}``, of the operands that keep it at
        int8: ``ec`` on the input, ``dual-int16`` on the node. Empty where an operator gives its
        result out as int8: only the operator's own input can be compensated.
    """

    calibration: str
    kind: str
    repairs: Mapping[tuple[str, int], tuple[str, ...]]


def leftovers(plan: Plan, target: Target) -> tuple[Leftover, ...]:
    """Return the quantizers that stay int8 under ``all_node_type`` int16, in graph order.

    The halves of what is compensated already are left out; so is what a configuration pins to a
    type of its own.

    Source: hmct-spec 6.2.
    """
    found = []
    for calibration in plan.calibrations:
        if INT16.name in calibration.allowed or calibration.compensated or calibration.pinned:
            continue
        repairs = {}
        for node in plan.owners[calibration.name]:
            slots = plan.by_node[node]
            for index, name in slots.inputs.items():
                if name == calibration.name and INT16.name not in target.allowed(slots.op, index):
                    ways = ((EC, target.ec), (DUAL_INT16, target.dual))
                    repairs[node, index] = tuple(way for way, can in ways if can(slots.op, index))
        found.append(Leftover(calibration=calibration.name, kind=calibration.kind, repairs=repairs))
    return tuple(found)
