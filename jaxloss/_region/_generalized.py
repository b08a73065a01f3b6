"""Generalised Dice: one ratio for all classes of an image, each weighted by its size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics, reduction, scores
from jaxloss._core.confusion import Confusion, of_counts
from jaxloss._core.families import segmentation
from jaxloss._core.images import Pixels, read
from jaxloss._core.platforms import bind
from jaxloss._core.reduction import AxisName
from jaxloss._core.scores import complement
from jaxloss.options import NonNegative, Numbers, Segmentation

__all__ = ["generalized_dice", "penalty_generalized_dice"]

Array = jax.Array
Weighting = Literal["square", "simple", "uniform"]

EXPONENTS = {"square": 2, "simple": 1, "uniform": 0}


@segmentation
def generalized_dice(
    logits: Numbers,
    labels: Numbers,
    *,
    weighting: Weighting = "square",
    smooth: NonNegative = 1e-5,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the generalised Dice loss of each image: small classes count as much as large ones.

    With probabilities `p`, targets `y` and the class's size `T_c`, sums over an image's valid
    pixels::

        T_c = sum y_c
        w_c = 1 / T_c^2  ("square"),  1 / T_c  ("simple"),  1  ("uniform")
        GD  = (2 sum_c w_c sum p_c y_c + smooth) / (sum_c w_c sum (p_c + y_c) + smooth)
        L   = 1 - GD

    A class that an image's target does not hold takes the largest weight of the others. If the
    target holds no class at all, which only independent classes allow, the weights are 0 and so is
    the loss (1 with `smooth=0`), whatever the prediction.

    It is computed as wrong over right plus wrong, so it is exactly 0 for a perfect prediction and
    never negative. The weights vary with the labels: derivatives with respect to soft labels pass
    through them. This is Sudre's loss, as in MONAI and NiftyNet; Optax's
    `multiclass_generalized_dice_loss` is a weighted mean of the classes' own Dice losses.

    Args:
      weighting: `"square"`, `"simple"` or `"uniform"`.
      class_weights: Factors of the classes' weights, shape `[C]`.
      absent: `"score"` counts a class that an image's target does not hold, with the largest
        weight; `"skip"` leaves it out of the sums.

    Returns:
      A scalar; with `reduction="none"` shape `[B]`, a scalar if pooled. float32 for half-precision
      input.

    Example:
      A class of one pixel, missed or found:

      >>> import jax.numpy as jnp, jaxloss
      >>> labels = jnp.array([[0, 0, 0, 0, 0, 0, 0, 1]])
      >>> for small in (0.0, 1.0):
      ...     p = jnp.array([[0.0] * 7 + [small]])
      ...     p = jnp.stack([1 - p, p], axis=-1)
      ...     print(jaxloss.generalized_dice(p, labels, activation=None).round(4))
      0.7812
      0.0

    Reference:
      Sudre et al. Generalised Dice Overlap as a Deep Learning Loss Function for Highly Unbalanced
      Segmentations. DLMIA 2017. https://arxiv.org/abs/1707.03237
    """
    return generalized_of(read(logits, labels, options), options, weighting, smooth)


