"""Losses on the overlap of boxes, and on their distance where there is none."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._boxes._paired import reduced
from jaxloss._core import boxes as pairs
from jaxloss._core import checks
from jaxloss._core.boxes import Span
from jaxloss._core.reduction import AxisName

__all__ = ["ciou", "diou", "giou", "iou"]

Array = jax.Array

_FORMS = ("linear", "log", "square")
_LEAST = 1e-6  # of the IoU under the logarithm


def iou(
    boxes: ArrayLike,
    target_boxes: ArrayLike,
    *,
    form: str = "linear",
    format: str = "xyxy",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the intersection-over-union loss of each pair of boxes.

    `form` says how the coefficient becomes a loss::

        "linear"    1 - IoU
        "log"       -log max(IoU, 1e-6)        the paper's, at most 13.8
        "square"    1 - IoU^2

    Boxes that do not meet cost the same wherever they are, with a gradient of exactly 0: only
    `giou` and its kin draw them together. There is no epsilon: identical boxes cost exactly 0 at
    any size. Two empty boxes have IoU 0 and zero gradient. A box with `x1 < x0` or `y1 < y0` is
    empty, the point or segment at its centre.

    Args:
      boxes: Predicted boxes, shape `[..., 4]`, floating, in any unit.
      target_boxes: True boxes of the same shape, in the same unit: pairs, never a matrix.
      form: `"linear"`, `"log"` or `"square"`.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.
      where: Boolean, the rank of `boxes.shape[:-1]` with each dimension equal or 1. What is False
        reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      reduction: `"mean"` (weighted, over the valid pairs, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or shape `[...]` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating or `where` not boolean.
      ValueError: If the last axis is not 4, shapes do not match (they never broadcast), or an
        option does not exist.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]]
      >>> targets = [[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]]
      >>> print(jaxloss.iou(boxes, targets, reduction="none").round(4))
      [0.         0.79999995]

    Reference:
      Yu et al. UnitBox: An Advanced Object Detection Network. ACM Multimedia 2016.
      https://arxiv.org/abs/1608.01471
    """
    checks.option("iou", "form", form, _FORMS)
    return reduced(
        "iou",
        functools.partial(_iou, form),
        boxes,
        target_boxes,
        format=format,
        where=where,
        weights=weights,
        reduction=reduction,
        axis_name=axis_name,
    )


def giou(
    boxes: ArrayLike,
    target_boxes: ArrayLike,
    *,
    format: str = "xyxy",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the generalised IoU loss of each pair of boxes.

    With the enclosing box `C` of a pair::

        GIoU loss = 1 - IoU + (|C| - union) / |C|                in [0, 2)

    Unlike `1 - IoU` it has a gradient for disjoint boxes. There is no epsilon: identical boxes
    cost exactly 0 at any size. Two empty boxes have IoU 0 and cost 1 with zero gradient. A box with
    `x1 < x0` or `y1 < y0` is empty, the point or segment at its centre.

    Args:
      boxes: Predicted boxes, shape `[..., 4]`, floating, in any unit.
      target_boxes: True boxes of the same shape, in the same unit: pairs, never a matrix.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.
      where: Boolean, the rank of `boxes.shape[:-1]` with each dimension equal or 1. What is False
        reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      reduction: `"mean"` (weighted, over the valid pairs, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or shape `[...]` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating or `where` not boolean.
      ValueError: If the last axis is not 4, shapes do not match (they never broadcast), or an
        option does not exist.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]]
      >>> targets = [[0.0, 0.0, 2.0, 2.0], [3.0, 0.0, 4.0, 2.0]]
      >>> print(jaxloss.giou(boxes, targets, reduction="none"))
      [0.   1.25]

    Reference:
      Rezatofighi et al. Generalized Intersection over Union: A Metric and a Loss for Bounding Box
      Regression. CVPR 2019. https://arxiv.org/abs/1902.09630
    """
    return reduced(
        "giou",
        _giou,
        boxes,
        target_boxes,
        format=format,
        where=where,
        weights=weights,
        reduction=reduction,
        axis_name=axis_name,
    )


def diou(
    boxes: ArrayLike,
    target_boxes: ArrayLike,
    *,
    format: str = "xyxy",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the distance IoU loss of each pair of boxes.

    With the distance `d` of the centres and the diagonal `c` of the enclosing box::

        DIoU loss = 1 - IoU + d^2 / c^2                          in [0, 2)

    There is no epsilon: identical boxes cost exactly 0 at any size. Two equal points have IoU 0 and
    no diagonal: they cost 1 with zero gradient. A box with `x1 < x0` or `y1 < y0` is empty, the
    point or segment at its centre.

    Args:
      boxes: Predicted boxes, shape `[..., 4]`, floating, in any unit.
      target_boxes: True boxes of the same shape, in the same unit: pairs, never a matrix.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.
      where: Boolean, the rank of `boxes.shape[:-1]` with each dimension equal or 1. What is False
        reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      reduction: `"mean"` (weighted, over the valid pairs, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or shape `[...]` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating or `where` not boolean.
      ValueError: If the last axis is not 4, shapes do not match (they never broadcast), or an
        option does not exist.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]]
      >>> targets = [[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]]
      >>> print(jaxloss.diou(boxes, targets, reduction="none").round(4))
      [0.   0.88]

    Reference:
      Zheng et al. Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression.
      AAAI 2020. https://arxiv.org/abs/1911.08287
    """
    return reduced(
        "diou",
        _diou,
        boxes,
        target_boxes,
        format=format,
        where=where,
        weights=weights,
        reduction=reduction,
        axis_name=axis_name,
    )


