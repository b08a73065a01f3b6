"""Assignment by how well a point's class score and box fit a box together."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics, pairs
from jaxloss.detection._assignment import (
    Assignment,
    assignment,
    gather,
    highest,
    of_each_image,
)
from jaxloss.detection._by_iou import overlaps
from jaxloss.detection._claims import settle
from jaxloss.detection._declare import detection
from jaxloss.detection._targets import Targets, poisoned, read_dense, read_points, read_targets
from jaxloss.options import NonNegative, Numbers

__all__ = ["assign_task_aligned"]

Array = jax.Array
Boxes = Array  # [numbers, B, N]: what describes a box, number by number

_LEAST = 1e-9  # beside the highest metric of a box, by which the others are divided


@detection
def assign_task_aligned(
    scores: Numbers,
    predicted_boxes: Numbers,
    points: Numbers,
    boxes: Numbers,
    labels: Numbers,
    *,
    valid: Numbers,
    top_k: int = 10,
    alpha: NonNegative = 0.5,
    beta: NonNegative = 6.0,
    minimum_side: NonNegative = 0.0,
) -> Assignment:
    """Assigns points to boxes by task alignment, as TOOD and YOLOv8 do.

    With the score `s` that a point gives to the class of a box, and the CIoU `u` of its predicted
    box with it, at least 0, a point strictly inside a box has the metric::

        t = s^alpha u^beta

    Each box takes the `top_k` points of the highest metric, of equal ones the first, and none with
    metric 0. A point that several boxes take goes to the box of the highest CIoU among all that
    hold it, of equal ones to the first slot. Its weight is the metric in units of the box's
    largest, times the box's largest CIoU, both over the points that it ends up with::

        weight = t / (max t + 1e-9) max u

    Slots that are not valid get nothing; nor do predictions that are NaN take a box.

    Args:
      scores: Probabilities `[B, N, C]`, floating.
      alpha: Exponent of the score, at least 0.
      beta: Exponent of the CIoU, at least 0.
      minimum_side: Pixels to which a shorter side is enlarged, about its middle, before points are
        looked for inside.

    Returns:
      An `Assignment`. No gradient passes.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import detection
      >>> points = detection.grid_points([(2, 2)], [8])
      >>> predicted = jnp.array([[[0.0, 0.0, 10.0, 8.0], [0.0, 0.0, 12.0, 8.0]] * 2])
      >>> boxes = jnp.array([[[0.0, 0.0, 14.0, 8.0]]])
      >>> scores, labels, valid = jnp.full((1, 4, 3), 0.5), jnp.array([[2]]), jnp.array([[True]])
      >>> found = detection.assign_task_aligned(
      ...     scores, predicted, points, boxes, labels, valid=valid
      ... )
      >>> print(found.foreground, found.weight.sum().round(2))
      [[ True True False False]] 1.11

    Reference:
      Feng et al. TOOD: Task-aligned One-stage Object Detection. ICCV 2021.
      https://arxiv.org/abs/2108.07755
    """
    score, predicted = read_dense(scores=scores, predicted_boxes=predicted_boxes)
    images, _, classes = score.shape
    targets = read_targets(boxes, labels, valid, images=images, classes=classes, dtype=score.dtype)
    point = read_points(points, predicted)
    numbers = top_k, alpha, beta, minimum_side
    by_class = score.swapaxes(1, 2)
    return poisoned(task_aligned(by_class, predicted, point, targets, *numbers).every, targets)


class Aligned(NamedTuple):
    """Points assigned by alignment, `K` of them being all that may have a box.

    Attributes:
      every: The assignment of all points.
      place: The indices of `K` points, `[B, K]`.
      chosen: Their assignment, `[B, K]`: a point that is there twice is foreground once.
    """

    every: Assignment
    place: Array
    chosen: Assignment


def task_aligned(
    by_class: Array,
    predicted: Array,
    points: Array,
    targets: Targets,
    top_k: int,
    alpha: Array,
    beta: Array,
    minimum_side: Array,
) -> Aligned:
    """`assign_task_aligned` of arrays that are checked, with the scores `[B, C, N]`."""
    described = with_angle(predicted), with_angle(targets.boxes)
    return align(
        _inside, _ciou, by_class, *described, points, targets, top_k, alpha, beta, minimum_side
    )


def align(
    inside: Callable[[Boxes, Array, Array, Array], Array],
    overlap: Callable[[Boxes, Boxes], Array],
    by_class: Array,
    predicted: Boxes,
    boxes: Boxes,
    points: Array,
    targets: Targets,
    top_k: int,
    alpha: Array,
    beta: Array,
    minimum_side: Array,
) -> Aligned:
    """Assigns points by alignment with boxes of any kind.

    Args:
      inside: Of boxes, `x`, `y` and the least side: whether they hold the points.
      overlap: Of boxes and predicted boxes: the similarity `u`, cut at 0 here.
      by_class: Probabilities `[B, C, N]`.
      predicted: What describes the predicted boxes to `overlap`, `[numbers, B, N]`.
      boxes: What describes the boxes to both, `[numbers, B, M]`.
      points: Points `[N, 2]`.
      targets: The boxes' labels, and which are valid.
      top_k: Points for each box.
      alpha: Exponent of the score.
      beta: Exponent of the similarity.
      minimum_side: What `inside` takes.
    """
    checks.integer("top_k", top_k, 1)
    by_class, predicted = jax.lax.stop_gradient((by_class, predicted))
    places = by_class.shape[2]

    def similarity(box: Array, valid: Array, predicted: Boxes, x: Array, y: Array) -> Array:
        """`u` of a box of each image, 0 for a point outside of it and where it is NaN."""
        box, valid = box.T[..., None], valid[:, None]
        u = overlap(box, predicted)
        return jnp.where(inside(box, x, y, minimum_side) & valid & (u > 0), u, 0)

    def metric(score: Array, u: Array) -> Array:
        t = jnp.power(score, alpha) * jnp.power(u, beta)
        return jnp.where((u > 0) & (t > 0), t, 0)

    x, y = points.T[:, None]

    def best(_: None, slot: tuple[Array, ...]) -> tuple[None, Array]:
        label, valid, box = slot
        u = similarity(box, valid, predicted, x, y)
        t, taken = jax.lax.top_k(metric(gather(by_class, label), u), min(top_k, places))
        return None, jnp.where(t > 0, taken, places)

    slots = targets.labels, targets.valid, jnp.moveaxis(boxes, 0, -1)
    by_slot = jax.tree.map(lambda a: a.swapaxes(0, 1), slots)
    taken = jax.lax.scan(best, None, by_slot)[1].swapaxes(0, 1)

    row = predicted[0]
    place = jax.lax.collapse(jnp.minimum(taken, places - 1), 1)
    each = jnp.stack([of_each_image(a, row) for a in points.T])
    (near_x, near_y), near = _at(each, place), _at(predicted, place)
    score = lambda valid, box: similarity(box, valid, near, near_x, near_y)
    settled = settle(taken, row, score, slots[1:])
    index, u, stands = settled.slot, settled.score, settled.stands
    t = metric(_of_class(by_class, gather(targets.labels, index), place), u)
    both = jnp.where(stands[..., None], jnp.stack([t, u], -1), 0)
    least = jnp.zeros_like(targets.labels, both.dtype)  # placed as they are
    most = jnp.stack([least, least], -1)
    most_t, most_u = pairs.columns(gather(highest(most, index, both), index))
    chosen = assignment(index, stands, row.dtype, weight=t / (most_t + _LEAST) * most_u)
    weight = highest(jnp.zeros_like(row), place, chosen.weight)
    every = assignment(settled.index, settled.foreground, row.dtype, weight=weight)
    return Aligned(every, place, chosen)


def with_angle(boxes: Array) -> Array:
    """The numbers of boxes xyxy and the angle that stands for their ratio of sides."""
    x0, y0, x1, y1 = jnp.moveaxis(boxes, -1, 0)
    return jnp.stack([x0, y0, x1, y1, jnp.arctan2(x1 - x0, y1 - y0)])


def _inside(box: Boxes, x: Array, y: Array, minimum_side: Array) -> Array:
    """Whether points are strictly inside of boxes with sides enlarged to the least one."""
    x0, y0, x1, y1, _ = box

    def between(at: Array, low: Array, high: Array) -> Array:
        short, middle = high - low < minimum_side, (low + high) / 2
        low = jnp.where(short, middle - minimum_side / 2, low)
        high = jnp.where(short, middle + minimum_side / 2, high)
        return (at > low) & (at < high)

    return between(x, x0, x1) & between(y, y0, y1)


def _ciou(box: Boxes, predicted: Boxes) -> Array:
    """The CIoU, with the angles of both boxes known.

    The textbook's formula of boxes in pixels, with three quotients: `ciou` is exact for boxes of
    any size, but takes several times as long to compile.
    """
    (*edges, angle), (*others, other_angle) = box, predicted
    x0, y0, x1, y1 = edges
    a0, b0, a1, b1 = others
    iou = overlaps(jnp.stack(others, -1), jnp.stack(edges, -1))
    width, height = (
        jnp.maximum(h, c) - jnp.minimum(g, a) for a, c, g, h in ((x0, x1, a0, a1), (y0, y1, b0, b1))
    )
    dx, dy = (x0 + x1 - a0 - a1) / 2, (y0 + y1 - b0 - b1) / 2
    apart = numerics.divide(dx * dx + dy * dy, width * width + height * height)
    aspect = (2 / jnp.pi * (angle - other_angle)) ** 2
    return iou - apart - numerics.divide(aspect * aspect, 1 - iou + aspect)


@jax.vmap
def _of_class(by_class: Array, label: Array, place: Array) -> Array:
    """The scores `[B, K]` that places give to classes."""
    return by_class.at[label, place].get(mode="promise_in_bounds")


def _at(columns: Array, place: Array) -> Array:
    """What columns `[numbers, B, N]` have at places `[B, K]`."""
    return jax.vmap(gather, (0, None))(columns, place)
