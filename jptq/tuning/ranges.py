"""Whether biases and sums of a configuration fit the integers of the target."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax import Array

from jptq import files
from jptq.engine import Runner, TableQuantizer
from jptq.engine.program import Step
from jptq.quant.assign import Assignment, Table
from jptq.quant.plan import Sum
from jptq.results import Evaluation
from jptq.results.ranges import BIAS, PARTS, SUM, Excess, IntegerRanges
from jptq.targets import Fact
from jptq.tuning.prepare import Prepared, Progress, quiet

STEP = "check integer ranges"


def integer_ranges(
    prepared: Prepared, assignment: Assignment | None = None, *, progress: Progress = quiet
) -> IntegerRanges:
    """Return what leaves the integers that the target adds up in.

    Biases and the most that a sum can reach follow from the weights. The samples are run, all of
    them, only if some sum could leave by that.

    Args:
      prepared: A calibrated network.
      assignment: Its types; those that it is configured with if None.
      progress: Called as work goes on.
    """
    given = prepared.configured if assignment is None else assignment
    integers = prepared.target.integers
    steps = {step.node: step for step in prepared.runner.program.steps}
    products = [
        product
        for one in prepared.plan.sums
        if one.node in steps
        and (product := _product(prepared, prepared.table(given), one, steps[one.node]))
    ]
    found = [excess for product in products if (excess := product.bias_excess())]
    near = [product for product in products if product.bound > product.half]
    seen = _seen(prepared, prepared.table(given), [p.one.node for p in near], progress)
    possible = []
    for product in near:
        alone, with_bias, parts = seen[product.one.node]
        whole = with_bias if product.fits else alone  # a bias that does not fit is named itself
        if whole > product.half - 1:
            found.append(product.excess(SUM, whole))
        elif parts > product.half and product.fits:
            found.append(product.excess(PARTS, parts))
        else:
            possible.append(product.excess(SUM, product.bound))
    order = {product.one.node: i for i, product in enumerate(products)}
    return IntegerRanges(
        found=tuple(sorted(found, key=lambda excess: order[excess.node])),
        possible=tuple(possible),
        products=len(products),
        samples=len(prepared.samples) if near else 0,
        strict=prepared.plan.strict,
        beyond=integers.beyond,
        beyond_is=integers.beyond_source,
    )


def kept_inside(prepared: Prepared) -> Prepared:
    """Return the network with a forward that keeps biases and sums within the target's integers."""
    plan = dataclasses.replace(prepared.plan, strict=True)
    runner = Runner(
        prepared.calibrated,
        prepared.samples[0],
        plan=plan,
        batching=prepared.runner.batching,
        floats=prepared.floats,
    )
    digest = files.digest(prepared.digest, "within integers")
    return dataclasses.replace(prepared, plan=plan, runner=runner, digest=digest)


