"""Structural similarity of probabilities and targets."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxloss._core import checks, confusion, numerics
from jaxloss._core.reduction import AxisName

__all__ = ["ssim"]

Array = jax.Array

_C1, _C2 = 0.01**2, 0.03**2  # (K1 L)^2 and (K2 L)^2 for the data range L = 1


def ssim(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    window: int = 11,
    sigma: ArrayLike = 1.5,
    activation: str | None = "auto",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    per_image: bool = True,
    include_background: bool = True,
    absent: str = "score",
    reduction: str = "mean",
    axis_name: AxisName | None = None,
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
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      window: Width of the window along every spatial axis, odd, at most that of the image.
      sigma: Standard deviation of the window's weights in pixels, positive.
      activation: `"auto"` (softmax for ids, sigmoid for labels of the logits' shape), `"softmax"`,
        `"sigmoid"`, or None where `logits` already are probabilities. One-hot labels that are
        meant to compete need `"softmax"`.
      axis: The class axis; any axis works (1 for NCHW). None: binary masks without a class axis,
        labels of the logits' shape. The first remaining axis is the image, the others its pixels.
      where: Boolean mask of the pixels, the rank of the ids (sigmoid: or of the logits) with each
        dimension equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of the pixels in every window, shaped like `where`.
      ignore_index: The integer label of pixels to leave out.
      class_weights: The weights of the mean over classes, shape `[C]`; they are normalised.
      per_image: Whether each image is scored by itself; False pools the windows of the batch.
      include_background: Whether class 0 takes part in the mean; it always does in the softmax.
      absent: `"score"` scores a class that an image's target does not hold like any other;
        `"skip"` leaves it out of the mean.
      reduction: `"mean"` over the classes of an image that take part, then over images (0 if
        nothing is valid), `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean (the sums, if pooled) is taken globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar; with `reduction="none"` shape `[B, C]` (less the background), `[C]` if pooled, `[B]`
      for `axis=None`. float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating, `where` not boolean or `window` not an integer.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        the window is even or wider than the image, a number is out of its range, the background is
        excluded from a single class, or `ignore_index` comes with float labels.

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
    name = "ssim"
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
    p, y = pixels.p, pixels.y
    gaussian = _gaussian(name, window, sigma, pixels)
    full = [n if i in pixels.spatial else 1 for i, n in enumerate(p.shape)]
    weight = jnp.ones_like(p, shape=full)
    if pixels.weight is not None:
        weight = jnp.broadcast_to(pixels.weight, np.broadcast_shapes(pixels.weight.shape, full))
    of_p, of_y, of_difference = (
        _moments(x, weight, gaussian, pixels.spatial) for x in (p, y, p - y)
    )
    luminance = of_difference.mean**2 / (of_p.mean**2 + of_y.mean**2 + _C1)
    structure = of_difference.variance / (of_p.variance + of_y.variance + _C2)
    loss = luminance + structure - luminance * structure
    windows = pixels._replace(p=loss, weight=of_p.weight)
    return confusion.reduce(
        name,
        numerics.divide(windows.total(loss), windows.valid()),
        pixels,
        pixels.total(y),
        reduction,
        include_background=include_background,
        absent=absent,
    )


class _Moments(NamedTuple):
    """Mean and variance in each window, and the weight that it holds."""

    mean: Array
    variance: Array
    weight: Array


def _gaussian(function: str, window: object, sigma: ArrayLike, pixels: confusion.Pixels) -> Array:
    """The weights along one axis, which sum to 1."""
    if isinstance(window, bool) or not isinstance(window, (int, np.integer)):
        checks.fail(TypeError, function, "window", repr(window), "an integer")
    smallest = min(pixels.p.shape[axis] for axis in pixels.spatial)
    if window < 1 or window % 2 == 0 or window > smallest:
        expected = f"odd and at most {smallest}, the smallest width of the image"
        checks.fail(ValueError, function, "window", int(window), expected)
    sigma = checks.number(function, "sigma", sigma, pixels.p.dtype, "(0, inf)")
    offset = jnp.asarray(np.arange(window) - window // 2, pixels.p.dtype)
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
