"""Biases that take up the mean error of their channel: the correction of weights' rounding.

Source: hmct-spec 2.3 (``weight.bias_correction``).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping

import numpy as np

from jptq.calibration.scoring import Scores, goodness
from jptq.ir.edit import replace_node, unique_name
from jptq.ir.model import Model, Node
from jptq.quant.pairs import LOW
from jptq.quant.structure import operators_of

_logger = logging.getLogger(__name__)

BIAS = 2
"""Input of a convolution that is added to each of its channels."""
_CHANNELS = 1

Biases = Mapping[str, np.ndarray]
"""``{initializer: float32[C]}``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Correction:
    """What was tried on one node.

    Attributes:
      node: Its name.
      before: Score of its output, all nodes before it corrected.
      after: The same with its own correction.
      kept: It is better.
    """

    node: str
    before: float
    after: float
    kept: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corrected:
    """Biases that were found.

    Attributes:
      biases: New values of those that changed; none if the network is better without.
      nodes: Every node that was looked at, in graph order.
      before: Score of the network's outputs.
      after: The same with all corrections that were kept.
    """

    biases: Biases
    nodes: tuple[Correction, ...]
    before: float
    after: float


def with_biases(model: Model) -> Model:
    """Return the model in which every convolution has a bias of its own, zero where it had none.

    Args:
      model: An optimized float model.
    """
    for node in convolutions(model):
        name = node.inputs[BIAS] if len(node.inputs) > BIAS else ""
        constant = model.initializers.get(name)
        if (name and constant is None) or (
            constant is not None and len(model.consumers[name]) == 1
        ):
            continue
        if constant is None:
            constant = np.zeros(_channels(model, node), np.float32)
        own = unique_name(model, f"{node.name}_bias")
        inputs = (*node.inputs[:BIAS], own)
        model = replace_node(
            model,
            node.name,
            (dataclasses.replace(node, inputs=inputs),),
            initializers={own: constant},
        )
    return model


def convolutions(model: Model) -> list[Node]:
    """Return the nodes with a constant kernel of float32 and room for a bias, in graph order."""
    operators = operators_of(model)
    found = []
    for node in model.operators():
        traits = operators[node.name].traits
        # A channel axis that counts from the front: a kernel, no matrix.
        kernel = traits.weights.get(1, -1) >= 0 and traits.exact == (BIAS,)
        if kernel and not node.name.endswith(LOW) and _kernel(model, node) is not None:
            found.append(node)
    return found


def correct(
    model: Model,
    floating: Callable[[str], np.ndarray],
    run: Callable[[Biases, str], np.ndarray],
    compare: Callable[[np.ndarray, np.ndarray], Scores],
    whole: Callable[[Biases], Scores],
    *,
    metric: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Corrected:
    """Return better biases, found node by node in graph order.

    A node's correction is the mean, over samples and all axes but that of the channels, of what
    its output lost; it stays if the node's output is better with it. In the end the network has
    to be better, or nothing stays.

    Args:
      model: Made by `with_biases`, calibrated or not.
      floating: ``[S, *shape]`` of an output of `convolutions`, in float.
      run: The same of the quantized network with some biases changed.
      compare: Scores of a tensor ``[S, *shape]`` against the float one, mean over samples.
      whole: Scores of the network's outputs with some biases changed.
      metric: Decides what is better.
      progress: Called with the nodes done and their number.
    """
    found: dict[str, np.ndarray] = {}
    rows = []
    nodes = [node for node in convolutions(model) if _bias(node) in model.initializers]
    for done, node in enumerate(nodes):
        progress(done, len(nodes))
        reference, output = floating(node.outputs[0]), run(found, node.outputs[0])
        axes = tuple(i for i in range(output.ndim) if i != _CHANNELS + 1)
        lost = reference.astype(np.float64) - output
        shape = [1] * output.ndim
        shape[_CHANNELS + 1] = channels = output.shape[_CHANNELS + 1]
        error = (lost.sum(axis=axes) * (channels / max(lost.size, 1))).astype(np.float32)
        before = compare(reference, output)
        after = compare(reference, output + error.reshape(shape))
        kept = goodness(after, metric) > goodness(before, metric)
        rows.append(
            Correction(
                node=node.name,
                before=float(before[metric]),
                after=float(after[metric]),
                kept=kept,
            )
        )
        if kept:
            found[_bias(node)] = model.initializers[_bias(node)] + error
    progress(len(nodes), len(nodes))
    plain, mended = whole({}), whole(found)
    better = goodness(mended, metric) > goodness(plain, metric)
    corrected = Corrected(
        biases=found if better else {},
        nodes=tuple(rows),
        before=float(plain[metric]),
        after=float(mended[metric]),
    )
    _report(corrected, metric, better=better)
    return corrected


def _bias(node: Node) -> str:
    return node.inputs[BIAS] if len(node.inputs) > BIAS else ""


def _kernel(model: Model, node: Node) -> np.ndarray | None:
    """Return a node's constant kernel, behind its quantizer if there is one."""
    producer = model.producers.get(node.inputs[1])
    name = node.inputs[1] if producer is None else producer.inputs[0]
    kernel = model.initializers.get(name)
    if producer is not None and not producer.is_calibration:
        return None
    return kernel if kernel is not None and kernel.dtype == np.float32 else None


def _channels(model: Model, node: Node) -> int:
    """Return the output channels of a convolution."""
    kernel = _kernel(model, node)
    assert kernel is not None
    axis = operators_of(model)[node.name].traits.weights[1]
    group = node.attributes.get("group", 1)
    assert isinstance(group, int)
    # A transposed kernel holds the output channels of one group.
    return int(kernel.shape[axis]) * (group if axis else 1)


def _report(found: Corrected, metric: str, *, better: bool) -> None:
    lines = [
        f"{row.node}: {row.before:.6f} -> {row.after:.6f}{'' if row.kept else ' (not kept)'}"
        for row in found.nodes
    ]
    end = "" if better else ": no better, the biases stay as they were"
    lines.append(f"network: {found.before:.6f} -> {found.after:.6f}{end}")
    _logger.info("%s", "\n".join([f"Bias_Correction_Info({metric})", *lines]))