def note_inside(inside: Evaluation, *, meets: bool | None) -> str:
    """Say what a configuration reaches within the target's integers.

    Args:
      inside: Measured so.
      meets: Whether that meets the goal; None without one.
    """
    unit = "of the float score" if inside.shares else "least output cosine"
    reached = f"{100 * inside.quality:.2f} %" if inside.shares else f"{inside.quality:.5f}"
    ends = {
        None: ".",
        True: ": it meets the goal so too.",
        False: ": it misses the goal so. The verdict holds only if the target adds exactly.",
    }
    return (
        f"Kept within the target's integers, the final configuration reaches {reached} {unit} "
        f"(measured){ends[meets]}"
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Product:
    """A product of integers, what it can reach, and its bias.

    Attributes:
      one: The node.
      operands: Types of its operands.
      width: Of its sums.
      bias_width: Of its bias.
      bias: Its bias as integers, float64, channels last; None if it is not known beforehand.
      fits: The bias does, if there is one.
      bound: No sum has a larger magnitude; without the bias if that does not fit.
    """

    one: Sum
    operands: str
    width: Fact
    bias_width: Fact
    bias: np.ndarray | None
    fits: bool
    bound: float

    @property
    def half(self) -> float:
        """Magnitude of the least integer that a sum may be."""
        return float(2.0 ** (self.width.value - 1))

    def excess(self, what: str, magnitude: float) -> Excess:
        """Return a sum that is too large."""
        return Excess(
            node=self.one.node,
            op=self.one.op,
            what=what,
            operands=self.operands,
            bits=int(self.width.value),
            factor=magnitude / self.half,
            bits_are=self.width.source,
        )

    def bias_excess(self) -> Excess | None:
        """Return the bias if it does not fit."""
        width = self.bias_width
        half = 2.0 ** (width.value - 1)
        if self.bias is None:
            return None
        outside = (self.bias < -half) | (self.bias > half - 1)
        if self.fits:
            return None
        channels = outside.reshape(-1, outside.shape[-1]).any(axis=0) if outside.ndim else outside
        return Excess(
            node=self.one.node,
            op=self.one.op,
            what=BIAS,
            operands=self.operands,
            bits=int(width.value),
            factor=float(np.max(np.abs(self.bias))) / half,
            channels=int(np.sum(channels)),
            of=int(np.size(channels)),
            bits_are=width.source,
        )


def _product(prepared: Prepared, table: Table, one: Sum, step: Step) -> _Product | None:
    """Return a product of integers under a table; None where it is none."""
    kinds = [_grid(prepared, table, k) for k in (one.features, one.weights)]
    if any(grid is None for grid in kinds):
        return None
    (x_scale, x_most, x_long), (w_scale, w_most, w_long) = (grid for grid in kinds if grid)
    if not one.depthwise and x_scale.min() != x_scale.max():
        return None
    w_scales = np.tile(w_scale, one.groups)
    unit = one.factor * w_scales * (x_scale if one.depthwise else x_scale[0])
    integers = prepared.target.integers
    width, bias_width = integers.sums[x_long + w_long], integers.biases[x_long + w_long]
    constants = prepared.calibrated.initializers
    bias = constants.get(one.bias)
    steps = None if bias is None else np.rint(bias.astype(np.float64) * one.bias_factor / unit)
    most = 0.0 if steps is None else float(np.max(np.abs(steps), initial=0))
    fits = most <= 2.0 ** (bias_width.value - 1) - 1
    most = most if fits else 0.0
    shapes = prepared.runner.program.shapes
    terms = step.macs / max(1, int(np.prod(shapes[step.outputs[0]])))
    bound = terms * x_most * w_most
    half = 2.0 ** (width.value - 1)
    weights = constants.get(prepared.plan.calibrations[one.weights].tensor)
    if bound + most > half and weights is not None:
        axis = prepared.plan.calibrations[one.weights].axis
        bound = x_most * _summed(one, weights, w_scale, axis, w_most)
    return _Product(
        one=one,
        operands=" x ".join("INT16" if long else "INT8" for long in (x_long, w_long)),
        width=width,
        bias_width=bias_width,
        bias=steps,
        fits=fits,
        bound=bound + most,
    )


def _grid(prepared: Prepared, table: Table, k: int) -> tuple[np.ndarray, float, bool] | None:
    """Return scales, largest magnitude and whether it is int16, of a quantizer with integers."""
    lower, upper = float(table.lower[k]), float(table.upper[k])
    if table.gate[k] <= 0 or lower >= upper:
        return None
    start, stop = prepared.plan.offsets[k], prepared.plan.offsets[k + 1]
    offset = np.asarray(table.offset[start:stop], np.float64)
    most = float(np.max(np.maximum(np.abs(lower - offset), np.abs(upper - offset))))
    return np.asarray(table.scale[start:stop], np.float64), most, upper - lower > 255


def _summed(
    one: Sum, weights: np.ndarray, scale: np.ndarray, axis: int | None, most: float
) -> float:
    """Return the most that the magnitudes of a constant weight's integers add up to.

    Rounding adds half a step to each at most.
    """
    shape = [1] * weights.ndim
    if scale.size > 1 and axis is not None:
        shape[axis] = -1
    steps = np.minimum(np.abs(weights.astype(np.float64)) / scale.reshape(shape) + 0.5, most)
    if one.kernel_axis == 0:
        return float(np.max(steps.reshape(len(steps), -1).sum(axis=1)))
    if one.kernel_axis == 1:
        parts = steps.reshape(one.groups, -1, *steps.shape[1:])
        return float(np.max(parts.sum(axis=(1, *range(3, parts.ndim)))))
    return float(np.max(steps.sum(axis=-2 if steps.ndim > 1 else 0)))


def _seen(
    prepared: Prepared, table: Table, nodes: Sequence[str], progress: Progress
) -> Mapping[str, np.ndarray]:
    """Return the largest sums of some nodes over all samples, as `TableQuantizer.seen`."""
    if not nodes:
        return {}
    runner, samples = prepared.runner, prepared.samples
    program, plan = runner.program, prepared.plan
    stop = 1 + max(i for i, step in enumerate(program.steps) if step.node in nodes)

    def watch(
        weights: Mapping[str, Array], table: Table, feeds: Mapping[str, Array]
    ) -> dict[str, Array]:
        quantizer = TableQuantizer(plan, table, nodes)
        program.run(weights, quantizer, feeds, stop=stop, keep=())
        return quantizer.seen

    run = runner.compilations.once(
        ("integer ranges", tuple(nodes)),
        lambda: runner.compilations.jit("integer ranges", jax.vmap(watch, in_axes=(None, None, 0))),
    )
    packed = runner.pack(table)
    found = {node: np.zeros(3) for node in nodes}
    done = 0
    for feeds, count in runner.batches(samples):
        progress(STEP, done, len(samples))
        for node, largest in run(packed.weights, packed.table, feeds).items():
            found[node] = np.maximum(found[node], np.asarray(largest)[:count].max(axis=0))
        done += count
    progress(STEP, done, len(samples))
    return found
