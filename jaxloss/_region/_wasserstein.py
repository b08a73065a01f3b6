"""Generalised Wasserstein Dice: confusing two classes costs as much as they lie apart."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, confusion, numerics
from jaxloss._core import labels as labelled
from jaxloss._core.reduction import AxisName

__all__ = ["generalized_wasserstein_dice"]

Array = jax.Array


def generalized_wasserstein_dice(
    logits: ArrayLike,
    labels: ArrayLike,
    distances: ArrayLike,
    *,
    weighting: str = "default",
    smooth: ArrayLike = 1e-5,
    activation: str | None = "softmax",
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    per_image: bool = True,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
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
      labels: Integer ids, shape `[B, ...]`, or one-hot or soft labels of the logits' shape. An id
        outside `[0, C)` that is not ignored makes its image's loss and gradient NaN.
      distances: `M`, shape `[C, C]`, at least 0, a row per label and a column per prediction. Its
        diagonal should be 0. It is divided by its largest entry.
      weighting: `"default"`, or `"gdl"` as in Tilborghs et al.
      smooth: Added to numerator and denominator, at least 0.
      activation: `"softmax"`, or None where `logits` already are probabilities.
      axis: The class axis; any axis works (1 for NCHW). The first remaining axis is the image, the
        others its pixels.
      where: Boolean mask of the pixels, the rank of the ids with each dimension equal or 1. What is
        False reaches neither value nor gradient, not even as NaN.
      weights: Factors of the pixels in every sum, shaped like `where`.
      ignore_index: The integer label of pixels to leave out.
      class_weights: A factor of the pixels of each class in `TP` and in the sums of `d` and of
        `a (2 - d)`, shape `[C]`.
      per_image: Whether each image is scored by itself; False pools the batch.
      reduction: `"mean"` over the images (0 if nothing is valid), `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean (the sums, if pooled) is taken globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar; with `reduction="none"` shape `[B]`, a scalar if pooled. float32 for half-precision
      input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        a number is out of its range, or `ignore_index` comes with float labels.

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
    name = "generalized_wasserstein_dice"
    checks.option(name, "weighting", weighting, ("default", "gdl"))
    checks.option(name, "activation", activation, ("softmax", None))
    scores, _ = checks.images(name, logits, axis)
    data = labelled.competing(
        name,
        scores,
        labels,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
    )
    dtype, classes = data.logits.dtype, data.logits.shape[data.axis]
    matrix = checks.number(name, "distances", distances, dtype, "[0, inf)")
    checks.shape(name, "distances", matrix, (classes, classes), "one row and column per class")
    smooth = checks.number(name, "smooth", smooth, dtype, "[0, inf)")

    d = _distance(data, numerics.divide(matrix, matrix.max()), activation)
    weight = data.weights
    if data.mask is not None:
        weight = data.mask.astype(dtype) * (1 if weight is None else weight)
    pixels = confusion.Pixels(
        p=d,
        y=d,
        weight=weight,
        class_weights=None,
        axis=None,
        compete=True,
        per_image=per_image,
        axis_name=axis_name,
    )
    importance, factor = _importance(data, pixels, weighting), data.normalizer
    hit = 2 * pixels.total(importance * (1 - d))
    if weighting == "gdl":
        missed = pixels.total(importance * d)
    else:
        missed = pixels.total(d if factor is None else d * factor)
    loss = confusion.complement(missed, hit + smooth)
    return confusion.reduce(name, loss, pixels, loss, reduction)


def _distance(data: labelled.Competing, matrix: Array, activation: str | None) -> Array:
    """Returns the mean distance of each pixel's classes to its label; NaN for a bad id."""
    p = data.unmasked_logits()
    if activation is not None:
        p = jax.nn.softmax(p, data.axis)
    # Not by indexing with the ids, which a mesh with Explicit axes cannot resolve.
    precise = jax.lax.Precision.HIGHEST
    rows = jnp.tensordot(data.dense_labels(), matrix, (data.axis, 0), precision=precise)
    return (jnp.moveaxis(rows, -1, data.axis) * p).sum(data.axis)


def _importance(data: labelled.Competing, pixels: confusion.Pixels, weighting: str) -> Array:
    """Returns `a(y_i)` of each pixel, its class weight included."""
    factors = 1 if data.class_weights is None else data.class_weights
    if weighting == "default":
        shape = [size if i == data.axis else 1 for i, size in enumerate(data.logits.shape)]
        index = jax.lax.broadcasted_iota(jnp.int32, shape, data.axis)
        return data.of_target((index > 0).astype(data.logits.dtype) * factors)
    weight = pixels.weight
    every = pixels._replace(
        p=data.logits,
        weight=None if weight is None else jnp.expand_dims(weight, data.axis),
        axis=data.axis,
    )
    size = every.total(data.dense_labels())
    return data.of_target(every.spread(1 / (size + 1)) * factors)
