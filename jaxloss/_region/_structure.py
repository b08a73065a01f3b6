"""Structural similarity of probabilities and targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxloss._core import checks, numerics, scores
from jaxloss._core.families import segmentation
from jaxloss._core.images import Pixels, difference, read
from jaxloss._region._moments import Moments, in_windows, of_pixels
from jaxloss.options import ClassCounts, NonNegative, Numbers, Positive, Segmentation

__all__ = ["ms_ssim", "ssim"]

Array = jax.Array

_POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


@segmentation
def ssim(
    logits: Numbers,
    labels: Numbers,
    *,
    window: int | Sequence[int] = 11,
    sigma: Positive = 1.5,
    data_range: Positive = 1.0,
    k1: NonNegative = 0.01,
    k2: NonNegative = 0.03,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes 1 - SSIM, the structural similarity of probabilities and target, of each class.

    With means `m`, variances `s^2` and the covariance `s_py` in a Gaussian window, over all windows
    that lie inside the image, and `c1 = (k1 data_range)^2`, `c2 = (k2 data_range)^2`::

        SSIM = (2 m_p m_y + c1) (2 s_py + c2) / ((m_p^2 + m_y^2 + c1) (s_p^2 + s_y^2 + c2))
        ssim = mean (1 - SSIM)                                                  in [0, 2]

    The moments are those of Wang et al.: the window's weights sum to 1 and no border is padded, as
    in scikit-image (with Gaussian weights and population statistics, and without its truncation of
    the window at 3.5 sigma) and pytorch-msssim. Masked pixels leave the window, the weights of the
    others are scaled to sum to 1, and the window counts by the weight that it holds.

    `1 - SSIM` is computed from the moments of `p - y`, and every variance from centred values, so
    equal images cost exactly 0 and nothing cancels.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> square = jnp.zeros((1, 12, 12)).at[:, 4:8, 4:8].set(1.0)
      >>> moved = jnp.roll(square, 1, axis=2)
      >>> print(jaxloss.ssim(moved, square, axis=None, activation=None).round(4))
      0.3865

    Reference:
      Wang, Bovik, Sheikh and Simoncelli. Image Quality Assessment: From Error Visibility to
      Structural Similarity. IEEE Transactions on Image Processing 13, 2004.
      https://doi.org/10.1109/TIP.2003.819861
    """
    pixels = read(logits, labels, options)
    images, actual = _images(pixels)
    shares = [_gaussian(n, sigma) for n in _windows(window, pixels)]
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    found = in_windows(images, shares, _axes(pixels))
    values = _mean(_both(_luminance(found, c1), _structure(found, c2)), found, pixels)
    return scores.reduce(values, pixels, actual, options)


