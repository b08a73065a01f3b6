"""Losses that compare the sides of boxes one by one, beside their overlap."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jaxloss._boxes._per_pair import per_pair
from jaxloss._core import numerics, pairs
from jaxloss._core.families import boxes
from jaxloss._core.pairs import Span
from jaxloss.options import Boxes, NonNegative, Numbers

__all__ = ["eiou", "siou"]

Array = jax.Array


@boxes
def eiou(boxes: Numbers, target_boxes: Numbers, **options: Unpack[Boxes]) -> Array:
    """Computes the efficient IoU loss of each pair of boxes: overlap, distance, width and height.

    With the distance `d` of the centres, the enclosing box `W x H` and its diagonal `c`::

        EIoU loss = 1 - IoU + d^2 / c^2 + (w - w')^2 / W^2 + (h - h')^2 / H^2          in [0, 4)

    There is no epsilon: identical boxes cost exactly 0 at any size, and a side that neither box has
    costs nothing. Two equal points have IoU 0 and cost 1 with zero gradient. A box with `x1 < x0`
    or `y1 < y0` is empty, the point or segment at its centre. mmdetection's `EIoULoss` is another
    paper's: `extended_iou`. The code released with WIoU has the differences of the centres where
    those of the sides belong.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]]
      >>> targets = [[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]]
      >>> print(jaxloss.eiou(boxes, targets, reduction="none").round(4))
      [0.   1.13]

    Reference:
      Zhang et al. Focal and Efficient IOU Loss for Accurate Bounding Box Regression. Neurocomputing
      2022. https://arxiv.org/abs/2101.08158
    """
    return per_pair(efficient_iou, boxes, target_boxes, options)


@boxes
def siou(
    boxes: Numbers, target_boxes: Numbers, *, theta: NonNegative = 4.0, **options: Unpack[Boxes]
) -> Array:
    """Computes the SCYLLA IoU loss of each pair of boxes: overlap, angle, distance and shape.

    With the difference `dx, dy` of the centres and the enclosing box `W x H`::

        SIoU loss = 1 - IoU + (D + S) / 2
        A = 2 |dx dy| / (dx^2 + dy^2)                             the sine of twice the angle
        D = sum over (d, c) = (dx, W), (dy, H) of  1 - exp(-(2 - A) (d / c)^2)
        S = sum over s = w, h of  (1 - exp(-|s - s'| / max(s, s')))^theta

    `D` grows with the distance, as in the paper; mmdetection's default exponent has the wrong sign
    and rewards it (`neg_gamma=True` is this loss). There is no epsilon: identical boxes cost
    exactly 0 at any size. Two equal points have IoU 0 and cost 1 with zero gradient. A box with
    `x1 < x0` or `y1 < y0` is empty, the point or segment at its centre.

    Args:
      theta: How much the shape counts, at least 0; the paper uses 2 to 6.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]]
      >>> targets = [[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]]
      >>> print(jaxloss.siou(boxes, targets, reduction="none").round(4))
      [0.         0.89489996]

    Reference:
      Gevorgyan. SIoU Loss: More Powerful Learning for Bounding Box Regression. 2022.
      https://arxiv.org/abs/2205.12740
    """
    return per_pair(_siou, boxes, target_boxes, options, theta)


def efficient_iou(x: Span, y: Span) -> Array:
    """EIoU's cost of a pair."""
    sides = [numerics.divide(axis.wider, axis.hull) ** 2 for axis in (x, y)]
    return pairs.measure(x, y).loss + pairs.offset(x, y) + sides[0] + sides[1]


def _siou(x: Span, y: Span, theta: Array) -> Array:
    per_length = numerics.per_unit(jnp.maximum(jnp.abs(x.apart), jnp.abs(y.apart)))
    dx, dy = x.apart * per_length, y.apart * per_length
    sharpness = 2 - 2 * numerics.absolute(dx * dy) * numerics.reciprocal(dx**2 + dy**2)

    def penalty(axis: Span) -> Array:
        distance = numerics.divide(axis.apart, axis.hull)
        smaller = numerics.minimum(axis.first, axis.second)
        unlike = numerics.share(numerics.absolute(axis.wider), smaller)
        shape = numerics.power(-numerics.expm1(-unlike), theta)
        return shape - numerics.expm1(-sharpness * distance**2)

    return pairs.measure(x, y).loss + (penalty(x) + penalty(y)) / 2
