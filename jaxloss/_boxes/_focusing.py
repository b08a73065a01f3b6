"""Losses that weigh each pair of boxes by how well it overlaps already."""

from __future__ import annotations

from typing import Literal, Unpack

import jax
import jax.numpy as jnp

from jaxloss._boxes._per_pair import per_pair
from jaxloss._boxes._sides import efficient_iou
from jaxloss._core import checks, numerics, pairs
from jaxloss._core.families import boxes
from jaxloss._core.pairs import Span
from jaxloss.options import Boxes, Fraction, NonNegative, Numbers, Positive

__all__ = ["focal_eiou", "wiou"]

Array = jax.Array


@boxes
def focal_eiou(
    boxes: Numbers, target_boxes: Numbers, *, gamma: NonNegative = 0.5, **options: Unpack[Boxes]
) -> Array:
    """Computes the focal EIoU loss of each pair of boxes: pairs of good overlap count more.

    ::

        Focal-EIoU loss = IoU^gamma * EIoU loss            IoU^gamma a constant for the derivative

    Boxes that do not meet have the weight 0: they cost nothing and have no gradient, so something
    else must bring them together. `gamma=0` is `eiou`. Identical boxes cost exactly 0 at any size.

    Args:
      gamma: Exponent of the weight, at least 0.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]]
      >>> targets = [[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]]
      >>> print(jaxloss.focal_eiou(boxes, targets, reduction="none").round(4))
      [0.     0.5054]

    Reference:
      Zhang et al. Focal and Efficient IOU Loss for Accurate Bounding Box Regression. Neurocomputing
      2022. https://arxiv.org/abs/2101.08158
    """
    return per_pair(_focal_eiou, boxes, target_boxes, options, gamma)


@boxes
def wiou(
    boxes: Numbers,
    target_boxes: Numbers,
    *,
    version: Literal[1, 2, 3] = 1,
    mean: NonNegative | None = None,
    momentum: Fraction = 0.01,
    alpha: Positive = 1.9,
    delta: Positive = 3.0,
    gamma: NonNegative = 0.5,
    **options: Unpack[Boxes],
) -> Array | tuple[Array, Array]:
    """Computes the wise IoU loss of each pair of boxes: attention by distance, focus by rank.

    With the distance `d` of the centres and the diagonal `c` of the enclosing box, versions 1 to 3
    are::

        v1 = exp(d^2 / c^2) (1 - IoU)                                   c constant
        b  = (1 - IoU) / mean                                           constant
        v2 = b^gamma v1
        v3 = b / (delta alpha^(b - delta)) v1

    constant for the derivative. Versions 2 and 3 compare a pair with a running mean of `1 - IoU`,
    which must be carried from call to call, from 1 on::

        loss, mean = wiou(boxes, target_boxes, version=3, mean=mean)

    The mean is updated before it is used, `mean <- (1 - momentum) mean + momentum m`, with the
    plain mean `m` of the valid pairs; without any it stays. Identical boxes cost exactly 0 at any
    size above 0; two equal points have an IoU of 0. The author's code has `alpha=1.7, delta=2.7`.

    Args:
      version: 1, 2 or 3.
      mean: The running mean that the previous call returned, at least 0; versions 2 and 3 only.
      momentum: The share of this call in the running mean, in `[0, 1]`.
      alpha: Base of version 3, above 0.
      delta: The `b` at which version 3 weighs 1, above 0.
      gamma: Exponent of version 2, at least 0.

    Returns:
      A scalar, or shape `boxes.shape[:-1]` with `reduction="none"`; float32 for half-precision
      input. Versions 2 and 3: a pair of that and the new mean.

    Raises:
      ValueError: If shapes do not match (they never broadcast), a choice does not exist, a number
        is out of its range, or `mean` is missing in version 2 or 3 or given in version 1.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]]
      >>> targets = [[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]]
      >>> print(jaxloss.wiou(boxes, targets, reduction="none").round(4))
      [0.     0.8666]
      >>> loss, mean = jaxloss.wiou(boxes, targets, version=3, mean=1.0)
      >>> print(loss.round(4), mean)
      0.4757 0.994

    Reference:
      Tong et al. Wise-IoU: Bounding Box Regression Loss with Dynamic Focusing Mechanism. 2023.
      https://arxiv.org/abs/2301.10051
    """
    checks.option("version", version, (1, 2, 3))
    if version == 1:
        if mean is not None:
            checks.fail(ValueError, "mean", "given", "None, as version 1 has no running mean")
        return per_pair(_attention, boxes, target_boxes, options)
    if mean is None:
        expected = f"the running mean of version {version}: 1.0 at first, then what this returns"
        checks.fail(ValueError, "mean", None, expected)
    known = jax.lax.stop_gradient((boxes, target_boxes))
    plain = {**options, "weights": None, "reduction": "sum"}
    total, count = (per_pair(formula, *known, plain) for formula in (_miss, _one))
    after = (1 - momentum) * mean + momentum * numerics.divide(total, count)
    after = jax.lax.stop_gradient(jnp.where(count == 0, mean, after))
    if version == 2:
        return per_pair(_monotonic, boxes, target_boxes, options, after, gamma), after
    return per_pair(_non_monotonic, boxes, target_boxes, options, after, alpha, delta), after


def _focal_eiou(x: Span, y: Span, gamma: Array) -> Array:
    weight = numerics.power(pairs.measure(x, y).iou, gamma)
    return jax.lax.stop_gradient(weight) * efficient_iou(x, y)


def _attention(x: Span, y: Span) -> Array:
    return jnp.exp(pairs.offset(x, y, constant_hull=True)) * _miss(x, y)


def _monotonic(x: Span, y: Span, mean: Array, gamma: Array) -> Array:
    b = numerics.divide(_miss(x, y), mean)
    return jax.lax.stop_gradient(numerics.power(b, gamma)) * _attention(x, y)


def _non_monotonic(x: Span, y: Span, mean: Array, alpha: Array, delta: Array) -> Array:
    b = numerics.divide(_miss(x, y), mean)
    weight = b / delta * jnp.exp((delta - b) * jnp.log(alpha))
    return jax.lax.stop_gradient(weight) * _attention(x, y)


def _miss(x: Span, y: Span) -> Array:
    return pairs.measure(x, y).loss


def _one(x: Span, y: Span) -> Array:
    return jnp.ones_like(x.hull)
