"""Frozen dataclasses that JAX can pass through jitted functions."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


def static(**kwargs: Any) -> Any:
    """Declare a dataclass field that is part of the structure, not data."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(static,))
def pytree(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen, keyword-only dataclass registered as a pytree."""
    cls = dataclasses.dataclass(frozen=True, kw_only=True, eq=False)(cls)
    names = {True: [], False: []}  # type: dict[bool, list[str]]
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        names[bool(field.metadata.get("static"))].append(field.name)
    jax.tree_util.register_dataclass(cls, data_fields=names[False], meta_fields=names[True])
    return cls
