"""ONNX file -> `Model`, faithfully: nothing is folded, fused or dropped."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx_ir.passes.common import InlinePass

from jptq import files
from jptq.errors import ModelError
from jptq.ir import edit, verify
from jptq.ir.convert import freeze
from jptq.ir.model import HORIZON, Model
from jptq.ir.type_check import check_types

RENAMED = "renamed_nodes"
"""Metadata of a model: see `renamed`."""

_PROTOBUF_LIMIT = 2**31 - 1
_HORIZON_PREFIX = "Hz"


def load(path: Path | str) -> Model:
    """Read an ONNX file.

    Constant nodes stay nodes; calls of model-local functions are expanded, because `Model` has no
    functions. Every node gets a name: one without is called ``<OpType>_<index>``, counted in its
    graph or function; a repeated name gets a suffix. Operators whose type begins with ``Hz``
    belong to the domain ``horizon`` (hmct-spec 1.3). External data is mapped, not read, so files
    of any size load.

    Args:
      path: An ``.onnx`` file; its external data lies in the same folder.

    Returns:
      The graph in topological order. Initializers that the file also lists as inputs are none.

    Raises:
      ModelError: The file is absent, damaged, not ONNX, or reaches out of its folder; or the
        operands of a node have types that its operator does not take.
    """
    path = Path(path)
    return _from_bytes(_read(path), path)


def from_bytes(content: bytes, *, folder: Path | str = ".") -> Model:
    """Read the content of an ONNX file: `load` of what is in memory.

    Args:
      content: A serialized model.
      folder: Where its external data lies, if it has any.

    Raises:
      ModelError: It is damaged, not ONNX, or reaches out of the folder.
    """
    return _from_bytes(content, Path(folder) / "model in memory")


def _from_bytes(content: bytes, path: Path) -> Model:
    proto = _parse(content, path)
    verify.check(proto, path)
    changed = _name_nodes(proto.graph)
    for function in proto.functions:
        _name_nodes(function)
    _set_horizon_domain(proto.graph)
    try:
        model = ir.from_proto(proto)
        for graph in (model.graph, *(function.graph for function in model.functions.values())):
            ir.external_data.set_base_dir(graph, path.parent.resolve())
        InlinePass()(model)
    except (ir.serde.SerdeError, ir.passes.PassError, ValueError) as error:
        raise _damaged(path, str(error.__cause__ or error)) from error
    frozen = freeze(model)
    if changed:
        entry = json.dumps(changed, sort_keys=True)
        frozen = dataclasses.replace(frozen, metadata={**frozen.metadata, RENAMED: entry})
    ordered = edit.with_nodes(frozen, frozen.nodes, where=str(path))
    edit.check_bodies(ordered, where=str(path))
    check_types(ordered, where=str(path))
    return ordered


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _PROTOBUF_LIMIT:
            raise ModelError(
                f"{path} has {size} bytes",
                why="an ONNX file itself cannot hold more than 2 GB",
                hint="export it with external data",
            )
        return files.read_bytes(path)
    except OSError as error:
        raise ModelError(f"cannot read {path}", why=error.strerror or str(error)) from error


def _parse(content: bytes, path: Path) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise _damaged(path, str(error)) from error
    if not proto.HasField("graph") or not proto.opset_import:
        raise _damaged(path, "it holds no graph or no operator set")
    return proto


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path} is not a readable ONNX model",
        why=why,
        hint="the file is damaged or of another format: export or fetch it again",
    )


def renamed(model: Model) -> dict[str, str]:
    """Return ``{name: name in the file}`` of nodes whose name the file gives to several nodes."""
    try:
        found = json.loads(model.metadata.get(RENAMED, "{}"))
    except ValueError:  # any program may write there
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {new: old for new, old in entries if isinstance(old, str)}


def _name_nodes(graph: onnx.GraphProto | onnx.FunctionProto) -> dict[str, str]:
    """Give every node a name that is unique in its graph and does not depend on other files.

    Returns:
      ``{new name: name in the file}`` of those that shared one, without those in subgraphs.
    """
    changed: dict[str, str] = {}
    taken = Counter(node.name for node in graph.node if node.name)
    seen: set[str] = set()
    for index, node in enumerate(graph.node):
        wanted = node.name or f"{node.op_type}_{index}"
        name = wanted
        suffix = 0
        # A name that stands in the file goes to the first node that carries it.
        while name in seen or (name != node.name and name in taken):
            suffix += 1
            name = f"{wanted}_{suffix}"
        seen.add(name)
        if node.name and name != node.name:
            changed[name] = node.name
        node.name = name
        for subgraph in _subgraphs(node):
            _name_nodes(subgraph)
    return changed


def _set_horizon_domain(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if node.op_type.startswith(_HORIZON_PREFIX):
            node.domain = HORIZON
        for subgraph in _subgraphs(node):
            _set_horizon_domain(subgraph)


def _subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    single = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return single + [graph for attribute in node.attribute for graph in attribute.graphs]
