from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jptq.engine.segments import STRIDE, Segmented, cut
from tests.engine.quantized import Network, chain, network, samples
from tests.graphs import Graph
from tests.oracles import relative_error
from tests.quant.networks import branches

SHAPE = (1, 4, 8, 8)


@pytest.fixture(scope="module")
def net() -> Network:
    return network(branches(), samples(1, *SHAPE)[0])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 50])
def test_segments_cover_all_steps_once_and_in_order(net: Network, count: int) -> None:
    segments = cut(net.runner.program, count)
    assert 1 <= len(segments) <= count
    assert segments[0].start == 0
    assert segments[-1].stop == len(net.runner.program.steps)
    for before, after in itertools.pairwise(segments):
        assert before.stop == after.start
        assert before.live_out == after.live_in
    assert all(s.start < s.stop for s in segments)


def test_the_first_segment_starts_from_the_feeds_and_the_last_gives_the_outputs(
    net: Network,
) -> None:
    segments = cut(net.runner.program, 4)
    assert set(segments[0].live_in) <= set(net.runner.program.inputs)
    assert segments[-1].live_out == ()


def test_cuts_share_the_work_about_evenly() -> None:
    net = network(chain(8), samples(1, 1, 3, 6, 6)[0])
    segments = cut(net.runner.program, 4)
    steps = net.runner.program.steps
    work = [sum(s.macs for s in steps[one.start : one.stop]) for one in segments]
    assert len(segments) == 4
    assert max(work) < 0.45 * sum(work)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_float_segments_one_after_the_other_are_the_whole_program(net: Network, count: int) -> None:
    pieces = Segmented(net.runner.program, count, net.runner.compilations)
    feeds = {"x": np.concatenate([s["x"][None] for s in samples(2, *SHAPE)])}
    state = {n: jnp.asarray(v) for n, v in feeds.items()}
    for index in range(len(pieces)):
        state = pieces.run_float(index, net.runner.float_weights, state)
    whole = net.runner.run(net.runner.float_weights, feeds)
    assert set(state) == set(whole)
    for name, value in whole.items():
        assert relative_error(np.asarray(state[name]), np.asarray(value)) < 1e-6


@pytest.mark.slow
def test_quantized_segments_one_after_the_other_are_the_whole_program(net: Network) -> None:
    pieces = Segmented(net.runner.program, 4, net.runner.compilations)
    feeds = {"x": np.concatenate([s["x"][None] for s in samples(2, *SHAPE)])}
    packed = net.runner.pack(net.table("int8"))
    state = {n: jnp.asarray(v) for n, v in feeds.items()}
    for index in range(len(pieces)):
        state = pieces.run_quantized(index, packed.weights, packed.table, state)
    whole = net.runner.run(packed, feeds)
    for name, value in whole.items():
        assert relative_error(np.asarray(state[name]), np.asarray(value)) < 1e-6


@pytest.mark.slow
def test_prefixes_are_the_states_before_each_segment_and_the_outputs(net: Network) -> None:
    pieces = Segmented(net.runner.program, 3, net.runner.compilations)
    feeds = {"x": np.concatenate([s["x"][None] for s in samples(2, *SHAPE)])}
    states = pieces.prefixes(net.runner.float_weights, feeds)
    assert len(states) == len(pieces) + 1
    for segment, state in zip(pieces.segments, states, strict=False):
        assert set(segment.live_in) <= set(state)
    whole = net.runner.run(net.runner.float_weights, feeds)
    for name, value in whole.items():
        assert relative_error(np.asarray(states[-1][name]), np.asarray(value)) < 1e-6


@pytest.mark.slow
def test_the_rest_from_a_stop_gives_the_outputs() -> None:
    net = network(chain(2 * STRIDE + 2), samples(1, 1, 3, 6, 6)[0])
    pieces = Segmented(net.runner.program, 2 * STRIDE + 2, net.runner.compilations)
    stops = [pieces.stop(index) for index in range(len(pieces))]
    assert stops == [STRIDE] * STRIDE + [2 * STRIDE] * STRIDE + [len(pieces)] * 2
    feeds = {"x": np.concatenate([s["x"][None] for s in samples(2, 1, 3, 6, 6)])}
    states = pieces.prefixes(net.runner.float_weights, feeds)
    for stop in (*range(STRIDE, len(pieces), STRIDE), len(pieces)):
        rest = pieces.run_rest(stop, net.runner.float_weights, states[stop])
        assert set(rest) == set(states[-1])
        for name, value in states[-1].items():
            assert relative_error(np.asarray(rest[name]), np.asarray(value)) < 1e-6


def test_the_span_of_quantizers_is_where_they_act(net: Network) -> None:
    pieces = Segmented(net.runner.program, 4, net.runner.compilations)
    by_slot = {key: slot.calibration for key, slot in net.runner.program.slots.items()}
    for index in range(len(net.plan.calibrations)):
        first, last = pieces.span([index])
        for number, segment in enumerate(pieces.segments):
            steps = net.runner.program.steps[segment.start : segment.stop]
            acts = any(
                step.calibration == index
                or any(o.weight and by_slot[o.weight] == index for o in step.operands)
                for step in steps
            )
            assert acts == (first <= number <= last) or first < number < last
    everything = pieces.span(range(len(net.plan.calibrations)))
    assert everything == (0, len(pieces) - 1)


def test_outputs_that_are_inputs_or_constants_pass_through_the_segments() -> None:
    g = Graph()
    x = g.input("x", (1, 3, 6, 6))
    constant = g.random(2, name="constant")
    early = g.conv(x, 3, 4, name="early")
    g.output(x, g.conv(g.add("Relu", early), 4, 2, name="late"), constant, early)
    net = network(g, samples(1, 1, 3, 6, 6)[0])
    pieces = Segmented(net.runner.program, 4, net.runner.compilations)
    feeds = {"x": np.stack([s["x"] for s in samples(2, 1, 3, 6, 6)])}
    last = pieces.prefixes(net.runner.float_weights, feeds)[-1]
    whole = net.runner.run(net.runner.float_weights, feeds)
    assert set(last) == set(whole) == {x, "constant", early, g.outputs[1].name}
    for name, value in whole.items():
        assert relative_error(np.asarray(last[name]), np.asarray(value)) < 1e-6


def test_a_network_of_one_step_is_one_segment() -> None:
    g = Graph()
    g.output(g.add("Sigmoid", g.input("x", (1, 3)), name="only"))
    net = network(g, samples(1, 1, 3)[0])
    pieces = Segmented(net.runner.program, 16, net.runner.compilations)
    assert pieces.segments[-1].stop == len(net.runner.program.steps)
    feeds = {"x": np.zeros((2, 1, 3), np.float32)}
    assert len(pieces.prefixes(net.runner.float_weights, feeds)) == len(pieces) + 1
