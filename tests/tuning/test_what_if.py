from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import jptq
from jptq import ir
from jptq.engine import Batching, memory
from jptq.errors import ConfigError, UnknownNameError
from jptq.quant.assign import uniform
from jptq.quant.calibrated import plan_of, thresholds_of, with_assignment, with_thresholds
from jptq.quant.compensate import compensate
from jptq.quant.placement import place
from jptq.tuning import Journal, Measurer, Prepared, WhatIf
from jptq.tuning.changes import Changer, Setting, read
from jptq.tuning.evaluator import Forward
from jptq.tuning.reopen import from_calibrated
from jptq.tuning.what_if import _affordable
from tests.engine.test_compilations import compilations
from tests.quant.networks import TARGET, branches, float_model, placed
from tests.tuning.networks import evaluator


@pytest.fixture(scope="module")
def ask(prepared: Prepared) -> WhatIf:
    return WhatIf(prepared, segments=6)


def reloaded(
    prepared: Prepared,
    folder: Path,
    written: Path,
    types: dict[str, str],
    thresholds: dict[str, np.ndarray] | None = None,
) -> WhatIf:
    """Return the network with changes made to its file, which knows of no earlier run."""
    model = with_assignment(prepared.calibrated, {**prepared.configured, **types})
    ir.save(with_thresholds(model, thresholds or {}), written / "model.onnx")
    return WhatIf(
        from_calibrated(written / "model.onnx", folder / "data", march="nash-e"), segments=6
    )


def types_of(prepared: Prepared, node: str, name: str) -> dict[str, str]:
    return dict.fromkeys(prepared.plan.of_node(node).calibrations[:1], name)


def test_an_answer_is_that_of_a_whole_run_to_the_last_bit(
    ask: WhatIf, prepared: Prepared, folder: Path, tmp_path: Path
) -> None:
    for nodes in (("loud", "outlier"), ("head",)):
        answer = ask(dict.fromkeys(nodes, "int16"))
        types = {change.calibration: change.after for change in answer.changes}
        whole = reloaded(prepared, folder, tmp_path, types)
        assert answer.after == whole.base
        assert answer.after.comparison != answer.before.comparison


def test_an_answer_agrees_with_the_measurement_of_a_tuning(ask: WhatIf, prepared: Prepared) -> None:
    found = ask({"loud.input0": "int16", "outlier": "int16"}).after.comparison
    types = {**types_of(prepared, "loud", "int16"), **types_of(prepared, "outlier", "int16")}
    want = Measurer(prepared, None, Journal(None)).compare({**prepared.configured, **types})
    assert found is not None
    for one, other in zip(found.outputs, want.outputs, strict=True):
        assert one.cosine.mean == pytest.approx(other.cosine.mean, abs=1e-6)
        assert one.l2.max == pytest.approx(other.l2.max, rel=1e-4)


def test_changed_thresholds_are_those_of_a_file_that_holds_them(
    ask: WhatIf, prepared: Prepared, folder: Path, tmp_path: Path
) -> None:
    inputs = prepared.plan.of_node("body").inputs
    feature, weight = inputs[0], inputs[1]
    changed = {feature: np.asarray([0.5]), weight: prepared.thresholds[weight] * np.float32(0.75)}
    answer = ask({"body.threshold": 0.5, "body.input1.threshold": "x0.75"})
    assert answer.after == reloaded(prepared, folder, tmp_path, {}, changed).base
    assert answer.after.comparison != answer.before.comparison


def test_only_what_follows_the_change_runs_again(ask: WhatIf) -> None:
    shares = [ask({f"{node}.input0": "int16"}).rerun for node in ("stem", "outlier", "head")]
    assert shares[0] == 1.0
    assert shares[0] > shares[1] > shares[2] > 0


def test_a_second_question_compiles_nothing(prepared: Prepared) -> None:
    ask = WhatIf(prepared, segments=6)
    ask({"head": "int16"})
    before = dict(prepared.runner.compilations.counts)
    with compilations() as found:
        ask({"stem": "int16"})
        ask({"stem": "float32", "body": "dual-int16"}, accumulate=True)
        ask({"loud.threshold": 3.0, "outlier.input1.threshold": "x0.5"})
    assert found == []
    assert prepared.runner.compilations.counts == before


