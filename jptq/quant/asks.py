"""What every operand is asked for, and by which rule of a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from jptq.ir.model import Model
from jptq.ir.paths import between
from jptq.numerics.qtypes import DUAL_INT16, INT8, INT16
from jptq.quant.config import EC, INT16_EC, Config
from jptq.quant.pairs import pairs_of
from jptq.quant.plan import Plan
from jptq.quant.structure import structure_of

DEFAULT = "default"
OUTPUT = "output"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ask:
    """What one operand wants of the quantizer that it reads.

    Attributes:
      node: Node name.
      op: Its operator type.
      slot: ``input<i>``, or `OUTPUT`.
      calibration: The quantizer.
      asked: The type, or `EC`.
      rule: What says so: ``node_config.NAME.input1``, ``all_node_type``, `DEFAULT`.
      own: The rule names this operand, not its node as a whole.
      explicit: A rule below the model's says so; a default gives way to it.
      dual: ``dual-int16`` asks for it, or what means the same.
    """

    node: str
    op: str
    slot: str
    calibration: str
    asked: str
    rule: str
    own: bool = False
    explicit: bool = False
    dual: bool = False

    @property
    def qtype(self) -> str:
        """The type of the quantizer itself: beside a compensating operator it stays int8."""
        return INT8.name if self.asked == EC else self.asked

    @property
    def index(self) -> int:
        """The input's index; 0 for the output, which has the type that an operator takes in."""
        return 0 if self.slot == OUTPUT else int(self.slot.removeprefix("input"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Named:
    """What the levels below the model say of a node.

    Attributes:
      qtype: Of the whole node, None if nothing.
      rule: Which key says so.
      inputs: ``{input index: type}``.
      input_rule: The key of the node's own entry, before ``.input<i>``.
      output: Of the output alone.
      output_rule: Which key says so.
    """

    qtype: str | None = None
    rule: str = DEFAULT
    inputs: Mapping[int, str] = dataclasses.field(default_factory=dict)
    input_rule: str = ""
    output: str | None = None
    output_rule: str = ""


def named(config: Config, model: Model) -> dict[str, Named]:
    """Return what is said of single nodes, the most particular level winning."""
    out: dict[str, Named] = {}
    for node in model.operators():
        if (entry := config.ops.get(node.op)) is not None:
            rule = f"op_config.{node.op}"
            out[node.name] = Named(
                qtype=entry.qtype,
                rule=f"{rule}.qtype",
                output=entry.output,
                output_rule=f"{rule}.OutputType",
            )
    for key, subgraph in config.subgraphs.items():
        if not {*subgraph.inputs, *subgraph.outputs} <= model.by_name.keys():
            continue  # `resolve` refuses it, or names what only error compensation makes
        for name in between(model, subgraph.inputs, subgraph.outputs):
            out[name] = Named(qtype=subgraph.qtype, rule=f"subgraph_config.{key}")
    for name, entry in config.nodes.items():
        rule = f"node_config.{name}"
        found = out.get(name, Named())
        if entry.qtype is not None:
            found = Named(qtype=entry.qtype, rule=f"{rule}.qtype")
        if entry.output is not None:
            found = dataclasses.replace(
                found, output=entry.output, output_rule=f"{rule}.OutputType"
            )
        out[name] = dataclasses.replace(found, inputs=entry.inputs, input_rule=rule)
    return out


def asks_of(config: Config, model: Model, plan: Plan) -> tuple[Ask, ...]:
    """Return what every operand that reads a quantizer asks of it, in graph order."""
    entries = named(config, model)
    # What ec leaves over is not compensated once more.
    low = {pair.low.name for pair in pairs_of(model)}
    out = []
    for slots in plan.slots:
        entry = entries.get(slots.node, Named())
        if entry.qtype == INT16_EC and slots.node in low:
            entry = dataclasses.replace(entry, qtype=INT16.name)
        for index, name in slots.inputs.items():
            asked, rule, explicit = _input(config, entry, index)
            out.append(
                Ask(
                    node=slots.node,
                    op=slots.op,
                    slot=f"input{index}",
                    calibration=name,
                    asked=asked,
                    rule=rule,
                    own=index in entry.inputs,
                    explicit=explicit,
                    dual=_dual(entry, index),
                )
            )
        if slots.output is not None and entry.output is None:
            asked, rule, explicit = _output(config, entry)
            out.append(
                Ask(
                    node=slots.node,
                    op=slots.op,
                    slot=OUTPUT,
                    calibration=slots.output,
                    asked=asked,
                    rule=rule,
                    explicit=explicit,
                )
            )
    out += [
        Ask(
            node=node,
            op=model.by_name[node].op,
            slot=OUTPUT,
            calibration=name,
            asked=asked,
            rule=entries[node].output_rule,
            own=True,
            explicit=True,
        )
        for node, asked, name in _outputs(model, plan, entries)
    ]
    return tuple(out)


def _model_rule(config: Config) -> str:
    return DEFAULT if config.all_node_type == Config.all_node_type else "all_node_type"


def _input(config: Config, entry: Named, index: int) -> tuple[str, str, bool]:
    """Return what an input is asked for, the rule, and whether a default gives way to it."""
    if index in entry.inputs:
        return entry.inputs[index], f"{entry.input_rule}.input{index}", True
    if entry.qtype is None:
        return config.all_node_type, _model_rule(config), False
    if entry.qtype == INT16_EC:
        return (EC if index == 1 else INT16.name), entry.rule, True
    return _plain(entry.qtype), entry.rule, True


def _dual(entry: Named, index: int) -> bool:
    """Tell whether an operand is to be int16 beside an int16 one.

    ``dual-int16`` says so, and the vendor's tuner says it by both operands' names:
    ``{"input0": "int16", "input1": "int16"}`` (hmct-spec 4.1).
    """
    if index not in entry.inputs:
        return entry.qtype == DUAL_INT16
    return index > 0 and entry.inputs[index] == entry.inputs.get(0) == INT16.name


def _output(config: Config, entry: Named) -> tuple[str, str, bool]:
    if entry.qtype is not None:
        return _plain(entry.qtype), entry.rule, True
    if config.model_output_type is not None:
        return config.model_output_type, "model_output_type", True
    return config.all_node_type, _model_rule(config), False


def _plain(qtype: str) -> str:
    return INT16.name if qtype in (DUAL_INT16, INT16_EC) else qtype


def _outputs(
    model: Model, plan: Plan, entries: Mapping[str, Named]
) -> Iterator[tuple[str, str, str]]:
    """Yield (node, type, quantizer of its output) where an output type is asked for."""
    wanted = {node: entry.output for node, entry in entries.items() if entry.output is not None}
    if not wanted:
        return
    structure = structure_of(model)
    for calibration in plan.calibrations:
        source = structure.source(calibration.tensor)
        if source is not None and source.name in wanted:
            yield source.name, wanted[source.name], calibration.name
