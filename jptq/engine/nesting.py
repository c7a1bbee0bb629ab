"""Sequences and optionals, taken apart into the tensors that they hold.

To an operator a sequence is a tuple of arrays and an absent optional is None. How many tensors
there are is known while lowering, so programs hold nothing but tensors: the sequence ``s`` of two
is ``s[0]`` and ``s[1]``. Operators on sequences then move tensors about and cost nothing when run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jptq.errors import ShapeError
from jptq.ir.model import Tensor

Tree = Any
"""What ``jax.tree.structure`` returns; it has no public name."""


@dataclasses.dataclass(frozen=True)
class Nest:
    """How a value is made of tensors.

    Attributes:
      tree: Its structure.
      leaves: Names of its tensors, in the order of the structure.
    """

    tree: Tree
    leaves: tuple[str, ...]


Nests = Mapping[str, Nest]
"""The values that are no tensors, by name."""


class Tensors(tuple[Any, ...]):
    """A sequence as a caller gets it: a tuple of arrays that NumPy does not stack unasked."""

    __slots__ = ()

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        """Refuse to be one array.

        Raises:
          ShapeError: Always.
        """
        raise ShapeError(
            f"a sequence of {len(self)} tensor{'' if len(self) == 1 else 's'} is not an array",
            why="its tensors may differ in shape",
            hint="take them one by one, or stack them: numpy.stack(list(sequence))",
        )


jax.tree_util.register_pytree_node(
    Tensors, lambda tensors: (tuple(tensors), None), lambda _, tensors: Tensors(tensors)
)


def is_nested(value: object) -> bool:
    """Tell whether a value is a sequence or an absent optional."""
    return value is None or isinstance(value, (tuple, list))


def taken_apart(name: str, value: Any) -> tuple[Nest, dict[str, Any]]:
    """Return the structure of a nested value, and its tensors by name."""
    leaves, tree = jax.tree.flatten(value)
    names = tuple(f"{name}[{i}]" for i in range(len(leaves)))
    return Nest(tree, names), dict(zip(names, leaves, strict=True))


def put_together(name: str, nests: Nests, tensors: Mapping[str, Any]) -> Any:
    """Return a value from its tensors; `taken_apart` the other way round."""
    if name not in nests:
        return tensors[name]
    nest = nests[name]
    return jax.tree.unflatten(nest.tree, [tensors[leaf] for leaf in nest.leaves])


def flat_feeds(
    inputs: Sequence[Tensor], values: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Nest]]:
    """Return what is fed, tensor by tensor.

    Args:
      inputs: Of a graph; those that are no tensors say so, or their value does.
      values: By input. A sequence is a list or a tuple, an absent optional None.

    Returns:
      All tensors by name, and the structure of what was taken apart.

    Raises:
      ShapeError: A sequence is fed with something else.
    """
    flat, nests = dict[str, Any](values), dict[str, Nest]()
    for tensor in inputs:
        if tensor.name not in values:
            continue
        value = values[tensor.name]
        if "sequence" in tensor.container and not is_nested(value):
            raise ShapeError(
                f"the input {tensor.name!r} is a sequence and its value is none",
                hint="give a list of arrays",
            )
        if not tensor.container and not isinstance(value, tuple) and value is not None:
            continue
        if not is_nested(value):
            continue  # an optional that is there
        del flat[tensor.name]
        arrays = None if value is None else jax.tree.map(_as_array, tuple(value))
        nests[tensor.name], leaves = taken_apart(tensor.name, arrays)
        flat |= leaves
    return flat, nests


def _as_array(value: Any) -> Any:
    return value if hasattr(value, "dtype") else np.asarray(value)


class Flat:
    """A function of values as one of their tensors.

    Args:
      function: Of arguments, each a tensor or nested.
      arguments: The structure of each argument; None for a tensor.

    Attributes:
      results: Once called: the structure of each result; None for a tensor.
    """

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Tree | None]) -> None:
        self._function = function
        self._arguments = tuple(arguments)
        self.results: tuple[Tree | None, ...] = ()

    def __call__(self, *tensors: Any) -> tuple[Any, ...]:
        """Return the tensors of all results, in order."""
        left = list(tensors)
        values: list[Any] = []
        for tree in self._arguments:
            count = 1 if tree is None else tree.num_leaves
            taken, left = left[:count], left[count:]
            values.append(taken[0] if tree is None else jax.tree.unflatten(tree, taken))
        result = self._function(*values)
        results = result if isinstance(result, tuple) else (result,)
        self.results = tuple(jax.tree.structure(r) if is_nested(r) else None for r in results)
        return tuple(jax.tree.leaves(results))


def named(outputs: Sequence[str], results: Sequence[Tree | None]) -> tuple[list[str], Nests]:
    """Return the names of the tensors of results, and the structure of those that are nested.

    Args:
      outputs: Names of the results; "" where unused, as are those beyond.
      results: Of a `Flat` that was called.
    """
    names, nests = [], {}
    for i, tree in enumerate(results):
        name = outputs[i] if i < len(outputs) else ""
        if tree is None:
            names.append(name)
            continue
        leaves = tuple(f"{name}[{k}]" if name else "" for k in range(tree.num_leaves))
        names += leaves
        if name:
            nests[name] = Nest(tree, leaves)
    return names, nests
