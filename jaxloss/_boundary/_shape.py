"""Shape-aware cross-entropy: errors cost more where the predicted contour is far from the true."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._boundary._labelled import Labelled, map_of_targets, read
from jaxloss._boundary._maps import Sampling, neighbours, spacing_of
from jaxloss._core import checks, maps, numerics
from jaxloss._core.reduction import AxisName, reduce_labelled

__all__ = ["shape_aware"]

Array = jax.Array


def shape_aware(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    distance: str = "curve",
    distance_map: ArrayLike | None = None,
    sampling: Sampling = None,
    activation: str | None = "auto",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the cross-entropy of each pixel, larger where the predicted shape is wrong.

    Where the predicted label, that of the largest logit, is not the target::

        shape_aware = (1 + E) cross_entropy        E = 0 where prediction and target agree

    `distance="curve"`: `E` is one number for each image, the mean distance of the predicted
    contour's pixels to the true contour. `distance="pixel"`: `E` is the distance of the pixel to
    the true contour. The contour of a label map is all pixels with a face neighbour of another
    label. Where either contour is empty `E = 0` (for `"pixel"`, where the true one is). `E` is a
    constant for the derivative and does not enter the denominator of the mean.

    Where classes do not compete each element has a label, `p > 0.5` and `y > 0.5`, and each class
    of an image its own contours. Soft labels have the label of their largest share. Masked and
    ignored pixels are on no contour, but border on another label.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its pixel's loss and
        gradient NaN.
      distance: `"curve"` or `"pixel"`.
      distance_map: The distance of each pixel to the true contour, if computed before, in the shape
        of `logits`, where that of the target's class counts, or in the shape of the ids.
      sampling: Size of a pixel along each spatial axis, one number or one per axis; None: 1.
      activation: `"auto"` (softmax for ids, sigmoid for labels of the logits' shape), `"softmax"`,
        `"sigmoid"`, or None where `logits` already are probabilities. One-hot labels that are
        meant to compete need `"softmax"`.
      axis: The class axis; any axis works (1 for NCHW). None: binary masks without a class axis,
        labels of the logits' shape. The first remaining axis is the image, the others its pixels.
      where: Boolean mask of the pixels, the rank of the ids (sigmoid: or of the logits) with each
        dimension equal or 1. What is False reaches neither value nor gradient, not even as NaN,
        and belongs to no label.
      weights: Factor of each pixel, shaped like `where`, in value and denominator.
      ignore_index: The integer label of pixels to leave out.
      class_weights: Factor of each class, shape `[C]`, in value and denominator.
      reduction: `"mean"` (0 if nothing is valid), `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar; with `reduction="none"` the shape of the ids where classes compete, else that of
      `logits`. float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        a number is out of its range, or `ignore_index` comes with float labels.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> y = jnp.array([[[0.0, 0.0, 0.0, 1.0, 1.0]]])
      >>> p = jnp.array([[[0.4, 0.6, 0.6, 0.9, 0.9]]])
      >>> print(jaxloss.shape_aware(p, y, axis=None, activation=None).round(4))
      1.0606
      >>> print(jaxloss.shape_aware(p, y, distance="pixel", axis=None, activation=None).round(4))
      0.694

    Reference:
      Al Arif, Knapp and Slabaugh. Shape-Aware Deep Convolutional Neural Network for Vertebrae
      Segmentation. MICCAI workshop MSKI 2017.
      Jadon. A Survey of Loss Functions for Semantic Segmentation. 2020.
      https://arxiv.org/abs/2006.14822
    """
    name = "shape_aware"
    checks.option(name, "distance", distance, ("curve", "pixel"))
    found = read(
        name,
        logits,
        labels,
        activation=activation,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
    )
    if distance_map is None:
        spacing = spacing_of(name, sampling, found.costs.dtype, len(found.spatial))
        away = ~_contour(found, found.labels)
        error = maps.edt(away, spacing, jnp.zeros_like(spacing, shape=()), axes=found.spatial)
    else:
        error = map_of_targets(name, distance_map, found.data)
    if distance == "curve":
        contour = _contour(found, found.predicted)
        total = jnp.where(contour, error, 0).sum(found.spatial, keepdims=True)
        length = contour.astype(error.dtype).sum(found.spatial, keepdims=True)
        error = numerics.divide(total, length)
    factor = 1 + jnp.where(found.predicted != found.labels, error, 0)
    return reduce_labelled(name, found.weighted(factor), reduction, found.data, axis_name)


def _contour(found: Labelled, labels: Array) -> Array:
    """The pixels that count and have a face neighbour of another label."""
    borders = [neighbour != labels for neighbour in neighbours(labels, found.spatial, edge=True)]
    contour = functools.reduce(jnp.logical_or, borders) & (labels >= 0)
    return contour if found.valid is None else contour & found.valid
