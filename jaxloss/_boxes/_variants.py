"""Variants that change a base loss: its exponents, or the boxes whose overlap it measures."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._boxes._paired import reduced
from jaxloss._core import boxes as pairs
from jaxloss._core import checks, numerics
from jaxloss._core.boxes import Overlap, Span
from jaxloss._core.reduction import AxisName

__all__ = ["alpha_iou", "inner_iou"]

Array = jax.Array

_BASES = ("iou", "giou", "diou", "ciou")


def alpha_iou(
    boxes: ArrayLike,
    target_boxes: ArrayLike,
    *,
    alpha: ArrayLike = 3.0,
    base: str = "iou",
    format: str = "xyxy",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the alpha-IoU loss of each pair of boxes: a base loss with every term to a power.

    In the notation of `giou`, `diou` and `ciou`::

        "iou"     1 - IoU^alpha
        "giou"    1 - IoU^alpha + ((|C| - union) / |C|)^alpha
        "diou"    1 - IoU^alpha + (d^2 / c^2)^alpha
        "ciou"    1 - IoU^alpha + (d^2 / c^2)^alpha + (a v)^alpha      a constant for the derivative

    `alpha=1` is the base. Above 1 the gradient of boxes that overlap well grows, that of others
    falls. There is no epsilon: identical boxes cost exactly 0 at any size, and a term of 0 has the
    derivative 0 for any `alpha`. Two empty boxes have IoU 0.

    Args:
      boxes: Predicted boxes, shape `[..., 4]`, floating, in any unit.
      target_boxes: True boxes of the same shape, in the same unit: pairs, never a matrix.
      alpha: The exponent, above 0.
      base: `"iou"`, `"giou"`, `"diou"` or `"ciou"`.
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
      >>> print(jaxloss.alpha_iou(boxes, targets, reduction="none").round(4))
      [0.    0.992]

    Reference:
      He et al. Alpha-IoU: A Family of Power Intersection over Union Losses for Bounding Box
      Regression. NeurIPS 2021. https://arxiv.org/abs/2110.13675
    """
    checks.option("alpha_iou", "base", base, _BASES)
    return reduced(
        "alpha_iou",
        functools.partial(_alpha_iou, base),
        boxes,
        target_boxes,
        ("alpha", alpha, "(0, inf)"),
        format=format,
        where=where,
        weights=weights,
        reduction=reduction,
        axis_name=axis_name,
    )


def inner_iou(
    boxes: ArrayLike,
    target_boxes: ArrayLike,
    *,
    ratio: ArrayLike = 0.7,
    base: str = "iou",
    format: str = "xyxy",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the inner IoU loss of each pair of boxes: a base loss on shrunk boxes.

    Only the overlap is that of both boxes scaled by `ratio` about their centres; the other terms
    remain those of the whole boxes::

        Inner loss = base loss + IoU - IoU(scaled boxes)

    `ratio=1` is the base. Below 1 the gradient of boxes that overlap well grows, and fewer boxes
    meet; above 1 more do. There is no epsilon: identical boxes cost exactly 0 at any size. Two
    empty boxes have IoU 0.

    Args:
      boxes: Predicted boxes, shape `[..., 4]`, floating, in any unit.
      target_boxes: True boxes of the same shape, in the same unit: pairs, never a matrix.
      ratio: The factor of the sides, above 0; the paper uses 0.5 to 1.5.
      base: `"iou"`, `"giou"`, `"diou"` or `"ciou"`.
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
      >>> print(jaxloss.inner_iou(boxes, targets, reduction="none").round(4))
      [0.     0.9191]

    Reference:
      Zhang, Xu, Zhang. Inner-IoU: More Effective Intersection over Union Loss with Auxiliary
      Bounding Box. 2023. https://arxiv.org/abs/2311.02877
    """
    checks.option("inner_iou", "base", base, _BASES)
    return reduced(
        "inner_iou",
        functools.partial(_inner_iou, base),
        boxes,
        target_boxes,
        ("ratio", ratio, "(0, inf)"),
        format=format,
        where=where,
        weights=weights,
        reduction=reduction,
        axis_name=axis_name,
    )


def _alpha_iou(base: str, x: Span, y: Span, alpha: Array) -> Array:
    areas = pairs.measure(x, y)
    meet = areas.iou > 0
    kept = jnp.where(meet, pairs.log_iou(areas), -1)
    lost = jnp.where(meet, -jnp.expm1(alpha * kept), 1 + 0 * alpha)  # NaN stays NaN
    return lost + sum(numerics.power(term, alpha) for term in _penalties(base, x, y, areas))


def _inner_iou(base: str, x: Span, y: Span, ratio: Array) -> Array:
    inner = pairs.measure(x.scaled(ratio), y.scaled(ratio))
    return inner.loss + sum(_penalties(base, x, y, pairs.measure(x, y)))


def _penalties(base: str, x: Span, y: Span, areas: Overlap) -> Sequence[Array]:
    """What the base loss adds to `1 - IoU`."""
    if base == "iou":
        return ()
    if base == "giou":
        return (areas.vacancy,)
    if base == "diou":
        return (pairs.offset(x, y),)
    aspect = pairs.aspect(x, y)
    return pairs.offset(x, y), pairs.aspect_weight(aspect, areas) * aspect
