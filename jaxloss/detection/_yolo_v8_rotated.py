"""The loss of YOLOv8 with rotated boxes."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxloss._boxes import probiou
from jaxloss._core import checks, numerics
from jaxloss._core.polygons import turned
from jaxloss._core.reduction import AxisName, everywhere
from jaxloss.detection._assignment import gather
from jaxloss.detection._declare import detection
from jaxloss.detection._places import of_levels, one_per_level
from jaxloss.detection._targets import finish
from jaxloss.detection._task_aligned import Boxes, align
from jaxloss.detection._yolo_v8 import Head, classification, distribution, gained, read_head
from jaxloss.options import Levels, NonNegative, Numbers

__all__ = ["yolo_v8_rotated"]

Array = jax.Array

_LEAST_SIDE = 2  # pixels; smaller boxes are left out
_FLOOR = 0.12  # what is added to squared sides, in cells, before boxes are compared
_ASPECT = 3  # how fast the angle's weight falls off with the logarithm of the ratio of sides


@detection
def yolo_v8_rotated(
    predictions: Levels,
    angles: Levels,
    boxes: Numbers,
    labels: Numbers,
    *,
    valid: Numbers,
    strides: Sequence[float],
    reg_max: int = 16,
    top_k: int = 10,
    alpha: NonNegative = 0.5,
    beta: NonNegative = 6.0,
    box_gain: NonNegative = 7.5,
    class_gain: NonNegative = 0.5,
    distribution_gain: NonNegative = 1.5,
    angle_gain: NonNegative = 1.0,
    axis_name: AxisName | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Computes the whole loss of YOLOv8 with rotated boxes: `yolo_v8`'s terms and one of the angle.

    As `yolo_v8`, but for the boxes. A point predicts the distances of the sides along the axes of
    its box and the angle of those; points are candidates inside of the rotated box, its sides
    included; the probabilistic IoU stands in place of the CIoU, in the assignment and in the loss,
    there of squared sides enlarged by 0.12 in cells, which bounds the gradients of small boxes.
    With the angles `a` and the true sides `(w, h)`::

        angle             B angle_gain sum_P w exp(-log(w / h)^2 / 9) sin(2 (a - a'))^2 / W

    the same for boxes that are turned by a right angle, and little for long ones. Boxes with a side
    below 2 pixels are left out.

    An image without boxes has its classification alone. Invalid slots reach nothing.

    Args:
      predictions: One array per level, `[B, H, W, 4 reg_max + C]`, floating: the bins of l, then of
        t, r and b, then the logits of the classes.
      angles: One array per level, `[B, H, W]`, in radians.
      boxes: Boxes (cx, cy, w, h, radians) in pixels, `[B, M, 5]`.
      alpha: Exponent of the score in the assignment.
      beta: Exponent of the probabilistic IoU in the assignment.
      angle_gain: Factor of the angles.

    Returns:
      The total, and its parts `box`, `classification`, `distribution` and `angle`, with gains and
      batch size in them; float32 for half-precision input.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import detection
      >>> total, parts = detection.yolo_v8_rotated(
      ...     [jnp.zeros((1, 2, 2, 4 * 3 + 2))],
      ...     [jnp.zeros((1, 2, 2))],
      ...     jnp.array([[[7.0, 7.0, 14.0, 12.0, 0.3]]]),
      ...     jnp.array([[1]]),
      ...     valid=jnp.array([[True]]),
      ...     strides=[8],
      ...     reg_max=3,
      ... )
      >>> print({name: round(float(part), 4) for name, part in parts.items()})
      {'angle': 0.318, 'box': 3.123, 'classification': 2.584, 'distribution': 1.6479}

    Reference:
      Jocher, Chaurasia and Qiu. Ultralytics YOLOv8, 2023. https://github.com/ultralytics
      Llerena et al. Gaussian Bounding Boxes and Probabilistic Intersection-over-Union for Object
      Detection. 2021. https://arxiv.org/abs/2106.06072
    """
    head = read_head(predictions, strides, reg_max)
    angle = _read_angles(angles, predictions, head)
    targets = head.targets(boxes, labels, valid, 5)
    wide_enough = (targets.boxes[..., 2:4] >= _LEAST_SIDE).all(-1)
    targets = targets._replace(valid=targets.valid & wide_enough)

    units = head.strides[None, :, None]
    points = head.points[None] / units
    in_pixels = _scaled(_decode(head.distances, angle, points), units)
    found = align(
        _inside,
        _probiou,
        head.by_class,
        _spread(in_pixels),
        _spread(targets.boxes),
        head.points,
        targets,
        top_k,
        alpha,
        beta,
        head.least,
    )
    at, foreground, weight = head.at(found), found.chosen.foreground, found.chosen.weight
    units = at.strides[..., None]
    points = at.points / units
    angle = jnp.where(foreground, gather(angle, found.place), 0)
    box = _scaled(gather(targets.boxes, found.chosen.index), 1 / units)
    apart = probiou(
        _enlarged(_decode(at.distances, angle, points), foreground),
        _enlarged(box, foreground),
        where=foreground,
        weights=weight,
        reduction="sum",
        axis_name=axis_name,
    )
    turn = jnp.where(foreground, angle - box[..., 4], 0)
    w, h = (jnp.where(foreground, box[..., i], 1) for i in (2, 3))
    squareness = jnp.exp(-((jnp.log(w / h) / _ASPECT) ** 2))
    sums = {
        "box": apart,
        "classification": classification(head.logits, targets, found.every, axis_name),
        "distribution": distribution(
            at, _distances(box, points), found.chosen, head.size, axis_name
        ),
        "angle": everywhere((weight * squareness * jnp.sin(2 * turn) ** 2).sum(), axis_name),
    }
    gains = box_gain, class_gain, distribution_gain, angle_gain
    return finish(gained(sums, gains, found.every, axis_name), targets, axis_name)


