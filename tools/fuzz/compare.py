"""How far two computations of one graph may differ.

Two correct float32 programs add in different orders and round intermediate results in different
places. What that can change is measured on the graph itself, in onnxruntime:

- ``magnitude``: what the graph gives for the absolute values of its inputs and weights. For sums of
  products that is the sum of the magnitudes of all terms, in units of which rounding errors count;
- ``nudged``: how far results move when inputs and weights move by a unit in the last place: the
  error that any rounding before an operator is multiplied by.

- ``own``: how far onnxruntime is from ONNX's evaluator in float64. What an operator loses inside
  (the 1 of ``exp(x) - 1``) neither of the others sees.

- ``of one``: what ``exp(x) - 1`` loses of the 1, whatever x is.

An element may differ by ``TERMS`` roundings of the tensor's largest value and of its magnitude, by
``MOVED`` times what the nudges move it and by ``OWN`` times onnxruntime's own error. Integers and
booleans are equal.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from tools.fuzz import oracle
from tools.fuzz.oracle import Arrays, Refused

TERMS = 32
"""Longest chains of additions hold a few hundred terms; their errors add like a random walk."""

MOVED = 16
"""Two nudges see the size of an error, not its worst case."""

OWN = 8
"""Another implementation may lose a few times as much."""

_LESS_ONE = {"Elu": 8, "Selu": 8, "Celu": 8}
"""``{operator: roundings of 1}`` of what computes ``exp(x) - 1``: the largest factor in our graphs
(``alpha * gamma`` up to 4), twice."""

_FLUSHED = 2.0**-125
"""XLA takes numbers below the smallest normal one as zero."""

_NUDGES = 2
_MOST_OWN = 1e-3
"""Share of the largest value beyond which it is no rounding error: one of the two is wrong."""

_EPS = {np.dtype(np.float16): 2.0**-11, np.dtype(np.float32): 2.0**-24}
_PARAMETERS = frozenset(
    {
        "Resize",
        "Upsample",
        "RoiAlign",
        "Range",
        "Pad",
        "QuantizeLinear",
        "DequantizeLinear",
        "Dropout",
    }
)
"""Their constants are settings: a last bit decides about shapes and places."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """Two results that should be one.

    Attributes:
      tensor: Its name.
      what: In words.
      explained: Name of the reason (`reasons`), if there is one.
      distance: As a share of the tensor's length.
    """

    tensor: str
    what: str
    explained: str = ""
    distance: float = np.inf


def eps_of(dtype: np.dtype) -> float:
    """Return half a unit in the last place of 1; our programs hold float64 as float32."""
    return _EPS.get(dtype, 2.0**-24)


def unequal(
    got: np.ndarray, want: np.ndarray, allowance: Callable[[], np.ndarray | float]
) -> str | None:
    """Return how two arrays differ, or None.

    Args:
      got: Ours, in the type that the graph declares.
      want: The oracle's.
      allowance: How far elements may be apart, beside `TERMS` roundings of the largest value; asked
        for if that is not enough.
    """
    if got.shape != want.shape:
        return f"shape {got.shape}, expected {want.shape}"
    if want.dtype.kind != "f":
        bad = got.astype(want.dtype) != want
        return _worst(got, want, bad) if bad.any() else None
    error = apart(got, want)
    largest = np.max(np.nan_to_num(np.abs(want.astype(np.float64)), posinf=0.0), initial=0.0)
    limit = TERMS * eps_of(want.dtype) * largest + _FLUSHED
    bad = ~(error <= limit)
    if not bad.any():
        return None
    bad = ~(error <= limit + allowance())
    return _worst(got, want, bad) if bad.any() else None


def apart(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Return how far numbers are from each other, ``float64`` of the common shape.

    0 where both are the same infinity or no numbers; infinite where one alone is not finite.
    """
    mine, theirs = got.astype(np.float64), want.astype(np.float64)
    same = (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
    with np.errstate(invalid="ignore"):  # of two infinities
        error = np.abs(mine - theirs)
    return np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))


def misplaced(
    made: np.ndarray, want: np.ndarray, x: np.ndarray, scale: np.ndarray | None
) -> np.ndarray:
    """Return where two quantizers of one type made different values of a tensor.

    Only on a boundary of float16, and where the quotient by the scale rounds to a tie, may they
    part, by one step.

    Args:
      made: By one quantizer.
      want: By the other.
      x: What both were given.
      scale: A step of the integers, to broadcast with `x`; None for float16.
    """
    if scale is None:
        size = np.where(np.isfinite(want), np.abs(want), 0.0)
        return np.asarray(apart(made, want) > 2.0**-10 * size + 2.0**-24)
    place = np.where(np.isfinite(x), x, 0.0) / scale  # infinities lie on no boundary
    steps = apart(made, want) / scale
    tie = np.abs(place - np.floor(place) - 0.5) <= 2.0**-22 * np.maximum(np.abs(place), 1)
    return np.asarray((steps > 1.01) | ((steps > 1e-3) & ~tie))


def distance(got: np.ndarray, want: np.ndarray) -> float:
    """Return the distance of two arrays as a share of the length of the second.

    Integers have none: whether they may differ, their operator alone can say.
    """
    if got.shape != want.shape:
        return np.inf
    if want.dtype.kind != "f":
        return 0.0
    error = float(np.linalg.norm(apart(got, want)))
    length = float(np.linalg.norm(want[np.isfinite(want)].astype(np.float64)))
    return error / max(length, 1e-30)


