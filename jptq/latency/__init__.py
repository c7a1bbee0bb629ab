"""How long a network takes on a target, node by node and type by type."""

from jptq.latency.measured import read_measured, with_measured
from jptq.latency.roofline import model_latency

__all__ = ["model_latency", "read_measured", "with_measured"]
