"""Losses that put smooth L1 on what the boxes miss."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jaxloss._boxes._per_pair import per_pair
from jaxloss._core import numerics, pairs
from jaxloss._core.families import boxes
from jaxloss._core.pairs import Span
from jaxloss.options import Boxes, Numbers, Positive

__all__ = ["bounded_iou", "extended_iou"]

Array = jax.Array


@boxes
def bounded_iou(
    boxes: Numbers, target_boxes: Numbers, *, beta: Positive = 0.2, **options: Unpack[Boxes]
) -> Array:
    """Computes the bounded IoU loss of each pair of boxes: a bound on the IoU for each number.

    Each of the four numbers alone, the others being right, bounds the IoU. With the difference `dx`
    of the centres and smooth L1 `S` (`r^2 / (2 beta)` below `beta`, `r - beta / 2` above)::

        Bounded loss = S(1 - max((w' - 2 |dx|) / (w' + 2 |dx|), 0)) + S(1 - min(w / w', w' / w))
                       + the same of dy and h

    It is the sum of four values, of which mmdetection returns each. There is no epsilon: identical
    boxes cost exactly 0 at any size, equal points too. A centre further than half the target's side
    away has no gradient in that axis.

    Args:
      beta: Where smooth L1 turns from square to linear, above 0.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]]
      >>> targets = [[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]]
      >>> print(jaxloss.bounded_iou(boxes, targets, reduction="none").round(4))
      [0.        1.8666999]

    Reference:
      Tychsen-Smith, Petersson. Improving Object Localization with Fitness NMS and Bounded IoU Loss.
      CVPR 2018. https://arxiv.org/abs/1711.00164
    """
    return per_pair(_bounded_iou, boxes, target_boxes, options, beta)


@boxes
def extended_iou(
    boxes: Numbers, target_boxes: Numbers, *, beta: Positive = 0.1, **options: Unpack[Boxes]
) -> Array:
    """Computes the extended IoU loss of each pair of boxes, whose intersection may be negative.

    Where boxes do not meet, the intersection `I` becomes minus an area that grows with their gap.
    With the first corner `e` of the enclosing box, the corners `i` and `j` of the intersection (the
    largest of the first corners, the smallest of the last), and `m` and `M` their minimum and
    maximum in each axis, all relative to `e`::

        I = jx jy + mx my - ix My - Mx iy                       the intersection where they meet
        r = 1 - I / (A + A' - I)
        Extended loss = r^2 / (2 beta) if r < beta, else r - beta / 2

    with the areas `A` and `A'`. So disjoint boxes have a gradient. There is no epsilon: identical
    boxes cost exactly 0 at any size; `r = 1` with zero gradient for two equal points. mmdetection
    calls this `EIoULoss`; `eiou` is another paper's.

    Args:
      beta: Where smooth L1 turns from square to linear, above 0.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]]
      >>> targets = [[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]]
      >>> print(jaxloss.extended_iou(boxes, targets, reduction="none").round(4))
      [0.   0.75]

    Reference:
      Peng, Yu. A Systematic IoU-Related Method: Beyond Simplified Regression for Better
      Localization. IEEE Transactions on Image Processing 2021. https://arxiv.org/abs/2112.01793
    """
    return per_pair(_extended_iou, boxes, target_boxes, options, beta)


def _bounded_iou(x: Span, y: Span, beta: Array) -> Array:
    def missed(axis: Span) -> tuple[Array, Array]:
        far = 4 * numerics.absolute(axis.apart)
        larger = numerics.maximum(axis.first, axis.second)
        return (
            jnp.minimum(numerics.divide(far, axis.second + far / 2), 1),
            numerics.divide(numerics.absolute(axis.wider), larger),
        )

    return sum((_smooth(miss, beta) for miss in (*missed(x), *missed(y))), start=0 * beta)


def _extended_iou(x: Span, y: Span, beta: Array) -> Array:
    areas, (x, y) = pairs.measure(x, y), (x.relative(), y.relative())
    begins_x, begins_y = numerics.absolute(x.before), numerics.absolute(y.before)
    gap_x, gap_y = jnp.minimum(x.shared, 0), jnp.minimum(y.shared, 0)
    # The formula above where the boxes miss, with j = i + shared.
    negative = x.shared * y.shared + gap_x * gap_y + 2 * (begins_x * gap_y + begins_y * gap_x)
    union = x.first * y.first + x.second * y.second - negative
    apart = (x.shared < 0) | (y.shared < 0)
    return _smooth(jnp.where(apart, 1 - numerics.divide(negative, union), areas.loss), beta)


def _smooth(miss: Array, beta: Array) -> Array:
    """Smooth L1 of what is at least 0."""
    square = jnp.minimum(miss, beta)
    return square * (miss - square / 2) / beta
