"""Which corrections stay: the decision, on tensors that are made up."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from jptq.calibration import bias
from jptq.calibration.bias import Biases
from jptq.ir.model import Model
from tests.graphs import Graph
from tests.quant.networks import float_model

LOST = {"first:0": np.asarray([0.5, -1.0, 0.0]), "second:0": np.asarray([2.0])}
"""What quantization takes from each channel, everywhere alike."""


@pytest.fixture
def model() -> Model:
    g = Graph()
    x = g.conv(g.input("x", (1, 2, 4, 4)), 2, 3, name="first")
    g.output(g.conv(g.add("Relu", x), 3, 1, name="second"))
    return bias.with_biases(float_model(g))


class Network:
    """Two samples whose outputs lose `LOST`, and get back what a bias adds."""

    def __init__(self, model: Model) -> None:
        self.model = model
        rng = np.random.default_rng(0)
        self.names = {n.outputs[0]: n.inputs[bias.BIAS] for n in bias.convolutions(model)}
        self.floating = {
            name: rng.standard_normal((2, 1, lost.size, 4, 4)) for name, lost in LOST.items()
        }
        self.runs: list[set[str]] = []

    def run(self, biases: Biases, name: str) -> np.ndarray:
        self.runs.append(set(biases))
        lost = LOST[name] - self.added(name, biases)
        return np.asarray(self.floating[name] - lost[:, None, None])

    def added(self, name: str, biases: Biases) -> np.ndarray:
        given = self.model.initializers[self.names[name]]
        return np.asarray(biases.get(self.names[name], given) - given)

    def whole(self, biases: Biases) -> Mapping[str, float]:
        return self.compare(self.floating["second:0"], self.run(biases, "second:0"))

    def compare(self, one: np.ndarray, other: np.ndarray) -> dict[str, float]:
        return {"mse": float(np.mean((one - other) ** 2))}

    def correct(self) -> bias.Corrected:
        return bias.correct(
            self.model,
            self.floating.__getitem__,
            self.run,
            self.compare,
            self.whole,
            metric="mse",
        )


def test_a_bias_takes_up_the_mean_that_its_channel_lost(model: Model) -> None:
    network = Network(model)
    found = network.correct()
    for tensor, name in network.names.items():
        np.testing.assert_allclose(
            found.biases[name] - model.initializers[name], LOST[tensor], atol=1e-6
        )
    assert [row.node for row in found.nodes] == ["first", "second"]
    assert all(row.kept and row.after < 1e-12 < row.before for row in found.nodes)
    assert found.after < found.before


def test_a_node_sees_the_corrections_before_it(model: Model) -> None:
    network = Network(model)
    network.correct()
    assert network.runs[0] == set()
    assert network.runs[1] == {network.names["first:0"]}


def test_a_correction_that_does_not_help_its_node_is_left_out(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOST, "first:0", np.zeros(3))
    network = Network(model)
    found = network.correct()
    assert [row.kept for row in found.nodes] == [False, True]
    assert set(found.biases) == {network.names["second:0"]}


def test_nothing_stays_if_the_network_gets_worse(model: Model) -> None:
    class Worse(Network):
        def whole(self, biases: Biases) -> Mapping[str, float]:
            return {"mse": float(len(biases))}

    found = Worse(model).correct()
    assert found.biases == {}
    assert (found.before, found.after) == (0.0, 2.0)
    assert all(row.kept for row in found.nodes)