def _read_angles(angles: Levels, predictions: Levels, head: Head) -> Array:
    """Requires an angle for each point, and joins the levels, `[B, N]`."""
    one_per_level(len(predictions), angles=angles)
    levels = of_levels("angles", angles)
    for level, prediction in zip(levels, predictions, strict=True):
        checks.shape("angles", level, jnp.shape(prediction)[:3], "images, rows and columns")
    joined = jnp.concatenate([jax.lax.collapse(level, 1) for level in levels], 1)
    return joined.astype(head.logits.dtype)


def _decode(distances: Array, angle: Array, points: Array) -> Array:
    """Boxes (cx, cy, w, h, radians) from the distances of points to sides along the box's axes."""
    before, after = jnp.split(distances, 2, -1)
    away = turned(jnp.unstack((after - before) / 2, axis=-1), -angle)
    centre = points + jnp.stack(away, -1)
    return jnp.concatenate([centre, before + after, angle[..., None]], -1)


def _distances(boxes: Array, points: Array) -> Array:
    """The distances (l, t, r, b) of the sides of boxes from points, along the boxes' axes."""
    apart = boxes[..., :2] - points
    along = jnp.stack(turned((apart[..., 0], apart[..., 1]), boxes[..., 4]), -1)
    half = boxes[..., 2:4] / 2
    return jnp.concatenate([half - along, half + along], -1)


def _scaled(boxes: Array, units: Array) -> Array:
    """Boxes in other units of length."""
    return jnp.concatenate([boxes[..., :4] * units, boxes[..., 4:]], -1)


def _enlarged(boxes: Array, where: Array) -> Array:
    """Boxes with the floor under their sides; their variances are a twelfth of it larger."""
    centre, sides, angle = jnp.split(boxes, (2, 4), -1)
    sides = jnp.where(where[..., None], sides, 1)
    return jnp.concatenate([centre, numerics.sqrt(sides**2 + _FLOOR), angle], -1)


def _spread(boxes: Array) -> Boxes:
    """What the assignment reads of boxes: themselves, and twelve times their covariances."""
    x, y, w, h, angle = jnp.moveaxis(boxes, -1, 0)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    xx = (w * cosine) ** 2 + (h * sine) ** 2
    yy = (w * sine) ** 2 + (h * cosine) ** 2
    xy = (w - h) * (w + h) * cosine * sine
    return jnp.stack([x, y, w, h, cosine, sine, xx, yy, xy])


def _inside(box: Boxes, x: Array, y: Array, minimum_side: Array) -> Array:
    """Whether points are inside of boxes with sides enlarged to the least one, or on a side."""
    x0, y0, w, h, cosine, sine, *_ = box
    dx, dy = x - x0, y - y0
    along, across = dx * cosine + dy * sine, dy * cosine - dx * sine
    within = jnp.abs(along) <= jnp.maximum(w, minimum_side) / 2
    return within & (jnp.abs(across) <= jnp.maximum(h, minimum_side) / 2)


def _probiou(box: Boxes, predicted: Boxes) -> Array:
    """One minus the Hellinger distance, from covariances: for many pairs, few operations each.

    `probiou` is exact for long and for equal boxes too.
    """
    x0, y0, w0, h0, _, _, *covariance = box
    x1, y1, w1, h1, _, _, *other = predicted
    xx, yy, xy = (a + b for a, b in zip(covariance, other, strict=True))
    dx, dy = x0 - x1, y0 - y1
    determinant = xx * yy - xy * xy
    sides = jnp.abs(w0 * h0 * w1 * h1)
    far = 3 * (yy * dx * dx + xx * dy * dy - 2 * xy * dx * dy)
    spread = jnp.log(numerics.divide(determinant, 4 * sides)) / 2
    distance = numerics.divide(far, determinant) + jnp.maximum(spread, 0)
    return 1 - numerics.sqrt(-numerics.expm1(-jnp.maximum(distance, 0)))
