"""How the demonstration network is made: scenes, targets, losses and the two graphs."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from tools.zoo.demo import losses, network, render, train
from tools.zoo.graph import with_weights


@pytest.fixture(scope="module")
def scenes() -> list[render.Scene]:
    return [render.render(9, i) for i in range(24)]


def run(proto: onnx.ModelProto, image: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image}), strict=True))


def test_a_scene_depends_on_its_series_and_number_alone() -> None:
    first, again = render.render(5, 7), render.render(5, 7)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    for seed, number in ((5, 8), (6, 7)):
        assert not np.array_equal(render.render(seed, number).image, first.image)


def test_boxes_lie_in_the_image_and_every_class_and_mask_occurs(
    scenes: list[render.Scene],
) -> None:
    boxes = np.concatenate([scene.boxes for scene in scenes])
    assert boxes.min() >= 0
    assert boxes.max() <= render.SIZE
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= 4
    classes = np.concatenate([scene.classes for scene in scenes])
    assert set(classes) == set(range(len(render.CLASSES)))
    assert np.mean([scene.masks for scene in scenes], axis=(0, 2, 3)).min() > 0.01


def test_every_box_is_the_target_of_an_anchor_near_its_centre(scenes: list[render.Scene]) -> None:
    centres, strides = network.anchors()
    found, total = 0, 0
    for scene in scenes:
        wanted = losses.targets(scene)
        positive = wanted["classes"] != losses.BACKGROUND
        distance = np.abs((centres * strides).T - wanted["boxes"][:, :2])[positive]
        assert (distance <= strides[positive, None]).all()
        total += len(scene.boxes)
        found += len(np.unique(wanted["boxes"][positive], axis=0))
    # A box may lose all its anchors to a smaller one in front of it.
    assert 0.95 * total <= found <= total


def test_overlaps_are_those_of_counted_pixels() -> None:
    rng = np.random.default_rng(0)
    low = rng.integers(0, 8, (2, 20, 2))
    high = low + rng.integers(1, 8, (2, 20, 2))
    boxes = np.concatenate([(low + high) / 2, high - low], axis=-1).astype(np.float32)
    iou, giou = losses.overlaps(jnp.asarray(boxes[0]), jnp.asarray(boxes[1]))
    for i in range(20):
        cells = [
            set(itertools.product(range(*x), range(*y)))
            for x, y in (zip(low[k, i], high[k, i], strict=True) for k in range(2))
        ]
        union = len(cells[0] | cells[1])
        hull = np.prod(np.max(high[:, i], axis=0) - np.min(low[:, i], axis=0))
        expected = len(cells[0] & cells[1]) / union
        assert float(iou[i]) == pytest.approx(expected, abs=1e-5)
        assert float(giou[i]) == pytest.approx(expected - (hull - union) / hull, abs=1e-5)


def test_a_perfect_mask_has_no_dice_loss_and_the_opposite_has_all_of_it() -> None:
    masks = np.random.default_rng(0).random((2, 3, 8, 8)) < 0.5
    logits = jnp.asarray(np.where(masks, 30.0, -30.0), jnp.float32)
    truth = jnp.asarray(masks, jnp.float32)
    np.testing.assert_allclose(losses.dice(logits, truth), 0, atol=1e-5)
    np.testing.assert_allclose(losses.dice(-logits, truth), 1, atol=1e-5)


def test_both_graphs_compute_the_same_once_the_statistics_are_those_of_the_batch() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((4, 3, render.SIZE, render.SIZE), np.float32)
    training = network.build(3, training=True)
    batch = run(training.proto, image)
    statistics = {key: batch[output] for key, output in training.statistics.items()}
    shipped = run(with_weights(network.build(3).proto, statistics), image)
    boxes, scores = np.split(shipped["detections"], [network.BOX], axis=1)
    np.testing.assert_allclose(boxes, batch["boxes"], rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-batch["class_logits"])), atol=1e-4)
    np.testing.assert_allclose(
        shipped["segmentation"], 1 / (1 + np.exp(-batch["mask_logits"])), atol=1e-4
    )


def test_the_statistics_are_the_only_constants_that_are_neither_trained_nor_fixed() -> None:
    graph = network.build(training=True)
    floats = {
        tensor.name
        for tensor in graph.proto.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    fixed = floats - set(graph.trained) - set(graph.statistics)
    assert {name.rsplit("/", 1)[1] for name in fixed} == {"scales", "scale", "cells", "strides"}


@pytest.mark.slow
def test_a_few_steps_lower_the_losses(
    scenes: list[render.Scene],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The derivative of the network is 20,000 instructions: compiling them is what takes the time.
    monkeypatch.setattr(train, "BATCH", 4)
    monkeypatch.setattr(train, "STATISTICS_BATCHES", 4)
    wanted = [losses.targets(scene) for scene in scenes[: train.BATCH]]
    data = {key: np.stack([target[key] for target in wanted]) for key in wanted[0]}
    start = network.build(train.WEIGHT_SEED)
    images = data["image"].astype(np.float32) / 255
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        with jax.numpy_dtype_promotion("standard"):  # optax itself promotes
            weights = train.fit(data, 40)
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
    trained = run(with_weights(start.proto, weights), images)
    before = run(start.proto, images)

    def wrong(outputs: dict[str, np.ndarray]) -> float:
        return float(np.mean(np.abs(outputs["segmentation"] - data["masks"])))

    assert wrong(trained) < wrong(before)
    assert "box" in capsys.readouterr().out
