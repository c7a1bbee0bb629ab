"""What a tuning starts from: a network and its samples, checked against each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from jptq import files, ir
from jptq.data import Expected, Samples, SampleSet, load_samples
from jptq.errors import DataError, ModelError
from jptq.ir import Model


def load_float(
    path: Path,
    data: Path | str,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    input_values: Mapping[str, ArrayLike] | None = None,
    limit: int | None = None,
) -> tuple[Model, Samples]:
    """Read a float network and its samples; fix shapes and optimize the graph.

    Args:
      path: ONNX file.
      data: Folder of samples (design 3).
      input_shapes: Of inputs whose shape the file leaves open; else the first sample's.
      input_values: Of inputs that become constants; they need no samples.
      limit: Use the first samples only.

    Raises:
      ModelError: The file cannot be read, or is quantized already.
      DataError: The samples do not fit it.
    """
    model = ir.load(path)
    if is_calibrated(model):
        raise ModelError(
            "the model has quantizers already", where=str(path), hint="give the float model"
        )
    ir.refuse_quantized(model)
    given = dict(input_shapes or {})
    model = ir.give_shapes(ir.fix_values(model, input_values or {}), given)
    samples = samples_of(model, path, data, given, limit, float32=True)
    first = samples[0]
    shapes = {name: given.get(name, value.shape) for name, value in first.items()}
    # What follows is written for the vendor's tool too, and that knows no later opset.
    return ir.for_vendor(ir.optimize(model, input_shapes=shapes, float32=True)), samples


def is_calibrated(model: Model) -> bool:
    """Tell whether a model has quantizers of ours."""
    return any(node.is_calibration for node in model.nodes)


def samples_of(
    model: Model,
    path: Path,
    data: Path | str,
    given: Mapping[str, tuple[int, ...]],
    limit: int | None,
    *,
    float32: bool = False,
) -> Samples:
    """Find the samples of a model; all have the shapes of the first one.

    Args:
      model: Its inputs have types; shapes may be open.
      path: Its file, for errors.
      data: Folder of samples.
      given: Shapes of inputs that the file leaves open.
      limit: Use the first samples only.
      float32: The model will be converted (`jptq.ir.float32`), and so are its samples.

    Raises:
      ModelError: An input has no type or rank.
      DataError: The samples do not fit the inputs.
    """
    expected = expected_of(model, path, given, float32=float32)
    samples: Samples = load_samples(data, expected).closed()
    return samples if limit is None or limit >= len(samples) else First(samples, limit)


def expected_of(
    model: Model,
    path: Path,
    given: Mapping[str, tuple[int, ...]] | None = None,
    *,
    float32: bool = False,
) -> list[Expected]:
    """Return what the samples of a model must look like; arguments and errors as `samples_of`."""
    given = given or {}
    before = ir.other_inputs(model) if float32 else ir.inputs_before(model)
    expected = []
    for tensor in model.inputs:
        if tensor.dtype is None or (tensor.shape is None and tensor.name not in given):
            raise ModelError(
                f"input {tensor.name!r} has no {'type' if tensor.dtype is None else 'shape'}",
                where=str(path),
                hint="" if tensor.dtype is None else ir.shape_flag(tensor.name, tensor.shape),
            )
        expected.append(
            Expected(
                name=tensor.name,
                dtype=np.dtype(np.float32) if tensor.name in before else tensor.dtype,
                before=before.get(tensor.name),
                shape=given.get(tensor.name, tensor.shape or ()),
            )
        )
    return expected


def data_notes(samples: Samples) -> tuple[str, ...]:
    """Say what samples cannot tell: if it is only one, all alike, or an input is always zero.

    Samples are read until each of these is ruled out: two of them, as a rule. Inputs of integers
    may well be always zero.
    """
    if not len(samples):
        return ()
    first = samples[0]
    inputs = [name for name, v in first.items() if np.issubdtype(v.dtype, np.floating) and v.size]
    zero, alike = set(inputs), len(samples) > 1
    for index in range(len(samples)):
        sample = first if index == 0 else samples[index]
        zero = {name for name in zero if not np.any(sample[name])}
        alike = alike and all(np.array_equal(sample[name], first[name]) for name in first)
        if not zero and not alike:
            break
    count = len(samples)
    said = []
    if inputs and zero == set(inputs):
        said.append(
            "All calibration data are zero: thresholds and figures say nothing of real inputs."
        )
    else:
        said += [
            f"Input {name!r} is zero in all calibration data: thresholds do not know other values."
            for name in inputs
            if name in zero
        ]
    if count == 1:
        said.append("There is one calibration sample: thresholds and figures are its own.")
    elif alike and (not inputs or zero != set(inputs)):
        said.append(f"All {count} calibration samples are the same one.")
    return tuple(said)


@dataclasses.dataclass(frozen=True)
class First:
    """The first samples of a set."""

    whole: Samples
    count: int

    @property
    def digest(self) -> str:
        """Hex digest of the content."""
        return files.digest(self.whole.digest, str(self.count))

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Return one sample."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.whole[index]


def spread(samples: SampleSet, count: int) -> Sequence[Mapping[str, np.ndarray]]:
    """Return some samples, evenly taken from the whole set.

    Raises:
      DataError: There are none.
    """
    if not len(samples):
        raise DataError("there are no samples")
    picked = np.unique(
        np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    )
    return [samples[int(i)] for i in picked]
