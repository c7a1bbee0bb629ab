"""Small calibrated graphs and targets whose times can be worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np

from jptq.ir.model import Model, Node, Tensor
from jptq.quant.calibrated import plan_of
from jptq.quant.plan import Plan
from jptq.targets import Fact, Target, load_target

FLOAT = np.dtype(np.float32)


def target(**facts: float) -> Target:
    """nash-e with round numbers: 1000 MACs, 100 vector operations and 10 bytes per microsecond."""
    numbers = {
        "peak_int8_tops": 2e-3,
        "cores": 1,
        "ddr_gbytes_s": 0.02,
        "ddr_share": 0.5,
        "vector_gops": 0.1,
        "node_overhead_us": 7,
        "on_chip_bytes": 1,
        "cpu_gflops": 0.01,
        "cpu_overhead_us": 50,
        **facts,
    }
    known = {
        name: Fact(value=value, source="assumed: test" if name == "ddr_share" else "doc: test")
        for name, value in numbers.items()
    }
    return dataclasses.replace(load_target("nash-e"), **known)


def calibration(tensor: str, kind: str = "feature") -> Node:
    return Node(
        name=f"{tensor}_cal",
        op="HzCalibration",
        domain="horizon",
        inputs=(tensor,),
        outputs=(f"{tensor}_q",),
        attributes={"tensor_type": kind},
    )


def node(name: str, op: str, *inputs: str, **attributes: object) -> Node:
    return Node(name=name, op=op, inputs=inputs, outputs=(f"{name}_y",), attributes=attributes)


def model(
    nodes: list[Node], inputs: list[str], outputs: list[str], **constants: np.ndarray
) -> Model:
    return Model(
        inputs=tuple(Tensor(name=name, dtype=FLOAT, shape=None) for name in inputs),
        outputs=tuple(Tensor(name=name, dtype=FLOAT, shape=None) for name in outputs),
        nodes=tuple(nodes),
        initializers=constants,
        opsets={"": 13, "horizon": 1},
    )


def conv_block() -> tuple[Model, dict[str, tuple[int, ...]]]:
    """Conv + Add of another input + Relu as one unit, a Reshape, a Sigmoid to a graph output."""
    nodes = [
        calibration("x"),
        calibration("r"),
        calibration("w", "weight"),
        node("conv", "Conv", "x_q", "w_q", "b"),
        node("add", "Add", "conv_y", "r_q"),
        node("relu", "Relu", "add_y"),
        calibration("relu_y"),
        node("flat", "Reshape", "relu_y_q", "to"),
        node("sigmoid", "Sigmoid", "flat_y"),
        calibration("sigmoid_y"),
    ]
    network = model(
        nodes,
        ["x", "r"],
        ["sigmoid_y_q"],
        w=np.zeros((4, 3, 1, 1), np.float32),
        b=np.zeros(4, np.float32),
        to=np.array([1, 40], np.int64),
    )
    shapes = {"x": (1, 3, 2, 5)} | dict.fromkeys(("r", "conv_y", "add_y", "relu_y"), (1, 4, 2, 5))
    return network, shapes | {"flat_y": (1, 40), "sigmoid_y": (1, 40)}


def compensated_block() -> tuple[Model, Plan, dict[str, tuple[int, ...]]]:
    """`conv_block` with its convolution split in two."""
    network, shapes = conv_block()
    halves = [
        calibration("w_low", "weight"),
        node("conv_split_low", "Conv", "x_q", "w_low_q"),
        node("conv_split_add", "Add", "conv_y", "conv_split_low_y"),
        calibration("conv_split_add_y"),
    ]
    halves[-1] = dataclasses.replace(halves[-1], name="total_cal")
    nodes = list(network.nodes)
    at = [n.name for n in nodes].index("add")
    nodes[at] = dataclasses.replace(nodes[at], inputs=("conv_split_add_y_q", "r_q"))
    nodes[at:at] = halves
    split = dataclasses.replace(
        network,
        nodes=tuple(nodes),
        initializers={**network.initializers, "w_low": network.initializers["w"]},
    )
    sums = ("conv_split_low_y", "conv_split_add_y")
    return split, plan(split), shapes | dict.fromkeys(sums, (1, 4, 2, 5))


def plan(network: Model) -> Plan:
    return plan_of(network, target())
