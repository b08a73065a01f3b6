"""Losses on the overlap of boxes, and on their distance where there is none."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, Unpack

import jax
import jax.numpy as jnp

from jaxloss._boxes._per_pair import per_pair
from jaxloss._core import checks, pairs
from jaxloss._core.families import boxes
from jaxloss._core.pairs import Areas, Span
from jaxloss._core.platforms import bind
from jaxloss.options import Boxes, Fraction, Numbers

__all__ = ["ciou", "diou", "giou", "iou"]

Array = jax.Array
Form: TypeAlias = Literal["linear", "log", "square"]

FORMS = ("linear", "log", "square")

_LEAST = 1e-6  # of the IoU under the logarithm


@boxes
def iou(
    boxes: Numbers, target_boxes: Numbers, *, form: Form = "linear", **options: Unpack[Boxes]
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
      form: `"linear"`, `"log"` or `"square"`.

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
    checks.option("form", form, FORMS)
    return per_pair(bind(_iou, form=form), boxes, target_boxes, options)


@boxes
def giou(boxes: Numbers, target_boxes: Numbers, **options: Unpack[Boxes]) -> Array:
    """Computes the generalised IoU loss of each pair of boxes.

    With the enclosing box `C` of a pair::

        GIoU loss = 1 - IoU + (|C| - union) / |C|                in [0, 2)

    Unlike `1 - IoU` it has a gradient for disjoint boxes. There is no epsilon: identical boxes
    cost exactly 0 at any size. Two empty boxes have IoU 0 and cost 1 with zero gradient. A box with
    `x1 < x0` or `y1 < y0` is empty, the point or segment at its centre.

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
    return per_pair(_giou, boxes, target_boxes, options)


@boxes
def diou(boxes: Numbers, target_boxes: Numbers, **options: Unpack[Boxes]) -> Array:
    """Computes the distance IoU loss of each pair of boxes.

    With the distance `d` of the centres and the diagonal `c` of the enclosing box::

        DIoU loss = 1 - IoU + d^2 / c^2                          in [0, 2)

    There is no epsilon: identical boxes cost exactly 0 at any size. Two equal points have IoU 0 and
    no diagonal: they cost 1 with zero gradient. A box with `x1 < x0` or `y1 < y0` is empty, the
    point or segment at its centre.

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
    return per_pair(_diou, boxes, target_boxes, options)


@boxes
def ciou(
    boxes: Numbers, target_boxes: Numbers, *, gate: Fraction | None = None, **options: Unpack[Boxes]
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
      gate: `a` is 0 where the IoU is at most `gate`, in `[0, 1]`; mmdetection and the journal
        version of the paper use 0.5. None: no gate.

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
    return per_pair(_ciou, boxes, target_boxes, options, gate)


def _iou(x: Span, y: Span, form: Form) -> Array:
    return of_areas(pairs.measure(x, y), form)


def of_areas(areas: Areas, form: Form) -> Array:
    """The loss of an IoU, accurate near a perfect prediction."""
    if form == "square":
        return areas.loss * (1 + areas.iou)
    if form == "log":
        return jnp.where(areas.iou > _LEAST, -pairs.log_iou(areas), -math.log(_LEAST))
    return areas.loss


def _giou(x: Span, y: Span) -> Array:
    return pairs.measure(x, y).loss + pairs.vacancy(x, y)


def _diou(x: Span, y: Span) -> Array:
    return pairs.measure(x, y).loss + pairs.offset(x, y)


def _ciou(x: Span, y: Span, gate: Array | None) -> Array:
    areas, v = pairs.measure(x, y), pairs.aspect(x, y)
    return areas.loss + pairs.offset(x, y) + pairs.aspect_weight(v, areas, gate) * v
