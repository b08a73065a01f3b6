"""Cross-entropy and Dice that cost more near the true boundary."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._boundary._labelled import map_of_targets, read
from jaxloss._boundary._maps import Sampling, scored, spacing_of
from jaxloss._core import checks, confusion, maps, numerics
from jaxloss._core.reduction import AxisName, reduce_labelled

__all__ = ["distance_penalized_cross_entropy", "distance_penalized_dice"]

Array = jax.Array


def distance_penalized_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
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
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its pixel's loss and
        gradient NaN.
      distance_map: `Phi`, if computed before, in the shape of `logits`, where that of a pixel is
        the map of its target's class, or in the shape of the ids.
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
      >>> labels = jnp.array([[[0, 0, 0, 1, 1]]])
      >>> logits = jnp.zeros((1, 1, 5, 2))
      >>> loss = jaxloss.distance_penalized_cross_entropy(logits, labels, reduction="none")
      >>> print((loss / jnp.log(2)).round(3))
      [[[1.  1.5 2.  2.  1. ]]]

    Reference:
      Caliva, Iriondo, Martinez, Majumdar and Pedoia. Distance Map Loss Penalty Term for Semantic
      Segmentation. MIDL 2019. https://arxiv.org/abs/1908.03679
    """
    name = "distance_penalized_cross_entropy"
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
        phi = maps.penalty(found.labels, spacing, axes=found.spatial, values=found.classes)
    else:
        phi = map_of_targets(name, distance_map, found.data)
    return reduce_labelled(name, found.weighted(1 + phi), reduction, found.data, axis_name)


def distance_penalized_dice(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    smooth: ArrayLike = 1e-5,
    normalized: bool = True,
    distance_map: ArrayLike | None = None,
    sampling: Sampling = None,
    activation: str | None = "auto",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    per_image: bool = True,
    include_background: bool | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
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
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      smooth: Added to numerator and denominator, at least 0.
      normalized: Whether the denominator has the weights too.
      distance_map: `Phi`, if computed before, in the shape of `logits`.
      sampling: Size of a pixel along each spatial axis, one number or one per axis; None: 1.
      activation: `"auto"` (softmax for ids, sigmoid for labels of the logits' shape), `"softmax"`,
        `"sigmoid"`, or None where `logits` already are probabilities. One-hot labels that are
        meant to compete need `"softmax"`.
      axis: The class axis; any axis works (1 for NCHW). None: binary masks without a class axis,
        labels of the logits' shape. The first remaining axis is the image, the others its pixels.
      where: Boolean mask of the pixels, the rank of the ids (sigmoid: or of the logits) with each
        dimension equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of the pixels in every sum, shaped like `where`.
      ignore_index: The integer label of pixels to leave out.
      class_weights: The weights of the mean over classes, shape `[C]`; they are normalised.
      per_image: Whether each image is scored by itself; False pools the batch.
      include_background: Whether class 0 takes part in the mean; None: unless classes compete.
      reduction: `"mean"` over the classes of an image that take part, then over images (0 if
        nothing is valid), `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean (the sums, if pooled) is taken globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar; with `reduction="none"` shape `[B, C]` (less the background), `[C]` if pooled, `[B]`
      for `axis=None`. float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        a number is out of its range, the background is excluded from a single class, or
        `ignore_index` comes with float labels.

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
    name = "distance_penalized_dice"
    checks.option(name, "normalized", normalized, (True, False))
    pixels = confusion.read(
        name,
        logits,
        labels,
        activation=activation,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
        per_image=per_image,
        axis_name=axis_name,
    )
    pixels, phi = scored(name, pixels, include_background, distance_map)
    dtype = pixels.p.dtype
    smooth = checks.number(name, "smooth", smooth, dtype, "[0, inf)")
    if phi is None:
        mask = (pixels.y > 0.5).astype(jnp.int32)
        spacing = spacing_of(name, sampling, dtype, len(pixels.spatial))
        phi = maps.penalty(mask, spacing, axes=pixels.spatial, values=2)

    def weighted(p: Array, y: Array, phi: Array) -> tuple[Array, Array]:
        w = 1 + phi
        return w * p * y, w * (p * (1 - y) + (1 - p) * y)

    def loss(counts: confusion.Confusion, smooth: Array) -> Array:
        right, wrong = counts.more
        right = 2 * right + smooth
        if normalized:
            return confusion.complement(wrong, right)
        return 1 - numerics.divide(right, counts.tp + counts.fp + counts.actual + smooth)

    return confusion.score(name, loss, pixels, reduction, smooth, more=weighted, extra=(phi,))
