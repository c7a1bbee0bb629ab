"""The vendor's rewriting passes: a user's change of the graph, made before it is optimized."""

from __future__ import annotations

import abc
import functools
import inspect
from typing import Any, TypeVar

from jptq.errors import ConfigError, ModelError
from jptq.hmct.model import OnnxModel
from jptq.hmct.node import OnnxNode
from jptq.ir import Model

_ROUNDS = 100
"""Rounds after which a pass counts as one that never ends; a change takes two."""


class PredicateBasedPass(abc.ABC):
    """Changes every node that it matches, again and again until nothing changes.

    Example::

        class DropIdentity(PredicateBasedPass):
            name = "drop_identity"

            def match_pattern(self, onnx_node):
                return onnx_node.op_type == "Identity" and onnx_node.inputs[0].src_op is not None

            def apply_transform(self, onnx_node, onnx_model):
                onnx_node.outputs[0].replace_all_uses_with(onnx_node.inputs[0])
                onnx_node.destroy()
                return True

        register_pass(DropIdentity)
    """

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What messages call it; unique."""

    @abc.abstractmethod
    def match_pattern(self, onnx_node: OnnxNode) -> bool:
        """Whether a node is to be changed."""

    @abc.abstractmethod
    def apply_transform(self, onnx_node: OnnxNode, onnx_model: OnnxModel) -> bool:
        """Change the model at a node that matches; return whether anything is new."""

    def initialize_pass(self, onnx_model: OnnxModel) -> None:
        """Do what has to come before the first node of a round; nothing by itself."""
        del onnx_model

    def finalize_pass(self, onnx_model: OnnxModel) -> None:
        """Do what has to come after the last node of a round; nothing by itself."""
        del onnx_model

    def __call__(self, onnx_model: OnnxModel) -> int:
        """Run one round over the nodes; return the number of changes."""
        self.initialize_pass(onnx_model)
        changes = 0
        for node in onnx_model.graph.nodes:
            # A change may have taken away nodes that come later.
            if node.is_part and self.match_pattern(node):
                changes += bool(self.apply_transform(node, onnx_model))
        self.finalize_pass(onnx_model)
        return changes


Pass = TypeVar("Pass", bound=PredicateBasedPass | type[PredicateBasedPass])


def register_pass(one: Pass) -> Pass:
    """Run a pass in every later `build_model` and `check_model` of this process.

    A pass of the same name is replaced. The function is a decorator too.

    Args:
      one: A `PredicateBasedPass`, or its class if that takes no arguments.

    Returns:
      What it was given.

    Raises:
      ConfigError: It is no such pass, or lacks one of its methods.
    """
    made: Any = one
    if inspect.isclass(one):
        missing = ", ".join(sorted(getattr(one, "__abstractmethods__", ())))
        if missing:
            raise ConfigError(f"pass {one.__name__} lacks {missing}", hint="see PredicateBasedPass")
        made = one()
    if not isinstance(made, PredicateBasedPass):
        raise ConfigError(
            f"{type(made).__name__} is no pass", hint="derive it from PredicateBasedPass"
        )
    registered()[made.name] = made
    return one


@functools.cache
def registered() -> dict[str, PredicateBasedPass]:
    """Return the passes of this process by name, in the order that they run in."""
    return {}


def rewritten(given: Model) -> Model:
    """Return a model that all registered passes have run on, until nothing changes.

    Raises:
      ModelError: A pass never stops changing the model, or leaves a graph that cannot be run.
    """
    if not registered():
        return given
    model = OnnxModel(given)
    for name, one in registered().items():
        try:
            ended = any(one(model) == 0 for _ in range(_ROUNDS))
            model.check_validity()
        except ModelError as error:
            error.where = f"pass {name!r}" + (f", {error.where}" if error.where else "")
            raise
        if not ended:
            raise ModelError(
                f"pass {name!r} does not end",
                why=f"it still changes the model after {_ROUNDS} rounds",
                hint="apply_transform returns False where it changes nothing",
            )
    return model.freeze()
