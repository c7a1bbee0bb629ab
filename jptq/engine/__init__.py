"""ONNX graphs as JAX programs: lowering, running over samples, segments with cached prefixes."""

from jptq.engine.lower import lower
from jptq.engine.memory import Batching
from jptq.engine.program import Program
from jptq.engine.quantizing import TableQuantizer
from jptq.engine.runner import Packed, Runner
from jptq.engine.trace import Forward, trace

__all__ = [
    "Batching",
    "Forward",
    "Packed",
    "Program",
    "Runner",
    "TableQuantizer",
    "lower",
    "trace",
]
