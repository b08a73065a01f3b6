"""Assignment by the smallest cost, with as many points for a box as its overlaps promise."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxloss._core import checks, sigmoid
from jaxloss.detection._assignment import Assignment, assignment, gather, of_each_image
from jaxloss.detection._by_iou import overlaps
from jaxloss.detection._claims import settle
from jaxloss.detection._declare import Sizes, detection
from jaxloss.detection._targets import Targets, poisoned, read_dense, read_points, read_targets
from jaxloss.options import NonNegative, Numbers

__all__ = ["assign_sim_ota"]

Array = jax.Array

_LEAST_IOU = 1e-7  # what is added under the logarithm
_LARGEST_ENTROPY = 100  # of a class


@detection
def assign_sim_ota(
    scores: Numbers,
    predicted_boxes: Numbers,
    points: Numbers,
    boxes: Numbers,
    labels: Numbers,
    *,
    valid: Numbers,
    strides: Sizes,
    center_radius: NonNegative = 2.5,
    candidates: int = 10,
    iou_weight: NonNegative = 3.0,
) -> Assignment:
    """Assigns points to boxes by simplified optimal transport (SimOTA), as YOLOX does.

    Points may be assigned that are strictly inside of a box, or nearer than `center_radius`
    strides, along both axes, to the centre of one. With the scores `p` of a point and the IoU `u`
    of its predicted box with a box of class `y`::

        cost = sum_c BCE(p_c, [c = y]) - iou_weight log(u + 1e-7)

    Points that are not both inside of the box and near to its centre are dearer than all that are.
    Each box takes the cheapest points, as many as the sum of its `candidates` largest IoUs, rounded
    down, at least one. A point that several boxes take goes to the box for which it is cheapest, of
    all boxes. Of equal points the first counts, of equal boxes the first slot. Logarithms of
    probabilities are cut at -100.

    Slots that are not valid get nothing; nor does a box take predictions that are NaN.

    Args:
      scores: Probabilities `[B, N, C]`, floating: of the class, times that of an object. YOLOX
        compares the square root of this product, MMDetection the product.
      strides: Pixels per cell of the level of each point, `[N]`.
      center_radius: In strides.
      candidates: IoUs that say how many points a box takes, and the most that it takes.
      iou_weight: Factor of the IoU's cost, at least 0.

    Returns:
      An `Assignment` whose weight is the IoU of the pair. No gradient passes.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import detection
      >>> points = detection.grid_points([(2, 2)], [8])
      >>> predicted = jnp.array([[[0.0, 0.0, 10.0, 8.0], [0.0, 0.0, 12.0, 8.0]] * 2])
      >>> boxes = jnp.array([[[0.0, 0.0, 12.0, 8.0]]])
      >>> scores, labels, valid = jnp.full((1, 4, 3), 0.5), jnp.array([[2]]), jnp.array([[True]])
      >>> found = detection.assign_sim_ota(
      ...     scores, predicted, points, boxes, labels, valid=valid, strides=jnp.full(4, 8.0)
      ... )
      >>> print(found.foreground)
      [[ True  True False  True]]

    Reference:
      Ge et al. YOLOX: Exceeding YOLO Series in 2021. https://arxiv.org/abs/2107.08430
      Ge et al. OTA: Optimal Transport Assignment for Object Detection. CVPR 2021.
      https://arxiv.org/abs/2103.14259
    """
    score, predicted = read_dense(scores=scores, predicted_boxes=predicted_boxes)
    images, places, classes = score.shape
    dtype = score.dtype
    targets = read_targets(boxes, labels, valid, images=images, classes=classes, dtype=dtype)
    point = read_points(points, predicted)
    checks.shape("strides", strides, (places,), "one for each point")
    radius = center_radius * strides
    count = min(checks.integer("candidates", candidates, 1), places)
    return poisoned(_assign(score, predicted, point, radius, targets, iou_weight, count), targets)


def _assign(
    scores: Array,
    predicted: Array,
    points: Array,
    radius: Array,
    targets: Targets,
    iou_weight: Array,
    count: int,
) -> Assignment:
    scores, predicted, points, radius = jax.lax.stop_gradient((scores, predicted, points, radius))
    hit, miss = sigmoid.log_pair_of_probability(scores)
    background = miss.sum(-1)
    sound = jnp.isfinite(background) & jnp.isfinite(predicted).all(-1)
    by_class = (hit - miss).swapaxes(1, 2)
    # What points cost more that are not inside and near: above the largest cost of the others.
    most = jnp.where(sound, background, 0).max(1, keepdims=True) + _LARGEST_ENTROPY
    most = most - iou_weight * jnp.log(jnp.asarray(_LEAST_IOU, scores.dtype))

    def cost(overlap: Array, entropy: Array, both: Array) -> Array:
        price = entropy - iou_weight * jnp.log(overlap + _LEAST_IOU)
        return jnp.where(both, price, price + most)

    x, y, radius = points[None, :, 0], points[None, :, 1], radius[None]
    slots = (targets.boxes, targets.labels, targets.valid)
    by_slot = jax.tree.map(lambda a: a.swapaxes(0, 1), slots)
    possible = _possible((x, y, radius), by_slot, sound) & sound

    def ask(_: None, slot: tuple[Array, ...]) -> tuple[None, Array]:
        box, label, valid = slot
        inside, near = _meets(box, x, y, radius)
        overlap = jnp.where(possible, overlaps(predicted, box[:, None]), 0)
        price = cost(overlap, background + gather(by_class, label), inside & near)
        price = jnp.where(possible & valid[:, None], price, jnp.inf)
        k = jax.lax.top_k(overlap, count)[0].sum(-1).astype(jnp.int32)
        cheapest, taken = jax.lax.top_k(-price, count)
        rank = jnp.arange(count, dtype=jnp.int32)[None]
        wanted = (rank < jnp.maximum(k, 1)[:, None]) & (cheapest > -jnp.inf)
        return None, jnp.where(wanted, taken, len(points))

    taken = jax.lax.scan(ask, None, by_slot)[1].swapaxes(0, 1)
    place = jax.lax.collapse(jnp.minimum(taken, len(points) - 1), 1)
    at = [gather(of_each_image(row, background), place) for row in (*points.T, radius[0])]
    found, base = gather(predicted, place), gather(background, place)
    of_class = gather(by_class.swapaxes(1, 2), place).swapaxes(1, 2)

    def score(box: Array, label: Array, valid: Array) -> Array:
        inside, near = _meets(box, *at)
        overlap = overlaps(found, box[:, None])
        price = cost(overlap, base + gather(of_class, label), inside & near)
        return jnp.where(valid[:, None], -price, -jnp.inf)

    settled = settle(taken, background, score, slots)
    index, foreground = settled.index, settled.foreground
    weight = overlaps(predicted, gather(targets.boxes, index))
    return assignment(index, foreground, scores.dtype, weight=weight)


def _possible(at: Sequence[Array], by_slot: tuple[Array, ...], like: Array) -> Array:
    """Which points are inside of a valid box or near to its centre, `[B, N]`."""

    def add(possible: Array, slot: tuple[Array, ...]) -> tuple[Array, None]:
        box, _, valid = slot
        inside, near = _meets(box, *at)
        return possible | ((inside | near) & valid[:, None]), None

    return jax.lax.scan(add, jnp.zeros_like(like), by_slot)[0]


def _meets(box: Array, x: Array, y: Array, radius: Array) -> tuple[Array, Array]:
    """Whether points are inside of boxes, and near to their centres."""
    x0, y0, x1, y1 = (box[:, side, None] for side in range(4))
    inside = (x > x0) & (x < x1) & (y > y0) & (y < y1)
    away = jnp.maximum(jnp.abs(x - (x0 + x1) / 2), jnp.abs(y - (y0 + y1) / 2))
    return inside, away < radius
