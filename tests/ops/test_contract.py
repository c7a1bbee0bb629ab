"""Every registered operator against its schemas: names, defaults, versions, completeness."""

from __future__ import annotations

import collections
import inspect
import keyword

import numpy as np
import onnx
import pytest

from jptq.ops import Kind, Layout, Op, registered
from jptq.ops.not_yet import NOT_YET

Schemas = dict[str, dict[int, onnx.defs.OpSchema]]


LEGACY = "consumed_inputs"  # of opset 5 and before: a hint for memory, without meaning for values
DEFAULTS_IN_WORDS = {
    ("Concat", 1, "axis"): 1,
    ("Reshape", 1, "shape"): (),
}
"""Defaults that ONNX states in a description only."""


def _schemas() -> Schemas:
    found: Schemas = collections.defaultdict(dict)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            found[schema.name][schema.since_version] = schema
    return dict(found)


SCHEMAS = _schemas()
ENTRIES = [entry for entry in registered() if entry.domain == ""]
IS_OLD = onnx.defs.onnx_opset_version() < max(entry.since[-1] for entry in ENTRIES)
"""Whether the installed onnx lacks versions that we have: it judges those that it knows."""

JUDGED = [e for e in ENTRIES if not IS_OLD or set(e.since) <= set(SCHEMAS.get(e.name, ()))]
VERSIONS: dict[str, set[int]] = collections.defaultdict(set)
for _entry in ENTRIES:
    if _known := {v for v in _entry.since if not IS_OLD or v in SCHEMAS.get(_entry.name, ())}:
        VERSIONS[_entry.name] |= _known


def _name(entry: Op) -> str:
    return f"{entry.name}-{entry.since[-1]}"


every_entry = pytest.mark.parametrize("entry", JUDGED, ids=_name)


def _parameters(entry: Op, *kinds: inspect._ParameterKind) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(entry.function).parameters.values() if p.kind in kinds]


def _legal(name: str) -> str:
    """Return a schema's input name as a parameter may be called."""
    lowered = name.lower()
    return f"{lowered}_" if keyword.iskeyword(lowered) else lowered


def _default(attribute: onnx.defs.OpSchema.Attribute) -> object:
    value = attribute.default_value
    if not value.name:
        return inspect.Parameter.empty if attribute.required else None
    found = onnx.helper.get_attribute_value(value)
    if isinstance(found, bytes):
        return found.decode()
    if isinstance(found, int | float):
        return found
    return tuple(item.decode() if isinstance(item, bytes) else item for item in found)


def _are_equal(ours: object, theirs: object) -> bool:
    if isinstance(ours, float) and isinstance(theirs, float):
        return np.float32(ours) == np.float32(theirs)  # the schema holds 0.2 in single precision
    return ours == theirs and type(ours) is type(theirs)


@every_entry
def test_versions_exist_in_onnx(entry: Op) -> None:
    assert set(entry.since) <= set(SCHEMAS[entry.name])
    assert list(entry.since) == sorted(entry.since)


@pytest.mark.parametrize("name", sorted(VERSIONS))
def test_versions_have_no_gap_and_reach_the_newest(name: str) -> None:
    oldest = min(VERSIONS[name])
    assert {version for version in SCHEMAS[name] if version >= oldest} == VERSIONS[name]


@pytest.mark.parametrize("name", sorted(VERSIONS))
def test_opset_8_and_later_are_covered(name: str) -> None:
    in_opset_8 = max((v for v in SCHEMAS[name] if v <= 8), default=min(SCHEMAS[name]))
    assert in_opset_8 in VERSIONS[name]


@every_entry
def test_positional_parameters_are_the_inputs_of_the_schema(entry: Op) -> None:
    newest = SCHEMAS[entry.name][entry.since[-1]]
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    ours = [p.name for p in _parameters(entry, *kinds)]
    assert ours == [_legal(name.name) for name in newest.inputs]
    for version in entry.since:  # older schemas may lack the last inputs, or call them otherwise
        assert len(SCHEMAS[entry.name][version].inputs) <= len(ours)


@every_entry
def test_optional_inputs_and_only_they_may_be_left_out(entry: Op) -> None:
    formal = onnx.defs.OpSchema.FormalParameterOption
    optional = [
        any(
            index >= len(schema.inputs) or schema.inputs[index].option == formal.Optional
            for schema in (SCHEMAS[entry.name][version] for version in entry.since)
        )
        for index in range(len(entry.inputs))
    ]
    for parameter, may_be_absent in zip(
        _parameters(entry, inspect.Parameter.POSITIONAL_OR_KEYWORD), optional, strict=False
    ):
        assert (parameter.default is None) == may_be_absent, parameter.name


@every_entry
def test_variadic_inputs_are_variadic(entry: Op) -> None:
    formal = onnx.defs.OpSchema.FormalParameterOption
    inputs = SCHEMAS[entry.name][entry.since[-1]].inputs
    assert entry.variadic == bool(inputs and inputs[-1].option == formal.Variadic)


@every_entry
def test_keywords_are_the_attributes_with_their_defaults(entry: Op) -> None:
    schemas = [SCHEMAS[entry.name][version] for version in entry.since]
    known = {name: a for schema in schemas for name, a in schema.attributes.items()}
    swallows = bool(_parameters(entry, inspect.Parameter.VAR_KEYWORD))
    ours = {
        p.name: p.default
        for p in _parameters(entry, inspect.Parameter.KEYWORD_ONLY)
        if p.name not in ("n_outputs", LEGACY)
    }
    assert set(ours) <= set(known)
    assert swallows or set(ours) == set(known) - {LEGACY}
    for name, default in ours.items():
        in_words = (entry.name, entry.since[0], name)
        theirs = DEFAULTS_IN_WORDS.get(in_words, _default(known[name]))
        assert _are_equal(default, theirs), f"{name}: {default!r}, in ONNX {theirs!r}"


@every_entry
def test_traits_and_static_inputs_name_what_exists(entry: Op) -> None:
    assert set(entry.static) <= set(entry.inputs)
    assert set(entry.traits.axes) <= {*entry.attributes, *entry.static}
    assert (entry.traits.layout is Layout.AXES) == bool(entry.traits.axes)
    quantized = {*(entry.traits.features or ()), *entry.traits.weights, entry.traits.through}
    assert entry.variadic or all(index < max(1, len(entry.inputs)) for index in quantized)
    assert not set(entry.traits.exact) & set(entry.traits.features or ())


def test_look_through_is_the_set_of_the_vendor() -> None:
    names = {entry.name for entry in ENTRIES if entry.traits.look_through}
    pooling_and_relu = {"MaxPool", "GlobalMaxPool", "Relu", "Clip", "ReduceMax"}
    moving = {"Reshape", "Transpose", "Split", "Slice", "Gather", "ScatterND"}
    assert names == pooling_and_relu | moving


def test_only_relu_and_clip_are_fusable() -> None:
    assert {e.name for e in ENTRIES if e.traits.kind is Kind.FUSABLE} == {"Relu", "Clip"}


def test_every_operator_of_onnx_is_registered_or_named_as_missing() -> None:
    assert set(SCHEMAS) - set(VERSIONS) - set(NOT_YET) == set()


def test_nothing_is_both_registered_and_named_as_missing() -> None:
    assert set(NOT_YET) & set(VERSIONS) == set()


def test_what_is_named_as_missing_exists_and_has_a_reason() -> None:
    assert set(NOT_YET) <= set(SCHEMAS)
    assert all(len(reason) > 10 for reason in NOT_YET.values())
    assert list(NOT_YET) == sorted(NOT_YET)
