"""Street scenes that are drawn, not photographed: the labels are exact and the licence is ours.

A scene is a pure function of its seed and number. It is drawn at twice the resolution and then
averaged, exposed (from noon to night) and given the noise of a sensor. Lengths are pixels of the
final image, ``x`` to the right, ``y`` downwards, colours are reflectances from 0 to 1.
"""

from __future__ import annotations

import dataclasses

import numpy as np

SIZE = 64
CLASSES = ("car", "person", "cone")
MASKS = ("road", "marking")
MAX_OBJECTS = 6

_FINE = 2  # drawn pixels per final pixel and axis
_MIN_SIDE = 4.0  # smaller boxes are not labelled, nor drawn
_MIN_VISIBLE = 0.5  # of an object's own area


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """An image and what is in it.

    Attributes:
      image: ``uint8[SIZE, SIZE, 3]``, RGB.
      boxes: ``float32[n, 4]``, left, top, right, bottom in pixels.
      classes: ``int64[n]``, indices into `CLASSES`.
      masks: ``bool[len(MASKS), SIZE, SIZE]``.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    masks: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Object:
    kind: int
    left: float
    top: float
    width: float
    height: float


class _Canvas:
    """Reflectance, the number of the object on top, and the two masks, at drawing resolution."""

    def __init__(self) -> None:
        side = SIZE * _FINE
        centres = (np.arange(side, dtype=np.float32) + 0.5) / _FINE
        self.x, self.y = centres[None, :], centres[:, None]
        self.colour = np.zeros((side, side, 3), np.float32)
        self.owner = np.full((side, side), -1)
        self.masks = np.zeros((len(MASKS), side, side), bool)

    def paint(self, where: np.ndarray, colour: np.ndarray, opacity: float = 1.0) -> None:
        self.colour[where] += opacity * (colour - self.colour[where])

    def window(self, thing: _Object) -> tuple[slice, slice, np.ndarray, np.ndarray]:
        """Return row and column slices and relative coordinates, 0 to 1, within a box."""
        top, left = int(thing.top * _FINE), int(thing.left * _FINE)
        rows = slice(max(top, 0), int((thing.top + thing.height) * _FINE) + 1)
        columns = slice(max(left, 0), int((thing.left + thing.width) * _FINE) + 1)
        v = (self.y[rows] - thing.top) / thing.height
        u = (self.x[:, columns] - thing.left) / thing.width
        return rows, columns, u, v


def render(seed: int, number: int) -> Scene:
    """Draw scene ``number`` of a series.

    Args:
      seed: Of the series; different series share no scene.
      number: From 0.
    """
    rng = np.random.default_rng([seed, number])
    canvas = _Canvas()
    horizon = rng.uniform(16, 26)
    _background(rng, canvas, horizon)
    centre, half_width = _road(rng, canvas, horizon)
    objects = _place(rng, horizon, centre, half_width)
    drawn = [_draw(rng, canvas, index, thing) for index, thing in enumerate(objects)]
    image = _expose(rng, canvas, objects)
    boxes, classes = _labels(canvas, objects, drawn)
    return Scene(image=image, boxes=boxes, classes=classes, masks=_average(canvas.masks) > 0.5)


def _colour(rng: np.random.Generator, low: float, high: float, tint: float = 0.3) -> np.ndarray:
    """Return a random colour: a brightness and a deviation per channel."""
    colour = rng.uniform(low, high) * (1 + tint * rng.uniform(-1, 1, 3))
    return np.asarray(np.clip(colour, 0, 1))


def _texture(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Return smooth noise in [-1, 1] at drawing resolution."""
    grid = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    at = np.linspace(0, cells, SIZE * _FINE, endpoint=False)
    low, share = at.astype(int), (at % 1).astype(np.float32)
    rows = grid[low] * (1 - share[:, None]) + grid[low + 1] * share[:, None]
    smooth: np.ndarray = rows[:, low] * (1 - share) + rows[:, low + 1] * share
    return smooth


