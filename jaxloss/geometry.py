"""Boxes: formats, areas and overlap coefficients, exact for boxes of any size.

A box is `[..., 4]`: `"xyxy"` corners `(x0, y0, x1, y1)`, `"cxcywh"` centre and size, or `"xywh"`
first corner and size. A box with `x1 < x0` or `y1 < y0` is empty: it counts as the point or
segment at its centre. Coefficients are those of paired boxes, higher is better; the losses made of
them are `jaxloss.giou` and its kin. All are computed relative to the boxes' own enclosing box and
without an epsilon, so boxes of 1e-18 and 1e+18 units are as exact as others.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics

__all__ = ["area", "ciou", "convert", "diou", "giou", "iou"]

Array = jax.Array

FORMATS = ("xyxy", "cxcywh", "xywh")


def convert(boxes: ArrayLike, source: str, target: str) -> Array:
    """Converts boxes from one format to another.

    Args:
      boxes: Boxes, shape `[..., 4]`, floating.
      source: Their format: `"xyxy"`, `"cxcywh"` or `"xywh"`.
      target: The format wanted.

    Returns:
      The same boxes, shape `[..., 4]`, in the dtype of `boxes`.

    Raises:
      TypeError: If `boxes` is not floating.
      ValueError: If the last axis is not 4 or a format does not exist.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import geometry
      >>> print(geometry.convert(jnp.array([1.0, 2.0, 5.0, 4.0]), "xyxy", "cxcywh"))
      [3. 3. 4. 2.]

    Reference:
      Lin et al. Microsoft COCO: Common Objects in Context. ECCV 2014 (xywh).
      https://arxiv.org/abs/1405.0312
    """
    checks.option("convert", "source", source, FORMATS)
    checks.option("convert", "target", target, FORMATS)
    return _convert("convert", "boxes", boxes, source, target)


def area(boxes: ArrayLike, *, format: str = "xyxy") -> Array:
    """Computes the area of each box; 0 for an empty one.

    Args:
      boxes: Boxes, shape `[..., 4]`, floating.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.

    Returns:
      `width * height`, shape `[...]`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating.
      ValueError: If the last axis is not 4 or the format does not exist.

    Example:
      >>> from jaxloss import geometry
      >>> print(geometry.area([1.0, 2.0, 5.0, 4.0]))
      8.0

    Reference:
      Euclid. Elements, book I, proposition 35.
    """
    x0, y0, x1, y1 = _corners("area", "boxes", boxes, format)
    return (x1 - x0) * (y1 - y0)


def iou(boxes: ArrayLike, target_boxes: ArrayLike, *, format: str = "xyxy") -> Array:
    """Computes the intersection over union of each pair of boxes.

    `IoU = intersection / union`, in `[0, 1]`.

    Two empty boxes have no union: their IoU is 0 with zero gradient.

    Args:
      boxes: Boxes, shape `[..., 4]`, floating.
      target_boxes: Boxes of the same shape: pairs, never a matrix.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.

    Returns:
      One coefficient per pair, shape `[...]`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating.
      ValueError: If the last axis is not 4, the shapes differ or the format does not exist.

    Example:
      >>> from jaxloss import geometry
      >>> print(geometry.iou([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]).round(4))
      0.2

    Reference:
      Jaccard. The Distribution of the Flora in the Alpine Zone. New Phytologist 1912.
    """
    pair = compare("iou", boxes, target_boxes, format)
    return pair.iou


def giou(boxes: ArrayLike, target_boxes: ArrayLike, *, format: str = "xyxy") -> Array:
    """Computes the generalised intersection over union of each pair of boxes.

    `GIoU = IoU - (|C| - union) / |C|` with the enclosing box `C`, in `(-1, 1]`.

    It tells how far apart disjoint boxes are. An enclosing box without area adds nothing.

    Args:
      boxes: Boxes, shape `[..., 4]`, floating.
      target_boxes: Boxes of the same shape: pairs, never a matrix.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.

    Returns:
      One coefficient per pair, shape `[...]`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating.
      ValueError: If the last axis is not 4, the shapes differ or the format does not exist.

    Example:
      >>> from jaxloss import geometry
      >>> print(geometry.giou([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]).round(4))
      0.0333

    Reference:
      Rezatofighi et al. Generalized Intersection over Union. CVPR 2019.
      https://arxiv.org/abs/1902.09630
    """
    pair = compare("giou", boxes, target_boxes, format)
    return pair.iou - pair.vacancy


def diou(boxes: ArrayLike, target_boxes: ArrayLike, *, format: str = "xyxy") -> Array:
    """Computes the distance intersection over union of each pair of boxes.

    `DIoU = IoU - d^2 / c^2`, `d` the distance of the centres, `c` the enclosing diagonal.

    Two equal points have no diagonal: the distance adds nothing.

    Args:
      boxes: Boxes, shape `[..., 4]`, floating.
      target_boxes: Boxes of the same shape: pairs, never a matrix.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.

    Returns:
      One coefficient per pair, shape `[...]`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating.
      ValueError: If the last axis is not 4, the shapes differ or the format does not exist.

    Example:
      >>> from jaxloss import geometry
      >>> print(geometry.diou([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]).round(4))
      0.12

    Reference:
      Zheng et al. Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression.
      AAAI 2020. https://arxiv.org/abs/1911.08287
    """
    pair = compare("diou", boxes, target_boxes, format)
    return pair.iou - pair.offset


def ciou(boxes: ArrayLike, target_boxes: ArrayLike, *, format: str = "xyxy") -> Array:
    """Computes the complete intersection over union of each pair of boxes.

    `CIoU = DIoU - a v`, `v = 4 / pi^2 (atan(w / h) - atan(w' / h'))^2`, `a = v / (1 - IoU + v)`.

    `a` is a constant for the derivative, as in the paper. A point has the angle 0.

    Args:
      boxes: Boxes, shape `[..., 4]`, floating.
      target_boxes: Boxes of the same shape: pairs, never a matrix.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.

    Returns:
      One coefficient per pair, shape `[...]`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating.
      ValueError: If the last axis is not 4, the shapes differ or the format does not exist.

    Example:
      >>> from jaxloss import geometry
      >>> print(geometry.ciou([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]).round(4))
      0.1179

    Reference:
      Zheng et al. Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression.
      AAAI 2020. https://arxiv.org/abs/1911.08287
    """
    pair = compare("ciou", boxes, target_boxes, format)
    return pair.iou - pair.offset - aspect_weight(pair) * pair.aspect


class Comparison(NamedTuple):
    """What the coefficients and losses of a pair of boxes are made of, each `[...]`.

    Attributes:
      iou: Intersection over union, 0 where both boxes are empty.
      loss: `1 - iou`, without cancellation.
      vacancy: The share of the enclosing box that neither box covers.
      offset: Squared distance of the centres over the squared diagonal of the enclosing box.
      aspect: `4 / pi^2` times the squared difference of the diagonals' angles.
    """

    iou: Array
    loss: Array
    vacancy: Array
    offset: Array
    aspect: Array


def compare(function: str, boxes: ArrayLike, others: ArrayLike, format: str) -> Comparison:
    """Compares paired boxes of any size: lengths are taken relative to their enclosing box."""
    first = _corners(function, "boxes", boxes, format)
    second = _corners(function, "target_boxes", others, format)
    meaning = "the shape of `boxes`, as they are paired"
    checks.shape(function, "target_boxes", second[0], first[0].shape, meaning)

    ax0, ay0, ax1, ay1 = first
    bx0, by0, bx1, by1 = (side.astype(ax0.dtype) for side in second)
    width = jnp.maximum(ax1, bx1) - jnp.minimum(ax0, bx0)
    height = jnp.maximum(ay1, by1) - jnp.minimum(ay0, by0)
    unit = jax.lax.stop_gradient(jnp.maximum(width, height))
    unit = jnp.where(unit > 0, unit, 1)
    width, height = width / unit, height / unit

    size_a, size_b = (ax1 - ax0, ay1 - ay0), (bx1 - bx0, by1 - by0)
    areas = (size_a[0] / unit) * (size_a[1] / unit) + (size_b[0] / unit) * (size_b[1] / unit)
    shared_x = (jnp.minimum(ax1, bx1) - jnp.maximum(ax0, bx0)) / unit
    shared_y = (jnp.minimum(ay1, by1) - jnp.maximum(ay0, by0)) / unit
    meet = (shared_x > 0) & (shared_y > 0)
    overlap = jnp.where(meet, shared_x * shared_y, 0)
    union, hull = areas - overlap, width * height
    apart_x = ((ax0 - bx0) + (ax1 - bx1)) / 2 / unit
    apart_y = ((ay0 - by0) + (ay1 - by1)) / 2 / unit
    turn = _angle(*size_a) - _angle(*size_b)
    return Comparison(
        iou=numerics.divide(overlap, union),
        loss=jnp.where(union == 0, 1, numerics.divide(areas - 2 * overlap, union)),
        vacancy=numerics.divide(hull - union, hull),
        offset=numerics.divide(apart_x**2 + apart_y**2, width**2 + height**2),
        aspect=4 / jnp.pi**2 * turn**2,
    )


def aspect_weight(pair: Comparison, gate: Array | None = None) -> Array:
    """CIoU's trade-off `aspect / (1 - iou + aspect)`, a constant; 0 where `iou <= gate`."""
    weight = numerics.divide(pair.aspect, pair.loss + pair.aspect)
    if gate is not None:
        weight = jnp.where(pair.iou > gate, weight, 0 * gate)  # NaN stays NaN
    return jax.lax.stop_gradient(weight)


