"""The float network that a calibrated model is compared with, where the model does not hold it.

A model with fitted weights has digests of what they were (`jptq.quant.originals`). The values are
in ``optimized_float_model.onnx``, which is written with it: it is found beside the model, or named.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jptq import ir
from jptq.errors import ModelError
from jptq.ir import Model
from jptq.quant.originals import absent_constants, constant_digest, original_constants
from jptq.tuning.source import is_calibrated

FLOAT_FILE = "optimized_float_model.onnx"
"""What the float network is called beside a calibrated model."""

_CALIBRATED = "calibrated_model.onnx"
"""What calibrated models are called, behind a prefix."""

_NAMED = 3


def float_values(
    model: Model, where: Path, reference: Path | str | None = None
) -> dict[str, np.ndarray]:
    """Return the float values of the constants that a calibrated model has others of.

    Args:
      model: A calibrated model.
      where: Its file; `FLOAT_FILE` is looked for beside it, with the prefix of its name if there is
        one. In the working folder if this is no path.
      reference: The float network. A model that says what its float network was is held to that;
        of one that does not, such as a model of the vendor's tool that was made of fitted weights,
        every constant of float32 has to be there.

    Returns:
      ``{initializer: float32}``; none for a model that holds its float network itself.

    Raises:
      ModelError: The file is not at hand, cannot be read, or belongs to another network.
    """
    held, absent = original_constants(model), absent_constants(model)
    if reference is not None:
        return _from_file(model, where, Path(reference), held, absent)
    if not absent:
        return held
    for path in _beside(where):
        if path.is_file():
            return _from_file(model, where, path, held, absent)
    raise ModelError(
        "the float network of this model is not at hand",
        where=str(where),
        why=f"its weights were fitted, of {_listed(list(absent))} it only has digests, and "
        f"{_beside(where)[0]} does not exist",
        hint=f"--reference={FLOAT_FILE} of the run that made it; in Python reference=...",
    )


def _beside(where: Path) -> list[Path]:
    prefix = where.name.removesuffix(_CALIBRATED) if where.name.endswith(_CALIBRATED) else ""
    return [where.parent / name for name in dict.fromkeys((f"{prefix}{FLOAT_FILE}", FLOAT_FILE))]


def _from_file(
    model: Model,
    where: Path,
    path: Path,
    held: Mapping[str, np.ndarray],
    absent: Mapping[str, str],
) -> dict[str, np.ndarray]:
    given = ir.load(path)
    if is_calibrated(given):
        raise ModelError(
            "the reference has quantizers",
            where=os.fspath(path),
            why="it is what a quantized model is compared with",
            hint=f"give the float network, {FLOAT_FILE}",
        )
    constants = given.initializers
    noted = {**{name: constant_digest(value) for name, value in held.items()}, **absent}
    wanted = noted or {
        name: constant_digest(value)
        for name, value in model.initializers.items()
        if value.dtype == np.float32 and name in _read_by_operators(model)
    }
    missing = [n for n in wanted if n not in constants or not _alike(model, constants[n], n)]
    other = [n for n in noted if n not in missing and constant_digest(constants[n]) != wanted[n]]
    if missing or other:
        what = "does not have" if missing else "has other values of"
        raise ModelError(
            "the reference is another network",
            where=os.fspath(path),
            why=f"{where.name} was made of a network with constants that it {what}: "
            f"{_listed(missing or other)}",
            hint=f"give {FLOAT_FILE} of the run that made the model",
        )
    return {
        name: constants[name]
        for name, digest in wanted.items()
        if noted or constant_digest(constants[name]) != digest
    }


def _read_by_operators(model: Model) -> set[str]:
    return {name for node in model.nodes for name in node.reads}


def _alike(model: Model, constant: np.ndarray, name: str) -> bool:
    own = model.initializers[name]
    return own.shape == constant.shape and own.dtype == constant.dtype


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more
