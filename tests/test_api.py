"""The public names: complete, loaded late, and the same things as the commands use."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import onnx
import onnxruntime
import pytest

import jptq
from tests.graphs import Graph, conv_net, feeds_for


def reference(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feeds))


def test_importing_jptq_imports_nothing_heavy() -> None:
    code = (
        "import sys, jptq; dir(jptq);"
        "print([m for m in ('jax', 'onnx', 'numpy', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", jptq.__all__)
def test_every_public_name_exists_and_says_what_it_is(name: str) -> None:
    value = getattr(jptq, name)
    assert name == "__version__" or value.__doc__


def test_types_and_homes_name_the_same_things() -> None:
    """What a type checker reads is what is loaded."""
    tree = ast.parse(Path(jptq.__file__).read_text())
    imported = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jptq")
        for alias in node.names
    }
    assert imported == jptq._HOMES
    assert set(jptq.__all__) == {*jptq._HOMES, "__version__"}
    assert dir(jptq) == sorted(jptq.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'nothing'"):
        jptq.nothing  # noqa: B018


def test_trace_takes_a_proto_a_path_and_a_model(tmp_path: Path) -> None:
    proto = conv_net()
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    feeds = feeds_for(proto)
    (expected,) = reference(proto, feeds)
    for given in (proto, path, str(path), jptq.load_model(path)):
        (found,) = jptq.trace(given, feeds)(feeds).values()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_traced_network_has_a_gradient() -> None:
    g = Graph()
    g.output(g.add("Mul", g.input("x", (3,)), g.input("y", (3,))))
    feeds = {"x": np.array([1, 2, 3], np.float32), "y": np.array([4, 5, 6], np.float32)}
    forward = jptq.trace(g.proto(), feeds)
    gradient = jax.grad(lambda x: sum(v.sum() for v in forward({**feeds, "x": x}).values()))(
        feeds["x"]
    )
    np.testing.assert_allclose(gradient, feeds["y"])


def test_a_saved_model_is_the_model(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    onnx.save(conv_net(), path)
    model = jptq.load_model(path)
    jptq.save_model(model, tmp_path / "b.onnx")
    again = jptq.load_model(tmp_path / "b.onnx")
    assert [node.name for node in again.nodes] == [node.name for node in model.nodes]


def test_damaged_bytes_are_refused(tmp_path: Path) -> None:
    class Broken:
        def SerializeToString(self) -> bytes:  # noqa: N802
            return b"no model"

    with pytest.raises(jptq.JptqError, match="not a readable ONNX model"):
        jptq.trace(Broken(), {})


@pytest.mark.slow
def test_the_steps_of_the_commands_are_calls(tmp_path: Path) -> None:
    onnx.save(conv_net(), tmp_path / "model.onnx")
    data = tmp_path / "data"
    data.mkdir()
    for index in range(3):
        np.save(data / f"{index}.npy", feeds_for(conv_net(), seed=index)["x"])
    prepared = jptq.calibrate(
        tmp_path / "model.onnx",
        data,
        quant_config={"model_config": {"activation": {"calibration_type": "max"}}},
    )
    ranking = jptq.rank_nodes(prepared)
    assert set(ranking.rows) == {slots.node for slots in prepared.plan.slots}
    errors = jptq.rank_nodes(prepared, kind="group")
    everything = prepared.latency.total_us(prepared.all("int16"))
    chosen = jptq.allocate(prepared, errors, budget_us=everything * 2)
    assert chosen.predicted_error <= errors.column("mse", "int8").sum()
    timed = jptq.latency_of(tmp_path / "model.onnx", input_shapes={"x": (1, 3, 8, 8)})
    assert timed.total_us(prepared.all("int16")) == pytest.approx(everything)
    with pytest.raises(jptq.JptqError, match="unknown metric"):
        jptq.rank_nodes(prepared, method="gradient", metrics=["mse"])