def _convert(function: str, argument: str, boxes: ArrayLike, source: str, target: str) -> Array:
    checks.option(function, "format", source, FORMATS)
    box = checks.floating(function, argument, boxes)
    checks.minimum_rank(function, argument, box, 1, "the last holds a box's four numbers")
    checks.shape(function, argument, box, (*box.shape[:-1], 4), "four numbers per box")
    if source == target:
        return box
    first, second = box[..., :2], box[..., 2:]
    if source == "xyxy":
        corner, size = first, second - first
    elif source == "cxcywh":
        corner, size = first - second / 2, second
    else:
        corner, size = first, second
    if target == "xyxy":
        return jnp.concatenate([corner, corner + size], -1)
    return jnp.concatenate([corner if target == "xywh" else corner + size / 2, size], -1)


def _corners(
    function: str, argument: str, boxes: ArrayLike, format: str
) -> tuple[Array, Array, Array, Array]:
    """Returns `x0, y0, x1, y1` in the compute dtype, an inverted extent collapsed to its middle."""
    box = _convert(function, argument, boxes, format, "xyxy")
    box = box.astype(checks.compute_dtype(box))
    x0, x1 = _ordered(box[..., 0], box[..., 2])
    y0, y1 = _ordered(box[..., 1], box[..., 3])
    return x0, y0, x1, y1


def _ordered(low: Array, high: Array) -> tuple[Array, Array]:
    inverted, middle = high < low, low + (high - low) / 2
    return jnp.where(inverted, middle, low), jnp.where(inverted, middle, high)


def _angle(width: Array, height: Array) -> Array:
    """`atan(width / height)` for sizes of every magnitude; 0 with zero gradient for a point."""
    largest = jax.lax.stop_gradient(jnp.maximum(width, height))
    point = largest <= 0
    scale = jnp.where(point, 1, largest)
    return jnp.arctan2(jnp.where(point, 0, width / scale), jnp.where(point, 1, height / scale))