def ciou(
    boxes: ArrayLike,
    target_boxes: ArrayLike,
    *,
    gate: ArrayLike | None = None,
    format: str = "xyxy",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the complete IoU loss of each pair of boxes: overlap, distance and aspect ratio.

    With the distance `d` of the centres and the diagonal `c` of the enclosing box::

        CIoU loss = 1 - IoU + d^2 / c^2 + a v
        v = 4 / pi^2 (atan(w / h) - atan(w' / h'))^2
        a = v / (1 - IoU + v)                        a constant for the derivative

    There is no epsilon: identical boxes cost exactly 0 at any size, and value and gradient are
    finite for boxes without width, height or both (a point has the angle 0). `v` uses
    `atan2(w, h)`. A box with `x1 < x0` or `y1 < y0` is empty, the point or segment at its centre.

    Args:
      boxes: Predicted boxes, shape `[..., 4]`, floating, in any unit.
      target_boxes: True boxes of the same shape, in the same unit: pairs, never a matrix.
      gate: `a` is 0 where the IoU is at most `gate`, in `[0, 1]`; mmdetection and the journal
        version of the paper use 0.5. None: no gate.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.
      where: Boolean, the rank of `boxes.shape[:-1]` with each dimension equal or 1. What is False
        reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      reduction: `"mean"` (weighted, over the valid pairs, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or shape `[...]` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating or `where` not boolean.
      ValueError: If the last axis is not 4, shapes do not match (they never broadcast), or an
        option does not exist or a number is out of its range.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]]
      >>> targets = [[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]]
      >>> print(jaxloss.ciou(boxes, targets, reduction="none").round(4))
      [0.     0.8821]

    Reference:
      Zheng et al. Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression.
      AAAI 2020. https://arxiv.org/abs/1911.08287
      Zheng et al. Enhancing Geometric Factors (the gate). IEEE Transactions on Cybernetics 2021.
      https://arxiv.org/abs/2005.03572
    """
    return reduced(
        "ciou",
        _ciou,
        boxes,
        target_boxes,
        ("gate", gate, "[0, 1]"),
        format=format,
        where=where,
        weights=weights,
        reduction=reduction,
        axis_name=axis_name,
    )


def _iou(form: str, x: Span, y: Span) -> Array:
    areas = pairs.measure(x, y)
    if form == "square":
        return areas.loss * (1 + areas.iou)
    if form == "log":
        seen = areas.iou > _LEAST
        return jnp.where(seen, -pairs.log_iou(areas), -math.log(_LEAST))
    return areas.loss


def _giou(x: Span, y: Span) -> Array:
    areas = pairs.measure(x, y)
    return areas.loss + areas.vacancy


def _diou(x: Span, y: Span) -> Array:
    return pairs.measure(x, y).loss + pairs.offset(x, y)


def _ciou(x: Span, y: Span, gate: Array | None) -> Array:
    areas, aspect = pairs.measure(x, y), pairs.aspect(x, y)
    return areas.loss + pairs.offset(x, y) + pairs.aspect_weight(aspect, areas, gate) * aspect
