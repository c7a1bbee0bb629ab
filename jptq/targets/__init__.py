"""Targets: what is known of an accelerator, as data with sources."""

from jptq.targets.fact import Fact
from jptq.targets.facts import Target, load_target, marches
from jptq.targets.integers import Integers
from jptq.targets.operands import Operands

__all__ = ["Fact", "Integers", "Operands", "Target", "load_target", "marches"]
