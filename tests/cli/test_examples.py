"""The examples in ``configs/examples`` are taken as they are."""

from __future__ import annotations

import runpy

import numpy as np
import pytest

from jptq.cli import flags, tune
from jptq.quant.config import NodeTypes, load_config
from jptq.targets.folder import configs
from jptq.tuning import Evaluator

FOLDER = configs("examples")


def test_the_flags_are_flags_of_tune() -> None:
    values = flags.parse("tune", tune.FLAGS, (), [f"--flagfile={FOLDER / 'tune.flags'}"])
    assert values.latency_budget_ratio == 1.1
    tune.refuse_contradictions(values, has_evaluator=True)


def test_the_configuration_is_read() -> None:
    config = load_config(FOLDER / "quant_config.json")
    assert config.activation.calibration_type == ("max", "kl")
    assert config.ops == {"Softmax": NodeTypes(qtype="int16")}


def test_the_evaluator_counts_right_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(40) % 4
    data = {"images": np.zeros((40, 3, 2, 2), np.float32), "labels": labels}

    class Stored(dict[str, np.ndarray]):
        def __enter__(self) -> Stored:
            return self

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(np, "load", lambda path, allow_pickle: Stored(data))
    evaluate = runpy.run_path(str(FOLDER / "evaluate.py"))["evaluate"]
    zero = np.eye(4, dtype=np.float32)[[0]]

    def forward(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"logits": zero.repeat(len(feeds["images"]), 0)}

    assert Evaluator.of(evaluate)(forward) == {"score": 0.25}
