"""Regression of signed distance maps."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._boundary._maps import Sampling, given_map, spacing_of
from jaxloss._core import checks, confusion, labels, maps, numerics
from jaxloss._core.reduction import AxisName

__all__ = ["signed_distance_regression"]

Array = jax.Array


def signed_distance_regression(
    predictions: ArrayLike,
    mask: ArrayLike,
    *,
    smooth: ArrayLike = 1e-5,
    distance_map: ArrayLike | None = None,
    sampling: Sampling = None,
    axis: int | None = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the loss of a network that predicts the signed distance map of a mask.

    With the prediction `f` and the map `phi` of the mask, positive outside and negative inside,
    each side divided by its largest distance, over an image's valid pixels::

        I = sum f phi
        signed_distance_regression = mean |f - phi|
                                     - (I + smooth) / (I + sum f^2 + sum phi^2 + smooth)

    It is about -1/3 for a perfect prediction. The map is that of
    :func:`jaxloss.distance.compute_sdf` with `normalize=True`, exact and a constant for the
    derivative; it is 0 for a mask that is empty or full. The published code forces the inner rim to
    0 and fails on masks without a boundary.

    Args:
      predictions: Signed distances, shape `[B, ...]` with at least one pixel axis, floating.
      mask: The mask of the object, boolean or 0 and 1 of any dtype, in the shape of `predictions`.
      smooth: Added to numerator and denominator, at least 0.
      distance_map: The map, if computed before, in the shape of `predictions`.
      sampling: Size of a pixel along each spatial axis, one number or one per axis; None: 1. Equal
        sizes cancel.
      axis: An axis of several masks of one image, such as its organs. None: one mask an image. The
        first remaining axis is the image, the others its pixels.
      where: Boolean mask of the pixels, the rank of `predictions` with each dimension equal or 1.
        What is False reaches neither value nor gradient, not even as NaN, and is outside of `mask`.
      weights: Factors of the pixels in every sum, shaped like `where`.
      reduction: `"mean"` over images (0 if nothing is valid) and their masks, `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar; with `reduction="none"` shape `[B]`, or `[B, C]` with an `axis`. float32 for
      half-precision input.

    Raises:
      TypeError: If `predictions` is not floating or `where` not boolean.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        or a number is out of its range.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> mask = jnp.array([[[False, False, True, True, True, True]]])
      >>> phi = jaxloss.distance.compute_sdf(mask, normalize=True)
      >>> print(jaxloss.signed_distance_regression(phi, mask).round(3))
      -0.333
      >>> print(jaxloss.signed_distance_regression(0 * phi, mask).round(3))
      0.667

    Reference:
      Xue, Tang, Qiao, Gong, Yin, Qian, Huang, Fan and Huang. Shape-Aware Organ Segmentation by
      Predicting Signed Distance Maps. AAAI 2020. https://arxiv.org/abs/1912.03849
    """
    name = "signed_distance_regression"
    held = jnp.asarray(mask)
    held = held.astype(jnp.float32) if held.dtype == bool else held
    f, y, valid, factor = labels.paired(
        name, predictions, held, names=("predictions", "mask"), where=where, weights=weights
    )
    rank = 2 if axis is None else 3
    checks.minimum_rank(name, "predictions", f, rank, "images and their pixels (one is x[None])")
    if axis is not None:
        axis = checks.axis(name, axis, f.ndim)
    if valid is not None:
        factor = valid.astype(f.dtype) * (1 if factor is None else factor)
    pixels = confusion.Pixels(
        p=f,
        y=y,
        weight=factor,
        class_weights=None,
        axis=axis,
        compete=False,
        per_image=True,
        axis_name=axis_name,
    )
    smooth = checks.number(name, "smooth", smooth, f.dtype, "[0, inf)")
    if distance_map is None:
        spacing = spacing_of(name, sampling, f.dtype, len(pixels.spatial))
        phi = maps.both_sides(y > 0.5, spacing, axes=pixels.spatial, normalize=True)
    else:
        phi = given_map(name, distance_map, f.shape, f.dtype)
    if factor is not None:
        phi = jnp.where(factor == 0, 0, phi)
    both = pixels.total(f * phi) + smooth
    overlap = numerics.divide(both, both + pixels.total(f * f) + pixels.total(phi * phi))
    error = numerics.divide(pixels.total(numerics.absolute(f - phi)), pixels.valid())
    return confusion.reduce(name, error - overlap, pixels, pixels.total(y), reduction)
