"""The vendor's ``hmct.api``: from a float model to a calibrated one with all its files."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jptq import __version__, files, ir
from jptq.data.check import check_layout, check_values
from jptq.data.layout import folder_names
from jptq.errors import ConfigError, DataError, UnknownNameError
from jptq.hmct.echo import echo, enabled
from jptq.hmct.executor import ORTExecutor
from jptq.hmct.ir import load_model
from jptq.hmct.model import AnyModel, OnnxModel, frozen_model
from jptq.hmct.passes import PredicateBasedPass, register_pass, rewritten
from jptq.hmct.quant_info import node_rows, quant_info
from jptq.ir import Model
from jptq.quant.calibrated import plan_of, with_thresholds
from jptq.quant.config import Activation, Config, load_config
from jptq.report import distance_table
from jptq.report.vendor_tables import node_table
from jptq.targets import marches
from jptq.tuning import Prepared, prepare
from jptq.tuning.source import expected_of

if TYPE_CHECKING:
    import onnx

__all__ = [
    "ModelBuilder",
    "ORTExecutor",
    "PredicateBasedPass",
    "build_model",
    "check_model",
    "export_onnx",
    "infer_shapes",
    "load_model",
    "register_pass",
    "version",
]

version = __version__

_log = logging.getLogger(__name__)

Arrays = Sequence[np.ndarray] | Mapping[str, Sequence[np.ndarray]]
"""Samples of the only input, or of every input by name."""

_GENERIC = {"nash": "nash-e"}
"""What the vendor's name for the whole family stands for."""

_OTHERS = ("nash-b", "nash-b-lite", "nash-b-plus", "nash-h")
"""Targets of the vendor that we have no facts of."""

_ACTIVATION = (
    "calibration_type",
    "max_percentile",
    "per_channel",
    "asymmetric",
    "num_bin",
    "max_num_bin",
)
_SAMPLES = "calibration_data"
_FASTEST = Activation(calibration_type=("max",))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelBuilder:
    """All models of a build.

    Attributes:
      original_model: As given, its input shapes fixed.
      optimized_model: Folded and fused; configurations name its nodes.
      calibrated_model: With quantizers.
      ptq_model: What the vendor hands to its compiler: here the same as the calibrated model.
      quant_info: Per node, as written to ``quant_info.json``.
    """

    original_model: OnnxModel
    optimized_model: OnnxModel
    calibrated_model: OnnxModel
    ptq_model: OnnxModel
    quant_info: Mapping[str, Mapping[str, Any]]


def build_model(
    onnx_model: AnyModel | None = None,
    march: str = "nash",
    cali_data: Arrays | None = None,
    quant_config: Mapping[str, Any] | str | Path | None = None,
    input_dict: Mapping[str, Mapping[str, Any]] | None = None,
    name_prefix: str | None = None,
    verbose: bool = True,
    *,
    onnx_file: str | Path | None = None,
    cali_dict: Mapping[str, Any] | None = None,
    output_nodes: Sequence[str] | None = None,
    save_model: bool = True,
    return_builder: bool = False,
    check_mode: bool = False,
    **others: object,
) -> onnx.ModelProto | ModelBuilder:
    """Optimize and calibrate a float model, and write what the vendor's tool would.

    Passes of the user (`register_pass`) rewrite the model before it is optimized.

    Args:
      onnx_model: The model; or `onnx_file`.
      march: Target; ``nash`` is ``nash-e``.
      cali_data: Samples, each with its batch axis: of the only input, or by input name.
      quant_config: Calibration settings and types, as a dict or a file.
      input_dict: ``{input: {"input_shape": [...]}}`` for shapes that the model leaves open.
      name_prefix: Path and beginning of the files' names; ``_`` is put behind it unless it is
        empty or ends in ``/`` or ``_``.
      verbose: Log the similarity of every node and output.
      onnx_file: The model's file.
      cali_dict: The older place of calibration settings, and of ``calibration_data``.
      output_nodes: Nodes whose outputs become the model's.
      save_model: Write the files.
      return_builder: Return all models.
      check_mode: Random samples and thresholds of 1: does the model convert at all?
      others: Options of the vendor. Those without effect on numbers (``hbdk_dict``,
        ``debug_methods``) are accepted, all others are refused.

    Returns:
      The ``ptq_model`` as ONNX's own message, or a `ModelBuilder`.

    Raises:
      JptqError: Bad input, with what to do.

    Source: hmct-spec 1.1.
    """
    _refuse_others(others)
    target, prefix = _march(march), _prefix(name_prefix)
    given = onnx_model if onnx_model is not None else onnx_file
    if given is None:
        raise ConfigError("there is no model", hint="give onnx_model or onnx_file")
    _log.info("Start to prepare the onnx model.")
    original = _original(given, input_dict or {}, output_nodes)
    if save_model:
        _save(original, f"{prefix}original_float_model.onnx")
    _log.info("End to prepare the onnx model.")
    config, data = _merged(load_config(quant_config), cali_dict, cali_data)
    for line in echo(config):
        _log.info("%s", line)
    if check_mode:
        # Thresholds will be 1 whatever is found: no methods are tried against each other.
        config, data = dataclasses.replace(config, activation=_FASTEST), _random(original)
    with tempfile.TemporaryDirectory(prefix="jptq-build-") as folder:
        source, samples = Path(folder) / "model.onnx", Path(folder) / "samples"
        ir.save(rewritten(original), source)
        _write_samples(original, data, samples)
        network = prepare(
            source,
            samples,
            march=target,
            quant_config=config,
            documented_search=True,
            reach=False,  # thresholds are the vendor's to the letter
            progress=_log_stages,
        )
        for line in enabled(network.method):
            _log.info("%s", line)
        if check_mode:
            network = _with_unit_thresholds(network)
        _log.info("End to calibrate the model.")
        info = _report(network, verbose=verbose)
    if save_model:
        _save(network.floating, f"{prefix}optimized_float_model.onnx")
        _save(network.calibrated, f"{prefix}calibrated_model.onnx")
        _save(network.calibrated, f"{prefix}ptq_model.onnx")
        files.write_json(Path(f"{prefix}quant_info.json"), info)
    if not return_builder:
        return ir.to_proto(network.calibrated)
    return ModelBuilder(
        original_model=OnnxModel(original),
        optimized_model=OnnxModel(network.floating),
        calibrated_model=OnnxModel(network.calibrated),
        ptq_model=OnnxModel(network.calibrated),
        quant_info=info,
    )


