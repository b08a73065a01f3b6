"""Losses that weigh each pair of boxes by how well it overlaps already."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._boxes._paired import Number, reduced
from jaxloss._boxes._sides import efficient_iou
from jaxloss._core import boxes as pairs
from jaxloss._core import checks, numerics
from jaxloss._core.boxes import Span
from jaxloss._core.reduction import AxisName

__all__ = ["focal_eiou", "wiou"]

Array = jax.Array


def focal_eiou(
    boxes: ArrayLike,
    target_boxes: ArrayLike,
    *,
    gamma: ArrayLike = 0.5,
    format: str = "xyxy",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the focal EIoU loss of each pair of boxes: pairs of good overlap count more.

    ::

        Focal-EIoU loss = IoU^gamma * EIoU loss            IoU^gamma a constant for the derivative

    Boxes that do not meet have the weight 0: they cost nothing and have no gradient, so something
    else must bring them together. `gamma=0` is `eiou`. Identical boxes cost exactly 0 at any size.

    Args:
      boxes: Predicted boxes, shape `[..., 4]`, floating, in any unit.
      target_boxes: True boxes of the same shape, in the same unit: pairs, never a matrix.
      gamma: Exponent of the weight, at least 0.
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
      >>> print(jaxloss.focal_eiou(boxes, targets, reduction="none").round(4))
      [0.     0.5054]

    Reference:
      Zhang et al. Focal and Efficient IOU Loss for Accurate Bounding Box Regression. Neurocomputing
      2022. https://arxiv.org/abs/2101.08158
    """
    return reduced(
        "focal_eiou",
        _focal_eiou,
        boxes,
        target_boxes,
        ("gamma", gamma, "[0, inf)"),
        format=format,
        where=where,
        weights=weights,
        reduction=reduction,
        axis_name=axis_name,
    )


def wiou(
    boxes: ArrayLike,
    target_boxes: ArrayLike,
    *,
    version: int = 1,
    mean: ArrayLike | None = None,
    momentum: ArrayLike = 0.01,
    alpha: ArrayLike = 1.9,
    delta: ArrayLike = 3.0,
    gamma: ArrayLike = 0.5,
    format: str = "xyxy",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
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
    size. The author's code has `alpha=1.7, delta=2.7`.

    Args:
      boxes: Predicted boxes, shape `[..., 4]`, floating, in any unit.
      target_boxes: True boxes of the same shape, in the same unit: pairs, never a matrix.
      version: 1, 2 or 3.
      mean: The running mean that the previous call returned, at least 0; versions 2 and 3 only.
      momentum: The share of this call in the running mean, in `[0, 1]`.
      alpha: Base of version 3, above 0.
      delta: The `b` at which version 3 weighs 1, above 0.
      gamma: Exponent of version 2, at least 0.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.
      where: Boolean, the rank of `boxes.shape[:-1]` with each dimension equal or 1. What is False
        reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      reduction: `"mean"` (weighted, over the valid pairs, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or shape `[...]` with `reduction="none"`; float32 for half-precision input.
      Versions 2 and 3: a pair of that and the new mean.

    Raises:
      TypeError: If `boxes` is not floating or `where` not boolean.
      ValueError: If the last axis is not 4, shapes do not match (they never broadcast), or an
        option does not exist, a number is out of its range, or `mean` is
        missing in version 2 or 3 or given in version 1.

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
    checks.option("wiou", "version", version, (1, 2, 3))
    _require_mean(version, mean)
    read = functools.partial(reduced, "wiou", format=format, where=where, axis_name=axis_name)
    each = functools.partial(read, weights=weights, reduction=reduction)
    if mean is None:
        return each(_attention, boxes, target_boxes)
    known = jax.lax.stop_gradient((jnp.asarray(boxes), jnp.asarray(target_boxes)))
    total = read(_miss, *known, weights=None, reduction="sum")
    count = read(_one, *known, weights=None, reduction="sum")
    share = checks.number("wiou", "momentum", momentum, total.dtype, "[0, 1]")
    before = checks.number("wiou", "mean", mean, total.dtype, "[0, inf)")
    checks.shape("wiou", "mean", before, (), "one number")
    after = (1 - share) * before + share * numerics.divide(total, count)
    after = jax.lax.stop_gradient(jnp.where(count == 0, before, after))
    running: Number = ("mean", after, "[0, inf)")
    if version == 2:
        focus: Number = ("gamma", gamma, "[0, inf)")
        return each(_monotonic, boxes, target_boxes, running, focus), after
    base: Number = ("alpha", alpha, "(0, inf)")
    centre: Number = ("delta", delta, "(0, inf)")
    return each(_non_monotonic, boxes, target_boxes, running, base, centre), after


def _require_mean(version: int, mean: ArrayLike | None) -> None:
    if version == 1 and mean is not None:
        expected = "None, as version 1 has no running mean"
        checks.fail(ValueError, "wiou", "mean", "given", expected)
    if version != 1 and mean is None:
        expected = f"the running mean of version {version}: 1.0 at first, then what this returns"
        checks.fail(ValueError, "wiou", "mean", None, expected)


def _focal_eiou(x: Span, y: Span, gamma: Array) -> Array:
    weight = numerics.power(pairs.measure(x, y).iou, gamma)
    return jax.lax.stop_gradient(weight) * efficient_iou(x, y)


def _attention(x: Span, y: Span) -> Array:
    return jnp.exp(pairs.offset(x, y, constant_hull=True)) * pairs.measure(x, y).loss


def _monotonic(x: Span, y: Span, mean: Array, gamma: Array) -> Array:
    return jax.lax.stop_gradient(numerics.power(_outlier(x, y, mean), gamma)) * _attention(x, y)


def _non_monotonic(x: Span, y: Span, mean: Array, alpha: Array, delta: Array) -> Array:
    outlier = _outlier(x, y, mean)
    weight = outlier / delta * jnp.exp((delta - outlier) * jnp.log(alpha))
    return jax.lax.stop_gradient(weight) * _attention(x, y)


def _outlier(x: Span, y: Span, mean: Array) -> Array:
    """How much worse than the mean a pair is."""
    return numerics.divide(_miss(x, y), mean)


def _miss(x: Span, y: Span) -> Array:
    return pairs.measure(x, y).loss


def _one(x: Span, y: Span) -> Array:
    return jnp.ones_like(x.hull)
