"""What is done to a file before it is quantized: optimized, saved, loaded."""

from __future__ import annotations

import dataclasses

import numpy as np

from jptq.ir import Model, expand_units, from_bytes, optimize, to_bytes
from tools.fuzz import oracle
from tools.fuzz.compare import Difference
from tools.fuzz.floats import against_oracle
from tools.fuzz.graphs import Case


def optimized(case: Case, model: Model) -> Model:
    """Return the optimized graph of a case."""
    return optimize(model, input_shapes={n: a.shape for n, a in case.samples[0].items()})


def optimizer_differences(case: Case, result: Model) -> list[Difference]:
    """Return where the optimized graph differs from the original, both in onnxruntime."""
    content = to_bytes(expand_units(result))
    try:
        found = oracle.onnxruntime(content, case.samples)
    except oracle.Refused as refused:
        try:
            oracle.onnxruntime(case.content, case.samples[:1])
        except oracle.Refused:
            return []  # it has no kernel for the original either
        return [Difference(tensor="", what=f"onnxruntime refuses the optimized graph: {refused}")]
    changed = [
        Difference(tensor=name, what=f"optimized, it is {array.dtype}")
        for name, array in found[0].items()
        if array.dtype != case.expected[0][name].dtype
    ]
    return changed or [
        dataclasses.replace(one, what=f"optimized, {one.what}")
        for one in against_oracle(case, found)
    ]


def round_trip(model: Model) -> list[Difference]:
    """Return what changes when a model is saved and loaded: nothing may."""
    again = from_bytes(to_bytes(model))
    if to_bytes(again) != to_bytes(model):
        return [Difference(tensor="", what="saved and loaded, it is another file")]
    same = all(
        np.array_equal(array, again.initializers[name], equal_nan=array.dtype.kind == "f")
        for name, array in model.initializers.items()
    )
    return [] if same else [Difference(tensor="", what="saved and loaded, constants differ")]
