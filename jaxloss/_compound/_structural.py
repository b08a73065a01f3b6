"""Structural similarity cross-entropy: pixels count by how ill they fit their neighbourhood."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, confusion, numerics, sigmoid, softmax
from jaxloss._core.confusion import Data
from jaxloss._core.labels import Independent, competing, independent
from jaxloss._core.reduction import AxisName, reduce, reduce_labelled

__all__ = ["structural_similarity_cross_entropy"]

Array = jax.Array


def structural_similarity_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    window: int = 3,
    sigma: ArrayLike = 1.5,
    stability: ArrayLike = 0.01,
    beta: ArrayLike = 0.1,
    weight: ArrayLike = 0.5,
    activation: str | None = "sigmoid",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes cross-entropy with the pixels weighted by their structural error.

    Within a Gaussian window around each pixel, `mu` and `sd` are the mean and the standard
    deviation of the target `y` and of the probability `p` of one class. With the binary
    cross-entropy `BCE` of each pixel and class and `c` for `stability`::

        e    = |(y - mu_y + c) / (sd_y + c) - (p - mu_p + c) / (sd_p + c)|
        f    = 1 where e > beta max e, of each image and class, else 0
        SSL  = sum e f BCE / sum f
        loss = weight mean BCE + (1 - weight) SSL

    so that pixels at which the prediction has another structure than the target, mostly near
    boundaries, count more. `e` and `f` are constants for the derivative. `weight=0` is SSL alone.
    Where no pixel is selected SSL is 0.

    The window does not reach beyond the image, whose edge pixels repeat, nor see masked pixels:
    mean and deviation are those of the valid pixels under it. `weights` act on the sums, not in the
    window. The paper leaves the window, the mixture and the derivative of `e` open; these are this
    function's choice.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      window: Width of the window along each spatial axis, an odd integer.
      sigma: Standard deviation of the Gaussian in pixels, above 0.
      stability: Added to differences and deviations, above 0.
      beta: The share of an image's largest error that selects a pixel, in `[0, 1]`.
      weight: The share of the plain cross-entropy, in `[0, 1]`.
      activation: `"sigmoid"` (ids: one class against the rest, as in the paper), `"softmax"`,
        `"auto"` (softmax for ids, sigmoid for labels of the logits' shape), or None where `logits`
        already are probabilities.
      axis: The class axis; any axis works (1 for NCHW). None: binary masks without a class axis,
        labels of the logits' shape. The first remaining axis is the image, the others its pixels.
      where: Boolean mask of the pixels, the rank of the ids (sigmoid: or of the logits) with each
        dimension equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of the pixels in every sum, shaped like `where`.
      ignore_index: The integer label of pixels to leave out.
      class_weights: One factor of value and denominator per class, shape `[C]`.
      reduction: `"mean"` or `"sum"` of each part; they have no elements in common.
      axis_name: Mesh axis over which the means are taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        a number is out of its range, `window` is not odd, `ignore_index` comes with float labels,
        or `reduction` is neither `"mean"` nor `"sum"`.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> y = jnp.array([[0.0, 0.0, 1.0, 0.0, 0.0]])
      >>> p = jnp.array([[0.1, 0.1, 0.2, 0.1, 0.1]])
      >>> for weight in (0.0, 1.0):
      ...     loss = jaxloss.structural_similarity_cross_entropy(
      ...         p, y, weight=weight, axis=None, activation=None
      ...     )
      ...     print(loss.round(4))
      0.0398
      0.4062

    Reference:
      Zhao, Wu, Li, Wang and Cai. Correlation Maximized Structural Similarity Loss for Semantic
      Segmentation. 2019. https://arxiv.org/abs/1910.08711
    """
    name = "structural_similarity_cross_entropy"
    checks.option(name, "reduction", reduction, ("mean", "sum"))
    if not isinstance(window, int) or isinstance(window, bool) or window < 1 or window % 2 == 0:
        checks.fail(ValueError, name, "window", repr(window), "an odd integer of at least 1")
    masks: dict[str, Any] = {
        "axis": axis,
        "where": where,
        "weights": weights,
        "ignore_index": ignore_index,
    }
    pixels = confusion.read(
        name,
        logits,
        labels,
        activation=activation,
        class_weights=None,
        per_image=True,
        axis_name=None,
        **masks,
    )
    dtype = pixels.p.dtype
    sigma = checks.number(name, "sigma", sigma, dtype, "(0, inf)")
    stability = checks.number(name, "stability", stability, dtype, "(0, inf)")
    beta = checks.number(name, "beta", beta, dtype, "[0, 1]")
    weight = checks.number(name, "weight", weight, dtype, "[0, 1]")

    read = competing if pixels.compete else independent
    data = read(name, logits, labels, class_weights=class_weights, **masks)
    each, scale = _one_against_rest(data, activation if pixels.compete else "sigmoid")
    log_pair = _log_pair_of(activation)

    def cost(z: Array, y: Array, *scale: Array) -> Array:
        hit, miss = log_pair(z, *scale)
        return numerics.product(y, hit) + numerics.product(1 - y, miss)

    entropy = sigmoid.expected_cost(cost, each, *scale)
    error = jax.lax.stop_gradient(_structural_error(pixels, window, sigma, stability))
    level = beta * error.max(pixels.spatial, keepdims=True, initial=0)
    structural = ~(error <= level)  # NaN is selected
    error = jnp.where(jnp.isnan(level), jnp.nan, error)
    mask = structural if each.mask is None else structural & each.mask
    similarity = reduce(
        name,
        error * entropy,
        reduction,
        mask=mask,
        weights=each.weights,
        normalizer=each.normalizer,
        axis_name=axis_name,
    )
    plain = reduce_labelled(name, entropy, reduction, each, axis_name)
    return weight * plain + (1 - weight) * similarity