def check_model(
    onnx_model: AnyModel, march: str, input_dict: Mapping[str, Mapping[str, Any]] | None = None
) -> onnx.ModelProto | ModelBuilder:
    """Build a model with random samples, writing nothing: does it convert at all?

    Arguments and errors as `build_model`.
    """
    return build_model(
        onnx_model, march, input_dict=input_dict, save_model=False, verbose=False, check_mode=True
    )


def infer_shapes(model: AnyModel) -> OnnxModel:
    """Return the model, or a copy of what is no `OnnxModel`, with all shapes known.

    Raises:
      ModelError: A shape of an input is open, or an operator does not fit what it reads.
    """
    found = model if isinstance(model, OnnxModel) else OnnxModel(model)
    return found.infer_shapes()


def export_onnx(model: Any, args: Any, f: str | Path, **options: Any) -> None:
    """Export a PyTorch module by ``torch.onnx.export``, which gets all arguments.

    Raises:
      ConfigError: PyTorch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise ConfigError("export_onnx needs PyTorch", hint="pip install torch")
    importlib.import_module("torch").onnx.export(model, args, str(f), **options)


def _refuse_others(others: Mapping[str, object]) -> None:
    for name, value in others.items():
        if name in ("hbdk_dict", "debug_methods"):
            _log.info("%s has no effect here: nothing is compiled for a board", name)
        elif name in ("prototxt_file", "caffemodel_file") and value is not None:
            raise ConfigError("Caffe models are not read", where=name, hint="convert it to ONNX")
        elif name in ("node_dict", "optimization_methods", "skip_step"):
            if value:
                raise ConfigError(
                    f"build_model has no {name}", hint="quant_config says types and methods"
                )
        elif name not in ("prototxt_file", "caffemodel_file"):
            raise UnknownNameError("option of build_model", name, _OPTIONS)


_OPTIONS = (
    *("onnx_model", "march", "cali_data", "quant_config", "input_dict", "name_prefix", "verbose"),
    *("onnx_file", "cali_dict", "output_nodes", "save_model", "return_builder", "check_mode"),
)


def _march(name: str) -> str:
    known = marches()
    wanted = _GENERIC.get(name, name)
    if wanted in _OTHERS:
        raise ConfigError(
            f"march {name!r} is not modelled",
            why="there are no published facts of it",
            hint="known: " + ", ".join(known),
        )
    if wanted not in known:
        raise UnknownNameError("march", name, (*_GENERIC, *known))
    return wanted


def _prefix(name: str | None) -> str:
    return name + "_" if name and not name.endswith(("/", "_")) else name or ""


def _original(
    given: AnyModel, inputs: Mapping[str, Mapping[str, Any]], output_nodes: Sequence[str] | None
) -> Model:
    model = frozen_model(given)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, settings in inputs.items():
        for key in settings:
            if key != "input_shape":
                raise ConfigError(
                    f"input_dict cannot set {key!r}",
                    where=f"input {name!r}",
                    why="samples go into the model as they are",
                    hint="prepare them before; only input_shape can be given",
                )
        if "input_shape" in settings:
            shapes[name] = tuple(int(length) for length in settings["input_shape"])
    for name in output_nodes or ():
        if name not in model.by_name:
            raise UnknownNameError("node", name, model.by_name, where="output_nodes")
    if output_nodes:
        tensors = [n for name in output_nodes for n in model.by_name[name].outputs if n]
        model = ir.extract(model, tensors)
    return ir.for_vendor(ir.fix_inputs(model, shapes) if shapes else model)


def _merged(
    config: Config, cali_dict: Mapping[str, Any] | None, data: Arrays | None
) -> tuple[Config, Arrays | None]:
    """Bring the older place of settings into the newer form."""
    if not cali_dict:
        return config, data
    for key in cali_dict:
        if key not in (*_ACTIVATION, _SAMPLES):
            raise UnknownNameError("key", key, (*_ACTIVATION, _SAMPLES), where="cali_dict")
    activation = {key: value for key, value in cali_dict.items() if key != _SAMPLES}
    data = data if data is not None else cali_dict.get(_SAMPLES)
    if not activation:
        return config, data
    if config.activation != Activation():
        raise ConfigError(
            "cali_dict and quant_config both say how to calibrate",
            hint="put calibration settings into quant_config, model_config.activation",
        )
    settings = load_config({"model_config": {"activation": activation}}).activation
    return dataclasses.replace(config, activation=settings), data


def _random(model: Model) -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    data = {}
    for tensor in ir.fix_inputs(model, {}).inputs:
        shape = tuple(n for n in tensor.shape or () if isinstance(n, int))
        dtype = tensor.dtype or np.dtype(np.float32)
        values = rng.standard_normal(shape) if dtype.kind == "f" else np.zeros(shape)
        data[tensor.name] = [values.astype(dtype)]
    return data


def _write_samples(model: Model, data: Arrays | None, folder: Path) -> None:
    """Write samples in the form of a folder of calibration data."""
    if data is None:
        raise DataError("there is no calibration data", hint="give cali_data")
    if not isinstance(data, Mapping):
        if len(model.inputs) != 1:
            raise DataError(
                f"cali_data is a list, but the model has {len(model.inputs)} inputs",
                hint="cali_data = {input name: [array, ...]}",
            )
        data = {model.input_names[0]: data}
    names = folder_names(data)
    expected = {one.name: one for one in expected_of(model, Path("the model"), float32=True)}
    for name, arrays in data.items():
        if name not in model.input_names:
            raise UnknownNameError("input", name, model.input_names, where="cali_data")
        own, one = folder / names[name], expected[name]
        own.mkdir(parents=True)
        for index, given in enumerate(arrays):
            # The files are ours: what is wrong with a sample is said of what was given.
            array, where = np.asarray(given), f"cali_data[{name!r}][{index}]"
            check_layout(array.shape, array.dtype, one, where=where)
            array = one.taken(array)
            check_values(array, where=where)
            one = one.closed(array, where)
            np.save(own / f"{index:06}.npy", array)
    folder.mkdir(exist_ok=True)


def _with_unit_thresholds(network: Prepared) -> Prepared:
    features = [c.name for c in network.plan.calibrations if not c.constant]
    ones = dict.fromkeys(features, np.ones(1, np.float32))
    calibrated = with_thresholds(network.calibrated, ones)
    plan = plan_of(calibrated, network.target)
    return dataclasses.replace(network, calibrated=calibrated, plan=plan)


def _report(network: Prepared, *, verbose: bool) -> dict[str, dict[str, Any]]:
    """Run the first sample, log the two tables and return what ``quant_info.json`` holds."""
    from jptq.hmct.quantizer.debugger.info import examined

    found = examined(network)
    if verbose:
        _log.info("%s", node_table(node_rows(network, found.cosines)))
        _log.info("%s", distance_table(found.outputs))
    return quant_info(network, found.cosines)


def _log_stages(step: str, done: int, total: int) -> None:
    if step == "load":
        _log.info("%s to optimize the onnx model.", "End" if done == total else "Start")
        if done == total:
            _log.info("Start to calibrate the model.")


def _save(model: Model, path: str) -> None:
    _log.info("Saving model to: %s.", path)
    ir.save(model, path)
