"""The loss on the exact overlap of rotated boxes."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, polygons
from jaxloss._core.labels import paired
from jaxloss._core.reduction import AxisName, reduce

__all__ = ["rotated_iou"]

Array = jax.Array

_NAMES = ("boxes", "target_boxes")
_SMALLEST = 1e-6


def rotated_iou(
    boxes: ArrayLike,
    target_boxes: ArrayLike,
    *,
    form: str = "linear",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the IoU loss of each pair of rotated boxes, exactly.

    With the intersection over union of the two rectangles::

        loss = 1 - IoU                        "linear"
             = -log max(IoU, 1e-6)            "log"
             = 1 - IoU^2                      "square"

    The intersection is the polygon's own area, not an approximation, and so is its gradient; value
    and gradient are finite for every pair, the IoU to a few roundings of 1. Disjoint boxes have no
    gradient. Identical boxes cost exactly 0 at any size; there the loss has a kink, and its
    gradient is the mean over both sides, 0 to rounding, as wherever edges coincide. `(w, h, a)`,
    `(w, h, a + pi)` and `(h, w, a + pi / 2)` are one box up to the rounding of the angle. Two boxes
    without area have IoU 0 and cost 1 with zero gradient. A negative side counts as 0.

    mmrotate, whose default is `"log"`, floors the IoU at 1e-6 in every form.

    Args:
      boxes: Predicted boxes (cx, cy, w, h, radians), shape `[..., 5]`, floating, in any unit.
      target_boxes: True boxes of the same shape, in the same unit: pairs, never a matrix.
      form: `"linear"`, `"log"` or `"square"`.
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
      ValueError: If the last axis is not 5, shapes do not match (they never broadcast), or an
        option does not exist.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 4.0, 2.0, 0.0], [0.0, 0.0, 2.0, 2.0, 0.78539816]]
      >>> targets = [[2.0, 0.0, 4.0, 2.0, 0.0], [0.0, 0.0, 2.0, 2.0, 0.0]]
      >>> print(jaxloss.rotated_iou(boxes, targets, reduction="none").round(4))
      [0.6667 0.2929]

    Reference:
      Zhou et al. IoU Loss for 2D/3D Object Detection. 3DV 2019. https://arxiv.org/abs/1908.03851
    """
    checks.option("rotated_iou", "form", form, ("linear", "log", "square"))
    first, second, mask, factor = paired(
        "rotated_iou", boxes, target_boxes, names=_NAMES, where=where, weights=weights, inner=1
    )
    overlap = polygons.compare("rotated_iou", first, second)
    loss = overlap.loss
    if form == "square":
        loss = loss * (1 + overlap.iou)
    elif form == "log":
        loss = -jnp.log(jnp.maximum(overlap.iou, _SMALLEST))
    return reduce("rotated_iou", loss, reduction, mask=mask, weights=factor, axis_name=axis_name)
