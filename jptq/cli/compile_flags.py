"""Flags that the compile tool's YAML file answers: network, samples and target (hmct-spec 4.4)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from jptq.quant.compile_file import CompileFile

SUFFIXES = (".yaml", ".yml")


def fill(flags: FlagValues) -> dict[str, str]:
    """Set what the file of ``--quant_config`` says and no flag does; of other files, nothing.

    Returns:
      ``{flag: why the file does not say it}``.

    Raises:
      JptqError: The file is malformed.
    """
    found = compile_file(flags)
    if found is None:
        return {}
    folder = Path(flags.quant_config).parent
    if "model" in flags and flags.model is None and found.model is not None:
        flags["model"].value = str(_located(found.model, folder))
    if "calibration_data" in flags and flags.calibration_data is None and found.calibration_data:
        parts = [str(_located(part, folder)) for part in found.calibration_data]
        if 1 < len(parts) == len(found.inputs):
            parts = [f"{name}={part}" for name, part in zip(found.inputs, parts, strict=True)]
        flags["calibration_data"].value = ";".join(parts)
    if "input_shape" in flags and not flags.input_shape and found.input_shapes:
        flags["input_shape"].value = [f"{n}:{shape}" for n, shape in found.input_shapes.items()]
    if "march" in flags and not flags["march"].present and found.march is not None:
        flags["march"].value = found.march
    if found.calibration_data:
        return {}
    random = "the compile tool would take random data then (calibration_type skip), which is good "
    random += "for times only, and these need no samples here: jptq latency"
    return {"calibration_data": f"{flags.quant_config} has no cal_data_dir: {random}"}


def compile_file(flags: FlagValues) -> CompileFile | None:
    """Return what the compile file of ``--quant_config`` says, None if it is no such file."""
    if "quant_config" not in flags or flags.quant_config is None:
        return None
    path = Path(flags.quant_config)
    if path.suffix not in SUFFIXES or not path.is_file():
        return None
    from jptq.quant.config_text import load_compile_file

    # It is read once more for its types: what there is to warn of is said then.
    logging.disable(logging.WARNING)
    try:
        return load_compile_file(path, unmatched=flags.unmatched)
    finally:
        logging.disable(logging.NOTSET)


def _located(name: str, folder: Path) -> Path:
    """Return a path as the compile tool takes it, or beside its file if that is where it leads."""
    path = Path(name)
    beside = folder / path
    return beside if not path.exists() and beside.exists() else path
