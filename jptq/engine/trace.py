"""The public forward: an ONNX graph as one pure JAX function."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.engine import nesting
from jptq.engine.lower import lower
from jptq.engine.program import Program
from jptq.engine.quantizing import TableQuantizer
from jptq.errors import ShapeError
from jptq.ir.model import Model
from jptq.quant.calibrated import own_table


class Forward:
    """A graph as a pure function of its inputs, for the example's shapes.

    Calling it runs a jitted program. `apply` is the same function of the weights too, for use
    inside ``jax.jit``, ``jax.grad`` or ``jax.vmap``.

    Attributes:
      static_inputs: Inputs bound from the example, because an operator needs their value while
        tracing (the target of a Reshape, say); feeding them later is optional.
      weights: The constants, ``{initializer: Array}``; data, not part of the program.
    """

    def __init__(self, model: Model, example: Mapping[str, np.ndarray]) -> None:
        calibrated = any(node.is_calibration for node in model.nodes)
        plan, table = own_table(model) if calibrated else (None, None)
        self._quantizer = None if plan is None or table is None else TableQuantizer(plan, table)
        self._inputs, self._outputs = model.inputs, model.output_names
        containers = {tensor.name for tensor in model.inputs if tensor.container}
        arrays = {n: v if n in containers else np.asarray(v) for n, v in example.items()}
        self._program = lower(model, arrays, plan=plan)
        self._wide = _is_wide(self._program)
        self.static_inputs = self._program.static_inputs
        with self._types():
            self.weights: dict[str, Array] = jax.device_put(dict(self._program.weights))
        self._jitted = jax.jit(self.apply)

    def apply(self, weights: Mapping[str, Array], feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs as a pure function of weights and feeds.

        Raises:
          ShapeError: An input is missing, or its shape, dtype or structure is not the example's.
        """
        flat = self._flat(feeds)
        values = {n: self._checked(n, flat) for n in self._program.inputs}
        with jax.default_matmul_precision("highest"):
            packed = self._program.prepare(weights, self._quantizer)
            found = self._program.run(packed, self._quantizer, values)
        return {n: nesting.put_together(n, self._program.nests, found) for n in self._outputs}

    def __call__(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs by name, in the graph's order.

        A sequence is a tuple of arrays, an absent optional None; they are fed alike. NumPy does
        not stack such a tuple unasked.

        Raises:
          ShapeError: An input is missing, or its shape, dtype or structure is not the example's.
          StaticInputError: An input of `static_inputs` differs from the example.
        """
        self._program.refuse_other_static(self._flat(feeds))
        names = {tensor.name for tensor in self._inputs} - set(self.static_inputs)
        given = {n: v for n, v in feeds.items() if n in names}
        with self._types():
            out = self._jitted(self.weights, given)
        # jit sorts by name
        return {
            n: nesting.Tensors(out[n]) if isinstance(out[n], tuple) else out[n]
            for n in self._outputs
        }

    def _flat(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        flat, nests = nesting.flat_feeds(self._inputs, feeds)
        for tensor in self._inputs:
            want = self._program.nests.get(tensor.name)
            if tensor.name in feeds and nests.get(tensor.name) != want:
                raise ShapeError(
                    f"input {tensor.name!r} is another structure than the example",
                    why="how many tensors a sequence holds, and whether an optional is there, is "
                    "part of the program",
                    hint="trace the graph again with an example like it",
                )
        return flat

    def _checked(self, name: str, feeds: Mapping[str, Any]) -> Array:
        if name not in feeds:
            raise ShapeError(f"the network needs the input {name!r}")
        value, want = jnp.asarray(feeds[name]), self._program.shapes[name]
        if value.shape != want:
            raise ShapeError(
                f"input {name!r} has shape {value.shape}",
                why=f"the graph was traced for {want}",
                hint="trace it again with an example of that shape",
            )
        dtype = jax.dtypes.canonicalize_dtype(self._program.dtypes[name])
        if value.dtype != dtype:
            raise ShapeError(
                f"input {name!r} has dtype {value.dtype}", why=f"the graph was traced for {dtype}"
            )
        return value

    @contextlib.contextmanager
    def _types(self) -> Iterator[None]:
        if not self._wide:
            yield
            return
        with jax.enable_x64(True):
            yield


_WIDE = (np.dtype(np.int64), np.dtype(np.uint64), np.dtype(np.float64), np.dtype(np.complex128))


def _is_wide(program: Program) -> bool:
    """Tell whether a program computes with 64-bit types, or gives them out."""
    computed = (name for step in program.steps for name in step.outputs if name)
    names = (*program.inputs, *program.outputs, *computed)
    return any(program.dtypes[name] in _WIDE for name in names)


def trace(model: Model, example_feeds: Mapping[str, np.ndarray]) -> Forward:
    """Return a graph as a pure, jittable, differentiable function.

    Args:
      model: Any graph. A calibrated one computes with the types and thresholds that it holds,
        and its derivative is straight-through.
      example_feeds: One value per graph input; fixes shapes and dtypes.

    Raises:
      UnsupportedOpError: Operators without an implementation, all of them at once.
      StaticInputError: A value is needed while tracing that no input determines.
      ShapeError: Shapes do not fit each other.
      ConfigError: A quantizer has no thresholds.
    """
    return Forward(model, example_feeds)
