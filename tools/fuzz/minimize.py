"""Cut a graph down to the few nodes that show what is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx

from tools.fuzz import oracle
from tools.fuzz.graphs import Case
from tools.fuzz.judge import Finding, judge

_MOST_TRIES = 80
ABORTED = "it ended the process"


def minimized(finding: Finding) -> Finding:
    """Return the same finding on the smallest graph that shows it."""
    if finding.what.startswith(ABORTED):
        return finding  # looking at it again would end this process too
    budget = [_MOST_TRIES]
    best = finding
    for reduce in (_one_sample, _shorter, _one_output, _later_start, _one_output):
        best = _reduced(best, reduce, budget)
    return best


def _reduced(best: Finding, reduce: Callable[[Case], Iterator[Case]], budget: list[int]) -> Finding:
    improved = True
    while improved and budget[0] > 0:
        improved = False
        for case in reduce(best.case):
            budget[0] -= 1
            found = _again(case, best.kind)
            if found is not None:
                best, improved = found, True
                break
            if budget[0] <= 0:
                break
    return best


def _again(case: Case, kind: str) -> Finding | None:
    """Return the finding of a kind on another graph, if it is there."""
    found = judge([case], everything=True).findings
    return next((f for f in found if f.kind == kind and not f.explained), None)


def _one_sample(case: Case) -> Iterator[Case]:
    if len(case.samples) > 1:
        for sample, expected in zip(case.samples, case.expected, strict=True):
            yield dataclasses.replace(case, samples=[sample], expected=[expected])


def _one_output(case: Case) -> Iterator[Case]:
    if len(case.model.graph.output) > 1:
        for output in case.model.graph.output:
            yield from _cut(case, [], [output.name])


def _shorter(case: Case) -> Iterator[Case]:
    """Yield graphs that end earlier, the shortest first."""
    tensors = [name for node in _operators(case) for name in node.output if name]
    for name in tensors[:-1]:
        if [name] != [output.name for output in case.model.graph.output]:
            yield from _cut(case, [], [name])


def _later_start(case: Case) -> Iterator[Case]:
    """Yield graphs in which a computed tensor is fed, the last one first."""
    outputs = [output.name for output in case.model.graph.output]
    tensors = [name for node in _operators(case) for name in node.output if name]
    for name in reversed(tensors):
        if name not in outputs:
            yield from _cut(case, [name], outputs)


def _operators(case: Case) -> list[onnx.NodeProto]:
    return [node for node in case.model.graph.node if node.op_type != "Constant"]


def _cut(case: Case, fed: Sequence[str], outputs: Sequence[str]) -> Iterator[Case]:
    """Yield the part of a graph between tensors, if there is one and somebody runs it."""
    try:
        values = _all_values(case)
        yield _part(case, values, fed, outputs)
    except (oracle.Refused, KeyError):
        return


def _all_values(case: Case) -> list[dict[str, np.ndarray]]:
    """Return every tensor of every sample."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    there = {output.name for output in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name)
        for node in model.graph.node
        for name in node.output
        if name and name not in there
    )
    content = model.SerializeToString()
    try:
        found = oracle.onnxruntime(content, case.samples)
    except oracle.Refused:
        found = oracle.reference(content, case.samples)
    return [{**one, **sample} for one, sample in zip(found, case.samples, strict=True)]


def _part(
    case: Case,
    values: Sequence[Mapping[str, np.ndarray]],
    fed: Sequence[str],
    outputs: Sequence[str],
) -> Case:
    graph = case.model.graph
    makers = {name: node for node in graph.node for name in node.output}
    known = {tensor.name for tensor in graph.initializer}
    queue = list(outputs)
    needed: list[onnx.NodeProto] = []
    inputs: dict[str, np.ndarray] = {}
    while queue:
        name = queue.pop()
        if name in fed or (name in values[0] and name not in makers):
            inputs[name] = values[0][name]
        elif name in makers and not any(makers[name] is node for node in needed):
            needed.append(makers[name])
            queue += [n for n in _reads(makers[name]) if n and n not in known]
    nodes = [node for node in graph.node if any(node is one for one in needed)]
    read = {name for node in nodes for name in _reads(node)} | set(outputs)
    constants = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.name in read
    }
    model = oracle.model_of(
        nodes, inputs, constants, outputs, case.opset, {n: values[0][n] for n in outputs}
    )
    return dataclasses.replace(
        case,
        model=model,
        samples=[{n: one[n] for n in inputs} for one in values],
        expected=[{n: one[n] for n in outputs} for one in values],
    )


def _reads(node: onnx.NodeProto) -> list[str]:
    inside = [
        name
        for attribute in node.attribute
        if attribute.HasField("g")
        for inner in attribute.g.node
        for name in _reads(inner)
    ]
    inside += [
        output.name
        for attribute in node.attribute
        if attribute.HasField("g")
        for output in attribute.g.output
    ]
    return [*node.input, *inside]
