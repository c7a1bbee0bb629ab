"""Which tensors carry a quantizer, and which nodes each quantizer belongs to.

A `Plan` is read off a calibrated graph (`plan_of`), never stored beside it: the graph is the only
state that passes between commands (design 1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property

from jptq.errors import UnknownNameError
from jptq.targets import Integers

FEATURE = "feature"
WEIGHT = "weight"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """One quantizer on one tensor.

    Attributes:
      name: Name of its HzCalibration node.
      tensor: The tensor it reads; its output replaces that tensor for every consumer.
      output: The tensor it writes.
      kind: `FEATURE` or `WEIGHT`.
      axis: Channel axis if it may hold a scale per channel, else None.
      channels: Number of scales that it has room for; one threshold stands for all of them.
      asymmetric: Thresholds are a range [min, max].
      allowed: Types that the target accepts here under a plain ``qtype``, from coarse to fine.
      dual: The target accepts int16 here as the second operand of a ``dual-int16`` node.
      constant: The tensor is an initializer.
      compensated: It is one half of an operand that was split (`jptq.quant.compensate`), or of
        what is sampled from one: int16 would gain nothing here.
      pinned: Type that a configuration names for it, which no search changes; None leaves the
        choice among `allowed`.
    """

    name: str
    tensor: str
    output: str
    kind: str
    axis: int | None = None
    channels: int = 1
    asymmetric: bool = False
    allowed: tuple[str, ...]
    dual: bool = False
    constant: bool = False
    compensated: bool = False
    pinned: str | None = None

    @property
    def choices(self) -> tuple[str, ...]:
        """The types that a search may give it under a plain ``qtype``, from coarse to fine."""
        return self.allowed if self.pinned is None else (self.pinned,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slots:
    """The quantizers of one node.

    Attributes:
      node: Node name.
      op: Operator type.
      inputs: ``{input index: calibration name}``, looked through value-preserving operators
        (hmct-spec 1.5). These are what the node's sensitivity switches on (hmct-spec 3.2).
      output: Calibration at its output, if the output is no other node's input but a graph
        output: its type follows the node's own.
    """

    node: str
    op: str
    inputs: Mapping[int, str]
    output: str | None = None

    @cached_property
    def calibrations(self) -> tuple[str, ...]:
        """Distinct calibrations on the inputs, in input order."""
        return tuple(dict.fromkeys(self.inputs.values()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sum:
    """A node that adds up products of two quantized operands.

    In units of ``factor * s_features * s_weights`` its result is an integer, and the target adds
    the bias as one (`jptq.targets.integers`).

    Attributes:
      node: Its name.
      op: Operator type.
      features: Index of the quantizer of input 0 in the plan.
      weights: The same of input 1.
      kernel_axis: Axis of input 1 that becomes the result's channels.
      axis: Axis of the result along which the scales of `weights` differ, or None.
      groups: How often those scales repeat along it (groups of a transposed convolution).
      depthwise: Scales per channel of `features`, if there are any, are those of the result's
        channels; otherwise such scales have no common unit.
      factor: What the node multiplies the products by (Gemm's alpha).
      bias: The tensor that is added in the same integers, "" if there is none.
      bias_factor: What it is multiplied by (Gemm's beta).
      adder: The node of its own that adds it, "" if the node itself does.
    """

    node: str
    op: str
    features: int
    weights: int
    kernel_axis: int = -1
    axis: int | None = None
    groups: int = 1
    depthwise: bool = False
    factor: float = 1.0
    bias: str = ""
    bias_factor: float = 1.0
    adder: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """All quantizers of a calibrated graph.

    Attributes:
      calibrations: In graph order.
      slots: Nodes that own at least one calibration, in graph order.
      sums: Products of quantized operands, in graph order; none without a target.
      integers: What the target adds `sums` up in; None without a target.
      strict: A forward keeps them within that; otherwise it adds exactly.
    """

    calibrations: tuple[Calibration, ...]
    slots: tuple[Slots, ...]
    sums: tuple[Sum, ...] = ()
    integers: Integers | None = None
    strict: bool = False

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Position of each calibration by name."""
        return {calibration.name: i for i, calibration in enumerate(self.calibrations)}

    @cached_property
    def by_node(self) -> Mapping[str, Slots]:
        """Slots by node name."""
        return {slots.node: slots for slots in self.slots}

    @cached_property
    def owners(self) -> Mapping[str, tuple[str, ...]]:
        """Nodes that own each calibration, in graph order."""
        found: dict[str, list[str]] = {calibration.name: [] for calibration in self.calibrations}
        for slots in self.slots:
            for name in dict.fromkeys((*slots.calibrations, *filter(None, (slots.output,)))):
                found[name].append(slots.node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Start of each calibration's scales in a packed table, and the total at the end."""
        starts = [0]
        for calibration in self.calibrations:
            starts.append(starts[-1] + calibration.channels)
        return tuple(starts)

    def calibration(self, name: str) -> Calibration:
        """Return a calibration by name.

        Raises:
          UnknownNameError: There is none of this name.
        """
        if name not in self.index:
            raise UnknownNameError("calibration", name, self.index)
        return self.calibrations[self.index[name]]

    def of_node(self, node: str) -> Slots:
        """Return the slots of a node.

        Raises:
          UnknownNameError: The node does not exist or has no quantizer on its inputs.
        """
        if node not in self.by_node:
            raise UnknownNameError("node with quantizers", node, self.by_node)
        return self.by_node[node]

    def pinned(self, types: Mapping[str, str]) -> Plan:
        """Return the plan in which some quantizers keep a type, see `Calibration.pinned`."""
        return self._with(lambda one: dataclasses.replace(one, pinned=types.get(one.name)))

    @cached_property
    def unpinned(self) -> Plan:
        """The plan with all that the target allows."""
        return self.pinned({})

    @cached_property
    def without_dual(self) -> Plan:
        """The plan in which second operands stay what a plain ``qtype`` makes them."""
        return self._with(lambda one: dataclasses.replace(one, dual=False))

    def _with(self, change: Callable[[Calibration], Calibration]) -> Plan:
        return dataclasses.replace(self, calibrations=tuple(map(change, self.calibrations)))

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Calibrations that change their type together, in graph order; each is in one group.

        Each calibration is a group of its own, except that the one at a graph output joins the
        first input of the node that produces it: a config can only say the node's type
        (hmct-spec 4.3).
        """
        leader = {calibration.name: calibration.name for calibration in self.calibrations}
        for slots in self.slots:
            if slots.output is None or "int16" not in self.calibration(slots.output).choices:
                continue
            for name in slots.calibrations:
                if "int16" in self.calibration(name).choices and name != slots.output:
                    leader[slots.output] = leader[name]
                    break
        members: dict[str, list[str]] = {}
        for calibration in self.calibrations:
            members.setdefault(leader[calibration.name], []).append(calibration.name)
        return tuple(tuple(names) for names in members.values())
