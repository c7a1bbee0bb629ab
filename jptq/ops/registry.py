"""The table of operators: one function per operator and schema version.

A function's positional parameters are the schema's inputs lower-cased (variadic: ``*name``),
its keyword-only parameters the attributes with the schema's defaults, as hashable Python values.
Two keyword-only names are not attributes: ``n_outputs`` receives the number of outputs that the
node has, for the few operators where it matters (Split, MaxPool, LSTM), and ``**_`` swallows
attributes that do not change the result.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jptq.ops.traits import CostFunction, Layout, Traits

Function = Callable[..., Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lowering:
    """Another way to compute an operator, chosen per platform by measurement.

    Attributes:
      name: Unique beside the operator.
      function: Same signature as the operator's own function.
      platform: "cpu", "gpu", "tpu", or "" for all.
      when: ``when(*inputs, **attributes) -> bool``; inputs are shape-and-dtype structs in
        canonical (ONNX) axis order, None where absent.
      channels_last: The function takes its feature input and gives its output as
        ``[N, *spatial, C]``; the engine transposes only where the meaning demands it.
      pack: ``{input: function}`` brings a constant input into the form that `function` expects;
        run once per weight, not per call. An input that is not constant is packed on the way.
    """

    name: str
    function: Function
    platform: str = ""
    when: Callable[..., bool] = lambda *_, **__: True
    channels_last: bool = False
    pack: Mapping[int, Callable[..., Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Op:
    """One function and the schema versions it implements.

    Attributes:
      static: Names of inputs whose value the function needs as NumPy while tracing.
      inputs: Names of the positional parameters; the last may be variadic.
      counts_outputs: The function takes ``n_outputs``.
      open_attributes: The function swallows attributes that do not change the result.
      lowerings: In order of preference; the default function follows them.
    """

    name: str
    domain: str
    since: tuple[int, ...]
    function: Function
    traits: Traits
    static: tuple[str, ...]
    cost: CostFunction | None
    inputs: tuple[str, ...]
    variadic: bool
    attributes: tuple[str, ...]
    counts_outputs: bool
    open_attributes: bool
    lowerings: list[Lowering] = dataclasses.field(default_factory=list)

    def default(self, attribute: str) -> Any:
        """Return the default of an attribute."""
        return inspect.signature(self.function).parameters[attribute].default

    def is_static(self, index: int) -> bool:
        """Tell whether input ``index`` must be known while tracing."""
        return index < len(self.inputs) and self.inputs[index] in self.static


_OPS: dict[tuple[str, str], dict[int, Op]] = {}
_BY_FUNCTION: dict[Function, Op] = {}


def op(
    name: str,
    *,
    since: Sequence[int],
    traits: Traits,
    domain: str = "",
    static: Sequence[str] = (),
    cost: CostFunction | None = None,
) -> Callable[[Function], Function]:
    """Register a function as operator ``name`` for the schema versions in ``since``."""

    def register(function: Function) -> Function:
        parameters = list(inspect.signature(function).parameters.values())
        positional = [
            p
            for p in parameters
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)
        ]
        keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        entry = Op(
            name=name,
            domain=domain,
            since=tuple(since),
            function=function,
            traits=traits,
            static=tuple(static),
            cost=cost,
            inputs=tuple(p.name for p in positional),
            variadic=any(p.kind is p.VAR_POSITIONAL for p in positional),
            attributes=tuple(k for k in keywords if k != "n_outputs"),
            counts_outputs="n_outputs" in keywords,
            open_attributes=any(p.kind is p.VAR_KEYWORD for p in parameters),
        )
        versions = _OPS.setdefault((domain, name), {})
        for version in since:
            if version in versions:
                raise ValueError(f"{domain}::{name}-{version} is registered twice")
            versions[version] = entry
        _BY_FUNCTION.setdefault(function, entry)
        return function

    return register


def lowering(
    function: Function,
    name: str,
    *,
    platform: str = "",
    when: Callable[..., bool] | None = None,
    channels_last: bool = False,
    pack: Mapping[int, Callable[..., Any]] | None = None,
) -> Callable[[Function], Function]:
    """Register another way to compute the operator that ``function`` implements."""

    def register(other: Function) -> Function:
        _BY_FUNCTION[function].lowerings.append(
            Lowering(
                name=name,
                function=other,
                platform=platform,
                when=when or (lambda *_, **__: True),
                channels_last=channels_last,
                pack=dict(pack or {}),
            )
        )
        return other

    return register


def find(domain: str, name: str, version: int) -> Op | None:
    """Return the operator that a node of an opset ``version`` means, or None."""
    versions = _OPS.get((domain, name))
    if not versions:
        return None
    fitting = [since for since in versions if since <= version]
    return versions[max(fitting)] if fitting else None


def registered() -> list[Op]:
    """Return every registered entry once, in order of registration."""
    return list(
        {id(entry): entry for versions in _OPS.values() for entry in versions.values()}.values()
    )


__all__ = ["Layout", "Lowering", "Op", "Traits", "find", "lowering", "op", "registered"]
