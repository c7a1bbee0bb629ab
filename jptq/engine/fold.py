"""What can be said of an operator while lowering: values on the host, or shapes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jptq.engine.arrange import Spec
from jptq.engine.guard import may_be_giant, refuse_giants
from jptq.engine.program import Operand
from jptq.ops.registry import Op


def fold(entry: Op, values: Sequence[Any], attributes: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the outputs of an operator whose inputs are all known.

    64-bit types are on inside: shape arithmetic is int64 in ONNX. Inputs and outputs are NumPy
    arrays, tuples of them (sequences) or None (absent).

    Raises:
      ShapeError: A result is larger than any tensor may be.
    """
    if may_be_giant(values, attributes):
        _refuse_giants(entry, values, attributes)
    with jax.enable_x64(True), jax.ensure_compile_time_eval(), jax.default_device(_host()):
        operands: list[Any] = [
            v if entry.is_static(i) else jax.device_put(v) for i, v in enumerate(values)
        ]
        result = entry.function(*operands, **attributes)
        results = result if isinstance(result, tuple) else (result,)
        return tuple(jax.tree.map(np.asarray, r) for r in results)


def _refuse_giants(entry: Op, values: Sequence[Any], attributes: Mapping[str, Any]) -> None:
    """Look at the shapes of results before they are computed, if values do not decide them."""
    static = {i: v for i, v in enumerate(values) if entry.is_static(i) or _is_nested(v)}
    dynamic = {i: Spec(v.shape, v.dtype) for i, v in enumerate(values) if i not in static}
    function = functools.partial(entry.function, **attributes)
    with contextlib.suppress(jax.errors.JAXTypeError, jax.errors.JAXIndexError):
        results, _ = infer(function, dynamic, static, len(values), True)
        refuse_giants([spec for spec in jax.tree.leaves(results) if isinstance(spec, Spec)])


def _is_nested(value: Any) -> bool:
    return not isinstance(value, np.ndarray)


def infer(
    function: Callable[..., Any],
    dynamic: Mapping[int, Spec],
    static: Mapping[int, np.ndarray],
    count: int,
    wide: bool,
) -> tuple[tuple[Spec, ...], tuple[np.ndarray | None, ...]]:
    """Return what is known of an operator's outputs when only some of its inputs are.

    Args:
      function: The operator with its attributes.
      dynamic: Shapes and dtypes of the inputs that are only known when running, by position.
      static: Values of the others that are there.
      count: How many inputs the operator has.
      wide: 64-bit types are what they say; else they count as JAX's 32-bit ones.

    Returns:
      The outputs' shapes and dtypes; and their values, None for each that hangs on the values of
      ``dynamic``. Those of Shape, say, do not.
    """
    known: tuple[np.ndarray | None, ...] = ()

    def call(*values: Any) -> tuple[Any, ...]:
        nonlocal known
        given = {**static, **dict(zip(dynamic, values, strict=True))}
        result = function(*(given.get(i) for i in range(count)))
        results = result if isinstance(result, tuple) else (result,)
        known = tuple(value if isinstance(value, np.ndarray) else None for value in results)
        return results

    with jax.enable_x64(wide):
        given = [Spec(s.shape, jax.dtypes.canonicalize_dtype(s.dtype)) for s in dynamic.values()]
        specs = jax.tree.map(lambda s: Spec(s.shape, s.dtype), jax.eval_shape(call, *given))
    return specs, known


def infer_step(
    call: Callable[..., Any],
    operands: Sequence[Operand],
    specs: Sequence[Spec | None],
    packs: Mapping[str, Callable[..., Any] | None],
    wide: bool,
) -> tuple[Spec, ...]:
    """Return what a step gives out, traced as the program will call it.

    Args:
      call: Its function.
      operands: Of the step.
      specs: Their shapes and dtypes in ONNX's order of axes; None where absent.
      packs: Of each weight, by key.
      wide: As of `infer`.
    """
    dynamic, known, prepares = {}, {}, {}
    for i, (operand, spec) in enumerate(zip(operands, specs, strict=True)):
        value = operand.static if operand.literal is None else operand.literal
        if value is not None:
            known[i] = value
        elif spec is not None:
            shape = tuple(spec.shape[axis] for axis in operand.perm) if operand.perm else spec.shape
            dynamic[i] = Spec(shape, spec.dtype)
            prepares[i] = packs[operand.weight] if operand.weight else operand.prepare

    def step(*values: Any) -> Any:
        prepared = list(values)
        for i, prepare in prepares.items():
            if prepare is not None:
                prepared[i] = prepare(values[i])
        return call(*prepared)

    return infer(step, dynamic, known, len(operands), wide)[0]


def _host() -> jax.Device:
    return jax.local_devices(backend="cpu")[0]
