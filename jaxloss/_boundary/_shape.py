"""Shape-aware cross-entropy: errors cost more where the predicted contour is far from the true."""

from __future__ import annotations

import functools
from typing import Literal, Unpack

import jax
import jax.numpy as jnp

from jaxloss._boundary._labelled import Labelled, map_of_targets, read
from jaxloss._boundary._maps import Sampling, neighbours, spacing_of
from jaxloss._core import checks, maps, numerics
from jaxloss._core.families import segmentation_elements
from jaxloss._core.reduction import reduce
from jaxloss.options import Activation, Elements, Numbers

__all__ = ["shape_aware"]

Array = jax.Array


@segmentation_elements
def shape_aware(
    logits: Numbers,
    labels: Numbers,
    *,
    distance: Literal["curve", "pixel"] = "curve",
    distance_map: Numbers | None = None,
    sampling: Sampling = None,
    activation: Activation = "auto",
    **options: Unpack[Elements],
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
      distance: `"curve"` or `"pixel"`.
      distance_map: The distance of each pixel to the true contour, if computed before, in the shape
        of `logits`, where that of the target's class counts, or in the shape of the ids.

    Returns:
      A scalar; with `reduction="none"` the shape of the ids where classes compete, else that of
      `logits`. float32 for half-precision input.

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
    checks.option("distance", distance, ("curve", "pixel"))
    found = read(logits, labels, {**options, "activation": activation})
    if distance_map is None:
        spacing = spacing_of(sampling, found.cost.dtype, len(found.spatial))
        away = ~_contour(found, found.labels)
        error = maps.edt(away, spacing, jnp.zeros_like(spacing, shape=()), axes=found.spatial)
    else:
        error = map_of_targets(distance_map, found.data)
    if distance == "curve":
        contour = _contour(found, found.predicted)
        total = jnp.where(contour, error, 0).sum(found.spatial, keepdims=True)
        length = contour.astype(error.dtype).sum(found.spatial, keepdims=True)
        error = numerics.divide(total, length)
    factor = 1 + jnp.where(found.predicted != found.labels, error, 0)
    return reduce(found.cost.times(factor), options, found.data)


def _contour(found: Labelled, labels: Array) -> Array:
    """The pixels that count and have a face neighbour of another label."""
    borders = [neighbour != labels for neighbour in neighbours(labels, found.spatial, edge=True)]
    contour = functools.reduce(jnp.logical_or, borders) & (labels >= 0)
    return contour if found.valid is None else contour & found.valid
