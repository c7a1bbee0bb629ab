"""What a build repeats of its configuration, in the words of the vendor's log."""

from __future__ import annotations

import re
from collections.abc import Iterator

from jptq.quant.config import Config, NodeTypes

_KEY_WIDTH = 21


def echo(config: Config) -> Iterator[str]:
    """Yield a line for every setting of a configuration.

    Source: hmct-spec 4.1, "Echo log".
    """
    yield f"All nodes in the model are set to datatype: {config.all_node_type}"
    if config.model_output_type is not None:
        yield f"All outputs of the model are set to datatype: {config.model_output_type}"
    activation = config.activation.to_json()
    if activation:
        yield "The activation calibration parameters:"
        yield from (f"    {key:<{_KEY_WIDTH}}: {value}" for key, value in activation.items())
    for op, types in config.ops.items():
        yield from _types(f"all {op} nodes are", types)
    for name, subgraph in config.subgraphs.items():
        yield f"The input of all nodes of subgraph {name} are set to : {subgraph.qtype}"
    for node, types in config.nodes.items():
        yield from _types(f"node {node} is", types)


def enabled(method: str) -> Iterator[str]:
    """Yield what the vendor says of a calibration method that has been chosen.

    Args:
      method: Its tag, such as ``max-percentile:percentile=0.99995,per_channel``.
    """
    settings = re.split("[:,]", method)
    if "per_channel" in settings:
        yield "Perchannel quantization is enabled."
    if "asymmetric" in settings:
        yield "Asymmetric quantization is enabled."


def _types(what: str, types: NodeTypes) -> Iterator[str]:
    if types.qtype is not None:
        yield f"The input of {what} set to : {types.qtype}"
    for index, qtype in types.inputs.items():
        yield f"The input{index} of {what} set to : {qtype}"
    if types.output is not None:
        yield f"The output of {what} set to : {types.output}"
