from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jptq.errors import ShapeError
from jptq.ops import recurrent
from tests.ops.agreement import check_against_onnxruntime, normal

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _inputs(name: str, directions: int, *, states: bool = True) -> list[np.ndarray | None]:
    gates, hidden, batch = GATES[name], 4, 2
    inputs: list[np.ndarray | None] = [
        normal(5, batch, 3),
        normal(directions, gates * hidden, 3, seed=1),
        normal(directions, gates * hidden, hidden, seed=2),
        normal(directions, 2 * gates * hidden, seed=3),
        np.array([5, 3], np.int32),
    ]
    if states:
        inputs.append(normal(directions, batch, hidden, seed=4))
        if name == "LSTM":
            inputs.append(normal(directions, batch, hidden, seed=5))
            inputs.append(normal(directions, 3 * hidden, seed=6))
    return inputs


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("name", GATES)
def test_sequences_agree_with_onnxruntime(name: str, direction: str) -> None:
    directions = 2 if direction == "bidirectional" else 1
    attributes: dict[str, Any] = {"direction": direction, "hidden_size": 4}
    check_against_onnxruntime(
        name,
        _inputs(name, directions),
        attributes,
        opset=14,
        n_outputs=3 if name == "LSTM" else 2,
    )


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("GRU", {"linear_before_reset": 1}),
        ("GRU", {"activations": ["HardSigmoid", "Softsign"], "activation_alpha": [0.3]}),
        ("LSTM", {"clip": 0.4}),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Elu"]}),
        ("RNN", {"activations": ["LeakyRelu"], "activation_alpha": [0.2]}),
    ],
)
def test_attributes_agree_with_onnxruntime(name: str, attributes: dict[str, Any]) -> None:
    check_against_onnxruntime(
        name, _inputs(name, 1), {"hidden_size": 4, **attributes}, opset=14, n_outputs=2
    )


def test_batch_first_moves_axes_only() -> None:
    x, w, r = (jnp.asarray(a) for a in _inputs("GRU", 1)[:3])
    y, last = jax.jit(recurrent.gru)(x, w, r)
    first = jax.jit(functools.partial(recurrent.gru, layout=1))
    y_first, last_first = first(x.swapaxes(0, 1), w, r)
    np.testing.assert_allclose(np.asarray(y_first), np.asarray(y.transpose(2, 0, 1, 3)), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(last_first), np.asarray(last.swapaxes(0, 1)), rtol=1e-6)


def test_a_coupled_forget_gate_is_one_minus_the_input_gate() -> None:
    x, w, r = (jnp.asarray(a) for a in _inputs("LSTM", 1)[:3])
    cells = recurrent.lstm(x, w, r, input_forget=1, activations=("Sigmoid", "Affine", "Tanh"))[2]
    assert np.isfinite(np.asarray(cells)).all()
    ones = recurrent.lstm(
        x, jnp.zeros_like(w), jnp.zeros_like(r), input_forget=1, initial_c=jnp.ones((1, 2, 4))
    )[2]
    np.testing.assert_allclose(np.asarray(ones), 0.5**5, rtol=1e-6)


def test_samples_and_gradients_pass_through_the_scan() -> None:
    x, w, r = (jnp.asarray(a) for a in _inputs("LSTM", 1)[:3])

    def last(x: jax.Array, w: jax.Array) -> jax.Array:
        return recurrent.lstm(x, w, r)[1].sum()

    @jax.jit
    def all_ways(x: jax.Array) -> tuple[jax.Array, ...]:
        together = jax.vmap(last, (0, None))(jnp.stack([x, 2 * x]), w)
        return together[1], last(2 * x, w), jax.grad(last, argnums=1)(x, w)

    together, alone, gradient = all_ways(x)
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert np.abs(np.asarray(gradient)).max() > 0


@pytest.mark.parametrize("name", ["ThresholdedRelu", "LeakyRelu", "Elu", "Softsign", "Softplus"])
def test_an_activation_is_the_one_of_onnxruntime_at_its_bend(name: str) -> None:
    x = np.array([-1, -0.5, 0, 0.5, 1, 1.5], np.float32).reshape(6, 1, 1)
    inputs = [x, np.ones((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32)]
    attributes: dict[str, Any] = {"activations": [name], "hidden_size": 1}
    if name in ("ThresholdedRelu", "LeakyRelu", "Elu"):
        attributes["activation_alpha"] = [0.5]
    check_against_onnxruntime("RNN", inputs, attributes, opset=14)


@pytest.mark.parametrize("name", ["Affine", "ScaledTanh", "HardSigmoid", "LeakyRelu", "Elu"])
@pytest.mark.parametrize("given", [{}, {"activation_alpha": [0.5]}, {"activation_beta": [0.25]}])
def test_numbers_that_an_activation_lacks_are_those_of_onnxruntime(
    name: str, given: dict[str, list[float]]
) -> None:
    x = np.array([-1, -0.5, 0, 0.5, 1, 1.5], np.float32).reshape(6, 1, 1)
    inputs = [x, np.ones((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32)]
    attributes: dict[str, Any] = {"activations": [name], "hidden_size": 1, **given}
    check_against_onnxruntime("RNN", inputs, attributes, opset=14)


def test_an_unknown_activation_is_refused_with_near_names() -> None:
    x, w, r = (jnp.asarray(a) for a in _inputs("RNN", 1)[:3])
    with pytest.raises(ShapeError, match="did you mean 'tanh'"):
        recurrent.rnn(x, w, r, activations=("Tahn",))


@pytest.mark.parametrize("directions", [1, 2])
def test_weights_for_another_number_of_directions_are_refused(directions: int) -> None:
    x, w, r = (jnp.asarray(a) for a in _inputs("RNN", directions)[:3])
    other = "forward" if directions == 2 else "bidirectional"
    with pytest.raises(ShapeError, match=f"weights of {directions} directions"):
        recurrent.rnn(x, w, r, direction=other)
