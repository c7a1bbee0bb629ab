"""The node cases of ONNX as data: generated in memory, or read where the package ships them."""

from __future__ import annotations

import dataclasses
import functools
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir
from onnx.backend.test.loader import load_model_tests

from jptq.engine.cache import cache_folder
from jptq.files import write_bytes

DataSets: TypeAlias = list[tuple[list[Any], list[Any]]]


@dataclasses.dataclass(frozen=True)
class Shipped:
    """A model of the ONNX backend suite with its expected outputs.

    Attributes:
      name: Such as "test_abs".
      model: Usually one node.
      source: Its data sets, or the folder that they lie in.
      rtol: Relative tolerance that ONNX grants.
      atol: Absolute tolerance that ONNX grants.
    """

    name: str
    model: onnx.ModelProto
    source: DataSets | Path
    rtol: float
    atol: float

    @functools.cached_property
    def data_sets(self) -> DataSets:
        """Pairs of inputs and expected outputs, as NumPy arrays in graph order."""
        if not isinstance(self.source, Path):
            return self.source
        graph = self.model.graph
        return [
            (_read(folder, "input", graph.input), _read(folder, "output", graph.output))
            for folder in sorted(self.source.glob("test_data_set_*"))
        ]


@functools.cache
def load() -> tuple[Shipped, ...]:
    """Return all cases in the order of the suite.

    From ONNX 1.23 on they are computed, in five seconds: they are kept beside the programs that
    tests compile, for other workers and the next run.
    """
    kept = cache_folder() / f"node-cases-onnx-{onnx.__version__}-numpy-{np.__version__}.pickle"
    if kept.is_file():
        return tuple(pickle.loads(kept.read_bytes()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns inside the generators of the suite
        found = load_model_tests(kind="node")
    cases = tuple(
        _from_disk(case) if case.model is None else _from_memory(case)
        for case in found
        if case.model is not None or case.model_dir
    )
    if not any(isinstance(case.source, Path) for case in cases):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(kept, pickle.dumps(cases))
    return cases


def array(tensor: onnx.TensorProto) -> np.ndarray:
    """Return what a tensor holds, in the NumPy type that jptq has for it."""
    return np.asarray(onnx_ir.from_proto(tensor).numpy())


def _from_memory(case: Any) -> Shipped:
    data_sets = [
        ([_value(x) for x in inputs], [_value(y) for y in outputs])
        for inputs, outputs in case.data_sets
    ]
    return Shipped(case.name, case.model, data_sets, case.rtol, case.atol)


def _from_disk(case: Any) -> Shipped:
    folder = Path(case.model_dir)
    return Shipped(case.name, onnx.load(folder / "model.onnx"), folder, case.rtol, case.atol)


def _read(folder: Path, kind: str, described: Sequence[onnx.ValueInfoProto]) -> list[Any]:
    """Return the inputs or outputs of a data set; the first of them are there."""
    count = len(list(folder.glob(f"{kind}_*.pb")))
    return [
        _value(_parsed(one.type, (folder / f"{kind}_{index}.pb").read_bytes()))
        for index, one in enumerate(described[:count])
    ]


def _parsed(kind: onnx.TypeProto, content: bytes) -> Any:
    """Return the message that holds a value of a type."""
    for field, message in (
        ("sequence_type", onnx.SequenceProto),
        ("optional_type", onnx.OptionalProto),
    ):
        if kind.HasField(field):
            return message.FromString(content)
    return onnx.TensorProto.FromString(content)


def _value(given: Any) -> Any:
    """Return a tensor as an array, a sequence as a tuple of them, what is absent as None."""
    if given is None:
        return None
    if isinstance(given, onnx.TensorProto):
        return array(given)
    if isinstance(given, onnx.SequenceProto):
        kind = onnx.SequenceProto.DataType.Name(given.elem_type).lower()
        return tuple(map(_value, getattr(given, f"{kind}_values")))
    if isinstance(given, onnx.OptionalProto):
        kind = onnx.OptionalProto.DataType.Name(given.elem_type).lower()
        return None if kind == "undefined" else _value(getattr(given, f"{kind}_value"))
    return tuple(map(_value, given)) if isinstance(given, list) else np.asarray(given)
