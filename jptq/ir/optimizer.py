"""Float graph -> float graph whose nodes are the ones that get quantized."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from jptq.errors import ShapeError, UnknownNameError
from jptq.ir import edit, verify
from jptq.ir.convert import freeze, thaw
from jptq.ir.model import Model, Tensor
from jptq.ir.passes import PASSES, Pass

_logger = logging.getLogger(__name__)


def optimize(model: Model, *, input_shapes: Mapping[str, tuple[int, ...]]) -> Model:
    """Fix the input shapes, fold what is constant and fuse what the target runs as one unit.

    Nodes keep their names; a unit has the name of its last node, a convolution that takes up a
    normalisation keeps its own. Inputs, outputs and the opset stay.

    Args:
      model: A float network as loaded.
      input_shapes: By input name; inputs whose shape the file fixes may be left out.

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
    for stage in PASSES:
        _settle(graph, stage)
    result = freeze(graph)
    # Where inference found no shape, what the file says is better than nothing.
    outputs = tuple(
        found if found.shape is not None else declared
        for found, declared in zip(result.outputs, model.outputs, strict=True)
    )
    return edit.with_nodes(dataclasses.replace(result, outputs=outputs), result.nodes)


def _settle(graph: ir.Model, stage: Sequence[Pass]) -> None:
    """Run the passes of a stage in turn until a whole round changes nothing."""
    changed = True
    while changed:
        changed = False
        for run in stage:
            changed = run(graph) or changed
        _logger.debug("%d nodes", len(graph.graph))


def fix_inputs(model: Model, input_shapes: Mapping[str, tuple[int, ...]]) -> Model:
    """Return the model with fixed input shapes; the outputs' shapes become unknown.

    Raises:
      UnknownNameError: `input_shapes` names something that is no input.
      ShapeError: A length stays unknown, or contradicts the file.
    """
    for name in input_shapes:
        if name not in model.input_names:
            raise UnknownNameError("input", name, model.input_names)
    return dataclasses.replace(
        model,
        inputs=tuple(_fixed(tensor, input_shapes.get(tensor.name)) for tensor in model.inputs),
        outputs=tuple(dataclasses.replace(tensor, shape=None) for tensor in model.outputs),
    )


def _fixed(tensor: Tensor, given: tuple[int, ...] | None) -> Tensor:
    where = f"input {tensor.name!r}"
    declared = tensor.shape
    if given is None:
        if tensor.container:
            return tensor  # a sequence has no shape
        if declared is None or not all(isinstance(length, int) for length in declared):
            known = "of unknown rank" if declared is None else f"{_shown(declared)}"
            raise ShapeError(
                f"the shape of input {tensor.name!r} is not known",
                where=where,
                why=f"the file declares it {known}",
                hint="give its shape, or samples that have it",
            )
        return tensor
    fits = declared is None or (
        len(declared) == len(given)
        and all(
            length == wanted
            for length, wanted in zip(declared, given, strict=True)
            if isinstance(length, int)
        )
    )
    if not fits or any(length < 0 for length in given):
        raise ShapeError(
            f"input {tensor.name!r} cannot have shape {_shown(given)}",
            where=where,
            why=f"the file declares it {_shown(declared or ())}",
            hint="prepare the samples for this model, or export it with another input shape",
        )
    return dataclasses.replace(tensor, shape=tuple(given))


def _shown(shape: tuple[int | str | None, ...]) -> str:
    return "[" + ", ".join("?" if length is None else str(length) for length in shape) + "]"
