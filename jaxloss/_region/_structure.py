"""Structural similarity of probabilities and targets."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxloss._core import checks, confusion, numerics
from jaxloss._core.confusion import Pixels, difference, read
from jaxloss._core.declare import segmentation
from jaxloss.options import Numbers, Positive, Segmentation

__all__ = ["ssim"]

Array = jax.Array

_C1, _C2 = 0.01**2, 0.03**2  # (K1 L)^2 and (K2 L)^2 for the data range L = 1


@segmentation
def ssim(
    logits: Numbers,
    labels: Numbers,
    *,
    window: int = 11,
    sigma: Positive = 1.5,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes 1 - SSIM, the structural similarity of probabilities and target, of each class.

    With means `m`, variances `s^2` and the covariance `s_py` in a Gaussian window, over all windows
    that lie inside the image, and `c1 = 0.01^2`, `c2 = 0.03^2`::

        SSIM = (2 m_p m_y + c1) (2 s_py + c2) / ((m_p^2 + m_y^2 + c1) (s_p^2 + s_y^2 + c2))
        ssim = mean (1 - SSIM)                                                  in [0, 2]

    The moments are those of Wang et al.: the window's weights sum to 1 and no border is padded, as
    in scikit-image (with Gaussian weights and population statistics, and without its truncation of
    the window at 3.5 sigma) and pytorch-msssim. Masked pixels leave the window, the weights of the
    others are scaled to sum to 1, and the window counts by the weight that it holds.

    `1 - SSIM` is computed from the moments of `p - y`, and every variance from centred values, so
    equal images cost exactly 0 and nothing cancels.

    Args:
      window: Width of the window along every spatial axis, odd, at most that of the image.
      sigma: Standard deviation of the window's weights in pixels, positive.

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
    gaussian = _gaussian(window, sigma, pixels)
    *_, p, q, y = pixels.form(*pixels.arrays, axis=pixels.axis)
    weight = _pixel_weight(pixels)
    of_p, of_y, of_difference = (
        _moments(x, weight, gaussian, pixels.spatial) for x in (p, y, difference(p, q, y))
    )
    luminance = of_difference.mean**2 / (of_p.mean**2 + of_y.mean**2 + _C1)
    structure = of_difference.variance / (of_p.variance + of_y.variance + _C2)
    loss, held = luminance + structure - luminance * structure, of_p.weight
    frame = pixels.frame
    values = numerics.divide(frame.total(loss, held), frame.size(loss, held))
    return confusion.reduce(values, pixels, pixels.total(y), options)


def _pixel_weight(pixels: Pixels) -> Array:
    """How much each pixel counts, with the sizes of the image along its axes."""
    sizes = [n if i in pixels.spatial else 1 for i, n in enumerate(pixels.shape)]
    ones = jnp.ones_like(pixels.arrays[0], shape=sizes)
    return ones if pixels.weight is None else ones * pixels.weight


class _Moments(NamedTuple):
    """Mean and variance in each window, and the weight that it holds."""

    mean: Array
    variance: Array
    weight: Array


def _gaussian(window: int, sigma: Array, pixels: Pixels) -> Array:
    """The weights along one axis, which sum to 1."""
    window = checks.integer("window", window)
    smallest = min(pixels.shape[axis] for axis in pixels.spatial)
    if window < 1 or window % 2 == 0 or window > smallest:
        expected = f"odd and at most {smallest}, the smallest width of the image"
        checks.fail(ValueError, "window", window, expected)
    offset = jnp.asarray(np.arange(window) - window // 2, pixels.dtype)
    weights = jnp.exp(-0.5 * (offset / sigma) ** 2)
    return weights / weights.sum()


@functools.partial(jax.jit, static_argnames="axes")
def _moments(x: Array, weight: Array, gaussian: Array, axes: tuple[int, ...]) -> _Moments:
    """Moments in separable windows: along each axis the mean of variances and variance of means."""
    mean, variance = x, jnp.zeros_like(x)
    for axis in axes:
        held = _smoothed(_weight, gaussian, axis, (weight,))
        centre = numerics.divide(_smoothed(_weighted, gaussian, axis, (weight, mean)), held)
        spread = _smoothed(_spread, gaussian, axis, (weight, mean, variance), centre)
        mean, variance, weight = centre, numerics.divide(spread, held), held
    return _Moments(mean, variance, weight)


def _weight(weight: Array) -> Array:
    return weight


def _weighted(weight: Array, mean: Array) -> Array:
    return weight * mean


def _spread(weight: Array, mean: Array, variance: Array, centre: Array) -> Array:
    return weight * (variance + (mean - centre) ** 2)


def _smoothed(
    term: Callable[..., Array], gaussian: Array, axis: int, moving: tuple[Array, ...], *fixed: Array
) -> Array:
    """Sums `gaussian_k term(moving shifted by k, fixed)` over the window, one `k` at a time."""
    size = moving[0].shape[axis] - gaussian.size + 1

    def tap(k: ArrayLike, share: Array) -> Array:
        shifted = (lax.dynamic_slice_in_dim(x, k, size, axis) for x in moving)
        return share * term(*shifted, *fixed)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def add(total: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
        return total + tap(*at), None

    rest = jnp.arange(1, gaussian.size), gaussian[1:]
    return lax.scan(add, tap(0, gaussian[0]), rest)[0]
