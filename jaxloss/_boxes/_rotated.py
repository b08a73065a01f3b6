"""The loss on the exact overlap of rotated boxes."""

from __future__ import annotations

from typing import Unpack

import jax

from jaxloss._boxes._overlap import FORMS, Form, of_areas
from jaxloss._boxes._per_pair import NAMES
from jaxloss._core import checks, polygons
from jaxloss._core.families import regression
from jaxloss._core.labels import per_value
from jaxloss._core.pairs import columns
from jaxloss._core.platforms import bind
from jaxloss._core.reading import paired
from jaxloss._core.reduction import reduce
from jaxloss.options import Numbers, Regression

__all__ = ["rotated_iou"]

Array = jax.Array


@regression
def rotated_iou(
    boxes: Numbers, target_boxes: Numbers, *, form: Form = "linear", **options: Unpack[Regression]
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
    without area cost 1, or 0 if they are equal, with zero gradient. A negative side counts as 0.

    mmrotate, whose default is `"log"`, floors the IoU at 1e-6 in every form.

    Args:
      form: `"linear"`, `"log"` or `"square"`.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 4.0, 2.0, 0.0], [0.0, 0.0, 2.0, 2.0, 0.78539816]]
      >>> targets = [[2.0, 0.0, 4.0, 2.0, 0.0], [0.0, 0.0, 2.0, 2.0, 0.0]]
      >>> print(jaxloss.rotated_iou(boxes, targets, reduction="none").round(4))
      [0.6667 0.2929]

    Reference:
      Zhou et al. IoU Loss for 2D/3D Object Detection. 3DV 2019. https://arxiv.org/abs/1908.03851
    """
    checks.option("form", form, FORMS)
    polygons.checked("boxes", boxes)
    data = paired(boxes, target_boxes, options, names=NAMES, inner=1)
    pair = (data.prediction, data.target)
    # Of four edges at once: number by number that would be twenty.
    formula = bind(_rotated_iou, form=form)
    cost = per_value(formula, pair, data.mask, inner=data.prediction.ndim - 1)
    return reduce(cost, options, data)


def _rotated_iou(first: Array, second: Array, form: Form) -> Array:
    return of_areas(polygons.measure(polygons.pair(columns(first), columns(second))), form)[
        ..., None
    ]