def test_changes_start_from_the_model_unless_they_accumulate(prepared: Prepared) -> None:
    ask = WhatIf(prepared, segments=6)
    both = ask({"loud": "int16", "outlier": "int16"})
    first = ask({"loud": "int16"}, accumulate=True)
    assert first.before == ask.base
    alone = ask({"outlier": "int16"})
    assert alone.before == ask.base
    second = ask({"outlier": "int16"}, accumulate=True)
    assert second.before == first.after
    assert second.after == both.after == ask.current
    assert alone.after != both.after
    assert ask({"outlier": "int16"}).after == alone.after
    ask.reset()
    assert ask.current == ask.base
    assert ask({"outlier": "int16"}, accumulate=True).after == alone.after


def test_a_change_back_is_the_model_itself(prepared: Prepared) -> None:
    ask = WhatIf(prepared, segments=6)
    ask({"stem": "int16"}, accumulate=True)
    answer = ask({"stem": "int8"}, accumulate=True)
    assert answer.after == ask.base


def test_states_are_given_up_as_memory_demands_and_answers_stay_the_same(
    prepared: Prepared, ask: WhatIf
) -> None:
    # The smallest limit that holds the process: no room for any state.
    tight = dataclasses.replace(prepared.runner.batching, memory=memory.FIXED)
    runner = prepared.runner
    generous, runner.batching = runner.batching, tight
    try:
        poor = WhatIf(prepared, segments=6)
        answer = poor({"head": "int16"})
        assert answer.rerun == 1.0
        assert not any(batch.states for batch in poor._batches)
    finally:
        runner.batching = generous
    assert answer.after.comparison is not None
    want = ask({"head": "int16"}).after.comparison
    assert want is not None
    assert answer.after.comparison.min_cosine == pytest.approx(want.min_cosine, abs=1e-6)


def test_the_states_that_are_kept_fit(ask: WhatIf) -> None:
    pieces = ask._pieces
    sizes = [3 * memory.size(pieces.program, s.live_in) for s in pieces.segments]
    assert _affordable(pieces, sum(sizes), 3) == frozenset(range(len(pieces)))
    for room in (0.0, 0.3 * sum(sizes), 0.7 * sum(sizes)):
        assert sum(sizes[i] for i in _affordable(pieces, room, 3)) <= room


def test_scores_of_the_user_stand_beside(prepared: Prepared) -> None:
    scored = evaluator()
    ask = WhatIf(prepared, scored, segments=2)
    answer = ask({"outlier": "int16"})
    measurer = Measurer(prepared, evaluator(), Journal(None))
    types = types_of(prepared, "outlier", "int16")
    want = measurer("", {**prepared.configured, **types})
    assert answer.after.scores == want.scores
    assert answer.after.shares == want.shares
    assert answer.before.scores == measurer("", prepared.configured).scores
    assert scored.calls == 4  # the float network twice: is the score one of the model?


def test_the_latency_is_that_of_the_changed_types(ask: WhatIf, prepared: Prepared) -> None:
    answer = ask({"body": "int16"})
    types = types_of(prepared, "body", "int16")
    assert answer.after.time_us == prepared.latency.total_us({**prepared.configured, **types})
    assert answer.before.time_us == prepared.latency.total_us(prepared.configured)


def test_a_request_that_the_target_does_not_apply_is_said(ask: WhatIf) -> None:
    feature, weight = ask({"body": "int16"}).changes
    assert (feature.applied, feature.before, feature.after) == (True, "int8", "int16")
    assert (weight.applied, weight.after) == (False, "int8")
    assert "nash-e takes int8 here, int16 only under dual-int16" in weight.note
    assert all(change.applied for change in ask({"body": "dual-int16"}).changes)


def branching() -> tuple[Changer, Setting]:
    """Return a network with shared quantizers and a Concat, every threshold 2."""
    model = placed(branches())
    plan = plan_of(model, TARGET)
    return Changer(model, plan, TARGET.march), Setting(
        assignment=uniform(plan, "int8"),
        thresholds={c.name: np.full(1, 2.0, np.float32) for c in plan.calibrations},
    )


def test_readers_that_share_a_quantizer_are_named() -> None:
    changer, setting = branching()
    (feature, weight) = changer(setting, {"body": "int16"})[1]
    assert feature.note == "also read by residual"
    assert weight.note.startswith("not applied")


def test_quantizers_around_a_concat_keep_one_threshold() -> None:
    changer, setting = branching()
    changed, done = changer(setting, {"concat.threshold": 3.0})
    names = {change.calibration for change in done}
    assert len(names) > 1
    assert changed.thresholds.keys() == setting.thresholds.keys()
    for name, values in changed.thresholds.items():
        assert values == (3.0 if name in names else 2.0)
    assert {c.note for c in done} == {
        "input0 of concat",
        f"shares the grid of {done[0].calibration}",
    }


