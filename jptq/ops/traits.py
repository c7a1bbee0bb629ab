"""What is true of an operator on every target: how it treats scales, layouts and cost."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping

from jptq.ops.intervals import Reach
from jptq.ops.reach import JOINS, MOVES

Ints = tuple[int, ...]


BIAS = 2
"""Input that is added to a sum of products (`Traits.sums_products`)."""


class Kind(enum.Enum):
    """How an operator treats the quantization grid of its input."""

    COMPUTE = "compute"  # makes new values: own thresholds in and out
    VIEW = "view"  # moves or repeats values: input and output share one grid
    FUSABLE = "fusable"  # Relu, Clip: value-preserving, may also join its producer
    FLOAT_ONLY = "float_only"  # runs in float, never quantized
    SHAPE_ONLY = "shape_only"  # works on shapes and integers


class Layout(enum.Enum):
    """What an operator's function needs to know of the order of axes in memory."""

    CANONICAL = "canonical"  # only the order that ONNX prescribes
    ELEMENTWISE = "elementwise"  # any order, if all inputs of the full rank share it
    AXES = "axes"  # any order, once the axes named by `Traits.axes` are renumbered
    PERMUTE = "permute"  # reorders axes by its attribute `perm`: costs nothing if orders compose


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traits:
    """Facts about an operator, built by the class methods below.

    Attributes:
      kind: See `Kind`.
      features: Indices of inputs that a quantizer may sit on; ``None`` means all inputs. When
        the input is a constant it is still quantized per tensor (an addend, a factor).
      weights: ``{input: channel axis}`` of inputs that are weights when they are constant:
        quantized symmetrically per output channel. A negative axis counts from the end.
      exact: Indices of inputs that stay unquantized (bias, indices, shapes).
      through: For VIEW and FUSABLE: the input whose values pass to output 0.
      look_through: Whether `find_input_calibration` walks through the operator
        (hmct-spec 1.5): such an operator needs no quantizer at its output.
      joins: The inputs are merged into one tensor (Concat): they share one threshold.
      bounds: Range of the output known beforehand (Softmax, Sigmoid), or None.
      recurrent: It hands results to its own next step: states, which stay unquantized.
      reach: Which values of an input the output still tells apart; None: all.
      layout: See `Layout`; `axes` names the attributes or static inputs that hold axis numbers.
    """

    kind: Kind
    features: Ints | None = None
    weights: Mapping[int, int] = dataclasses.field(default_factory=dict)
    exact: Ints = ()
    through: int = 0
    look_through: bool = False
    joins: bool = False
    bounds: tuple[float, float] | None = None
    recurrent: bool = False
    reach: Reach | None = None
    layout: Layout = Layout.CANONICAL
    axes: tuple[str, ...] = ()

    @property
    def sums_products(self) -> bool:
        """Whether each output is a sum of products of inputs 0 and 1, and of input 2 if it has one.

        Such a product of integers is an integer. What interpolates or gates in between
        (deformable convolution, LSTM) reads other exact inputs too.
        """
        return set(self.weights) == {1} and self.exact in ((), (BIAS,))

    @classmethod
    def compute(
        cls,
        *,
        features: Ints | None = None,
        weights: Mapping[int, int] | None = None,
        exact: Ints = (),
        bounds: tuple[float, float] | None = None,
        recurrent: bool = False,
        reach: Reach | None = None,
        layout: Layout = Layout.CANONICAL,
        axes: tuple[str, ...] = (),
    ) -> Traits:
        """Return the traits of an operator that makes new values."""
        return cls(
            kind=Kind.COMPUTE,
            features=features,
            weights=dict(weights or {}),
            exact=exact,
            bounds=bounds,
            recurrent=recurrent,
            reach=reach,
            layout=layout,
            axes=axes,
        )

    @classmethod
    def elementwise(
        cls,
        *,
        exact: Ints = (),
        bounds: tuple[float, float] | None = None,
        reach: Reach | None = None,
    ) -> Traits:
        """Return the traits of a computing operator that broadcasts element by element."""
        return cls.compute(exact=exact, bounds=bounds, reach=reach, layout=Layout.ELEMENTWISE)

    @classmethod
    def view(
        cls,
        *,
        through: int = 0,
        look_through: bool = False,
        joins: bool = False,
        reach: Reach | None = None,
        layout: Layout = Layout.CANONICAL,
        axes: tuple[str, ...] = (),
    ) -> Traits:
        """Return the traits of an operator whose output holds values of an input."""
        return cls(
            kind=Kind.VIEW,
            features=None if joins else (through,),
            through=through,
            look_through=look_through,
            joins=joins,
            reach=reach or (JOINS if joins else MOVES),
            layout=layout,
            axes=axes,
        )

    @classmethod
    def fusable(cls, reach: Reach) -> Traits:
        """Return the traits of Relu and Clip."""
        return cls(
            kind=Kind.FUSABLE,
            features=(0,),
            look_through=True,
            reach=reach,
            layout=Layout.ELEMENTWISE,
        )

    @classmethod
    def bounded(
        cls,
        low: float,
        high: float,
        *,
        reach: Reach | None = None,
        layout: Layout = Layout.CANONICAL,
        axes: tuple[str, ...] = (),
    ) -> Traits:
        """Return the traits of a computing operator with a known output range."""
        return cls.compute(features=(0,), bounds=(low, high), reach=reach, layout=layout, axes=axes)

    @classmethod
    def float_only(cls, *, layout: Layout = Layout.CANONICAL) -> Traits:
        """Return the traits of an operator that is never quantized."""
        return cls(kind=Kind.FLOAT_ONLY, features=(), layout=layout)

    @classmethod
    def shape_only(cls) -> Traits:
        """Return the traits of an operator on shapes, indices and booleans."""
        return cls(kind=Kind.SHAPE_ONLY, features=())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Work of one run of an operator.

    Attributes:
      macs: Multiply-accumulates on the matrix unit.
      vector: Elementary operations on the vector unit.
    """

    macs: int = 0
    vector: int = 0


CostFunction = Callable[..., Cost]
"""``cost(*input_shapes, output_shape, **attributes) -> Cost``; ``()`` for an absent input."""
