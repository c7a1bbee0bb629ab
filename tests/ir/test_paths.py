"""Ancestors, descendants, and what lies between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jptq.ir import Model, Node, Tensor, ancestors, between, descendants


@st.composite
def dags(draw: st.DrawFn) -> Model:
    """Draw a graph of nodes ``n0..`` that read some of the tensors before them."""
    tensors = ["x"]
    nodes = []
    for index in range(draw(st.integers(1, 9))):
        inputs = draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=3))
        nodes.append(Node(name=f"n{index}", op="Op", inputs=tuple(inputs), outputs=(f"t{index}",)))
        tensors.append(f"t{index}")
    return Model(
        inputs=(Tensor(name="x", dtype=None, shape=None),),
        outputs=(Tensor(name=tensors[-1], dtype=None, shape=None),),
        nodes=tuple(nodes),
    )


def paths(model: Model, start: str) -> list[list[str]]:
    """Return every path of nodes from a node on, by trying them all."""
    (written,) = model.by_name[start].outputs
    onwards = [node for node in model.nodes if written in node.inputs]
    return [[start], *([start, *path] for node in onwards for path in paths(model, node.name))]


@given(model=dags(), data=st.data())
def test_between_is_the_union_of_all_paths(model: Model, data: st.DataObject) -> None:
    names = st.lists(st.sampled_from([node.name for node in model.nodes]), min_size=1, max_size=3)
    first, last = data.draw(names), data.draw(names)
    on_a_path = {
        name for start in first for path in paths(model, start) if path[-1] in last for name in path
    }
    expected = tuple(node.name for node in model.nodes if node.name in on_a_path)
    assert between(model, first, last) == expected


@given(model=dags())
def test_ancestors_and_descendants_mirror_each_other(model: Model) -> None:
    for first in model.nodes:
        behind = descendants(model, first.outputs)
        for second in model.nodes:
            before = ancestors(model, second.inputs)
            assert (second.name in behind) == (first.name in before)
