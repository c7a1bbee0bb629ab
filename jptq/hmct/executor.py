"""The vendor's ``hmct.executor``: run a model, over our own engine.

Precision, thresholds and weights are data to a compiled program. Executors of models that differ
in nothing else share one, so that a script which edits a model and runs it again compiles nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jptq import ir
from jptq.engine import Runner
from jptq.errors import DataError, UnknownNameError
from jptq.hmct.model import AnyModel, OnnxModel
from jptq.ir import Model, Node
from jptq.quant.assign import Table, table
from jptq.quant.calibrated import assignment_of, plan_of, thresholds_of
from jptq.quant.plan import Plan
from jptq.targets import load_target

_KEPT = 4
"""Compiled networks that stay in memory: a script compares a few, each holds its weights."""

_ANY_TARGET = "nash-e"
"""Quantizers lie where the graph has them; which types a target accepts is not asked here."""

Feeds = Mapping[str, np.ndarray]
Forward = Callable[[Feeds], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class _Compiled:
    """A runner with what it was made from."""

    runner: Runner
    example: Feeds
    replaceable: frozenset[str]


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A runner for one shape of feeds, with one precision."""

    runner: Runner
    example: Feeds
    forward: Forward


class Sessions:
    """The compiled networks of a process, the least recently used ones forgotten."""

    def __init__(self) -> None:
        self._compiled: OrderedDict[str, list[_Compiled]] = OrderedDict()

    def runner(self, model: Model, example: Feeds) -> tuple[Runner, dict[str, np.ndarray]]:
        """Return a runner for the structure of a model, and the weights that it is to use.

        Args:
          model: With fixed input shapes.
          example: One sample.

        Raises:
          ModelError: The graph cannot be lowered.
        """
        plan = _plan(model)
        key = _structure(model, plan, example)
        found = self._compiled.setdefault(key, [])
        self._compiled.move_to_end(key)
        for compiled in found:
            changed = _changed(compiled, model, example)
            if changed is not None:
                return compiled.runner, changed
        runner = Runner(model, example, plan=plan)
        found.append(_Compiled(runner, dict(example), _replaceable(runner)))
        while len(self._compiled) > _KEPT:
            self._compiled.popitem(last=False)
        del found[:-_KEPT]
        return runner, {}


@functools.cache
def sessions() -> Sessions:
    """Return the compiled networks of this process."""
    return Sessions()


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
        if opened is None or not _same_static(opened.runner, opened.example, example):
            fixed = ir.fix_inputs(model, {name: array.shape for name, array in example.items()})
            runner, changed = sessions().runner(fixed, example)
            forward = runner.forward(runner.pack(_table(fixed), changed))
            bound = {name: example[name] for name in runner.program.static_inputs}
            opened = self._opened[key] = _Opened(runner, bound, forward)
        return opened.forward


def _plan(model: Model) -> Plan | None:
    if not any(node.is_calibration for node in model.nodes):
        return None
    return plan_of(model, load_target(_ANY_TARGET))


def _table(model: Model) -> Table | None:
    plan = _plan(model)
    return None if plan is None else table(plan, thresholds_of(model), assignment_of(model))


def _structure(model: Model, plan: Plan | None, example: Feeds) -> str:
    """Return a digest of all that a compiled program depends on but the values of constants."""
    parts = [
        repr([(name, array.shape, str(array.dtype)) for name, array in example.items()]),
        repr((model.output_names, sorted(model.opsets.items()))),
        *(_shown(node) for node in model.nodes),
        repr([(name, a.dtype, a.shape) for name, a in model.initializers.items()]),
    ]
    if plan is not None:
        parts.append(repr([(c.name, c.axis, c.channels) for c in plan.calibrations]))
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _shown(node: Node) -> str:
    attributes = {} if node.is_calibration else node.attributes
    values = {
        key: (value.dtype, value.shape, value.tobytes())
        if isinstance(value, np.ndarray)
        else ir.to_bytes(value)
        if isinstance(value, Model)
        else value
        for key, value in sorted(attributes.items())
    }
    return repr((node.name, node.domain, node.op, node.inputs, node.outputs, values))


def _changed(compiled: _Compiled, model: Model, example: Feeds) -> dict[str, np.ndarray] | None:
    """Return the weights that differ; None if what differs is part of the program."""
    if not _same_static(compiled.runner, compiled.example, example):
        return None
    own = compiled.runner.model.initializers
    changed = {n: a for n, a in model.initializers.items() if not _equal(own[n], a)}
    return changed if changed.keys() <= compiled.replaceable else None


def _same_static(runner: Runner, bound: Feeds, example: Feeds) -> bool:
    return all(np.array_equal(bound[n], example[n]) for n in runner.program.static_inputs)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    if a is b or a.dtype == np.object_:
        return a is b or np.array_equal(a, b)
    return a.tobytes() == b.tobytes()  # NaN is equal to itself here


def _replaceable(runner: Runner) -> frozenset[str]:
    """Return the constants that all their readers take as an argument of the program."""
    program, model = runner.program, runner.model
    steps = {step.node: step for step in program.steps}

    def argument(tensor: str, source: str) -> bool:
        for reader, index in model.consumers.get(tensor, ()):
            if reader.is_calibration:
                if not argument(reader.outputs[0], source):
                    return False
                continue
            step = steps.get(reader.name)
            if step is None or not step.operands[index].weight.startswith(f"{source}|"):
                return False
        return True

    inside = {name for node in model.nodes for name in node.reads if name not in node.inputs}
    given_out = {*model.output_names, *inside}
    return frozenset(
        name for name in program.weights if name not in given_out and argument(name, name)
    )


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
