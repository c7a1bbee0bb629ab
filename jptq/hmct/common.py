"""The vendor's ``hmct.common``: the quantizers at the inputs and outputs of a node.

Source: hmct-spec 1.5.
"""

from __future__ import annotations

from collections import deque

from jptq.hmct.calibration import CalibrationNode
from jptq.hmct.node import OnnxNode

PASS_THROUGH = frozenset(
    {
        "MaxPool",
        "GlobalMaxPool",
        "Relu",
        "Clip",
        "Reshape",
        "Transpose",
        "ReduceMax",
        "Split",
        "Slice",
        "Gather",
        "ScatterND",
    }
)
"""Operators that the search looks through: they give values on the grid that they read."""


def find_input_calibration(node: OnnxNode, index: int | None = None) -> CalibrationNode | None:
    """Return the quantizer that a node's input shows.

    Args:
      node: An ordinary node.
      index: Of the input; the first quantizer on any input if None.

    Returns:
      The quantizer, of a feature or a weight; None if there is none, also where the node has no
      such input.
    """
    if index is None and node.op_type == "ScatterND":
        index = 0  # the data; indices and updates move with them
    if index is None:
        writers = node.prev_ops
    else:
        inputs = node.inputs
        writer = inputs[index].src_op if -len(inputs) <= index < len(inputs) else None
        writers = [] if writer is None else [writer]
    for writer in writers:
        if isinstance(writer, CalibrationNode):
            return writer
    for writer in writers:
        if writer.op_type in PASS_THROUGH:
            return find_input_calibration(writer)
    return None


def find_output_calibration(node: OnnxNode, index: int | None = None) -> CalibrationNode | None:
    """Return the first quantizer behind a node.

    A convolution that only an addition reads is one unit with it: the search starts behind that.

    Args:
      node: An ordinary node.
      index: Of the output; any output if None.
    """
    if node.op_type == "Conv":
        output = node.outputs[0]
        readers = output.dest_ops
        joined = len(readers) == 1 and readers[0].op_type == "Add"
        if joined and output not in node.owning_graph.outputs:
            return find_output_calibration(readers[0])
    waiting = deque(node.next_ops if index is None else node.outputs[index].dest_ops)
    while waiting:
        reader = waiting.popleft()
        if isinstance(reader, CalibrationNode):
            return reader
        if reader.op_type in PASS_THROUGH:
            waiting.extend(reader.next_ops)
    return None
