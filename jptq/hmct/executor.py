"""The vendor's ``hmct.executor``: run a model, over our own engine (see `jptq.hmct.engines`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jptq import ir
from jptq.engine import Runner
from jptq.errors import DataError, UnknownNameError
from jptq.hmct.engines import Feeds, engines
from jptq.hmct.model import AnyModel, OnnxModel
from jptq.ir import Model
from jptq.quant.calibrated import own_table
from jptq.quant.originals import original_constants

Forward = Callable[[Feeds], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A runner for one shape of feeds, with one precision."""

    runner: Runner
    forward: Forward


@dataclasses.dataclass(frozen=True)
class NodeArg:
    """An input or output of an executor.

    Attributes:
      name: Of the tensor.
      type: NumPy dtype; None where unknown.
      shape: Lengths, names or None; None where unknown.
    """

    name: str
    type: np.dtype | None
    shape: tuple[int | str | None, ...] | None


class ORTExecutor:
    """Runs a model; the name is the vendor's, the engine is ours.

    Args:
      model: A file, its content, an ``onnx.ModelProto`` or an `OnnxModel`.

    Example::

        executor = ORTExecutor(load_model("calibrated_model.onnx")).create_session()
        outputs = executor.forward({"images": array})
    """

    def __init__(self, model: AnyModel) -> None:
        self._model = model if isinstance(model, OnnxModel) else OnnxModel(model)
        self._frozen: Model | None = None
        self._opened: dict[tuple[tuple[str, tuple[int, ...]], ...], _Opened] = {}

    def create_session(self) -> ORTExecutor:
        """Take the model as it is now; later edits need another call. Returns the executor."""
        self._frozen = self._model.freeze()
        self._opened = {}
        return self

    def to(self, device: str | Sequence[str]) -> ORTExecutor:
        """Accept ``cpu`` and ``cuda``; the engine runs where JAX runs. Returns the executor.

        Raises:
          UnknownNameError: Another device.
        """
        known = ("cpu", "cuda", "CPUExecutionProvider", "CUDAExecutionProvider")
        for name in [device] if isinstance(device, str) else device:
            if name not in known:
                raise UnknownNameError("device", name, known)
        return self

    @property
    def runner(self) -> Runner | None:
        """The engine's runner of the last call; None before the first."""
        return next(reversed(self._opened.values())).runner if self._opened else None

    def get_inputs(self) -> list[NodeArg]:
        """Return what `forward` takes."""
        return [NodeArg(v.name, v.dtype, v.shape) for v in self._model.graph.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """Return what `forward` gives."""
        return [NodeArg(v.name, v.dtype, v.shape) for v in self._model.graph.outputs]

    def inference(self, inputs: Feeds | Sequence[np.ndarray] | np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs; takes the model as it is if there is no session yet."""
        if self._frozen is None:
            self.create_session()
        return self.forward(inputs)

    def forward(
        self,
        inputs: Feeds | Sequence[np.ndarray] | np.ndarray,
        output_names: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Return the outputs.

        Args:
          inputs: By name, in the order of the inputs, or the array of the only one.
          output_names: Which outputs, in which order; all if None.

        Raises:
          DataError: There is no session, or the inputs are other ones.
          ShapeError: An input has another shape or dtype than the model takes.
          UnknownNameError: There is no such output.
        """
        if self._frozen is None:
            raise DataError("the executor has no session", hint="call create_session() first")
        feeds = _named(self._frozen, inputs)
        known = self._frozen.output_names
        for name in output_names or ():
            if name not in known:
                raise UnknownNameError("output", name, known, where="output_names")
        outputs = self._forward(self._frozen, feeds)(feeds)
        return {name: outputs[name] for name in output_names or known}

    def _forward(self, model: Model, feeds: Feeds) -> Forward:
        """Return the function for feeds of these shapes, and of these values where they matter."""
        example = {t.name: _sample(t, feeds[t.name]) for t in model.inputs}
        key = tuple((name, array.shape) for name, array in example.items())
        opened = self._opened.get(key)
        if opened is None or opened.runner.program.other_static(example):
            fixed = ir.fix_inputs(model, {name: array.shape for name, array in example.items()})
            runner, forward = _compiled(fixed, example)
            opened = self._opened[key] = _Opened(runner, forward)
        return opened.forward


def _compiled(model: Model, example: Feeds) -> tuple[Runner, Forward]:
    if not any(node.is_calibration for node in model.nodes):
        runner = engines().runner(model, example, plan=None)
        return runner, runner.forward(None)
    plan, held = own_table(model)
    runner = engines().runner(model, example, plan=plan, floats=original_constants(model))
    return runner, runner.forward(held)


def _named(model: Model, inputs: Feeds | Sequence[np.ndarray] | np.ndarray) -> Feeds:
    names = model.input_names
    if isinstance(inputs, np.ndarray):
        inputs = [inputs]
    if not isinstance(inputs, Mapping):
        if len(inputs) != len(names):
            raise DataError(f"{len(inputs)} arrays where the model takes {len(names)} inputs")
        inputs = dict(zip(names, inputs, strict=True))
    for name in inputs:
        if name not in names:
            raise UnknownNameError("input", name, names)
    for name in names:
        if name not in inputs:
            raise DataError(f"input {name!r} is missing", where="given: " + ", ".join(inputs))
    return {name: np.asarray(inputs[name]) for name in names}


def _sample(tensor: ir.Tensor, array: np.ndarray) -> np.ndarray:
    """Return one sample of the shape that the model fixes, or the whole array if it fixes none."""
    shape = tuple(n for n in tensor.shape or () if isinstance(n, int))
    fixed = tensor.shape is not None and len(shape) == len(tensor.shape)
    whole = fixed and array.ndim == len(shape) > 0 and array.shape[1:] == shape[1:]
    if whole and array.shape[0] > shape[0] > 0:
        return array[: shape[0]]
    return array
