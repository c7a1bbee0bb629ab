"""Explain a quant_config, check it against another graph, or show differences.

jptq config explain --model=M --quant_config=F
prints for every operand what is asked for, by which rule, what it gets, and why not what is asked.
Without a quant_config: what a calibrated model holds, or what a float one gets by default.

jptq config check --quant_config=F --against=vendor_optimized_float_model.onnx
names the nodes that the other graph does not have, each with its likeliest counterpart there; with
--model also by type, constants and neighbours. Ends with 2 if there are any.

jptq config diff A B
prints the tensors whose type or thresholds differ. A and B are quant_configs (with --model),
calibrated models, or ONNX models with QuantizeLinear and DequantizeLinear.

Where a float model leaves an input's shape open, a batch is taken as 1; other lengths come from
--input_shape or from the samples of --calibration_data.

A quant_config is a dict in JSON, with comments or without, or in Python, or in the YAML file of
the compile tool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from jptq.cli import inputs, output
from jptq.errors import ConfigError, ModelError
from jptq.registry import lookup

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from jptq.ir import Model
    from jptq.quant.config import Config
    from jptq.quant.difference import Difference, State
    from jptq.quant.explain import Outcome

FLAGS = (
    "action",
    "model",
    "quant_config",
    "against",
    "march",
    "input_shape",
    "input_value",
    "calibration_data",
    "only",
    "unmatched",
    "json",
)
REQUIRED = ()
WORDS = "action"

MISSING = 2
"""Exit code if the other graph lacks a node."""


def run(flags: FlagValues) -> int:
    """Do what the first word says."""
    action, *files = flags.action or [""]
    work = lookup(_ACTIONS, action, "action", where="jptq config")
    if files and work is not _diff:
        raise ConfigError(f"unexpected argument {files[0]!r}", where=f"jptq config {action}")
    return work(flags, files)


def _explain(flags: FlagValues, files: Sequence[str]) -> int:
    _needed(flags, "explain", "model")
    from jptq.api import timing
    from jptq.quant.calibrated import assignment_of, plan_of
    from jptq.quant.explain import held, summary
    from jptq.quant.resolve import explain
    from jptq.targets import load_target
    from jptq.tuning.source import is_calibrated

    config, target = _config(flags, flags.quant_config), load_target(flags.march)
    given = _given(flags)
    model = timing.placed(given, config, target, input_shapes=_shapes(flags, given))
    plan = plan_of(model, target)
    if flags.quant_config is None and is_calibrated(given):
        found = held(model, plan, assignment_of(model))
    else:
        found = explain(config, model, plan, target)
    shown = [one for one in found if one.differs or flags.only is None]
    if flags.json:
        output.print_json([one.to_json() for one in shown])
        return 0
    output.print_text(*_lines(shown), summary(found))
    return 0


def _lines(found: Iterable[Outcome]) -> Iterator[str]:
    """Yield a line for each node and each of its operands."""
    for (node, op), slots in groupby(found, key=lambda one: (one.node, one.op)):
        yield f"{node}  {op}"
        for one in slots:
            types = one.asked if one.asked == one.applied else f"{one.asked} -> {one.applied}"
            # The node's name stands above.
            rule = one.rule.replace(f"node_config.{node}", "node_config")
            slot = f"{one.slot or 'node'} {'weight' if one.kind == 'weight' else ''}"
            label = "" if one.why.startswith(f"{one.status} ") else f"{one.status}: "
            why = f"  {label}{one.why}" if one.differs else ""
            yield f"  {slot:<14}{types:<18}{rule}{why}"


def _check(flags: FlagValues, files: Sequence[str]) -> int:
    _needed(flags, "check", "quant_config", "against")
    from jptq import ir
    from jptq.quant.counterpart import missing
    from jptq.quant.export import without_quantizers
    from jptq.targets import load_target

    config = _config(flags, flags.quant_config)
    theirs = without_quantizers(ir.load(flags.against))
    ours = None if flags.model is None else _optimized(flags)
    found = missing(config, theirs, load_target(flags.march), ours)
    if flags.json:
        output.print_json([one.to_json() for one in found])
    for one in () if flags.json else found:
        likely = (
            f"likeliest {one.counterpart!r} ({one.score:.2f}: {one.why or 'nothing but its name'})"
            if one.counterpart is not None
            else "nothing there is like it"
        )
        output.print_text(f"{one.where}: no node {one.name!r} in {flags.against}; {likely}")
    if not found and not flags.json:
        output.print_text(f"{flags.against} has every node that {flags.quant_config} names")
    return MISSING if found else 0


def _optimized(flags: FlagValues) -> Model:
    """Return the float graph that the names of a configuration belong to."""
    from jptq import ir
    from jptq.quant.export import without_quantizers

    model = _given(flags)
    if any(node.is_calibration for node in model.nodes):
        return without_quantizers(model)
    return ir.optimize(model, input_shapes=_shapes(flags, model), float32=True)


def _given(flags: FlagValues) -> Model:
    """Return the network, the inputs that the flags fix as constants."""
    from jptq import ir

    return ir.fix_values(ir.load(flags.model), inputs.values(flags.input_value))


def _shapes(flags: FlagValues, model: Model) -> dict[str, tuple[int, ...]]:
    """Return the shapes of inputs that are given, found in samples, or open for the batch only."""
    from jptq.tuning.source import samples_of

    shapes = inputs.shapes(flags.input_shape)
    if flags.calibration_data is not None:
        samples = samples_of(
            model, Path(flags.model), flags.calibration_data, shapes, 1, float32=True
        )
        shapes = {name: value.shape for name, value in samples[0].items()} | shapes
    for tensor in model.inputs:
        batch, *lengths = tensor.shape or (1, None)
        if not isinstance(batch, int) and all(isinstance(length, int) for length in lengths):
            shapes.setdefault(tensor.name, (1, *(n for n in lengths if isinstance(n, int))))
    return shapes


def _diff(flags: FlagValues, files: Sequence[str]) -> int:
    if len(files) != 2:
        raise ConfigError(
            f"two files are compared, not {len(files)}",
            where="jptq config diff",
            hint="jptq config diff A B",
        )
    from jptq.quant.difference import differences

    sides = [_states(flags, file) for file in files]
    if not set(sides[0]) & set(sides[1]):
        raise ConfigError(
            "the two have no tensor in common",
            where=" and ".join(files),
            hint="give two quantizations of one network",
        )
    found = differences(*sides)
    if flags.json:
        output.print_json([one.to_json() for one in found])
        return 0
    for one in found:
        output.print_text(f"{one.tensor}  {_change(one)}")
    output.print_text(f"{len(found)} tensors differ" if found else "no difference")
    return 0


def _change(one: Difference) -> str:
    """Say in what two sides differ."""
    types = (
        f"{one.first.qtype} -> {one.second.qtype}" if one.first.qtype != one.second.qtype else ""
    )
    if one.factor is None:
        return types
    first, second = (_extent(state) for state in (one.first, one.second))
    return f"{types or one.first.qtype}  thresholds {first} -> {second} (x{one.factor:.6g})"


def _extent(state: State) -> str:
    values = state.thresholds
    if values is None:
        return "none"
    if values.size == 1:
        return f"{values[0]:.6g}"
    if state.asymmetric and values.size == 2:
        return f"[{values[0]:.6g}, {values[1]:.6g}]"
    return f"{values.size} of {values.min():.6g} to {values.max():.6g}"


def _states(flags: FlagValues, file: str) -> Mapping[str, State]:
    """Return what a model, or a configuration of ``--model``, quantizes tensors to."""
    from jptq import ir
    from jptq.api import timing
    from jptq.quant.calibrated import plan_of
    from jptq.quant.difference import quantizes, states_of
    from jptq.quant.resolve import resolve
    from jptq.targets import load_target

    if Path(file).suffix == ".onnx":
        model = ir.load(file)
        if not quantizes(model):
            raise ModelError(
                "the model has no quantizers", where=file, hint="jptq calibrate makes them"
            )
        return states_of(model)
    _needed(flags, "diff of a quant_config", "model")
    config, target = _config(flags, file), load_target(flags.march)
    given = _given(flags)
    model = timing.placed(given, config, target, input_shapes=_shapes(flags, given))
    return states_of(model, resolve(config, model, plan_of(model, target), target))


def _config(flags: FlagValues, file: str | None) -> Config:
    from jptq.quant.config import load_config

    return load_config(file, unmatched=flags.unmatched)


def _needed(flags: FlagValues, action: str, *names: str) -> None:
    for name in names:
        if flags[name].value is None:
            raise ConfigError(f"--{name} is missing", where=f"jptq config {action}")


_ACTIONS: Mapping[str, Callable[[FlagValues, Sequence[str]], int]] = {
    "explain": _explain,
    "check": _check,
    "diff": _diff,
}
