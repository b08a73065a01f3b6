"""The loss of RetinaNet: focal loss on all anchors, offsets of those that have a box."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxloss._boxes import giou
from jaxloss._core import checks
from jaxloss._core.reduction import AxisName, everywhere
from jaxloss._distribution import sigmoid_focal
from jaxloss._regression import smooth_l1
from jaxloss.detection._assignment import Assignment, at_least_one, class_targets, gather
from jaxloss.detection._by_iou import NegativeIoU, PositiveIoU, by_iou, read_anchors
from jaxloss.detection._coders import decode_deltas, encode_deltas
from jaxloss.detection._declare import Sizes, detection
from jaxloss.detection._targets import finish, read_dense, read_targets
from jaxloss.options import Exponent, Fraction, NonNegative, Numbers, Positive

__all__ = ["retinanet"]

Array = jax.Array


@detection
def retinanet(
    logits: Numbers,
    deltas: Numbers,
    boxes: Numbers,
    labels: Numbers,
    *,
    valid: Numbers,
    anchors: Numbers,
    positive_iou: PositiveIoU = 0.5,
    negative_iou: NegativeIoU = 0.4,
    low_quality: bool = True,
    box_loss: Literal["l1", "smooth_l1", "giou"] = "l1",
    beta: NonNegative = 1.0,
    delta_weights: Sizes = (1.0, 1.0, 1.0, 1.0),
    alpha: Fraction = 0.25,
    gamma: Exponent = 2.0,
    normalize: Literal["image", "batch"] = "image",
    normalizer: Positive | None = None,
    axis_name: AxisName | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Computes the whole loss of RetinaNet: assignment by IoU, focal loss and box regression.

    Anchors take boxes by `assign_by_iou`. With the anchors `P_b` of image `b` that have a box, and
    those that are not ignored, `A_b`::

        classification    mean_b  sum_{A_b, classes} FL(logits, one-hot or 0) / max(|P_b|, 1)
        box               mean_b  sum_{P_b} L(deltas, encoded box) / max(|P_b|, 1)

    or, with `normalize="batch"`, the sums over all images over `max(sum_b |P_b|, 1)`; or over
    `normalizer`, such as a running mean of the number of positives. An image without boxes has its
    classification alone. Invalid slots reach nothing.

    Args:
      logits: Scores `[B, N, C]`, floating.
      deltas: Offsets of boxes from anchors as `encode_deltas` has them, `[B, N, 4]`.
      positive_iou: Anchors are foreground from this IoU on.
      negative_iou: They are background below it, ignored in between.
      low_quality: Whether the best anchors of a box are foreground at any IoU above 0.
      box_loss: `"l1"` or `"smooth_l1"` of the offsets, summed over the four, or `"giou"` of the
        decoded boxes, whose logarithms of sides are at most log(1000 / 16).
      beta: Where the smooth L1 goes over into the L1.
      delta_weights: Factors of dx, dy, dw and dh in the encoding.
      alpha: The focal loss's weight of positives, in `[0, 1]`.
      gamma: Its focusing exponent, at least 0.
      normalize: `"image"` or `"batch"`.
      normalizer: A number to divide by instead, for both parts; `normalize` is then without effect.

    Returns:
      The total, and its parts `classification` and `box`; float32 for half-precision input.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import detection
      >>> anchors = jnp.array([[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0]])
      >>> total, parts = detection.retinanet(
      ...     jnp.zeros((1, 2, 3)),
      ...     jnp.zeros((1, 2, 4)),
      ...     jnp.array([[[0.0, 0.0, 8.0, 6.0]]]),
      ...     jnp.array([[2]]),
      ...     valid=jnp.array([[True]]),
      ...     anchors=anchors,
      ... )
      >>> print({name: round(float(part), 4) for name, part in parts.items()})
      {'box': 0.4127, 'classification': 0.6931}

    Reference:
      Lin et al. Focal Loss for Dense Object Detection. ICCV 2017. https://arxiv.org/abs/1708.02002
    """
    scores, delta = read_dense(logits=logits, deltas=deltas)
    images, _, classes = scores.shape
    targets = read_targets(boxes, labels, valid, images=images, classes=classes, dtype=scores.dtype)
    anchor = read_anchors(anchors, targets.boxes)
    checks.shape("anchors", anchor, (scores.shape[1], 4), "one per row of logits")
    checks.shape("delta_weights", delta_weights, (4,), "factors of dx, dy, dw and dh")
    checks.option("box_loss", box_loss, ("l1", "smooth_l1", "giou"))
    checks.option("normalize", normalize, ("image", "batch"))
    assigned = by_iou(anchor, targets.boxes, targets.valid, positive_iou, negative_iou, low_quality)
    foreground = assigned.foreground

    weight = _weights(assigned, normalize, normalizer, axis_name)
    total: dict[str, Any] = {"reduction": "sum", "axis_name": axis_name}
    classification = sigmoid_focal(
        scores,
        class_targets(targets.labels, assigned, classes),
        alpha=alpha,
        gamma=gamma,
        where=~assigned.ignore,
        weights=weight[:, None],
        **total,
    )
    box = gather(targets.boxes, assigned.index)
    delta = jnp.where(foreground[..., None], delta, 0)
    if box_loss == "giou":
        decoded = decode_deltas(delta, anchor[None], weights=delta_weights)
        regression = giou(decoded, box, where=foreground, weights=weight[:, None], **total)
    else:
        regression = smooth_l1(
            delta,
            encode_deltas(box, anchor[None], weights=delta_weights),
            beta=0.0 if box_loss == "l1" else beta,
            where=foreground[..., None],
            weights=weight[:, None, None],
            **total,
        )
    return finish({"classification": classification, "box": regression}, targets, axis_name)


def _weights(
    assigned: Assignment, normalize: str, normalizer: Array | None, axis_name: AxisName | None
) -> Array:
    """What the sums of each image count, `[B]`."""
    images = jnp.asarray(len(assigned.weight), assigned.weight.dtype)
    count = everywhere(images, axis_name)
    if normalizer is not None:
        weight = 1 / normalizer
    elif normalize == "batch":
        weight = 1 / at_least_one(assigned.weight.sum(), axis_name)
    else:
        weight = 1 / (at_least_one(assigned.weight.sum(-1)) * count)
    return jnp.broadcast_to(weight, (len(assigned.weight),))
