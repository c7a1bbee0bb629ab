"""A calibrated model taken up again: thresholds and types are those that it holds."""

from __future__ import annotations

from pathlib import Path

from jptq import __version__, files, ir
from jptq.data import Samples
from jptq.engine import Batching, Runner
from jptq.errors import ModelError
from jptq.ir import Model
from jptq.quant.attributes import with_sound_quantizers
from jptq.quant.calibrated import plan_of, with_assignment
from jptq.quant.config import Config
from jptq.quant.export import without_quantizers
from jptq.quant.originals import with_originals
from jptq.quant.resolve import resolve
from jptq.targets import load_target
from jptq.tuning.prepare import METHOD, UNKNOWN_METHOD, Prepared, assembled
from jptq.tuning.reference import float_values
from jptq.tuning.runners import MakeRunner
from jptq.tuning.source import is_calibrated, samples_of


def from_calibrated(
    path: Path,
    data: Path | str,
    *,
    march: str,
    config: Config | None = None,
    batching: Batching | None = None,
    measured_latency: Path | None = None,
    strict_integers: bool = False,
    reference: Path | str | None = None,
) -> Prepared:
    """Take up a calibrated model: thresholds and types are those in the file.

    Args:
      path: ``calibrated_model.onnx`` of ours or of the vendor.
      data: Folder of samples.
      march: Target.
      config: Types to give it instead of its own (``calibration_type: load``).
      batching: Bounds the samples of a program run.
      measured_latency: The user's per-node times (CSV or JSON).
      strict_integers: Sums and biases are kept within the target's integers.
      reference: Its float network, see `float_values`.

    Raises:
      ModelError: The file cannot be read or has no quantizers, or its float network is not at hand.
      DataError: The samples do not fit it.
    """
    model = ir.load(path)
    return take_up(
        model,
        samples_of(model, path, data, {}, None),
        where=path,
        march=march,
        config=config,
        batching=batching,
        measured_latency=measured_latency,
        strict_integers=strict_integers,
        reference=reference,
    )


def take_up(
    model: Model,
    samples: Samples,
    *,
    where: Path,
    march: str,
    config: Config | None = None,
    batching: Batching | None = None,
    measured_latency: Path | None = None,
    strict_integers: bool = False,
    reference: Path | str | None = None,
    make: MakeRunner = Runner,
) -> Prepared:
    """Take up a calibrated model in memory, as `from_calibrated` does with a file.

    The float network is the one that was given, also where weights were fitted or biases
    corrected (`jptq.quant.originals`); a model of another tool that does not say what they were
    counts as it is, unless there is a `reference`.

    Args:
      model: A calibrated model; its input shapes become those of the first sample.
      samples: Fit its inputs.
      where: Its file, or a name that stands for one.
      march: Target.
      config: Types to give it instead of its own.
      batching: Bounds the samples of a program run.
      measured_latency: The user's per-node times (CSV or JSON).
      strict_integers: Sums and biases are kept within the target's integers.
      reference: Its float network; looked for beside `where` if it is needed (`float_values`).
      make: Gives the runner; one that exists if it fits.

    Raises:
      ModelError: The model has no quantizers, or its float network is not at hand.
    """
    if not is_calibrated(model):
        raise ModelError(
            "the model has no quantizers", where=str(where), hint="jptq calibrate makes them"
        )
    model = with_sound_quantizers(model)
    floats = float_values(model, where, reference)
    model = with_originals(model, floats)
    model = ir.fix_inputs(model, {name: value.shape for name, value in samples[0].items()})
    target = load_target(march)
    if config is not None:
        plan = plan_of(model, target)
        model = with_assignment(model, resolve(config, model, plan, target))
    return assembled(
        where,
        target,
        config or Config(),
        without_quantizers(model, floats=floats),
        model,
        samples,
        method=model.metadata.get(METHOD, UNKNOWN_METHOD),
        batching=batching,
        measured_latency=measured_latency,
        strict_integers=strict_integers,
        identity=files.digest(
            "from_calibrated",
            __version__,
            ir.to_bytes(model),
            samples.digest,
            target.digest,
            *(("strict integers",) if strict_integers else ()),
        ),
        make=make,
    )
