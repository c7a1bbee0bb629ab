"""Words that no attribute knows are refused, wherever they stand."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from jptq.engine import trace
from jptq.errors import ShapeError
from jptq.ir import from_bytes
from tests.graphs import Graph
from tests.ops.agreement import Inputs, entry_of, normal

_IMAGE = normal(1, 4, 4, 4)
_RESIZED: Inputs = [_IMAGE, None, np.array([1, 1, 2, 2], np.float32)]
_SAMPLED: Inputs = [_IMAGE, normal(1, 2, 2, 2)]
_REGIONS: Inputs = [_IMAGE, np.array([[0, 0, 3, 3]], np.float32), np.array([0])]
_REGION = {"sampling_ratio": 2}

CASES: list[tuple[str, Inputs, str, str, dict[str, Any]]] = [
    ("Resize", _RESIZED, "mode", "linear", {}),
    ("Resize", _RESIZED, "nearest_mode", "floor", {}),
    ("Resize", _RESIZED, "coordinate_transformation_mode", "half_pixel", {}),
    ("Resize", _RESIZED, "keep_aspect_ratio_policy", "stretch", {}),
    ("GridSample", _SAMPLED, "mode", "linear", {}),
    ("GridSample", _SAMPLED, "padding_mode", "border", {}),
    ("RoiAlign", _REGIONS, "mode", "avg", _REGION),
    ("RoiAlign", _REGIONS, "coordinate_transformation_mode", "half_pixel", _REGION),
    ("DepthToSpace", [_IMAGE], "mode", "DCR", {"blocksize": 2}),
    ("Conv", [_IMAGE, normal(1, 4, 2, 2)], "auto_pad", "VALID", {}),
    ("ConvTranspose", [_IMAGE, normal(4, 1, 2, 2)], "auto_pad", "SAME_UPPER", {}),
    ("AveragePool", [_IMAGE], "auto_pad", "VALID", {"kernel_shape": (2, 2)}),
    ("Pad", [_IMAGE, np.array([0] * 8)], "mode", "edge", {}),
    ("Gelu", [_IMAGE], "approximate", "tanh", {}),
    *(
        (name, [normal(2, 1, 2), normal(1, gates, 2), normal(1, gates, 2)], "direction", word, {})
        for name, gates in (("LSTM", 8), ("GRU", 6), ("RNN", 2))
        for word in ("forward", "reverse")
    ),
]


@pytest.mark.parametrize(
    ("name", "inputs", "attribute", "word", "others"),
    CASES,
    ids=[f"{name} {attribute} {word}" for name, _, attribute, word, _ in CASES],
)
def test_a_misspelled_word_is_refused_with_the_one_that_was_meant(
    name: str, inputs: Inputs, attribute: str, word: str, others: dict[str, Any]
) -> None:
    function = entry_of(name, 22).function
    jax.eval_shape(lambda: function(*inputs, **{attribute: word}, **others))
    with pytest.raises(ShapeError, match=f"unknown {attribute}") as caught:
        function(*inputs, **{attribute: f"{word}X"}, **others)
    assert repr(word) in caught.value.hint


def test_the_node_with_the_unknown_word_is_named() -> None:
    g = Graph()
    g.input("x", (1, 1, 4, 4))
    scales = g.constant(np.array([1, 1, 2, 2], np.float32))
    g.output(g.add("Resize", "x", "", scales, mode="bilinear", name="neck"))
    with pytest.raises(ShapeError, match="unknown mode 'bilinear'") as caught:
        trace(from_bytes(g.proto().SerializeToString()), {"x": normal(1, 1, 4, 4)})
    assert "'neck'" in caught.value.where