def _worst(got: np.ndarray, want: np.ndarray, bad: np.ndarray) -> str:
    far = np.where(bad, apart(got, want), -1.0)
    spot = np.unravel_index(int(np.argmax(far)), far.shape) if far.ndim else ()
    return (
        f"{int(bad.sum())} of {bad.size} elements, worst {got[spot]!r} for {want[spot]!r} "
        f"at {tuple(int(i) for i in spot)}"
    )


class Allowance:
    """What rounding can change in a graph, measured when it is asked for."""

    def __init__(self, content: bytes, samples: Sequence[Mapping[str, np.ndarray]]) -> None:
        self._content = content
        self._samples = samples
        self._found: tuple[list[Arrays], list[list[Arrays]]] | None = None
        self._precise: list[Arrays] | None = None

    def __call__(self, name: str, want: np.ndarray, sample: int) -> np.ndarray | float:
        """Return how far the elements of an output may be apart."""
        magnitude, moved = self._measured()
        plain = self._plain[sample].get(name)
        if plain is None or plain.shape != want.shape or plain.dtype.kind != "f":
            return 0.0
        plain = plain.astype(np.float64)
        allowed = np.full(want.shape, self._of_one.get(name, 0.0))
        if magnitude and magnitude[sample][name].shape == want.shape:
            size = np.abs(magnitude[sample][name].astype(np.float64))
            allowed += TERMS * eps_of(want.dtype) * np.nan_to_num(size, posinf=0.0)
        with np.errstate(invalid="ignore"):
            moves = [
                np.nan_to_num(np.abs(one[sample][name].astype(np.float64) - plain), posinf=0.0)
                for one in moved
                if one[sample][name].shape == want.shape
            ]
        if moves:
            most = np.max(moves, axis=0)
            allowed += MOVED * np.maximum(most, 0.1 * np.max(most, initial=0.0))
        return allowed + OWN * self._own(name, plain, sample)

    @functools.cached_property
    def _of_one(self) -> Mapping[str, float]:
        """Return what is lost of the 1, by the tensors that lose it."""
        nodes = onnx.load_model_from_string(self._content).graph.node
        return {
            node.output[0]: _LESS_ONE[node.op_type] * eps_of(np.dtype(np.float32))
            for node in nodes
            if node.op_type in _LESS_ONE
        }

    def _own(self, name: str, plain: np.ndarray, sample: int) -> float:
        """Return onnxruntime's error on a tensor, 0 if it is not known or no rounding error."""
        if self._precise is None:
            try:
                self._precise = oracle.reference(*_changed(self._content, self._samples, _double))
            except Refused:
                self._precise = []
        if not self._precise or self._precise[sample][name].shape != plain.shape:
            return 0.0
        with np.errstate(invalid="ignore"):
            apart = np.abs(self._precise[sample][name].astype(np.float64) - plain)
        error = float(np.max(np.nan_to_num(apart, posinf=0.0), initial=0.0))
        largest = float(np.max(np.nan_to_num(np.abs(plain), posinf=0.0), initial=0.0))
        return error if error <= _MOST_OWN * largest else 0.0

    def _measured(self) -> tuple[list[Arrays], list[list[Arrays]]]:
        if self._found is None:
            self._plain = _run(self._content, self._samples)
            magnitude = _run(*_changed(self._content, self._samples, np.abs))
            moved = []
            for seed in range(_NUDGES):
                rng = np.random.default_rng(seed)

                def nudge(a: np.ndarray, rng: np.random.Generator = rng) -> np.ndarray:
                    step = 4 * eps_of(a.dtype)
                    return (a * (1 + step * rng.choice([-1.0, 1.0], a.shape))).astype(a.dtype)

                moved.append(_run(*_changed(self._content, self._samples, nudge)))
            self._found = magnitude, [one for one in moved if one]
        return self._found


def _double(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


def _run(content: bytes, samples: Sequence[Mapping[str, np.ndarray]]) -> list[Arrays]:
    for run in (oracle.onnxruntime, oracle.reference):
        try:
            return run(content, samples)
        except Refused:
            continue
    return []


def _changed(
    content: bytes,
    samples: Sequence[Mapping[str, np.ndarray]],
    change: Callable[[np.ndarray], np.ndarray],
) -> tuple[bytes, list[Arrays]]:
    """Return a graph and its feeds with every float array changed, settings aside."""
    model = onnx.load_model_from_string(content)
    settings = {
        name for node in model.graph.node if node.op_type in _PARAMETERS for name in node.input[1:]
    }
    tensors = [tensor for tensor in model.graph.initializer if tensor.name not in settings]
    tensors += [
        attribute.t
        for node in model.graph.node
        if node.op_type == "Constant" and node.output[0] not in settings
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    for tensor in tensors:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f":
            tensor.CopyFrom(numpy_helper.from_array(change(array), tensor.name))
    feeds = [
        {name: change(a) if a.dtype.kind == "f" else a for name, a in one.items()}
        for one in samples
    ]
    return model.SerializeToString(), feeds
