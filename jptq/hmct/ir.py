"""The vendor's ``hmct.ir``: load a model, edit its graph in place, save it.

Example::

    model = load_model("calibrated_model.onnx")
    for node in model.graph.type2nodes["HzCalibration"]:
        if node.tensor_type == "weight":
            node.qtype = "int16"
    save_model(model, "int16_weights.onnx")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jptq import ir
from jptq.errors import ModelError
from jptq.hmct.calibration import CalibrationNode
from jptq.hmct.graph import OnnxGraph
from jptq.hmct.model import AnyModel, OnnxModel, frozen_model
from jptq.hmct.node import OnnxNode
from jptq.hmct.variable import OnnxVariable

__all__ = [
    "CalibrationNode",
    "OnnxGraph",
    "OnnxModel",
    "OnnxNode",
    "OnnxVariable",
    "extract_submodel",
    "load_model",
    "save_model",
    "serialize_model",
]


def load_model(model: AnyModel) -> OnnxModel:
    """Return a model to edit.

    Args:
      model: A file, its content, an ``onnx.ModelProto``, or another model, which is copied.

    Raises:
      ModelError: It is not a readable ONNX model.
    """
    return OnnxModel(model)


def save_model(model: AnyModel, file: str | Path) -> None:
    """Write a model to an ONNX file.

    Raises:
      ModelError: An edit left a tensor that is read but not written.
      StorageError: The file cannot be written.
    """
    ir.save(ir.for_vendor(frozen_model(model)), file)


def serialize_model(model: AnyModel) -> bytes:
    """Return the content of the ONNX file of a model."""
    return ir.to_bytes(frozen_model(model))


def extract_submodel(
    model: AnyModel, input_names: Sequence[str], output_names: Sequence[str]
) -> OnnxModel:
    """Return the part of a model between some tensors.

    Args:
      model: The whole.
      input_names: Tensors that become the inputs.
      output_names: Tensors that become the outputs.

    Raises:
      ModelError: A tensor does not exist, or the outputs need more than the inputs.
    """
    whole = OnnxModel(model)
    found = whole.graph.variable_mappings
    for name in (*input_names, *output_names):
        if name not in found:
            raise ModelError(f"there is no tensor {name!r}", hint="give the name of a tensor")
    inputs = tuple(
        ir.Tensor(name=name, dtype=found[name].dtype, shape=found[name].shape)
        for name in input_names
    )
    model = whole.freeze()
    kept = [node for node in model.nodes if not set(input_names).intersection(node.outputs)]
    opened = dataclasses.replace(
        model,
        inputs=inputs,
        nodes=tuple(kept),
        initializers={n: a for n, a in model.initializers.items() if n not in input_names},
    )
    part = ir.extract(opened, output_names)
    outputs = tuple(
        ir.Tensor(name=name, dtype=found[name].dtype, shape=found[name].shape)
        for name in output_names
    )
    # Refuses what reads a tensor that is neither an input nor computed from one.
    found_part = OnnxModel(ir.with_nodes(dataclasses.replace(part, outputs=outputs), part.nodes))
    found_part.source = whole.source
    return found_part
