"""Float graph -> float graph whose nodes are the ones that get quantized."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from jptq.ir import edit, verify
from jptq.ir.convert import freeze, thaw
from jptq.ir.fixing import fix_inputs
from jptq.ir.float32 import has_others, in_float32
from jptq.ir.fused import with_fused
from jptq.ir.model import Model
from jptq.ir.passes import PASSES, Pass
from jptq.ir.passes.graph import fused

_logger = logging.getLogger(__name__)


def optimize(
    model: Model, *, input_shapes: Mapping[str, tuple[int, ...]], float32: bool = False
) -> Model:
    """Fix the input shapes, fold what is constant and fuse what the target runs as one unit.

    Nodes keep their names; a unit has the name of its last node, a convolution that takes up a
    normalisation keeps its own. Inputs, outputs and the opset stay.

    Args:
      model: A float network as loaded.
      input_shapes: By input name; inputs whose shape the file fixes may be left out.
      float32: Other floating-point types become float32 (`jptq.ir.float32`), where folding leaves
        some: what computes shapes stays as exact as it is.

    Returns:
      A network with the same outputs up to rounding.

    Raises:
      UnknownNameError: `input_shapes` names something that is no input.
      ShapeError: A length stays unknown, or contradicts the file.
      ModelError: A node lacks an input or attribute that its operator requires.
    """
    verify.check_nodes(model)
    fixed = fix_inputs(model, input_shapes)
    graph = thaw(fixed)
    gone: dict[str, str] = {}
    if float32 and has_others(fixed):
        _settle(graph, PASSES[0])
        gone |= fused(graph.graph)
        graph = thaw(in_float32(freeze(graph)))
    for stage in PASSES:
        _settle(graph, stage)
    result = freeze(graph)
    gone |= fused(graph.graph)
    # Where inference found no shape, what the file says is better than nothing.
    outputs = tuple(
        found
        if found.shape is not None
        else dataclasses.replace(declared, dtype=found.dtype or declared.dtype)
        for found, declared in zip(result.outputs, model.outputs, strict=True)
    )
    done = edit.with_nodes(dataclasses.replace(result, outputs=outputs), result.nodes)
    return with_fused(done, gone)


def _settle(graph: ir.Model, stage: Sequence[Pass]) -> None:
    """Run the passes of a stage in turn until a whole round changes nothing."""
    changed = True
    while changed:
        changed = False
        for run in stage:
            changed = run(graph) or changed
        _logger.debug("%d nodes", len(graph.graph))
