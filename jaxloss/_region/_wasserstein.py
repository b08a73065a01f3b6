"""Generalised Wasserstein Dice: confusing two classes costs as much as they lie apart."""

from __future__ import annotations

from typing import Annotated, Literal, Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics, reduction
from jaxloss._core.families import classification
from jaxloss._core.images import Pixels, read
from jaxloss._core.scores import complement
from jaxloss.options import Classification, Interval, NonNegative, Numbers

__all__ = ["generalized_wasserstein_dice"]

Array = jax.Array
Distances = Annotated[Numbers, Interval("[0, inf)", scalar=False)]


@classification
def generalized_wasserstein_dice(
    logits: Numbers,
    labels: Numbers,
    distances: Distances,
    *,
    weighting: Literal["default", "gdl"] = "default",
    smooth: NonNegative = 1e-5,
    activation: Literal["softmax"] | None = "softmax",
    per_image: bool = True,
    **options: Unpack[Classification],
) -> Array:
    """Computes the generalised Wasserstein Dice loss of each image.

    With probabilities `p`, the matrix `M` of distances between classes, divided by its largest
    entry, and sums over an image's valid pixels `i`::

        d_i = sum_c M[y_i, c] p_ic                  the Wasserstein distance to the label
        TP  = sum_i a(y_i) (1 - d_i)                a = 0 for the background (class 0), else 1
        L   = 1 - (2 TP + smooth) / (2 TP + sum_i d_i + smooth)

    `weighting="gdl"` weighs every class, the background too, by its size `T_c`, as generalised Dice
    does::

        a_c = 1 / (T_c + 1)
        L   = 1 - (2 TP + smooth) / (sum_i a(y_i) (2 - d_i) + smooth)

    A distance of 1 between all classes leaves a Dice loss that is blind to which class was taken
    for another; a smaller one makes mistakes within a group of classes cheap. A soft label pays the
    mean distance over its classes, so its minimum is not at `p = y`.

    It is computed as wrong over right plus wrong, so it is exactly 0 for a perfect prediction. An
    image of background only has no `TP`: `smooth` alone holds against its errors (`smooth=0`: it
    costs 1, whatever the prediction). There are no scores per class, so none can be left out of a
    mean.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or one-hot or soft labels of the shape of `logits`. An
        id outside `[0, C)` that is not ignored makes its image's loss and gradient NaN.
      distances: `M`, shape `[C, C]`, at least 0, a row per label and a column per prediction. Its
        diagonal should be 0. It is divided by its largest entry.
      smooth: Added to numerator and denominator, at least 0.
      weighting: `"default"`, or `"gdl"` as in Tilborghs et al.
      activation: `"softmax"`, or None where `logits` already are probabilities.
      class_weights: Factors of the classes' importance `a`, and of the errors on their pixels,
        shape `[C]`.

    Returns:
      A scalar; with `reduction="none"` shape `[B]`, a scalar if pooled. float32 for half-precision
      input.

    Example:
      A tumour's core taken for its rim, or for healthy tissue:

      >>> import jax.numpy as jnp, jaxloss
      >>> M = jnp.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.5], [1.0, 0.5, 0.0]])
      >>> labels = jnp.array([[0, 0, 1, 2]])
      >>> for ids in ([[0, 0, 1, 1]], [[0, 0, 1, 0]]):
      ...     p = jnp.eye(3)[jnp.array(ids)]
      ...     loss = jaxloss.generalized_wasserstein_dice(p, labels, M, activation=None)
      ...     print(loss.round(4))
      0.1429
      0.3333

    Reference:
      Fidon et al. Generalised Wasserstein Dice Score for Imbalanced Multi-Class Segmentation using
      Holistic Convolutional Networks. BrainLes 2017. https://arxiv.org/abs/1707.00478
      Tilborghs et al. Comparative Study of Deep Learning Methods for the Automatic Segmentation of
      Lung, Lesion and Lesion Type in CT Scans of COVID-19 Patients. 2020.
      https://arxiv.org/abs/2007.15546
    """
    checks.option("weighting", weighting, ("default", "gdl"))
    checks.option("activation", activation, ("softmax", None))
    pixels = read(logits, labels, {**options, "activation": "softmax", "per_image": per_image})
    p, y = pixels._replace(form=pixels.form._replace(activation=activation)).both()
    classes = y.shape[pixels.frame.axis]
    checks.shape("distances", distances, (classes, classes), "one row and column per class")
    d = _distance(p, y, distances, pixels.axis)
    importance = _importance(y, pixels, weighting)
    a, b = ((y * factor).sum(pixels.axis, keepdims=True) for factor in importance)
    hits, errors = pixels.total(a * (1 - d)), pixels.total(b * d)
    loss = complement(errors, 2 * hits + smooth)
    return reduction.reduce_values(
        loss[..., 0],
        options["reduction"],
        mask=(pixels.valid() > 0)[..., 0],
        axis_name=options["axis_name"] if per_image else None,
    )


def _distance(p: Array, y: Array, matrix: Array, axis: int | None) -> Array:
    """Returns the mean distance of each pixel's classes to its label."""
    matrix = numerics.divide(matrix, matrix.max())
    # Not by indexing with the ids, which a mesh with Explicit axes cannot resolve.
    rows = jnp.tensordot(y, matrix, (axis, 0), precision=jax.lax.Precision.HIGHEST)
    return (jnp.moveaxis(rows, -1, axis) * p).sum(axis, keepdims=True)


def _importance(y: Array, pixels: Pixels, weighting: str) -> tuple[Array, Array]:
    """Returns how much a hit and an error on each class count, broadcasting to the pixels."""
    ones = jnp.ones_like(y, shape=[n if i == pixels.axis else 1 for i, n in enumerate(y.shape)])
    factors = ones
    if pixels.class_weights is not None:
        factors = pixels.class_weights.reshape(ones.shape)
    if weighting == "gdl":
        factors = factors / (pixels.frame.over_pixels(pixels.total(y)) + 1)
        return factors, factors
    is_foreground = jax.lax.broadcasted_iota(jnp.int32, ones.shape, pixels.axis) > 0
    return jnp.where(is_foreground, factors, 0), factors