def _background(rng: np.random.Generator, canvas: _Canvas, horizon: float) -> None:
    zenith, haze = _colour(rng, 0.35, 0.7), _colour(rng, 0.6, 0.95, 0.15)
    fade = np.clip(canvas.y / horizon, 0, 1)[..., None]
    canvas.colour[:] = zenith * (1 - fade) + haze * fade
    ground = np.broadcast_to(canvas.y > horizon, canvas.owner.shape)
    grain = (1 + 0.25 * _texture(rng, 24) + 0.25 * _texture(rng, 6))[..., None]
    soil = _colour(rng, 0.2, 0.5, 0.4) * grain
    canvas.colour[ground] = soil[ground]
    for _ in range(rng.integers(2, 7)):  # houses and trees
        left, width, height = rng.uniform(-8, SIZE), rng.uniform(4, 18), rng.uniform(3, 14)
        inside = (canvas.x > left) & (canvas.x < left + width)
        crown = np.ones_like(canvas.x)
        if rng.random() >= 0.5:
            crown = np.sqrt(np.clip(1 - (2 * (canvas.x - left) / width - 1) ** 2, 0, 1))
        top = horizon - height * crown
        canvas.paint(inside & (canvas.y > top) & (canvas.y < horizon + 1), _colour(rng, 0.15, 0.6))


