"""The loss of FCOS: distances from points to the sides of the boxes that hold them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxloss._boxes import giou, iou
from jaxloss._core import checks, numerics
from jaxloss._core.reduction import AxisName, everywhere
from jaxloss._distribution import binary_cross_entropy, sigmoid_focal
from jaxloss.detection._assignment import (
    Assignment,
    assignment,
    at_least_one,
    best_slot,
    class_targets,
    gather,
)
from jaxloss.detection._coders import decode_distances, encode_distances
from jaxloss.detection._declare import Sizes, detection
from jaxloss.detection._targets import Targets, finish, read_dense, read_targets
from jaxloss.options import Exponent, Fraction, Numbers, Positive

__all__ = ["fcos"]

Array = jax.Array

_BOX_LOSSES: dict[str, Callable[..., Array]] = {
    "giou": giou,
    "iou": functools.partial(iou, form="log"),
    "linear_iou": iou,
}
_RANGE = (4, 8)  # strides


@detection
def fcos(
    logits: Numbers,
    distances: Numbers,
    centerness: Numbers,
    boxes: Numbers,
    labels: Numbers,
    *,
    valid: Numbers,
    points: Numbers,
    strides: Sizes,
    center_radius: Positive | None = 1.5,
    size_ranges: Numbers | Literal["stride"] = "stride",
    box_loss: Literal["giou", "iou", "linear_iou"] = "giou",
    box_weighting: Literal["centerness", "none"] = "centerness",
    alpha: Fraction = 0.25,
    gamma: Exponent = 2.0,
    axis_name: AxisName | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Computes the whole loss of FCOS: assignment, focal loss, box and centerness terms.

    A point may take a box that holds it, whose centre is nearer than `center_radius` strides along
    both axes, and whose farthest side is within the range of the point's level; of several the
    smallest, of equal ones the first slot. With the distances `(l, t, r, b)` of the sides, the
    points `P` of the batch that have a box, and their centerness::

        c = sqrt(min(l, r) / max(l, r)  min(t, b) / max(t, b))

        classification    sum_{points, classes} FL(logits, one-hot or 0) / max(|P|, 1)
        box               sum_P c L / sum_P c           or  sum_P L / max(|P|, 1)
        centerness        sum_P BCE(centerness, c) / max(|P|, 1)

    An image without boxes has its classification alone. Invalid slots reach nothing.

    Args:
      logits: Scores `[B, N, C]`, floating.
      distances: Predicted (l, t, r, b) in strides, `[B, N, 4]`, not negative.
      centerness: Logits `[B, N]`.
      strides: Pixels per cell of the level of each point, `[N]`.
      center_radius: In strides; None: all points inside the box.
      size_ranges: `"stride"`: the farthest side is strictly between 4 and 8 strides away, on the
        level of the smallest strides also nearer, on that of the largest also farther. Or the least
        and the most of each point in pixels, both inclusive, `[N, 2]`.
      box_loss: `"giou"`, `"iou"` (minus its logarithm) or `"linear_iou"` (1 - IoU).
      box_weighting: `"centerness"` or `"none"`; torchvision's form is `"giou"` with `"none"`.
      alpha: The focal loss's weight of positives, in `[0, 1]`.
      gamma: Its focusing exponent, at least 0.

    Returns:
      The total, and its parts `classification`, `box` and `centerness`; float32 for half-precision
      input.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import detection
      >>> points = detection.grid_points([(2, 2)], [8])
      >>> total, parts = detection.fcos(
      ...     jnp.zeros((1, 4, 3)),
      ...     jnp.ones((1, 4, 4)),
      ...     jnp.zeros((1, 4)),
      ...     jnp.array([[[0.0, 0.0, 12.0, 8.0]]]),
      ...     jnp.array([[2]]),
      ...     valid=jnp.array([[True]]),
      ...     points=points,
      ...     strides=jnp.full(4, 8.0),
      ... )
      >>> print({name: round(float(part), 4) for name, part in parts.items()})
      {'box': 0.625, 'centerness': 0.6931, 'classification': 1.4729}

    Reference:
      Tian et al. FCOS: Fully Convolutional One-Stage Object Detection. ICCV 2019.
      https://arxiv.org/abs/1904.01355
    """
    scores, distance = read_dense(logits=logits, distances=distances)
    images, places, classes = scores.shape
    dtype = scores.dtype
    middle = checks.floating("centerness", centerness).astype(dtype)
    checks.shape("centerness", middle, (images, places), "one logit for each point")
    targets = read_targets(boxes, labels, valid, images=images, classes=classes, dtype=dtype)
    point, ranges = _read_points(points, strides, size_ranges, (places, 2), dtype)
    checks.option("box_loss", box_loss, _BOX_LOSSES)
    checks.option("box_weighting", box_weighting, ("centerness", "none"))

    assigned = _assign(point, strides, targets, center_radius, ranges)
    foreground = assigned.foreground
    positives = at_least_one(assigned.weight.sum(), axis_name)
    box = gather(targets.boxes, assigned.index)
    c = _centerness(encode_distances(box, point[None]), foreground)

    total: dict[str, Any] = {"reduction": "sum", "axis_name": axis_name}
    hits = class_targets(targets.labels, assigned, classes)
    classification = sigmoid_focal(scores, hits, alpha=alpha, gamma=gamma, **total)
    weight = c if box_weighting == "centerness" else assigned.weight
    distance = jnp.where(foreground[..., None], distance, 0)
    decoded = decode_distances(distance, point[None], strides=strides[None])
    costs = _BOX_LOSSES[box_loss](decoded, box, where=foreground, reduction="none")
    regression = everywhere((weight * costs).sum(), axis_name)
    centering = binary_cross_entropy(middle, c, axis=None, where=foreground, **total)
    parts = {
        "classification": classification / positives,
        "box": numerics.divide(regression, everywhere(weight.sum(), axis_name)),
        "centerness": centering / positives,
    }
    return finish(parts, targets, axis_name)


