"""Losses on axis-aligned boxes."""

import jax
from jax.typing import ArrayLike

from jaxloss import geometry
from jaxloss._core import checks
from jaxloss._core.labels import paired
from jaxloss._core.reduction import AxisName, reduce

__all__ = ["ciou", "giou"]

Array = jax.Array

_NAMES = ("boxes", "target_boxes")


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
    first, second, mask, factor = paired(
        "giou", boxes, target_boxes, names=_NAMES, where=where, weights=weights, inner=1
    )
    pair = geometry.compare("giou", first, second, format)
    loss = pair.loss + pair.vacancy
    return reduce("giou", loss, reduction, mask=mask, weights=factor, axis_name=axis_name)


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
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.
      gate: `a` is 0 where the IoU is at most `gate`, in `[0, 1]`; mmdetection and the journal
        version of the paper use 0.5. None: no gate.
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
      >>> print(jaxloss.ciou(boxes, targets, reduction="none").round(4))
      [0.     0.8821]

    Reference:
      Zheng et al. Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression.
      AAAI 2020. https://arxiv.org/abs/1911.08287
      Zheng et al. Enhancing Geometric Factors (the gate). IEEE Transactions on Cybernetics 2021.
      https://arxiv.org/abs/2005.03572
    """
    first, second, mask, factor = paired(
        "ciou", boxes, target_boxes, names=_NAMES, where=where, weights=weights, inner=1
    )
    pair = geometry.compare("ciou", first, second, format)
    if gate is not None:
        gate = checks.number("ciou", "gate", gate, pair.iou.dtype, "[0, 1]")
    loss = pair.loss + pair.offset + geometry.aspect_weight(pair, gate) * pair.aspect
    return reduce("ciou", loss, reduction, mask=mask, weights=factor, axis_name=axis_name)