def _one_against_rest(data: Data, activation: str | None) -> tuple[Independent, tuple[Array, ...]]:
    """Returns the elements of the data, and the scale of their softmax if there is one."""
    if isinstance(data, Independent):
        return data, ()
    logits = data.unmasked_logits()
    mask, weights = (
        None if x is None else jnp.expand_dims(x, data.axis) for x in (data.mask, data.weights)
    )
    each = Independent(logits, data.dense_labels(), mask, weights, data.class_weights)
    return each, () if activation is None else softmax.scale(logits, data.axis)


def _log_pair_of(activation: str | None) -> Callable[..., tuple[Array, Array]]:
    """Returns what gives `-log p` and `-log(1 - p)` of elements and the scale of their softmax."""
    if activation is None:
        return sigmoid.log_pair_of_probability

    def log_pair(z: Array, *scale: Array) -> tuple[Array, Array]:
        return sigmoid.log_pair(softmax.log_odds(z, *scale) if scale else z)

    return log_pair


def _structural_error(
    pixels: confusion.Pixels, window: int, sigma: Array, stability: Array
) -> Array:
    """Returns `e` of each pixel and class, 0 where a pixel does not count."""
    sizes = [n if i in pixels.spatial else 1 for i, n in enumerate(pixels.p.shape)]
    valid = jnp.ones(sizes, pixels.p.dtype)
    if pixels.weight is not None:
        valid = valid * (pixels.weight != 0).astype(valid.dtype)

    def standing(x: Array) -> Array:
        mean, variance = _window_moments(x, valid, pixels.spatial, window, sigma)
        return (x - mean + stability) / (numerics.sqrt(variance) + stability)

    return valid * numerics.absolute(standing(pixels.y) - standing(pixels.p))


def _window_moments(
    x: Array, mass: Array, axes: tuple[int, ...], window: int, sigma: Array
) -> tuple[Array, Array]:
    """Returns mean and variance under a Gaussian window, axis by axis, with the edges repeated.

    The variance is the mean variance plus the variance of the means, so nothing cancels: a constant
    neighbourhood has exactly variance 0.
    """
    half = window // 2
    mean, variance = x, jnp.zeros_like(x)
    for axis in axes:
        size = x.shape[axis]
        padded = [_edges_repeated(each, half, axis) for each in (mass, mean, variance)]
        taps = [
            [jax.lax.slice_in_dim(each, at, at + size, axis=axis) for each in padded]
            for at in range(window)
        ]
        kernel = jnp.exp(-(((jnp.arange(window, dtype=x.dtype) - half) / sigma) ** 2) / 2)
        shares = [weight * tap[0] for weight, tap in zip(kernel, taps, strict=True)]
        mass = sum(shares[1:], shares[0])
        shares = [numerics.divide(share, mass) for share in shares]
        centre = mean
        mean = centre + sum(
            share * (tap[1] - centre) for share, tap in zip(shares, taps, strict=True)
        )
        spread = [
            share * (tap[2] + (tap[1] - mean) ** 2) for share, tap in zip(shares, taps, strict=True)
        ]
        variance = sum(spread[1:], spread[0])
    return mean, variance


def _edges_repeated(x: Array, count: int, axis: int) -> Array:
    """Pads an axis with its first and last slice (`jnp.pad` would slice sharded axes too)."""
    size = x.shape[axis]
    first, last = (jax.lax.slice_in_dim(x, at, at + 1, axis=axis) for at in (0, size - 1))
    return jnp.concatenate([*[first] * count, x, *[last] * count], axis)