def test_the_halves_of_a_compensated_operand_follow_the_grid_they_come_from() -> None:
    split = compensate(float_model(branches()), {"resize": 0}, TARGET)
    floats = {name for node in split.nodes for name in node.outputs}
    model = place(split, TARGET, floats=floats | set(split.initializers) | {"x"})
    plan = plan_of(model, TARGET)
    sizes = {c.name: c.channels if c.constant else 1 for c in plan.calibrations}
    model = with_thresholds(model, {name: np.full(size, 2.0) for name, size in sizes.items()})
    changer = Changer(model, plan, TARGET.march)
    setting = Setting(assignment=uniform(plan, "int8"), thresholds=thresholds_of(model))
    source = plan.of_node("resize").inputs[0]
    changed, done = changer(setting, {f"{source}.threshold": 4.0})
    assert {c.note for c in done} == {"", "follows by error compensation"}
    want = thresholds_of(with_thresholds(model, {source: np.full(1, 4.0)}))
    for name, values in want.items():
        np.testing.assert_array_equal(changed.thresholds[name], values, err_msg=name)
    half = plan.of_node("resize_split_low").inputs[0]
    with pytest.raises(ConfigError, match="is not free"):
        changer(setting, {f"{half}.threshold": 1.0})


def test_a_type_lowers_as_well_as_raises() -> None:
    changer, setting = branching()
    raised, _ = changer(setting, {"stem.input0": "int16"})
    lowered, (change,) = changer(raised, {"stem.input0": "int8"})
    assert raised.assignment != setting.assignment == lowered.assignment
    assert (change.before, change.after) == ("int16", "int8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outlyer": "int16"}, "did you mean 'outlier'"),
        ({"outlier.input7": "int16"}, "'input0'"),
        ({"outlyer.input0": "int16"}, "did you mean 'outlier'"),
        ({"outlier": "int12"}, "did you mean 'int16'"),
        ({"outlier.input1": "ec"}, "calibrate the float model"),
        ({"loud": "dual-int16"}, "has no dual-int16"),
        ({"outlier.threshold": "wide"}, "is no threshold"),
        ({"outlier.threshold": -1.0}, "above 0"),
        ({"outlier.threshold": float("nan")}, "above 0"),
        ({"outlier.threshold": "1,2,3"}, "3 numbers"),
        ({"outlier.threshold": "x0"}, "one number above 0"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_way_out(
    ask: WhatIf, change: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        ask(change)
    assert message in str(error.value)


def test_a_refused_question_changes_nothing(prepared: Prepared) -> None:
    ask = WhatIf(prepared, segments=2)
    with pytest.raises(UnknownNameError):
        ask({"stem": "int16", "nothing": "int16"}, accumulate=True)
    assert ask.current == ask.base


def test_words_are_split_at_the_last_equals_sign() -> None:
    assert read(["a=b=int16", "c.threshold=4.2"]) == {"a=b": "int16", "c.threshold": "4.2"}
    for words in (["int16"], ["a="], ["=int16"], ["a=int8", "a=int16"]):
        with pytest.raises(ConfigError):
            read(words)


def test_an_answer_reads_as_old_and_new(ask: WhatIf) -> None:
    answer = ask({"outlier.input0": "int16"})
    text = str(answer)
    assert "int8 -> int16" in text
    old, new = (e.comparison.outputs[0].cosine.mean for e in (answer.before, answer.after))  # type: ignore[union-attr]
    assert f"{old:.6g} -> {new:.6g}  ({new - old:+.3g})" in text
    content = answer.to_json()
    assert content["changes"][0]["applied"] is True
    assert content["after"]["comparison"]["outputs"][0]["cosine"]["mean"] == new


def test_an_evaluator_function_is_taken_as_it_is(
    folder: Path, prepared: Prepared, tmp_path: Path
) -> None:
    ir.save(prepared.calibrated, tmp_path / "model.onnx")

    def evaluate(forward: Forward) -> float:
        forward(prepared.samples[0])
        return 0.5

    ask = jptq.what_if(
        tmp_path / "model.onnx",
        folder / "data",
        evaluator=evaluate,
        batching=Batching(samples=2),
    )
    assert ask({"outlier": "int16"}).after.scores == {"score": 0.5}
