"""Variants that change a base loss: its exponents, or the boxes whose overlap it measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

import jax
import jax.numpy as jnp

from jaxloss._boxes._per_pair import per_pair
from jaxloss._core import checks, numerics, pairs
from jaxloss._core.families import boxes
from jaxloss._core.pairs import Areas, Span
from jaxloss._core.platforms import bind
from jaxloss.options import Boxes, Numbers, Positive

__all__ = ["alpha_iou", "inner_iou"]

Array = jax.Array
Base = Literal["iou", "giou", "diou", "ciou"]

_BASES = ("iou", "giou", "diou", "ciou")


@boxes
def alpha_iou(
    boxes: Numbers,
    target_boxes: Numbers,
    *,
    alpha: Positive = 3.0,
    base: Base = "iou",
    **options: Unpack[Boxes],
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
      alpha: The exponent, above 0.
      base: `"iou"`, `"giou"`, `"diou"` or `"ciou"`.

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
    checks.option("base", base, _BASES)
    return per_pair(bind(_alpha_iou, base=base), boxes, target_boxes, options, alpha)


@boxes
def inner_iou(
    boxes: Numbers,
    target_boxes: Numbers,
    *,
    ratio: Positive = 0.7,
    base: Base = "iou",
    **options: Unpack[Boxes],
) -> Array:
    """Computes the inner IoU loss of each pair of boxes: a base loss on shrunk boxes.

    Only the overlap is that of both boxes scaled by `ratio` about their centres; the other terms
    remain those of the whole boxes::

        Inner loss = base loss + IoU - IoU(scaled boxes)

    `ratio=1` is the base. Below 1 the gradient of boxes that overlap well grows, and fewer boxes
    meet; above 1 more do. There is no epsilon: identical boxes cost exactly 0 at any size. Two
    empty boxes have IoU 0.

    Args:
      ratio: The factor of the sides, above 0; the paper uses 0.5 to 1.5.
      base: `"iou"`, `"giou"`, `"diou"` or `"ciou"`.

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
    checks.option("base", base, _BASES)
    return per_pair(bind(_inner_iou, base=base), boxes, target_boxes, options, ratio)


def _alpha_iou(x: Span, y: Span, alpha: Array, base: Base) -> Array:
    areas = pairs.measure(x, y)
    meet = areas.iou > 0
    log_iou = jnp.where(meet, pairs.log_iou(areas), -1)
    overlap = jnp.where(meet, -numerics.expm1(alpha * log_iou), 1 + 0 * alpha)  # NaN stays NaN
    return overlap + sum(numerics.power(term, alpha) for term in _penalties(base, x, y, areas))


def _inner_iou(x: Span, y: Span, ratio: Array, base: Base) -> Array:
    inner = pairs.measure(x.scaled(ratio), y.scaled(ratio))
    return inner.loss + sum(_penalties(base, x, y, pairs.measure(x, y)))


def _penalties(base: Base, x: Span, y: Span, areas: Areas) -> Sequence[Array]:
    """What the base loss adds to `1 - IoU`."""
    if base == "iou":
        return ()
    if base == "giou":
        return (pairs.vacancy(x, y),)
    if base == "diou":
        return (pairs.offset(x, y),)
    v = pairs.aspect(x, y)
    return pairs.offset(x, y), pairs.aspect_weight(v, areas) * v
