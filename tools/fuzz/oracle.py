"""Answers that are not ours: onnxruntime, and ONNX's own evaluator where it has no kernel."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Arrays: TypeAlias = dict[str, np.ndarray]
_FATAL_ONLY = 4
IR_VERSION = 9


class Refused(Exception):  # noqa: N818  (it is no error of anybody)
    """Neither onnxruntime nor ONNX's evaluator runs a graph."""


def _options(optimized: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return options


ort.set_default_logger_severity(_FATAL_ONLY)  # kernels talk without a session, too
_PLAIN, _OPTIMIZED = _options(False), _options(True)


def onnxruntime(
    model: bytes, samples: Sequence[Mapping[str, np.ndarray]], *, optimized: bool = False
) -> list[Arrays]:
    """Run samples in onnxruntime, one at a time.

    Args:
      model: A serialized model.
      samples: Feeds.
      optimized: In its default session instead of one without graph optimisations.

    Raises:
      Refused: It does not run them.
    """
    try:
        session = ort.InferenceSession(
            model, _OPTIMIZED if optimized else _PLAIN, providers=["CPUExecutionProvider"]
        )
        names = [output.name for output in session.get_outputs()]
        wanted = {tensor.name for tensor in session.get_inputs()}
        feeds = [{n: a for n, a in sample.items() if n in wanted} for sample in samples]
        return [dict(zip(names, session.run(names, one), strict=True)) for one in feeds]
    except Exception as error:  # its own classes, RuntimeError, and what pybind makes of it
        raise Refused(str(error)) from error


def reference(model: bytes, samples: Sequence[Mapping[str, np.ndarray]]) -> list[Arrays]:
    """Run samples in ONNX's evaluator.

    Raises:
      Refused: It does not run them.
    """
    proto = onnx.load_model_from_string(model)
    names = [output.name for output in proto.graph.output]
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            evaluator = ReferenceEvaluator(proto)
            return [
                {
                    name: np.asarray(value)
                    for name, value in zip(names, evaluator.run(names, dict(one)), strict=True)
                }
                for one in samples
            ]
    except Exception as error:  # written for valid graphs: anything can come out of an invalid one
        raise Refused(str(error)) from error


def of_node(
    node: onnx.NodeProto,
    inputs: Sequence[Mapping[str, np.ndarray]],
    constants: Mapping[str, np.ndarray],
    opset: int,
    *,
    onnxruntime_only: bool = False,
) -> list[Arrays]:
    """Run a node alone.

    Args:
      node: Its subgraphs may read what is among `inputs` and `constants`.
      inputs: What differs from sample to sample.
      constants: What is known beforehand.
      opset: Version of ONNX's operators.
      onnxruntime_only: Do not ask ONNX's evaluator.

    Raises:
      Refused: Nobody runs it.
    """
    model = model_of([node], inputs[0], constants, [n for n in node.output if n], opset)
    content = model.SerializeToString()
    try:
        return onnxruntime(content, inputs)
    except Refused:
        if onnxruntime_only:
            raise
        try:  # the evaluator does not look at types
            onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        except onnx.shape_inference.InferenceError as error:
            raise Refused(str(error)) from error
        return reference(content, inputs)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, np.ndarray],
    constants: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    opset: int,
    known: Mapping[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    """Return a model.

    Args:
      nodes: In order.
      inputs: Examples.
      constants: Initializers.
      outputs: Tensors to give out.
      opset: Version of ONNX's operators.
      known: Examples of tensors whose type is declared.
    """
    described = {
        name: helper.make_tensor_value_info(name, type_of(array), array.shape)
        for name, array in {**(known or {}), **inputs, **constants}.items()
    }
    graph = helper.make_graph(
        list(nodes),
        "fuzz",
        [described[name] for name in inputs],
        [described.get(name, onnx.ValueInfoProto(name=name)) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION
    )


def type_of(array: np.ndarray) -> int:
    """Return ONNX's code of an array's type."""
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))
