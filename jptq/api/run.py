"""One call from files to files: what `jptq tune` and `jptq.tune` are."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from numpy.typing import ArrayLike

from jptq import files, ir, report
from jptq.api.agreement import check_export
from jptq.engine import Batching
from jptq.engine.cache import enable_compilation_cache
from jptq.quant.assign import Assignment
from jptq.quant.config import Config, load_config
from jptq.quant.export import to_qdq
from jptq.results import PREPARED_FILE, Recalibration, Report
from jptq.tuning.deadline import bounded
from jptq.tuning.evaluator import Evaluator, Forward
from jptq.tuning.journal import Journal
from jptq.tuning.loop import tune_network
from jptq.tuning.options import Options
from jptq.tuning.outlook import Later, silent
from jptq.tuning.prepare import Prepared, Progress, prepare, quiet
from jptq.tuning.recalibrating import prepared_float, recalibrated
from jptq.tuning.reference import FLOAT_FILE
from jptq.tuning.story import pareto_json

_CORRECTED = "bias_correction"

WORK = ".jptq"
"""Folder inside ``out`` that findings are kept in; can be deleted at any time."""


def tune(
    model: Path | str,
    calibration_data: Path | str,
    *,
    out: Path | str,
    march: str = "nash-e",
    evaluator: str | Callable[[Forward], Any] | None = None,
    quant_config: Config | Mapping[str, Any] | Path | str | None = None,
    options: Options | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    input_values: Mapping[str, ArrayLike] | None = None,
    calibration_samples: int | None = None,
    batching: Batching | None = None,
    measured_latency: Path | str | None = None,
    strict_integers: bool = False,
    reach: bool = True,
    fit: str = "auto",
    resume: bool = True,
    flags: Mapping[str, Any] | None = None,
    progress: Progress = quiet,
    later: Later = silent,
) -> Report:
    """Find, verify and write a mixed-precision configuration of a float network.

    Args:
      model: Float ONNX file.
      calibration_data: Folder of samples (design 3).
      out: Folder for the results; made if absent.
      march: Target.
      evaluator: ``path.py[:function]`` or a function ``evaluate(forward)``; higher is better.
      quant_config: Calibration settings; types that it names for nodes are kept, all others are
        chosen.
      options: Goal and search.
      input_shapes: Of inputs whose shape the file leaves open.
      input_values: Of inputs that become constants; they need no samples.
      calibration_samples: Use the first samples only.
      batching: Bounds the samples of a program run, by number and by memory.
      measured_latency: Per-node times of the user.
      strict_integers: Every configuration is run with biases and sums kept within the target's
        integers, instead of added exactly.
      reach: Thresholds stop where no reader of a tensor tells larger values apart; the vendor's
        tool does not do that.
      fit: Weights and biases are fitted to the samples first: ``auto``, ``off``, ``bias`` or
        ``weights``; only what helps on held-out samples is kept.
      resume: Reuse what an earlier run in ``out`` found.
      flags: What the user asked for, for ``run.json``.
      progress: ``progress(step, done, total)``.
      later: ``later(seconds)``: how long what follows the present step takes, at most; None if
        that is not known.

    Returns:
      The report; all files are written.

    Raises:
      JptqError: Bad input, with what to do; nothing is half-written.
    """
    started = time.monotonic()
    progress = times = _Stopwatch(progress)
    enable_compilation_cache()
    folder = Path(out)
    options = options or Options()
    options.check()
    journal = Journal(folder / WORK, reuse=resume)
    judge_function = (
        Evaluator.load(evaluator)
        if isinstance(evaluator, str)
        else None
        if evaluator is None
        else Evaluator.of(evaluator)
    )

    deadline = None if options.time_limit_s is None else started + options.time_limit_s

    def prepared_by(config: Config, progress: Progress = progress) -> Prepared:
        return prepare(
            Path(model),
            calibration_data,
            march=march,
            quant_config=config,
            input_shapes=input_shapes,
            input_values=input_values,
            limit=calibration_samples,
            batching=batching,
            measured_latency=None if measured_latency is None else Path(measured_latency),
            strict_integers=strict_integers,
            reach=reach,
            fit=fit,
            fit_later=True,
            journal=journal,
            deadline=deadline,
            progress=progress,
        )

    def with_ending(seconds: float | None) -> None:
        # Checking the export and writing are to the float network what preparing was.
        later(None if seconds is None else seconds + times.seconds.get("prepare", 0.0))

    found, prepared = tune_network(
        prepared_by(load_config(quant_config)),
        options,
        lambda config: prepared_by(config, bounded(progress, deadline)),
        evaluator=judge_function,
        journal=journal,
        started=started,
        progress=progress,
        later=with_ending,
    )
    later(None)
    found = dataclasses.replace(
        found,
        agreement=check_export(prepared, found.assignment, progress=progress),
        recalibration=shipped(prepared, folder, found.assignment, journal, progress),
        fit=prepared.fit,
        quant_config=_for_prepared(found.quant_config, prepared),
    )
    progress("write", 0, 1)
    write(found, prepared, folder)
    progress("write", 1, 1)
    content = {
        **_run(found, prepared, flags or {}, journal),
        "hashes": {
            "model_file": files.digest(Path(model)),
            **prepared.digests,
            "reference": files.digest(folder / FLOAT_FILE),
            "prepared": files.digest(folder / PREPARED_FILE),
            "quant_config": files.digest(repr(load_config(quant_config))),
            "target": prepared.target.digest,
            "evaluator": None if judge_function is None else judge_function.digest or None,
        },
        "seconds": {"all": round(time.monotonic() - started, 3), **times.seconds},
    }
    files.write_json(folder / "run.json", content)
    return found


class _Stopwatch:
    """Passes progress on, and adds up how long each kind of step took.

    Steps of one kind ("run all-INT8", "run milp 40 us") count together, by their first word.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._last = time.monotonic()
        self._kind = ""
        self.seconds: dict[str, float] = {}

    def __call__(self, step: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._kind:
            spent = self.seconds.get(self._kind, 0.0) + now - self._last
            self.seconds[self._kind] = round(spent, 3)
        self._last = now
        self._kind = step.partition(" ")[0] if step.startswith("run ") else step
        self._progress(step, done, total)


def shipped(
    prepared: Prepared,
    folder: Path,
    assignment: Assignment | None = None,
    journal: Journal | None = None,
    progress: Progress = quiet,
) -> Recalibration:
    """Write the network that another tool is to calibrate, and calibrate what was written.

    Args:
      prepared: A calibrated network.
      folder: Where.
      assignment: Its final types; the configured ones if None.
      journal: Keeps the answer.
      progress: Called as work goes on.
    """
    path = folder / PREPARED_FILE
    ir.save(prepared_float(prepared, assignment), path)
    return recalibrated(path, prepared, assignment, journal=journal, progress=progress)


def _for_prepared(config: Mapping[str, Any], prepared: Prepared) -> dict[str, Any]:
    """Return a configuration that does not correct again what the prepared network holds."""
    found = dict(config)
    if prepared.floats and "weight" in found.get("model_config", {}):
        weight = {k: v for k, v in found["model_config"]["weight"].items() if k != _CORRECTED}
        model = {**found["model_config"], "weight": weight}
        found["model_config"] = {key: value for key, value in model.items() if value}
    return {key: value for key, value in found.items() if value}


def write(found: Report, prepared: Prepared, folder: Path) -> None:
    """Write the other result files but ``run.json``: same inputs, same bytes."""
    mixed = prepared.mixed(found.assignment)
    models = {
        FLOAT_FILE: prepared.floating,
        "calibrated_model.onnx": mixed,
        "qdq_model.onnx": to_qdq(mixed),
    }
    texts = {
        name: files.json_text(content)
        for name, content in (
            ("quant_config.json", found.quant_config),
            ("sensitivity.json", found.sensitivity.to_json()),
            ("latency.json", found.latency.to_json()),
            ("pareto.json", pareto_json(found)),
            ("result.json", found.to_json()),
        )
    }
    pages = report.render(found)
    # All is made before any of it is written: what fails leaves no half of a result.
    for name, model in models.items():
        ir.save(model, folder / name)
    for name, text in texts.items():
        files.write_text(folder / name, text)
    for name, page in pages.items():
        files.write_bytes(folder / name, page)


def _run(
    found: Report, prepared: Prepared, flags: Mapping[str, Any], journal: Journal
) -> dict[str, Any]:
    """What may differ between two runs with equal results."""
    packages = ("jptq", "jax", "jaxlib", "numpy", "onnx", "onnx-ir", "onnxruntime", "scipy")
    return {
        "schema": 1,
        "versions": {name: _version(name) for name in packages},
        "python": platform.python_version(),
        "device": str(jax.devices()[0]),
        "host": platform.platform(),
        "flags": dict(flags),
        "compilations": dict(sorted(prepared.runner.compilations.counts.items())),
        "reused_findings": journal.reused,
        "evaluator_calls": found.evaluator_calls,
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
