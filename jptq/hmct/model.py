"""A model that scripts edit in place, under the vendor's names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from jptq import ir
from jptq.errors import ModelError
from jptq.hmct.graph import OnnxGraph
from jptq.ir import Model
from jptq.ir.verify import check_nodes

if TYPE_CHECKING:
    import onnx


class Proto(Protocol):
    """An ``onnx.ModelProto``."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Return the content of an ONNX file."""


class OnnxModel:
    """A model and its graph.

    Args:
      model: A file, its content, an ``onnx.ModelProto``, or another model, which is copied.

    Attributes:
      graph: What it computes.
      source: The file that it was read from; None of a model in memory.

    Raises:
      ModelError: It is not a readable ONNX model.
    """

    def __init__(self, model: AnyModel) -> None:
        self.graph = OnnxGraph(frozen_model(model))
        self.source: Path | None = None
        if isinstance(model, OnnxModel):
            self.source = model.source
        elif isinstance(model, str | Path):
            self.source = Path(model)

    def __deepcopy__(self, memo: object) -> OnnxModel:
        return OnnxModel(self)

    @property
    def proto(self) -> onnx.ModelProto:
        """The model, as it is now, as ONNX's own message."""
        return ir.to_proto(self.freeze())

    @property
    def opsets(self) -> dict[str, int]:
        """Version by domain."""
        return dict(self.freeze().opsets)

    def freeze(self) -> Model:
        """Return the model, as it is now, as immutable data.

        Raises:
          ModelError: A tensor is read but not written, or depends on itself.
        """
        return self.graph.freeze()

    def infer_shapes(self) -> OnnxModel:
        """Find dtypes and shapes of all tensors; returns the model.

        Raises:
          ModelError: A shape of an input is open, or an operator does not fit what it reads.
        """
        self.graph.infer()
        return self

    def check_validity(self) -> OnnxModel:
        """Check that the graph can be run: every input written, required attributes there.

        Returns:
          The model.

        Raises:
          ModelError: Names the node and what is wrong.
        """
        check_nodes(self.freeze())
        return self


AnyModel: TypeAlias = OnnxModel | Model | Proto | bytes | str | Path
"""What stands for a model in the vendor's functions, and ours."""


def frozen_model(model: AnyModel) -> Model:
    """Return a model in any form as immutable data.

    Raises:
      ModelError: It is not a readable ONNX model.
    """
    if isinstance(model, OnnxModel):
        return model.freeze()
    if isinstance(model, Model):
        return model
    if isinstance(model, str | Path):
        return ir.load(model)
    if isinstance(model, bytes):
        return ir.from_bytes(model)
    if not hasattr(model, "SerializeToString"):
        raise ModelError(
            f"{type(model).__name__} is no model",
            hint="give a file, its content, an onnx.ModelProto or an OnnxModel",
        )
    return ir.from_bytes(model.SerializeToString())
