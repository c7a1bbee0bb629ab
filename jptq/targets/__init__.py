"""Targets: what is known of an accelerator, as data with sources."""

from jptq.targets.facts import Fact, Target, load_target, marches
from jptq.targets.operands import Operands

__all__ = ["Fact", "Operands", "Target", "load_target", "marches"]
