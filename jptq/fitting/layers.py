"""Which constant weights can be fitted, who reads them, and where their biases are."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jptq.engine import Runner
from jptq.fitting.rows import Form, Rows, of_convolution, of_product
from jptq.ir.model import Node
from jptq.numerics.qtypes import INT8
from jptq.ops import BIAS, Op
from jptq.quant.assign import Assignment
from jptq.quant.plan import WEIGHT, Calibration
from jptq.quant.structure import operators_of


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """A node that multiplies by the weight.

    Attributes:
      node: Its name.
      rows: How its features become rows.
      factor: What the product is multiplied by (Gemm's alpha).
      bias: Initializer that is added to each of the G x M outputs and that nothing else reads; ""
        if there is none.
      bias_factor: What that is multiplied by (Gemm's beta).
    """

    node: str
    rows: Rows
    factor: float = 1.0
    bias: str = ""
    bias_factor: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A constant weight with a quantizer.

    Attributes:
      weight: Initializer.
      calibration: Its quantizer.
      nodes: That read it, in graph order.
      shape: Of the weight.
      readers: The same with their rows; none if it cannot be fitted.
      reason: Why it cannot be.
    """

    weight: str
    calibration: Calibration
    nodes: tuple[str, ...]
    shape: tuple[int, ...]
    readers: tuple[Reader, ...] = ()
    reason: str = ""

    @property
    def form(self) -> Form:
        """How the weight becomes matrices."""
        return self.readers[0].rows.form

    @property
    def size(self) -> tuple[int, int, int]:
        """``(G, K, M)``: matrices, inputs, outputs."""
        groups, inputs, outputs = self.form.arranged(np.empty(self.shape, np.bool_)).shape
        return groups, inputs, outputs


def layers_of(runner: Runner, assignment: Assignment) -> tuple[Layer, ...]:
    """Return every constant weight with a quantizer, in graph order.

    Args:
      runner: Of the placed graph.
      assignment: Weights that it does not make int8 are left out.
    """
    model, plan = runner.model, runner.plan
    assert plan is not None
    operators = operators_of(model)
    known: dict[Any, np.ndarray] = {}
    found = []
    for calibration in plan.calibrations:
        if calibration.kind != WEIGHT or not calibration.constant:
            continue
        read = model.consumers.get(calibration.output, ())
        nodes = [node for node, _ in read]
        layer = Layer(
            weight=calibration.tensor,
            calibration=calibration,
            nodes=tuple(node.name for node in nodes),
            shape=model.initializers[calibration.tensor].shape,
        )
        reason = _left_out(runner, calibration, assignment[calibration.name])
        for node, index in read:
            entry = None if node.is_calibration else operators[node.name]
            reason = reason or _refused(runner, node, entry, index)
        if not reason:
            readers = tuple(_reader(runner, node, operators[node.name], known) for node in nodes)
            if len({one.rows.form for one in readers}) == 1:
                layer = dataclasses.replace(layer, readers=readers)
            else:
                reason = "its readers multiply by it in different orders"
        found.append(dataclasses.replace(layer, reason=reason))
    return tuple(found)


def _left_out(runner: Runner, calibration: Calibration, qtype: str) -> str:
    """Return why a weight is not to be fitted, "" if nothing speaks against it."""
    constant = runner.model.initializers[calibration.tensor]
    if qtype != INT8.name or calibration.pinned not in (None, INT8.name):
        return f"the configuration makes it {qtype}"
    if calibration.compensated:
        return "a second operator compensates it"
    if constant.dtype != np.float32 or calibration.tensor not in runner.replaceable:
        return "it is part of the compiled program"
    return ""


def _refused(runner: Runner, node: Node, entry: Op | None, index: int) -> str:
    """Return why the rows of a reader are not known."""
    if entry is None or index != 1 or not entry.traits.sums_products:
        return f"{node.op} is more than a product with it"
    if node.inputs[0] not in runner.program.perms:
        return "it is multiplied by a constant"
    shapes = runner.program.shapes
    if any(0 in shapes[name] for name in (*node.inputs[:2], node.outputs[0])):
        return "its tensors have no elements"
    return ""


def _reader(runner: Runner, node: Node, entry: Op, known: dict[Any, np.ndarray]) -> Reader:
    shapes, model = runner.program.shapes, runner.model
    features, weight = (shapes[name] for name in node.inputs[:2])
    if entry.traits.weights[1] < 0:
        rows = of_product(node, features, weight)
    else:
        rows = of_convolution(node, entry, features, weight, runner.compilations.jit, known)
    bias, bias_factor = _bias(runner, node)
    groups, _, outputs = rows.form.arranged(np.empty(weight, np.bool_)).shape
    constant = model.initializers.get(bias)
    fits = (
        constant is not None
        and constant.dtype == np.float32
        and constant.size == groups * outputs
        and (entry.traits.weights[1] >= 0 or (groups == 1 and constant.shape[-1:] == (outputs,)))
        and len(model.consumers[bias]) == 1
        and bias in runner.replaceable
        and bias_factor != 0
    )
    return Reader(
        node=node.name,
        rows=rows,
        factor=_number(node, "alpha"),
        bias=bias if fits else "",
        bias_factor=bias_factor,
    )


def _bias(runner: Runner, node: Node) -> tuple[str, float]:
    """Return the tensor that is added to a product, by itself or by a fused addition."""
    if len(node.inputs) > BIAS and node.inputs[BIAS]:
        return node.inputs[BIAS], _number(node, "beta")
    assert runner.plan is not None
    own = {one.node: one for one in runner.plan.sums}.get(node.name)
    # Behind a convolution the channels of a vector are not its last axis.
    return ("", 1.0) if own is None or own.kernel_axis >= 0 else (own.bias, own.bias_factor)


def _number(node: Node, name: str) -> float:
    value = node.attributes.get(name, 1)
    assert isinstance(value, int | float)
    return float(value)