@segmentation
def penalty_generalized_dice(
    logits: Numbers,
    labels: Numbers,
    *,
    k: NonNegative = 2.5,
    weighting: Weighting = "square",
    smooth: NonNegative = 1e-5,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the generalised Dice loss with a penalty on false positives and negatives.

    With the generalised Dice score `GD` of an image, see :func:`jaxloss.generalized_dice`::

        L = 1 - GD / (1 + k (1 - GD))

    which counts every error `1 + k` times, so `k=0` is generalised Dice. In contrast to Dice's its
    slope is steepest close to a perfect prediction. SegLoss feeds the negative of the score, which
    turns the penalty into its reverse.

    It is computed as wrong over right plus wrong, so it is exactly 0 for a perfect prediction and
    never negative. Absent classes and images without any are treated as in generalised Dice.

    Args:
      k: The penalty, at least 0.
      weighting: `"square"`, `"simple"` or `"uniform"`.
      class_weights: Factors of the classes' weights, shape `[C]`.
      absent: `"score"` counts a class that an image's target does not hold, with the largest
        weight; `"skip"` leaves it out of the sums.

    Returns:
      A scalar; with `reduction="none"` shape `[B]`, a scalar if pooled. float32 for half-precision
      input.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> labels = jnp.array([[0, 0, 0, 0, 0, 0, 0, 1]])
      >>> p = jnp.array([[0.0] * 7 + [0.8]])
      >>> p = jnp.stack([1 - p, p], axis=-1)
      >>> for k in (0.0, 2.5):
      ...     print(jaxloss.penalty_generalized_dice(p, labels, k=k, activation=None).round(4))
      0.0977
      0.2747

    Reference:
      Yang, Kweon and Kim. Major Vessel Segmentation on X-ray Coronary Angiography using Deep
      Networks with a Novel Penalty Loss Function. MIDL 2019.
      https://openreview.net/forum?id=H1lTh8unKN
    """
    return generalized_of(read(logits, labels, options), options, weighting, smooth, k)


def generalized_of(
    pixels: Pixels,
    options: Mapping[str, Any],
    weighting: Weighting,
    smooth: Array,
    k: Array | float = 0.0,
) -> Array:
    """Returns the reduced loss of all images, every error counted `1 + k` times."""
    checks.option("weighting", weighting, tuple(EXPONENTS))
    absent = options.get("absent", "score")
    checks.option("absent", absent, scores.ABSENT)
    checks.option("reduction", options["reduction"], reduction.REDUCTIONS)
    scored = pixels.foreground(options["include_background"])
    finish = bind(
        _of_images,
        exponent=EXPONENTS[weighting],
        has_classes=scored.axis is not None,
        skip_absent=absent == "skip",
        kind=options["reduction"],
        axis_name=options["axis_name"] if options["per_image"] else None,
    )
    is_scalar = options["reduction"] != "none"
    return of_counts(finish, scored, smooth, jnp.asarray(k, smooth.dtype), scalar=is_scalar)


def _of_images(
    counts: Confusion,
    valid: Array,
    class_weights: Array | None,
    smooth: Array,
    k: Array,
    *,
    exponent: int,
    has_classes: bool,
    skip_absent: bool,
    kind: str,
    axis_name: AxisName | None,
) -> Array:
    """Reduces the losses of the images, each the ratio of all classes that take part."""
    part = jnp.zeros_like(counts.actual, bool) | (valid > 0)
    if skip_absent:
        part = part & (counts.actual != 0)
    if not has_classes:
        counts, part = jax.tree.map(lambda x: x[..., None], (counts, part))
    loss = _generalized(counts, part, class_weights, smooth, k, exponent)
    return reduction.reduce_values(loss, kind, mask=part.any(-1), axis_name=axis_name)


def _generalized(
    counts: Confusion,
    part: Array,
    class_weights: Array | None,
    smooth: Array,
    k: Array,
    exponent: int,
) -> Array:
    w, unit = _size_weights(counts.actual, exponent)
    w = jnp.where(part, w, 0)
    if class_weights is not None:
        w = w * class_weights.reshape((1,) * (w.ndim - 1) + (-1,))
    right, wrong = 2 * (w * counts.tp).sum(-1), (w * (counts.fp + counts.fn)).sum(-1)
    return complement((1 + k) * wrong, right + smooth * unit)


def _size_weights(size: Array, exponent: int) -> tuple[Array, Array]:
    """Returns `size ** -exponent` of each class over the largest of the image, and its inverse.

    The ratio does not change, and no weight overflows where a class is all but absent.
    """
    if exponent == 0:
        return jnp.ones_like(size), jnp.ones_like(size[..., 0])
    missing = size == 0
    smallest = jnp.where(missing, jnp.inf, size).min(-1, keepdims=True)
    empty = smallest == jnp.inf
    smallest = jnp.where(empty, 1, smallest)
    share = jnp.where(missing, 1, numerics.divide(smallest, size))
    return jnp.where(empty, 0, share**exponent), (smallest**exponent)[..., 0]