def _read_points(
    points: Numbers,
    strides: Array,
    size_ranges: Numbers | str,
    expected: tuple[int, int],
    dtype: jnp.dtype,
) -> tuple[Array, Array | None]:
    """Requires points, their strides, and their ranges if they are no string."""
    point = checks.real("points", points, dtype)
    checks.shape("points", point, expected, "x and y of each row of logits")
    checks.shape("strides", strides, expected[:1], "one for each point")
    if isinstance(size_ranges, str):
        return point, None
    ranges = checks.real("size_ranges", size_ranges, dtype)
    checks.shape("size_ranges", ranges, expected, "least and most of each point")
    return point, ranges


def _assign(
    points: Array, strides: Array, targets: Targets, radius: Array | None, ranges: Array | None
) -> Assignment:
    """The smallest box for each point that may take it."""
    x, y = points[None, :, 0], points[None, :, 1]
    if ranges is None:
        near, far = (factor * strides for factor in _RANGE)
        near = jnp.where(strides == strides.min(), 0, near)
        far = jnp.where(strides == strides.max(), jnp.inf, far)
        fits = lambda most: (most > near[None]) & (most < far[None])
    else:
        fits = lambda most: (most >= ranges[None, :, 0]) & (most <= ranges[None, :, 1])

    def score(box: Array, valid: Array) -> Array:
        x0, y0, x1, y1 = (box[:, side, None] for side in range(4))
        sides = x - x0, y - y0, x1 - x, y1 - y
        takes = (functools.reduce(jnp.minimum, sides) > 0) & valid[:, None]
        takes &= fits(functools.reduce(jnp.maximum, sides))
        if radius is not None:
            apart = jnp.maximum(jnp.abs(x - (x0 + x1) / 2), jnp.abs(y - (y0 + y1) / 2))
            takes &= apart < radius * strides[None]
        return jnp.where(takes, -(x1 - x0) * (y1 - y0), -jnp.inf)

    index, best, _ = best_slot(score, (targets.boxes, targets.valid))
    return assignment(index, best > -jnp.inf, points.dtype)


def _centerness(distances: Array, foreground: Array) -> Array:
    """How near a point is to the centre of its box, in `[0, 1]`; 0 where it has none."""
    left, top, right, bottom = (jnp.where(foreground, distances[..., side], 1) for side in range(4))
    across = jnp.minimum(left, right) / jnp.maximum(left, right)
    along = jnp.minimum(top, bottom) / jnp.maximum(top, bottom)
    return jnp.where(foreground, numerics.sqrt(across * along), 0)
