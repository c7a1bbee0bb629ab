"""An `If` whose condition is known gives way to the branch that it takes."""

from __future__ import annotations

import onnx_ir as ir

from jptq.ir.passes import graph as edits


def run(model: ir.Model) -> bool:
    """Move the taken branch of every decided `If` of the main graph into that graph."""
    changed = False
    node_names = {node.name or "" for node in model.graph}
    for node in tuple(model.graph):
        condition = edits.constant(node.inputs[0]) if node.op_type == "If" else None
        if node.domain != "" or condition is None or condition.size != 1:
            continue
        taken = "then_branch" if condition.item() else "else_branch"
        for attribute in node.attributes.values():
            if attribute.name != taken:
                edits.forget(attribute.as_graph())
        _inline(model.graph, node, node.attributes[taken].as_graph(), node_names)
        changed = True
    return changed


def _inline(graph: ir.Graph, node: ir.Node, branch: ir.Graph, node_names: set[str]) -> None:
    """Put a branch in the place of a node; `node_names` holds those of the graph and is kept."""
    results = tuple(branch.outputs)
    branch.outputs.clear()
    nodes = tuple(branch)
    branch.remove(nodes)
    constants = tuple(branch.initializers.values())
    branch.initializers.clear()
    tensor_names = edits.tensor_names(graph)
    node_names.discard(node.name or "")
    for value in (*constants, *(output for inside in nodes for output in inside.outputs)):
        if value.name:
            value.name = edits.free_name(value.name, tensor_names)
            tensor_names.add(value.name)
    for inside in nodes:
        inside.name = edits.free_name(inside.name or inside.op_type, node_names)
        node_names.add(inside.name)
    for value in constants:
        graph.register_initializer(value)
    graph.insert_before(node, nodes)
    for old, result in zip(node.outputs, results, strict=True):
        # A copy gives the result the name that readers and graph outputs know.
        copy = ir.Node(
            "",
            "Identity",
            [result],
            outputs=[ir.Value(name=old.name, shape=old.shape, type=old.type)],
            name=edits.free_name(node.name or "If", node_names),
        )
        node_names.add(copy.name or "")
        graph.insert_before(node, copy)
        old.replace_all_uses_with(copy.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
