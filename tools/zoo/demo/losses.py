"""What the demonstration network is trained for: targets (NumPy) and losses (JAX).

B images, A anchors (cells of all strides), K classes. Boxes are centre x, centre y, width, height
in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from tools.zoo.demo import network
from tools.zoo.demo.render import CLASSES, Scene

BACKGROUND = -1
_REACH = 0.9  # strides between a box centre and the cells that shall find it, per axis
_SMALL = 13.0  # pixels; longer boxes belong to the coarser stride
_EPSILON = 1e-6


def targets(scene: Scene) -> dict[str, np.ndarray]:
    """Say what each anchor shall find.

    Returns:
      ``image`` ``uint8[3, S, S]``; ``masks`` ``bool[M, S, S]``; ``classes`` ``int8[A]``, the
      class or `BACKGROUND`; ``boxes`` ``float32[A, 4]``, meaningless for the background.
    """
    centres, strides = network.anchors()
    cells = centres * strides
    classes = np.full(strides.size, BACKGROUND, np.int8)
    boxes = np.ones((strides.size, network.BOX), np.float32)
    wanted = np.concatenate(
        [(scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2, scene.boxes[:, 2:] - scene.boxes[:, :2]], 1
    )
    for index in np.argsort(-wanted[:, 2:].prod(1)):  # the smaller of two rivals writes last
        box = wanted[index]
        level = network.STRIDES[int(box[2:].max() > _SMALL)]
        near = np.abs(cells - box[:2, None]).max(0) < _REACH * strides
        mine = near & (strides == level)
        classes[mine] = scene.classes[index]
        boxes[mine] = box
    image = np.ascontiguousarray(scene.image.transpose(2, 0, 1))
    return {"image": image, "masks": scene.masks, "classes": classes, "boxes": boxes}


def total(
    outputs: Mapping[str, Array], wanted: Mapping[str, Array]
) -> tuple[Array, dict[str, Array]]:
    """Return the training loss and its parts.

    Args:
      outputs: Of the training graph (`network.build`).
      wanted: `targets`, stacked over the batch.
    """
    classes, masks = wanted["classes"], wanted["masks"].astype(jnp.float32)
    found = (classes != BACKGROUND).astype(jnp.float32)
    count = jnp.maximum(found.sum(), 1.0)
    iou, giou = overlaps(outputs["boxes"].swapaxes(1, 2), wanted["boxes"])
    quality = jax.nn.one_hot(classes, len(CLASSES), axis=1) * jax.lax.stop_gradient(iou)[:, None]
    parts = {
        "class": quality_focal(outputs["class_logits"], quality).sum() / count,
        "box": 2.0 * (found * (1 - giou)).sum() / count,
        "mask": optax.sigmoid_binary_cross_entropy(outputs["mask_logits"], masks).mean(),
        "dice": dice(outputs["mask_logits"], masks).mean(),
    }
    return sum(parts.values(), jnp.float32(0)), parts


def quality_focal(logits: Array, quality: Array) -> Array:
    """Cross-entropy that counts where the probability is far from the quality, elementwise.

    Source: Li et al. 2020, arXiv:2006.04388, equation 2 (beta = 2).
    """
    distance = quality - jax.nn.sigmoid(logits)
    entropy: Array = optax.sigmoid_binary_cross_entropy(logits, quality)
    return distance**2 * entropy


def overlaps(a: Array, b: Array) -> tuple[Array, Array]:
    """Return intersection over union and its generalized form of boxes ``[..., 4]``, ``[...]``.

    Source: Rezatofighi et al. 2019, arXiv:1902.09630, algorithm 1.
    """
    (a_low, a_high), (b_low, b_high) = _corners(a), _corners(b)
    common = _area(jnp.maximum(a_low, b_low), jnp.minimum(a_high, b_high))
    union = _area(a_low, a_high) + _area(b_low, b_high) - common + _EPSILON
    hull = _area(jnp.minimum(a_low, b_low), jnp.maximum(a_high, b_high)) + _EPSILON
    iou = common / union
    return iou, iou - (hull - union) / hull


def dice(logits: Array, masks: Array) -> Array:
    """Return 1 - Dice per mask, ``[M]``, over all pixels of the batch.

    Source: Milletari et al. 2016, arXiv:1606.04797, section 3.
    """
    p = jax.nn.sigmoid(logits)
    axes = (0, 2, 3)
    common, whole = (p * masks).sum(axes), (p**2).sum(axes) + masks.sum(axes)
    return 1 - 2 * common / (whole + _EPSILON)


def _corners(boxes: Array) -> tuple[Array, Array]:
    half = boxes[..., 2:] / 2
    return boxes[..., :2] - half, boxes[..., :2] + half


def _area(low: Array, high: Array) -> Array:
    return jnp.prod(jnp.maximum(high - low, 0.0), axis=-1)