@segmentation
def ms_ssim(
    logits: Numbers,
    labels: Numbers,
    *,
    window: int | Sequence[int] = 11,
    sigma: Positive = 1.5,
    data_range: Positive = 1.0,
    k1: NonNegative = 0.01,
    k2: NonNegative = 0.03,
    weights: ClassCounts = _POWERS,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes 1 - MS-SSIM, the structural similarity at several scales, of each class.

    With the terms of :func:`jaxloss.ssim`, means over the windows of an image, at scales `n` of
    which each halves the image by means of 2 x 2 pixels, and powers `w_n` that sum to 1::

        l   = (2 m_p m_y + c1) / (m_p^2 + m_y^2 + c1)
        cs  = (2 s_py + c2) / (s_p^2 + s_y^2 + c2)
        MS  = max(mean l cs, 0)^w_N  prod_(n < N) max(mean_n cs, 0)^w_n     N the last scale
        ms_ssim = 1 - MS                                                    in [0, 1]

    It is computed from the dissimilarities `1 - cs`, so equal images cost exactly 0 and nothing
    cancels. Where a scale is unlike, its mean not above 0, the loss is 1 and has no gradient. A
    side that 2 does not divide loses its last pixel. Masked pixels leave the means and the windows.

    Args:
      window: Width of the window at each scale, an integer or one for each spatial axis; odd.
      weights: The powers `w_n`, one for each scale from fine to coarse, at least 0; they are
        divided by their sum. Pixels have no weights here, but `where` leaves them out.

    Raises:
      ValueError: If a side is shorter than `window * 2^(N - 1)`, or for what :func:`jaxloss.ssim`
        refuses.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> square = jnp.zeros((1, 24, 24)).at[:, 8:16, 8:16].set(1.0)
      >>> moved = jnp.roll(square, 1, axis=2)
      >>> options = {"axis": None, "activation": None, "weights": (0.5, 0.5)}
      >>> print(jaxloss.ms_ssim(moved, square, **options).round(4))
      0.2265

    Reference:
      Wang, Simoncelli and Bovik. Multiscale Structural Similarity for Image Quality Assessment.
      Asilomar 2003. https://doi.org/10.1109/ACSSC.2003.1292216
    """
    powers = jnp.asarray(weights)
    if powers.ndim != 1:
        expected = "one power for each scale; of pixels `where` says which count"
        checks.fail(ValueError, "weights", f"of shape {powers.shape}", expected)
    pixels = read(logits, labels, {**options, "weights": None})
    windows = _windows(window, pixels)
    for n, axis in zip(windows, pixels.spatial, strict=True):
        least = n * 2 ** (powers.size - 1)
        if pixels.shape[axis] < least:
            expected = f"{least} pixels or more along its axis {axis}"
            checks.fail(ValueError, "logits", f"of shape {pixels.shape}", expected)
    shares = [_gaussian(n, sigma) for n in windows]
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    images, actual = _images(pixels)
    unlike = []
    for scale in range(powers.size):
        if scale > 0:
            images = _halved(images, _axes(pixels))
        found = in_windows(images, shares, _axes(pixels))
        loss = _structure(found, c2)
        if scale == powers.size - 1:
            loss = _both(_luminance(found, c1), loss)
        unlike.append(_mean(loss, found, pixels))
    values = _of_scales(jnp.stack(unlike), numerics.divide(powers, powers.sum()))
    return scores.reduce(values, pixels, actual, options)


def _luminance(windows: Moments, c1: Array) -> Array:
    """One minus the similarity in luminance: how much the means differ."""
    both, error = windows.mean**2
    return 2 * error * numerics.reciprocal(both + error + 2 * c1)


def _structure(windows: Moments, c2: Array) -> Array:
    """One minus the similarity in contrast and structure."""
    both, error = windows.variance
    return 2 * error * numerics.reciprocal(both + error + 2 * c2)


def _both(one: Array, other: Array) -> Array:
    """One minus the product of two similarities."""
    return one + other - one * other


def _mean(loss: Array, windows: Moments, pixels: Pixels) -> Array:
    """The mean over the windows of each image and class, which count by the weight they hold."""
    weight = None if windows.weight is None else windows.weight[0]
    total, size = (f(loss, weight) for f in (pixels.frame.total, pixels.frame.size))
    return numerics.divide(total, size)


def _of_scales(unlike: Array, powers: Array) -> Array:
    """Returns `1 - prod_n max(1 - u_n, 0)^w_n` of the scales' dissimilarities `u_n`."""
    powers = powers.reshape(-1, *(1,) * (unlike.ndim - 1))
    nothing_alike = unlike >= 1
    logarithms = powers * jnp.log1p(-jnp.where(nothing_alike, 0, unlike))
    lost = (nothing_alike & (powers > 0)).any(0)
    return jnp.where(lost, 1, -numerics.expm1(logarithms.sum(0)))


def _halved(images: Moments, axes: Sequence[int]) -> Moments:
    """The means of every two pixels along each axis, and of their weight."""
    weight = images.weight
    if weight is None:
        return of_pixels(None, _of_pairs(images.mean, axes))
    total, weight = _of_pairs(images.mean * weight, axes), _of_pairs(weight, axes)
    return of_pixels(weight, numerics.divide(total, weight))


def _of_pairs(x: Array, axes: Sequence[int]) -> Array:
    """The means of every two elements along each axis."""
    for axis in axes:
        size = x.shape[axis] // 2
        even = lax.slice_in_dim(x, 0, 2 * size, axis=axis)
        x = even.reshape(*x.shape[:axis], size, 2, *x.shape[axis + 1 :]).mean(axis + 1)
    return x


def _images(pixels: Pixels) -> tuple[Moments, Array]:
    """Sums and differences of both images, and how much of each class the target holds.

    The variances of `p` and `y` add up to half of those of `p + y` and `p - y`.
    """
    *_, p, q, y = pixels.form(*pixels.arrays, axis=pixels.axis)
    weight = pixels.weight
    if weight is not None:
        sizes = [n if i in pixels.spatial else 1 for i, n in enumerate(p.shape)]
        weight = (jnp.ones_like(p, shape=sizes) * weight)[None]
    return of_pixels(weight, jnp.stack([p + y, difference(p, q, y)])), pixels.total(y)


def _axes(pixels: Pixels) -> list[int]:
    """The spatial axes behind that of sum and difference."""
    return [axis + 1 for axis in pixels.spatial]


def _windows(window: int | Sequence[int], pixels: Pixels) -> tuple[int, ...]:
    """The width along each spatial axis."""
    axes = pixels.spatial
    each = tuple(window) if isinstance(window, Sequence) else (window,) * len(axes)
    if len(each) != len(axes):
        checks.fail(ValueError, "window", each, f"an integer, or {len(axes)}, one for each axis")
    for size, axis in zip(each, axes, strict=True):
        width = pixels.shape[axis]
        if checks.integer("window", size) % 2 == 0 or not 1 <= size <= width:
            checks.fail(ValueError, "window", size, f"odd and at most {width}, the image's width")
    return each


def _gaussian(window: int, sigma: Array) -> Array:
    """The weights along one axis, which sum to 1."""
    offset = jnp.asarray(np.arange(window) - window // 2, sigma.dtype)
    weights = jnp.exp(-0.5 * (offset / sigma) ** 2)
    return weights / weights.sum()
