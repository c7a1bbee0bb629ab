from __future__ import annotations

import numpy as np
import pytest

from jptq.diagnosis import Walk, accumulate, off, only, running_mean
from jptq.errors import UnknownNameError
from tests.agreements.figures import ORACLES
from tests.diagnosis.networks import by_onnxruntime, case, joined, on

METRICS = ("cosine-similarity", "mse", "sqnr", "chebyshev")


def test_every_operator_has_a_value_in_graph_order() -> None:
    made = case()
    found = accumulate(made.runner, {"all": on(made)}, made.samples[:1])
    assert list(found.nodes) == [node.name for node in made.model.operators()]
    assert list(found.tensors) == [node.outputs[0] for node in made.model.operators()]


@pytest.mark.parametrize("kind", ["feature", "weight", None])
def test_the_curve_is_the_metric_at_each_output_in_onnxruntime(kind: str | None) -> None:
    made = case()
    names = None if kind is None else [c.name for c in made.plan.calibrations if c.kind == kind]
    found = accumulate(made.runner, {"it": on(made, names)}, made.samples, metrics=METRICS)
    floats, quantized = (by_onnxruntime(made, which, found.tensors) for which in ([], names))
    for metric in METRICS:
        want = [
            np.mean([ORACLES[metric](f[t], q[t]) for f, q in zip(floats, quantized, strict=True)])
            for t in found.tensors
        ]
        np.testing.assert_allclose(found.curve("it", metric), want, rtol=2e-3, atol=1e-6)


def test_what_lies_before_the_first_quantizer_is_perfect() -> None:
    made = case()
    last = made.plan.of_node("classes").inputs[0]
    table = only(on(made), made.plan, {last})
    found = accumulate(made.runner, {"": table}, made.samples[:1], metrics=("sqnr", "mse"))
    behind = found.nodes.index("classes")
    exact = [i for i in range(len(found.nodes)) if i != behind]
    assert found.curve("", "mse")[behind] > 0
    assert np.array_equal(found.curve("", "mse")[exact], np.zeros(len(exact)))


def test_a_table_that_is_off_is_float_to_the_last_bit() -> None:
    made = case()
    found = accumulate(made.runner, {"": off(on(made))}, made.samples[:2], metrics=("chebyshev",))
    assert not found.curve("").any()


def test_curves_do_not_depend_on_how_the_network_is_cut() -> None:
    made = case()
    whole, pieces = Walk(made.runner), Walk(made.runner, limit=400)
    assert (len(whole._pieces), len(pieces._pieces)) == (1, 6)
    packed = [made.runner.pack(on(made)), made.runner.pack(off(on(made)))]
    feeds = {"x": np.stack([feeds["x"] for feeds in made.samples[:2]])}

    def seen(walk: Walk) -> dict[tuple[int, str], np.ndarray]:
        return {
            (index, name): np.asarray(value)
            for index, values in walk(packed, feeds)
            for name, value in values.items()
        }

    one, other = seen(whole), seen(pieces)
    assert set(one) == set(other)
    for key, value in one.items():
        np.testing.assert_allclose(value, other[key], rtol=1e-5, atol=1e-6)


def test_a_walk_shows_what_onnxruntime_computes() -> None:
    made = case()
    walk = Walk.of(made.runner)
    wanted = {"x", walk.tensors[2]}
    feeds = {"x": np.stack([feeds["x"] for feeds in made.samples[:2]])}
    found = {}
    for _, values in walk([made.runner.pack(off(on(made)))], feeds, wanted):
        found |= values
    want = by_onnxruntime(made, [], [walk.tensors[2]])[:2]
    assert set(found) == wanted
    assert np.array_equal(found["x"], feeds["x"])
    np.testing.assert_allclose(
        found[walk.tensors[2]], joined(want, walk.tensors[2]), rtol=1e-5, atol=1e-6
    )


def test_more_tables_compile_nothing_new() -> None:
    made = case()
    accumulate(made.runner, {"": on(made)}, made.samples[:1])
    before = dict(made.runner.compilations.counts)
    tables = {c.name: only(on(made), made.plan, {c.name}) for c in made.plan.calibrations}
    accumulate(made.runner, tables, made.samples[:1])
    assert made.runner.compilations.counts == before


def test_a_running_mean_is_over_all_values_so_far() -> None:
    assert running_mean(np.asarray([1.0, 0.9, 0.9, 0.8])) == pytest.approx([1, 0.95, 2.8 / 3, 0.9])


def test_an_unknown_metric_is_refused() -> None:
    made = case()
    with pytest.raises(UnknownNameError, match="cosine"):
        accumulate(made.runner, {"": on(made)}, made.samples[:1], metrics=("cosine",))


def test_an_unknown_tensor_is_refused() -> None:
    made = case()
    walk = Walk.of(made.runner)
    with pytest.raises(UnknownNameError, match="nowhere"):
        list(walk([made.runner.pack(on(made))], made.samples[0], {"nowhere"}))
