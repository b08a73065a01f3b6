"""Regression of signed distance maps."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jaxloss._boundary._maps import Sampling, given_map, spacing_of
from jaxloss._core import checks, maps, numerics, reading
from jaxloss._core.families import regression
from jaxloss._core.images import Frame
from jaxloss._core.reduction import reduce_values
from jaxloss.options import NonNegative, Numbers, Regression

__all__ = ["signed_distance_regression"]

Array = jax.Array


@regression
def signed_distance_regression(
    predictions: Numbers,
    mask: Numbers,
    *,
    smooth: NonNegative = 1e-5,
    distance_map: Numbers | None = None,
    sampling: Sampling = None,
    axis: int | None = None,
    **options: Unpack[Regression],
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
      smooth: Added to numerator and denominator of the product term, at least 0.
      distance_map: The map, if computed before, in the shape of `predictions`.
      sampling: Size of a pixel along each spatial axis, one number or one per axis; None: 1. Equal
        sizes cancel.
      axis: An axis of several masks of one image, such as its organs. None: one mask an image. The
        first remaining axis is the image, the others its pixels.

    Returns:
      A scalar; with `reduction="none"` shape `[B]`, or `[B, C]` with an `axis`. float32 for
      half-precision input.

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
    held = jnp.asarray(mask)
    held = held.astype(jnp.float32) if held.dtype == bool else held
    f, y, valid, weight = reading.paired(predictions, held, options, names=("predictions", "mask"))
    rank = 2 if axis is None else 3
    checks.minimum_rank("predictions", f, rank, "images and their pixels (one is x[None])")
    if axis is not None:
        axis = checks.axis(axis, f.ndim)
    if valid is not None:
        weight = valid.astype(f.dtype) * (1 if weight is None else weight)
    frame = Frame(f.ndim, axis, per_image=True, axis_name=None)
    if distance_map is None:
        spacing = spacing_of(sampling, f.dtype, len(frame.spatial))
        phi = maps.both_sides(y > 0.5, spacing, axes=frame.spatial, normalize=True)
    else:
        phi = given_map(distance_map, f.shape, f.dtype, "predictions")
    if weight is not None:
        phi = jnp.where(weight == 0, 0, phi)
    products = (f * phi, f * f, phi * phi, numerics.absolute(f - phi))
    n = frame.size(f, weight)
    loss = _regression(*(frame.total(x, weight) for x in products), n, smooth)
    part, kind = jnp.zeros_like(loss, bool) | (n > 0), options["reduction"]
    if axis is not None and kind == "mean":
        count = part.astype(loss.dtype).sum(-1)
        loss, part = numerics.divide(jnp.where(part, loss, 0).sum(-1), count), count > 0
    return reduce_values(loss, kind, mask=part, axis_name=options["axis_name"])


def _regression(
    f_phi: Array, f_f: Array, phi_phi: Array, error: Array, n: Array, smooth: Array
) -> Array:
    both = f_phi + smooth
    return numerics.divide(error, n) - numerics.share(both, f_f + phi_phi)
