from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jptq.engine import trace
from jptq.errors import ShapeError
from jptq.ir import from_bytes
from jptq.ops import joining
from tests.graphs import Graph
from tests.ops.agreement import check_against_onnxruntime, check_lowering, normal
from tests.oracles import run_onnx


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_concat_agrees_with_onnxruntime() -> None:
    inputs = [normal(2, 1, 3), normal(2, 4, 3, seed=1), normal(2, 2, 3, seed=2)]
    check_against_onnxruntime("Concat", inputs, {"axis": -2}, opset=13)


def test_split_by_lengths_agrees_with_onnxruntime() -> None:
    inputs = [normal(2, 7), _ints(1, 4, 2)]
    check_against_onnxruntime("Split", inputs, {"axis": 1}, opset=18, n_outputs=3)


def test_the_last_of_equal_parts_is_smaller() -> None:
    attributes = {"axis": 1, "num_outputs": 3}
    check_against_onnxruntime("Split", [normal(2, 7)], attributes, opset=18, n_outputs=3)


def test_older_splits_take_the_number_of_parts_from_the_node() -> None:
    x = jnp.asarray(normal(4, 2))
    assert [part.shape for part in joining.split_13(x, n_outputs=2)] == [(2, 2), (2, 2)]
    assert [part.shape for part in joining.split_2(x, split=(1, 3))] == [(1, 2), (3, 2)]


def test_lengths_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ShapeError, match="4 positions"):
        joining.split(jnp.zeros((4, 2)), _ints(1, 2))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad_agrees_with_onnxruntime(mode: str) -> None:
    inputs = [normal(2, 3, 5), _ints(0, 1, 2, 0, 0, 3)]
    check_against_onnxruntime("Pad", inputs, {"mode": mode}, opset=19)


@pytest.mark.parametrize("mode", ["constant", "edge"])
def test_negative_pads_crop(mode: str) -> None:
    inputs = [normal(2, 3, 5), _ints(0, -1, 2, 0, 0, -3)]
    check_against_onnxruntime("Pad", inputs, {"mode": mode}, opset=19)


def test_pads_of_some_axes_and_a_value_agree_with_onnxruntime() -> None:
    inputs = [normal(2, 3, 5), _ints(1, 2, 3, 0), np.array(7, np.float32), _ints(-1, 0)]
    check_against_onnxruntime("Pad", inputs, opset=19)


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_channels_last_pad_equals_the_default(mode: str) -> None:
    inputs = [normal(2, 3, 4, 5), _ints(0, 1, 2, 0, 0, 0, 1, 3)]
    check_lowering("Pad", inputs, {"mode": mode}, opset=19, expected="channels last")


def test_channels_last_pad_by_attribute_equals_the_default() -> None:
    attributes = {"pads": [0, 1, 2, 0, 0, 0, 1, 3], "value": 2.0}
    check_lowering("Pad", [normal(2, 3, 4, 5)], attributes, opset=2, expected="channels last")


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
@pytest.mark.parametrize("opset", [10, 13])
def test_a_tensor_without_positions_is_padded_through_the_engine(
    shape: tuple[int, ...], opset: int
) -> None:
    g = Graph(opset)
    g.input("x", shape)
    pads = [1, 2] * len(shape)
    g.output(g.add("Pad", "x", pads=pads) if opset < 11 else g.add("Pad", "x", g.constant(pads)))
    feeds = {"x": normal(*shape)}
    (expected,) = run_onnx(g.proto(), feeds).values()
    (actual,) = trace(from_bytes(g.proto().SerializeToString()), feeds)(feeds).values()
    np.testing.assert_array_equal(actual, expected)


def test_a_scalar_is_padded_by_nothing_through_the_engine() -> None:
    g = Graph()
    g.input("x", ())
    g.output(g.add("Pad", "x", g.constant([])))
    feeds = {"x": np.float32(2.5)}
    (actual,) = trace(from_bytes(g.proto().SerializeToString()), feeds)(feeds).values()
    np.testing.assert_array_equal(actual, np.float32(2.5))


def test_an_unknown_pad_mode_is_refused() -> None:
    with pytest.raises(ShapeError, match="mirror"):
        joining.pad(jnp.zeros((2,)), _ints(1, 1), mode="mirror")


def test_an_odd_position_is_cut_at_the_end() -> None:
    y = joining.center_crop_pad(jnp.arange(6.0), _ints(3))
    np.testing.assert_array_equal(np.asarray(y), [1, 2, 3])
