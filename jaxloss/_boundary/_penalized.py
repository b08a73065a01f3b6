"""Cross-entropy and Dice that cost more near the true boundary."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jaxloss._boundary._labelled import map_of_targets, read
from jaxloss._boundary._maps import Sampling, scored, spacing_of
from jaxloss._core import checks, images, maps, numerics
from jaxloss._core.confusion import Confusion
from jaxloss._core.families import boundary, segmentation_elements
from jaxloss._core.platforms import bind
from jaxloss._core.reduction import reduce
from jaxloss._core.scores import complement, score
from jaxloss.options import Activation, Boundary, Elements, NonNegative, Numbers

__all__ = ["distance_penalized_cross_entropy", "distance_penalized_dice"]

Array = jax.Array


@segmentation_elements
def distance_penalized_cross_entropy(
    logits: Numbers,
    labels: Numbers,
    *,
    distance_map: Numbers | None = None,
    sampling: Sampling = None,
    activation: Activation = "auto",
    **options: Unpack[Elements],
) -> Array:
    """Computes the cross-entropy of each pixel, up to twice as large at the true boundary.

    With `Phi` of the target, 1 next to another label and falling to 0 at the pixel of that label
    and image that lies farthest from any other::

        distance_penalized_cross_entropy = (1 + Phi) cross_entropy

    The cross-entropy is that of the activation: of the softmax where classes compete, else of each
    element, whose mask then has two labels. `Phi` is exact and a constant for the derivative; see
    :func:`jaxloss.distance.compute_edts_for_penalized_loss`. It is 0 in an image of one label and 1
    on a label whose distances are all equal, where SegLoss divides 0 by 0; and it enters the loss,
    where SegLoss returns the plain cross-entropy. Soft labels have the map of their largest share
    (elements: of `y > 0.5`). A pixel that is masked or ignored is of another label than any. The
    weights `1 + Phi` do not enter the denominator of the mean.

    Args:
      distance_map: `Phi`, if made before, of the shape of the ids, or of that of `logits`, where
        the map of a pixel's target counts: `jaxloss.distance.compute_edts_for_penalized_loss` of
        the mask of each class, `axes` those of the pixels: `(1, 2)` for `[B, H, W, C]`.

    Returns:
      A scalar; with `reduction="none"` the shape of the ids where classes compete, else that of
      `logits`. float32 for half-precision input.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> labels = jnp.array([[[0, 0, 0, 1, 1]]])
      >>> logits = jnp.zeros((1, 1, 5, 2))
      >>> loss = jaxloss.distance_penalized_cross_entropy(logits, labels, reduction="none")
      >>> print((loss / jnp.log(2)).round(3))
      [[[1.  1.5 2.  2.  1. ]]]

    Reference:
      Caliva, Iriondo, Martinez, Majumdar and Pedoia. Distance Map Loss Penalty Term for Semantic
      Segmentation. MIDL 2019. https://arxiv.org/abs/1908.03679
    """
    found = read(logits, labels, {**options, "activation": activation})
    if distance_map is None:
        spacing = spacing_of(sampling, found.cost.dtype, len(found.spatial))
        phi = maps.penalty(found.labels, spacing, axes=found.spatial, values=found.classes)
    else:
        phi = map_of_targets(distance_map, found.data)
    return reduce(found.cost.times(1 + phi), options, found.data)


@boundary
def distance_penalized_dice(
    logits: Numbers,
    labels: Numbers,
    *,
    smooth: NonNegative = 1e-5,
    normalized: bool = True,
    distance_map: Numbers | None = None,
    sampling: Sampling = None,
    **options: Unpack[Boundary],
) -> Array:
    """Computes the Dice loss of each image and class with pixels near the boundary counted more.

    With `Phi` of the target's mask, 1 at its boundary and falling to 0 at the farthest pixel of
    each side, and `w = 1 + Phi`, over an image's valid pixels::

        normalized=True:   1 - (2 sum w p y + smooth) / (sum w p + sum w y + smooth)
        normalized=False:  1 - (2 sum w p y + smooth) / (sum p + sum y + smooth)

    The default is exactly 0 for a perfect prediction and never negative. `normalized=False` is the
    published code's (SegLoss `DistBinaryDiceLoss`, which returns it less 1): it falls to almost -1.
    `Phi` is exact and a constant for the derivative, and 0 for a mask that is empty or full; see
    :func:`jaxloss.distance.compute_edts_for_penalized_loss`.

    Args:
      normalized: Whether the denominator has the weights too.
      distance_map: `Phi` of the shape of `logits`, if made before:
        `jaxloss.distance.compute_edts_for_penalized_loss` of the mask of each class, `axes` those
        of the pixels: `(1, 2)` for `[B, H, W, C]`.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> cube = jnp.zeros((1, 7, 7, 7)).at[:, 2:5, 2:5, 2:5].set(1.0)
      >>> half = jnp.full((1, 7, 7, 7), 0.5)
      >>> for normalized in (True, False):
      ...     options = {"axis": None, "activation": None, "normalized": normalized}
      ...     print(jaxloss.distance_penalized_dice(half, cube, **options).round(4))
      0.8385
      0.733

    Reference:
      Caliva, Iriondo, Martinez, Majumdar and Pedoia. Distance Map Loss Penalty Term for Semantic
      Segmentation. MIDL 2019. https://arxiv.org/abs/1908.03679
    """
    checks.option("normalized", normalized, (True, False))
    pixels = images.read(logits, labels, options)
    pixels, phi = scored(pixels, options["include_background"], distance_map)
    if phi is None:
        mask = (pixels.targets() > 0.5).astype(jnp.int32)
        spacing = spacing_of(sampling, pixels.dtype, len(pixels.spatial))
        phi = maps.penalty(mask, spacing, axes=pixels.spatial, values=2)
    formula = bind(_penalized_dice, normalized=normalized)
    return score(formula, pixels, options, smooth, more=_penalized, maps=(phi,))


def _penalized_dice(counts: Confusion, smooth: Array, *, normalized: bool) -> Array:
    hit, wrong = counts.more
    right = 2 * hit + smooth
    if normalized:
        return complement(wrong, right)
    return 1 - numerics.divide(right, counts.tp + counts.fp + counts.actual + smooth)


def _penalized(p: Array, q: Array, y: Array, phi: Array) -> tuple[Array, Array]:
    w = 1 + phi
    return w * p * y, w * (p * (1 - y) + q * y)
