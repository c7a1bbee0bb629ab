"""Every registered operator against the node cases that ONNX ships."""

from __future__ import annotations

import collections
import dataclasses
import traceback
from collections.abc import Sequence

import jax
import pytest

from tests.ops import cases

_FRACTIONAL = "ONNX divides by the fractional length; its own text and onnxruntime by the whole one"
_RANDOM = "draws random numbers"
_STRUCTURE = "branches that give another structure, under a condition that is computed: refused"
_TRAINING = "statistics of a batch tie its samples together: refused"

EXCLUDED = {
    "test_batchnorm_epsilon_training_mode": _TRAINING,
    "test_batchnorm_example_training_mode": _TRAINING,
    "test_dynamicquantizelinear_expanded": (
        "a value one ulp from a tie: XLA divides by a scalar through its reciprocal"
    ),
    "test_if_opt": _STRUCTURE,
    "test_resize_downsample_scales_cubic_align_corners": _FRACTIONAL,
    "test_resize_downsample_scales_linear_align_corners": _FRACTIONAL,
    "test_training_dropout": _RANDOM,
    "test_training_dropout_default": _RANDOM,
    "test_training_dropout_default_mask": _RANDOM,
    "test_training_dropout_mask": _RANDOM,
}
"""Cases that must not count, with the reason."""

SINGLE: dict[str, list[cases.Case]] = collections.defaultdict(list)
CHAINS: dict[str, list[cases.Case]] = collections.defaultdict(list)
for _case in cases.load():
    if _case.name not in EXCLUDED:
        if _case.is_single:
            SINGLE[_case.operator].append(_case)
        else:
            CHAINS[_case.name.removeprefix("test_").split("_")[0]].append(_case)


def _complaints(runs: Sequence[cases.Run]) -> list[str]:
    """Return what is wrong with each case that fails."""
    complaints = []
    with jax.enable_x64(True):
        for run, outputs in zip(runs, cases.outputs(runs), strict=True):
            try:
                if isinstance(outputs, Exception):
                    raise outputs
                run.compare(outputs)
            except Exception as error:  # the report names every case that fails
                if not cases.is_beyond_xla(error):
                    complaints.append(f"{run.case.name}: {traceback.format_exc(limit=-2)}")
    return complaints


@pytest.mark.parametrize(
    "operator",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "Attention" else name
        for name in sorted(SINGLE)
    ],
)
def test_node_cases_of_onnx_agree_and_map_over_a_batch(operator: str) -> None:
    group = SINGLE[operator]
    runs = [run for case in group for run in cases.runs(case)]
    if group[0].has_moving_inputs:
        runs.append(dataclasses.replace(runs[0], copies=2))
    complaints = _complaints(runs)
    assert not complaints, "\n".join(complaints)


@pytest.mark.slow
@pytest.mark.parametrize("function", sorted(CHAINS))
def test_functions_that_onnx_expands_into_chains_agree(function: str) -> None:
    complaints = _complaints([run for case in CHAINS[function] for run in cases.runs(case)])
    assert not complaints, "\n".join(complaints)


def test_each_exclusion_names_a_case_that_exists() -> None:
    assert set(EXCLUDED) <= {case.name for case in cases.load()}
