"""What each detection head asks of a network, how it is trained, and the boxes that it finds.

A network predicts numbers for the cells of feature maps, a list of `[B, H, W, numbers]`. A head
turns them into a loss with `jaxloss.detection`, and into boxes with scores for each class.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from detector import STRIDES
from jax import numpy as jnp

from jaxloss import detection, geometry

Array = jax.Array
Levels = Sequence[Array]

PRIOR = math.log(0.01 / 0.99)  # Every class begins at 1 %, as most cells are background.
BINS = 8  # of a distance, in YOLOv8
SHAPES = ((2.0, 3.0), (3.0, 2.0), (4.0, 4.0))  # of YOLOv5's anchors, in strides
SIZE = 3.5  # of RetinaNet's square anchors, in strides
SIDE = math.log(0.2 / 0.8)  # Boxes of queries begin at a fifth of the image.

# Classes and boxes share their features here, while RetinaNet and DETR have layers for each. The
# gradient of the boxes' L1 loss is several times that of the focal loss and would shape them alone.
CLASSIFICATION = 5.0  # times as much as published


class Head(NamedTuple):
    """A detection head.

    Attributes:
      numbers: How many it wants at each cell.
      loss: The loss of levels, boxes, labels, valid slots and the step.
      decode: The boxes xyxy in pixels `[B, N, 4]` of levels, and their scores `[B, N, C]`.
      repeats: Whether it finds a digit several times, so that overlapping boxes are dropped.
    """

    numbers: int
    loss: Callable[..., Array]
    decode: Callable[[Levels], tuple[Array, Array]]
    repeats: bool = True


def yolo_v5(classes: int, **options: Any) -> Head:
    """Anchors of three shapes, whose objectness learns how well they fit."""
    anchors = [[[w * s, h * s] for w, h in SHAPES] for s in STRIDES]

    def read(levels: Levels) -> list[Array]:
        apart = [x.reshape(*x.shape[:3], len(SHAPES), -1).transpose(0, 3, 1, 2, 4) for x in levels]
        return [x.at[..., 4].add(PRIOR) for x in apart]

    def loss(levels: Levels, boxes: Array, labels: Array, valid: Array, step: Array) -> Array:
        sides = {"anchors": anchors, "strides": STRIDES}
        return detection.yolo_v5(read(levels), boxes, labels, valid=valid, **sides, **options)[0]

    def decode(levels: Levels) -> tuple[Array, Array]:
        boxes, scores = [], []
        for x, shapes, stride in zip(read(levels), anchors, STRIDES, strict=True):
            points = _points([x.shape[2:4]], [stride]).reshape(*x.shape[2:4], 2)
            p = jax.nn.sigmoid(x)
            centre = points + (2 * p[..., :2] - 1) * stride
            half = (2 * p[..., 2:4]) ** 2 * jnp.array(shapes)[:, None, None] / 2
            box = jnp.concatenate([centre - half, centre + half], -1)
            boxes.append(box.reshape(len(x), -1, 4))
            scores.append((p[..., 4:5] * p[..., 5:]).reshape(len(x), -1, classes))
        return jnp.concatenate(boxes, 1), jnp.concatenate(scores, 1)

    return Head(len(SHAPES) * (5 + classes), loss, decode)


def yolo_v8(classes: int, **options: Any) -> Head:
    """No anchors: distances of the four sides, each a distribution over bins."""

    def read(levels: Levels) -> list[Array]:
        return [x.at[..., 4 * BINS :].add(PRIOR) for x in levels]

    def loss(levels: Levels, boxes: Array, labels: Array, valid: Array, step: Array) -> Array:
        sides = {"strides": STRIDES, "reg_max": BINS}
        return detection.yolo_v8(read(levels), boxes, labels, valid=valid, **sides, **options)[0]

    def decode(levels: Levels) -> tuple[Array, Array]:
        x = _joined(read(levels))
        bins = x[..., : 4 * BINS].reshape(*x.shape[:2], 4, BINS)
        points, strides = _points(_grids(levels)), _strides(levels)
        distances = detection.decode_distribution(bins)
        boxes = detection.decode_distances(distances, points, strides=strides)
        return boxes, jax.nn.sigmoid(x[..., 4 * BINS :])

    return Head(4 * BINS + classes, loss, decode)


def retinanet(classes: int, **options: Any) -> Head:
    """Anchors that overlap a box enough, and the focal loss for all others.

    One shape of anchor: on grids so coarse for such small digits, of six shapes each would fit a
    digit at one place only, and learn from it alone.
    """

    def read(levels: Levels) -> tuple[Array, Array, Array]:
        x = _joined(levels)
        sizes = [SIZE * stride for stride in STRIDES]
        anchors = detection.grid_anchors(_grids(levels), STRIDES, sizes, (1.0,), (1.0,))
        return x[..., 4:] + PRIOR, x[..., :4], anchors

    def loss(levels: Levels, boxes: Array, labels: Array, valid: Array, step: Array) -> Array:
        logits, deltas, anchors = read(levels)
        truth = {"valid": valid, "anchors": anchors}
        parts = detection.retinanet(logits, deltas, boxes, labels, **truth, **options)[1]
        return CLASSIFICATION * parts["classification"] + parts["box"]

    def decode(levels: Levels) -> tuple[Array, Array]:
        logits, deltas, anchors = read(levels)
        return detection.decode_deltas(deltas, anchors), jax.nn.sigmoid(logits)

    return Head(4 + classes, loss, decode)


def fcos(classes: int, **options: Any) -> Head:
    """Points near the centre of a box, which learn how near they are."""

    def read(levels: Levels) -> tuple[Array, Array, Array]:
        x = _joined(levels)
        return x[..., 5:] + PRIOR, jax.nn.softplus(2 + x[..., :4]), x[..., 4]

    def loss(levels: Levels, boxes: Array, labels: Array, valid: Array, step: Array) -> Array:
        places = {"points": _points(_grids(levels)), "strides": _strides(levels)}
        return detection.fcos(*read(levels), boxes, labels, valid=valid, **places, **options)[0]

    def decode(levels: Levels) -> tuple[Array, Array]:
        logits, distances, centerness = read(levels)
        points, strides = _points(_grids(levels)), _strides(levels)
        boxes = detection.decode_distances(distances, points, strides=strides)
        p = jax.nn.sigmoid(logits) * jax.nn.sigmoid(centerness)[..., None]
        return boxes, jnp.sqrt(p)

    return Head(5 + classes, loss, decode)


def detr(classes: int, classification: str = "focal", **options: Any) -> Head:
    """The set loss: every cell is a query, every box has one of them, and no box is found twice."""
    softmax = classification == "softmax"
    published = 1.0 if softmax else 2.0
    usual = {"cost_class": published, "class_gain": CLASSIFICATION * published}

    def read(levels: Levels) -> tuple[Array, Array]:
        x = _joined(levels)
        where = _points(_grids(levels)) / _size(levels)
        begin = jnp.concatenate([jax.scipy.special.logit(where), jnp.full_like(where, SIDE)], -1)
        return x[..., 4:] + (0.0 if softmax else PRIOR), jax.nn.sigmoid(x[..., :4] + begin)

    def loss(levels: Levels, boxes: Array, labels: Array, valid: Array, step: Array) -> Array:
        width, height = _size(levels)
        return detection.detr(
            *read(levels),
            boxes,
            labels,
            valid=valid,
            image_size=jnp.stack([height, width]),
            classification=classification,
            **usual | options,
        )[0]

    def decode(levels: Levels) -> tuple[Array, Array]:
        logits, boxes = read(levels)
        scores = jax.nn.softmax(logits)[..., :-1] if softmax else jax.nn.sigmoid(logits)
        pixels = boxes * jnp.tile(_size(levels), 2)
        return geometry.convert(pixels, "cxcywh", "xyxy"), scores

    return Head(4 + classes + softmax, loss, decode, repeats=False)


HEADS: dict[str, Callable[..., Head]] = {
    "yolo_v5": yolo_v5,
    "yolo_v8": yolo_v8,
    "retinanet": retinanet,
    "fcos": fcos,
    "detr": detr,
}


@functools.partial(jax.jit, static_argnames=("head", "slots"))
def detect(levels: Levels, head: Head, slots: int = 20) -> tuple[Array, Array, Array, Array]:
    """Returns boxes, scores, labels and valid slots, the surest of each image."""
    boxes, scores = head.decode(levels)
    best, labels = scores.max(-1), scores.argmax(-1)
    # Moved apart by class, boxes of two classes never overlap.
    apart = boxes + (labels * 4 * _size(levels).max())[..., None]
    keep = functools.partial(
        geometry.nms, iou_threshold=0.6 if head.repeats else 1.0, max_outputs=slots
    )
    index, valid = jax.vmap(keep)(apart, best)
    index = jnp.maximum(index, 0)
    boxes = jnp.take_along_axis(boxes, index[..., None], 1)
    pick = lambda values: jnp.take_along_axis(values, index, 1)
    return boxes, pick(best), pick(labels), valid


def _joined(levels: Levels) -> Array:
    return jnp.concatenate([x.reshape(len(x), -1, x.shape[-1]) for x in levels], 1)


def _grids(levels: Levels) -> list[tuple[int, int]]:
    return [x.shape[1:3] for x in levels]


def _points(grids: Sequence[tuple[int, int]], strides: Sequence[int] = STRIDES) -> Array:
    return detection.grid_points(grids, strides)


def _strides(levels: Levels) -> Array:
    """Pixels per cell at each point, `[N]`."""
    units = [jnp.full(math.prod(g), float(s)) for g, s in zip(_grids(levels), STRIDES, strict=True)]
    return jnp.concatenate(units)


def _size(levels: Levels) -> Array:
    """The image's width and height."""
    rows, columns = levels[0].shape[1:3]
    return jnp.array([columns, rows], jnp.float32) * STRIDES[0]
