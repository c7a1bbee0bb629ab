"""Recurrent networks: LSTM, GRU and RNN, scanned over time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from jptq.errors import ShapeError
from jptq.ops import activation
from jptq.ops.registry import op
from jptq.ops.traits import Cost, Ints, Traits
from jptq.ops.words import choose

Floats = tuple[float, ...]
Strings = tuple[str, ...]
Activation = Callable[[Array], Array]
State = tuple[Array, ...]

# Source: ONNX operator specification, LSTM-22: activations and their default alpha and beta.
_ACTIVATIONS: dict[str, Callable[..., Array]] = {
    "relu": lambda x, a, b: activation.relu(x),
    "tanh": lambda x, a, b: jnp.tanh(x),
    "sigmoid": lambda x, a, b: activation.sigmoid(x),
    "affine": lambda x, a, b: a * x + b,
    "leakyrelu": lambda x, a, b: activation.leaky_relu(x, alpha=a),
    "thresholdedrelu": lambda x, a, b: activation.thresholded_relu(x, alpha=a),
    "scaledtanh": lambda x, a, b: a * jnp.tanh(b * x),
    "hardsigmoid": lambda x, a, b: activation.hard_sigmoid(x, alpha=a, beta=b),
    "elu": lambda x, a, b: activation.elu(x, alpha=a),
    "softsign": lambda x, a, b: activation.softsign(x),
    "softplus": lambda x, a, b: activation.softplus(x),
}
_ALPHA = {"leakyrelu": 0.01, "thresholdedrelu": 1.0, "hardsigmoid": 0.2, "elu": 1.0}
_BETA = {"hardsigmoid": 0.5}
_TAKES_ALPHA = {*_ALPHA, "affine", "scaledtanh"}
_REVERSED = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
"""``direction``: which of the D parts of weights and state run backwards."""

_TAKES_BETA = {"affine", "scaledtanh", "hardsigmoid"}


def _resolve_activations(
    names: Sequence[str], alphas: Floats | None, betas: Floats | None
) -> list[Activation]:
    """Return one function per name; given alphas and betas go, in order, to those that take one.

    ONNX takes the defaults from the operators of these names. Affine and ScaledTanh are none:
    theirs are zero, as in onnxruntime, which has zero for ThresholdedRelu too, against ONNX's one.

    Raises:
      ShapeError: A name is no activation.
    """
    left_alpha, left_beta = list(alphas or ()), list(betas or ())
    resolved: list[Activation] = []
    for name in names:
        key = name.lower()
        function = choose(_ACTIVATIONS, key, "activation")
        alpha, beta = _ALPHA.get(key, 0.0), _BETA.get(key, 0.0)
        if key in _TAKES_ALPHA and left_alpha:
            alpha = left_alpha.pop(0)
        if key in _TAKES_BETA and left_beta:
            beta = left_beta.pop(0)
        resolved.append(partial(function, a=alpha, b=beta))
    return resolved


def _clipped(x: Array, clip: float | None) -> Array:
    return x if clip is None else jnp.clip(x, -clip, clip)


def _scan(
    step: Callable[[State, Array], State],
    inputs: Array,
    state: State,
    lengths: Array | None,
    *,
    reverse: bool,
) -> tuple[Array, State]:
    """Run one direction.

    Args:
      step: From the state (hidden first) and one input ``[B, G]`` to the next state.
      inputs: ``[T, B, G]``.
      state: Arrays ``[B, H]``.
      lengths: ``int[B]``: steps of each sample; beyond, outputs are zero and the state stays.
      reverse: Walk each sample from its last step to its first.

    Returns:
      Hidden states ``[T, B, H]`` in the order of the input, and the last state.
    """

    def body(carry: State, at: tuple[Array, Array]) -> tuple[State, Array]:
        time, x = at
        after = step(carry, x)
        if lengths is None:
            return after, after[0]
        running = (time < lengths)[:, None]
        kept = tuple(jnp.where(running, new, old) for new, old in zip(after, carry, strict=True))
        return kept, jnp.where(running, after[0], 0)

    times = jnp.arange(inputs.shape[0], dtype=jnp.int32)
    last, hidden = lax.scan(body, state, (times, inputs), reverse=reverse)
    return hidden, last


def _run(
    x: Array,
    w: Array,
    b: Array,
    sequence_lens: Array | None,
    initial: Sequence[Array | None],
    make_step: Callable[[int], Callable[[State, Array], State]],
    *,
    direction: str,
    hidden_size: int,
    layout: int,
) -> tuple[Array, ...]:
    """Run all directions and return ``Y`` and the last states in ONNX's layout.

    Args:
      x: ``[T, B, I]``, or ``[B, T, I]`` for layout 1.
      w: Input weights, ``[D, G * H, I]``.
      b: What is added to the input's products, ``[D, G * H]``.
      sequence_lens: ``int[B]`` or None.
      initial: Per state ``[D, B, H]`` or None (zeros); batch first for layout 1.
      make_step: Returns the step of direction d.
      direction: ``forward``, ``reverse`` or ``bidirectional``.
      hidden_size: H.
      layout: 0 for time first, 1 for batch first.

    Raises:
      ShapeError: The direction is unknown, or the weights have another number of directions.
    """
    backwards = choose(_REVERSED, direction, "direction")
    if len(backwards) != w.shape[0]:
        raise ShapeError(
            f"direction {direction!r} with weights of {w.shape[0]} directions",
            why=f"the first axis of the weights must have {len(backwards)}",
        )
    steps = x.swapaxes(0, 1) if layout else x
    lengths = None if sequence_lens is None else sequence_lens.astype(jnp.int32)
    states = []
    for given in initial:
        start = jnp.zeros((w.shape[0], steps.shape[1], hidden_size), x.dtype)
        if given is not None:
            start = given.swapaxes(0, 1) if layout else given
        states.append(start)
    hidden, last = [], []
    for d, reverse in enumerate(backwards):
        # One product for all steps leaves only the recurrent product inside the scan.
        inputs = jnp.matmul(steps, w[d].T) + b[d]
        outputs, final = _scan(
            make_step(d),
            inputs,
            tuple(state[d] for state in states),
            lengths,
            reverse=reverse,
        )
        hidden.append(outputs)
        last.append(final)
    y = jnp.stack(hidden, axis=1)
    finals = [jnp.stack(per_state) for per_state in zip(*last, strict=True)]
    if layout:
        return y.transpose(2, 0, 1, 3), *(final.swapaxes(0, 1) for final in finals)
    return y, *finals


def _recurrent_cost(x: Ints, w: Ints, r: Ints, *_: Ints, **__: object) -> Cost:
    """Count the input's and the state's products of every step and sample."""
    return Cost(macs=x[0] * x[1] * (math.prod(w) + math.prod(r)))


def _biases(b: Array | None, w: Array) -> tuple[Array, Array]:
    """Return the input's and the state's biases, ``[D, G * H]`` each."""
    if b is None:
        zeros = jnp.zeros(w.shape[:2], w.dtype)
        return zeros, zeros
    first, second = jnp.split(b, 2, axis=1)
    return first, second


_TRAITS = Traits.compute(features=(0,), weights={1: 1, 2: 1}, exact=(3, 4, 5), recurrent=True)
_LSTM_TRAITS = Traits.compute(
    features=(0,), weights={1: 1, 2: 1}, exact=(3, 4, 5, 6, 7), recurrent=True
)


@op("LSTM", since=(1, 7, 14, 22), traits=_LSTM_TRAITS, cost=_recurrent_cost)
def lstm(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    p: Array | None = None,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: Strings | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
    output_sequence: int = 0,
) -> tuple[Array, Array, Array]:
    """Run a long short-term memory.

    Args:
      x: ``[T, B, I]``.
      w: ``[D, 4 * H, I]``, gates i, o, f, c.
      r: ``[D, 4 * H, H]``.
      b: ``[D, 8 * H]``: the input's, then the state's biases.
      sequence_lens: ``int32[B]``.
      initial_h: ``[D, B, H]``.
      initial_c: ``[D, B, H]``.
      p: Peepholes, ``[D, 3 * H]``, gates i, o, f.

    Returns:
      Hidden states ``[T, D, B, H]`` and the last hidden and cell states ``[D, B, H]``. With
      ``layout=1`` the batch comes first everywhere.

    Source: ONNX operator specification, LSTM-22.
    """
    del output_sequence, hidden_size  # an output is asked for by its name; is r.shape[2]
    size = r.shape[2]
    names = activations or ("Sigmoid", "Tanh", "Tanh") * w.shape[0]
    functions = _resolve_activations(names, activation_alpha, activation_beta)
    input_bias, state_bias = _biases(b, w)

    def make_step(d: int) -> Callable[[State, Array], State]:
        f, g, h = functions[3 * d : 3 * d + 3]
        peepholes = None if p is None else jnp.split(p[d], 3)

        def step(state: State, inputs: Array) -> State:
            hidden, cell = state
            gates = inputs + jnp.matmul(hidden, r[d].T)
            i, o, forget, c = jnp.split(gates, 4, axis=1)
            if peepholes is not None:
                i = i + peepholes[0] * cell
                forget = forget + peepholes[2] * cell
            i = f(_clipped(i, clip))
            keep = 1 - i if input_forget else f(_clipped(forget, clip))
            after = keep * cell + i * g(_clipped(c, clip))
            if peepholes is not None:
                o = o + peepholes[1] * after
            return f(_clipped(o, clip)) * h(after), after

        return step

    y, y_h, y_c = _run(
        x,
        w,
        input_bias + state_bias,
        sequence_lens,
        (initial_h, initial_c),
        make_step,
        direction=direction,
        hidden_size=size,
        layout=layout,
    )
    return y, y_h, y_c


@op("GRU", since=(1, 3, 7, 14, 22), traits=_TRAITS, cost=_recurrent_cost)
def gru(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: Strings | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
    output_sequence: int = 0,
) -> tuple[Array, Array]:
    """Run gated recurrent units.

    Args:
      x: ``[T, B, I]``.
      w: ``[D, 3 * H, I]``, gates z, r, h.
      r: ``[D, 3 * H, H]``.
      b: ``[D, 6 * H]``: the input's, then the state's biases.
      sequence_lens: ``int32[B]``.
      initial_h: ``[D, B, H]``.

    Returns:
      Hidden states ``[T, D, B, H]`` and the last ones ``[D, B, H]``; batch first for ``layout=1``.

    Source: ONNX operator specification, GRU-22.
    """
    del output_sequence, hidden_size  # an output is asked for by its name; is r.shape[2]
    size = r.shape[2]
    names = activations or ("Sigmoid", "Tanh") * w.shape[0]
    functions = _resolve_activations(names, activation_alpha, activation_beta)
    input_bias, state_bias = _biases(b, w)

    def make_step(d: int) -> Callable[[State, Array], State]:
        f, g = functions[2 * d : 2 * d + 2]
        gates_r, new_r = r[d, : 2 * size].T, r[d, 2 * size :].T
        gates_b, new_b = state_bias[d, : 2 * size], state_bias[d, 2 * size :]

        def step(state: State, inputs: Array) -> State:
            (hidden,) = state
            gates = inputs[:, : 2 * size] + jnp.matmul(hidden, gates_r) + gates_b
            update, reset = jnp.split(f(_clipped(gates, clip)), 2, axis=1)
            if linear_before_reset:
                recurrent = reset * (jnp.matmul(hidden, new_r) + new_b)
            else:
                recurrent = jnp.matmul(reset * hidden, new_r) + new_b
            new = g(_clipped(inputs[:, 2 * size :] + recurrent, clip))
            return ((1 - update) * new + update * hidden,)

        return step

    y, y_h = _run(
        x,
        w,
        input_bias,
        sequence_lens,
        (initial_h,),
        make_step,
        direction=direction,
        hidden_size=size,
        layout=layout,
    )
    return y, y_h


@op("RNN", since=(1, 7, 14, 22), traits=_TRAITS, cost=_recurrent_cost)
def rnn(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: Strings = ("Tanh", "Tanh"),
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    output_sequence: int = 0,
) -> tuple[Array, Array]:
    """Run a plain recurrent network.

    Args:
      x: ``[T, B, I]``.
      w: ``[D, H, I]``.
      r: ``[D, H, H]``.
      b: ``[D, 2 * H]``: the input's, then the state's biases.
      sequence_lens: ``int32[B]``.
      initial_h: ``[D, B, H]``.

    Returns:
      Hidden states ``[T, D, B, H]`` and the last ones ``[D, B, H]``; batch first for ``layout=1``.

    Source: ONNX operator specification, RNN-22.
    """
    del output_sequence, hidden_size  # an output is asked for by its name; is r.shape[2]
    functions = _resolve_activations(activations, activation_alpha, activation_beta)
    input_bias, state_bias = _biases(b, w)

    def make_step(d: int) -> Callable[[State, Array], State]:
        def step(state: State, inputs: Array) -> State:
            return (functions[d](_clipped(inputs + jnp.matmul(state[0], r[d].T), clip)),)

        return step

    y, y_h = _run(
        x,
        w,
        input_bias + state_bias,
        sequence_lens,
        (initial_h,),
        make_step,
        direction=direction,
        hidden_size=r.shape[2],
        layout=layout,
    )
    return y, y_h