def _road(
    rng: np.random.Generator, canvas: _Canvas, horizon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the road; return its centre and half width per image row (at nearness 0 to 1)."""
    nearness = np.clip((canvas.y - horizon) / (SIZE - horizon), 0, 1)
    far, near, bend = rng.uniform(20, 44), rng.uniform(16, 48), rng.uniform(-26, 26)
    centre = far + (near - far) * nearness + bend * nearness * (1 - nearness)
    half_width = 1.0 + rng.uniform(18, 34) * nearness
    across = (canvas.x - centre) / half_width
    road = (np.abs(across) < 1) & (nearness > 0)
    asphalt = _colour(rng, 0.18, 0.4, 0.08) * (1 + 0.15 * _texture(rng, 32))[..., None]
    canvas.colour[road] = asphalt[road]
    canvas.masks[0] = road
    lanes = int(rng.integers(1, 4))
    phase, pitch = rng.uniform(0, 1), rng.uniform(0.5, 1.1)
    # Equal dashes on the ground shrink with distance, which goes as 1 / nearness.
    dash = (pitch / np.maximum(nearness, 0.05) + phase) % 1 < 0.55
    paint, wear = _colour(rng, 0.6, 1.0, 0.2), rng.uniform(0.35, 1.0)
    half_line = rng.uniform(0.025, 0.045)
    for k in range(lanes + 1):
        offset = 0.9 * (2 * k / lanes - 1)
        line = (np.abs(across - offset) < half_line) & (nearness > 0.12)
        if 0 < k < lanes:
            line = line & dash
        canvas.paint(line, paint, wear)
        canvas.masks[1] |= line
    return centre[:, 0], half_width[:, 0]


def _place(
    rng: np.random.Generator, horizon: float, centre: np.ndarray, half_width: np.ndarray
) -> list[_Object]:
    """Choose objects, far ones first."""
    objects = []
    for nearness in np.sort(rng.uniform(0.1, 0.95, rng.integers(1, MAX_OBJECTS + 1))):
        kind = int(rng.integers(len(CLASSES)))
        bottom = horizon + nearness * (SIZE - horizon)
        row = int(bottom * _FINE)
        middle, half = centre[row], half_width[row]
        if kind == 0:
            height = (4 + 22 * nearness) * rng.uniform(0.85, 1.15)
            width, x = height * rng.uniform(1.1, 1.4), middle + half * rng.uniform(-0.7, 0.7)
        elif kind == 1:
            height = (6 + 28 * nearness) * rng.uniform(0.85, 1.15)
            width, x = height * rng.uniform(0.34, 0.46), middle + half * rng.uniform(-1.6, 1.6)
        else:
            height = (5 + 11 * nearness) * rng.uniform(0.85, 1.15)
            width, x = height * rng.uniform(0.6, 0.8), middle + half * rng.uniform(-1.2, 1.2)
        left = min(max(x - width / 2, 0.0), SIZE - width)
        if min(width, height) >= _MIN_SIDE - 1 and left >= 0:
            objects.append(
                _Object(kind=kind, left=left, top=bottom - height, width=width, height=height)
            )
    return objects


def _draw(rng: np.random.Generator, canvas: _Canvas, index: int, thing: _Object) -> int:
    """Draw one object over everything; return the number of pixels, at drawing resolution."""
    rows, columns, u, v = canvas.window(thing)
    patch = canvas.colour[rows, columns]
    middle = np.abs(u - 0.5)
    inside = (u > 0) & (u < 1) & (v > 0) & (v < 1)
    coat = _colour(rng, 0.15, 0.9, 0.6)
    if CLASSES[thing.kind] == "car":
        cabin = (v < 0.45) & (middle < 0.3 + 0.35 * v)
        body = (v >= 0.4) & (v < 0.85)
        wheels = (v >= 0.8) & (middle > 0.26) & (middle < 0.44)
        shape = inside & (cabin | body | wheels)
        patch[shape] = coat
        patch[inside & (v > 0.1) & (v < 0.4) & (middle < 0.22 + 0.35 * v)] = 0.12
        patch[inside & wheels] = 0.05
        patch[inside & (v > 0.5) & (v < 0.62) & (middle > 0.34) & (middle < 0.47)] = (0.8, 0.1, 0.1)
    elif CLASSES[thing.kind] == "person":
        head = (middle / 0.32) ** 2 + ((v - 0.1) / 0.1) ** 2 < 1
        torso = (v > 0.2) & (v < 0.58) & (middle < 0.5 - 0.2 * np.abs(v - 0.3))
        legs = (v >= 0.58) & (middle < 0.34) & (middle > 0.25 * (v - 0.58))
        shape = inside & (head | torso | legs)
        patch[inside & torso] = coat
        patch[inside & legs] = _colour(rng, 0.05, 0.5, 0.4)
        patch[inside & head] = rng.uniform(0.25, 0.8) * np.array((1.0, 0.78, 0.62))
    else:
        slope = (v < 0.9) & (middle < 0.06 + 0.36 * v)
        shape = inside & (slope | (v >= 0.88))
        patch[shape] = rng.uniform(0.6, 1.0) * np.array((1.0, 0.42, 0.08))
        patch[inside & slope & (v > 0.38) & (v < 0.6)] = 0.9
    canvas.owner[rows, columns][shape] = index
    canvas.masks[:, rows, columns] &= ~shape
    return int(np.count_nonzero(shape))


def _average(values: np.ndarray) -> np.ndarray:
    """Return the mean of each final pixel; the last two axes are rows and columns."""
    split = values.reshape(*values.shape[:-2], SIZE, _FINE, SIZE, _FINE)
    mean: np.ndarray = split.mean((-3, -1), dtype=np.float32)
    return mean


def _expose(rng: np.random.Generator, canvas: _Canvas, objects: list[_Object]) -> np.ndarray:
    """Return what a camera records: lamps, exposure, noise, 8 bits."""
    light = np.exp(rng.uniform(np.log(0.12), np.log(1.1)))
    image = light * _average(canvas.colour.transpose(2, 0, 1)).transpose(1, 2, 0)
    if light < 0.4:  # at night cars switch their lamps on
        x, y = np.arange(SIZE) + 0.5, np.arange(SIZE)[:, None] + 0.5
        for thing in objects:
            if CLASSES[thing.kind] == "car":
                for side in (0.15, 0.85):
                    far = (x - thing.left - side * thing.width) ** 2
                    far = far + (y - thing.top - 0.6 * thing.height) ** 2
                    glow = np.exp(-far / (0.006 * thing.height**2 + 0.4))
                    image += glow[..., None] * np.array((1.0, 0.85, 0.7))
    image += rng.uniform(0.004, 0.016) * rng.standard_normal(image.shape)
    levels: np.ndarray = np.clip(np.round(255 * image), 0, 255).astype(np.uint8)
    return levels


def _labels(
    canvas: _Canvas, objects: list[_Object], drawn: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes and classes of the objects of which enough is seen."""
    boxes, classes = [], []
    for index, thing in enumerate(objects):
        shown = np.count_nonzero(canvas.owner == index)
        if shown >= _MIN_VISIBLE * drawn[index] and min(thing.width, thing.height) >= _MIN_SIDE:
            right, bottom = thing.left + thing.width, thing.top + thing.height
            boxes.append((thing.left, thing.top, right, bottom))
            classes.append(thing.kind)
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64)
