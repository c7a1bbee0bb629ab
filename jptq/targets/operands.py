"""Which types each operand of an operator accepts on a target (hmct-spec 6.2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from jptq.errors import ConfigError, UnknownNameError

TYPES = ("int8", "int16", "float16")
"""Types that a target file may name, from coarse to fine; float32 is the host's."""

_KEYS = ("allowed", "dual", "ec", "source")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """What one operand accepts.

    Attributes:
      allowed: Types under a plain ``qtype``, from coarse to fine.
      dual: int16 is accepted if the node is ``dual-int16``.
      ec: A second operator can compensate what int8 loses.
      source: ``doc: ...`` or ``assumed: ...``.
    """

    allowed: tuple[str, ...] = ("int8", "int16")
    dual: bool = False
    ec: bool = False
    source: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operands:
    """Rules by operator type and input index.

    Attributes:
      default: The rule of all operands and results that no other one is about.
      alike: ``{operator type: rule}`` of all its operands and its result.
      rules: ``{(operator type, input index): rule}`` of single operands; these come first.
      outputs: ``{operator type: rule}`` of single results; likewise.
      epilogues: Operator types that the matrix unit applies to its own result: no quantizer
        stands between a matrix product and them (hmct-spec 5).
    """

    default: Rule = dataclasses.field(default_factory=Rule)
    alike: Mapping[str, Rule] = dataclasses.field(default_factory=dict)
    rules: Mapping[tuple[str, int], Rule] = dataclasses.field(default_factory=dict)
    outputs: Mapping[str, Rule] = dataclasses.field(default_factory=dict)
    epilogues: tuple[str, ...] = ()

    def rule(self, op_type: str, index: int) -> Rule:
        """Return the rule of one operand."""
        return self.rules.get((op_type, index), self.alike.get(op_type, self.default))

    def allowed(self, op_type: str, index: int) -> tuple[str, ...]:
        """Return the types that an operand accepts under a plain ``qtype``, coarse to fine."""
        return self.rule(op_type, index).allowed

    def dual(self, op_type: str, index: int) -> bool:
        """Tell whether an operand accepts int16 as part of a ``dual-int16`` node."""
        return self.rule(op_type, index).dual

    def ec(self, op_type: str, index: int) -> bool:
        """Tell whether an int8 operand can be compensated by a second operator."""
        return self.rule(op_type, index).ec

    def given_out(self, op_type: str) -> tuple[str, ...]:
        """Return the types that an operator gives its result out in, coarse to fine."""
        return self.outputs.get(op_type, self.alike.get(op_type, self.default)).allowed

    @property
    def ec_operands(self) -> tuple[tuple[str, int], ...]:
        """Operands ``(operator type, input index)`` that can be compensated, sorted."""
        return tuple(sorted(operand for operand, rule in self.rules.items() if rule.ec))

    @property
    def dual_ops(self) -> tuple[str, ...]:
        """Operator types that know ``dual-int16``, sorted."""
        return tuple(sorted({op_type for (op_type, _), rule in self.rules.items() if rule.dual}))


def parse_operands(content: Mapping[str, Any], *, where: str) -> Operands:
    """Read the ``[operands]`` table of a target file.

    Args:
      content: ``{"default": rule, "epilogues": [op, ...], "alike": [{"operators": [op, ...],
        **rule}, ...], "<Op>": {"<input index>": rule, "output": rule}}``.
      where: The file, for errors.

    Raises:
      ConfigError: An entry is malformed.
    """
    rules, outputs = {}, {}
    for op_type, inputs in content.items():
        if op_type in ("default", "epilogues", "alike"):
            continue
        for index, entry in inputs.items():
            if index == "output":
                outputs[op_type] = _rule(entry, where=f"{where}: operands.{op_type}.output")
                continue
            if not index.isdecimal():
                raise ConfigError(
                    f"{index!r} is no input index", where=f"{where}: operands.{op_type}"
                )
            rules[op_type, int(index)] = _rule(entry, where=f"{where}: operands.{op_type}.{index}")
    default = content.get("default")
    return Operands(
        default=Rule() if default is None else _rule(default, where=f"{where}: operands.default"),
        alike=_alike(content.get("alike", ()), where=f"{where}: operands.alike"),
        rules=rules,
        outputs=outputs,
        epilogues=tuple(content.get("epilogues", ())),
    )


def _alike(entries: Iterable[Mapping[str, Any]], *, where: str) -> dict[str, Rule]:
    """Read the rules that several operator types share."""
    found: dict[str, Rule] = {}
    for entry in entries:
        rule = _rule({k: v for k, v in entry.items() if k != "operators"}, where=where)
        for op_type in entry.get("operators", ()):
            if op_type in found:
                raise ConfigError(f"{op_type} stands in two lists", where=where)
            found[op_type] = rule
    return found


def _rule(entry: Mapping[str, Any], *, where: str) -> Rule:
    for key in entry:
        if key not in _KEYS:
            raise UnknownNameError("key", key, _KEYS, where=where)
    allowed = tuple(entry.get("allowed", Rule.allowed))
    for name in allowed:
        if name not in TYPES:
            raise UnknownNameError("type", name, TYPES, where=where)
    if not allowed or list(allowed) != sorted(allowed, key=TYPES.index):
        raise ConfigError("'allowed' lists types from coarse to fine", where=where)
    return Rule(
        allowed=allowed,
        dual=bool(entry.get("dual")),
        ec=bool(entry.get("ec")),
        source=str(entry.get("source", "")),
    )
