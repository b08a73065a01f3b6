"""Structural similarity cross-entropy: pixels count by how ill they fit their neighbourhood."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jaxloss._compound._parts import read
from jaxloss._core import checks, log_softmax, numerics, sharding, sigmoid
from jaxloss._core.families import compound_elements
from jaxloss._core.images import Data, Pixels
from jaxloss._core.labels import Independent
from jaxloss._core.platforms import bind
from jaxloss._core.reduction import reduce, reduce_values
from jaxloss.options import Activation, Elements, Fraction, Numbers, Positive

__all__ = ["structural_similarity_cross_entropy"]

Array = jax.Array


@compound_elements
def structural_similarity_cross_entropy(
    logits: Numbers,
    labels: Numbers,
    *,
    window: int = 3,
    sigma: Positive = 1.5,
    stability: Positive = 0.01,
    beta: Fraction = 0.1,
    weight: Fraction = 0.5,
    activation: Activation = "sigmoid",
    **options: Unpack[Elements],
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
      window: Width of the window along each spatial axis, an odd integer.
      sigma: Standard deviation of the Gaussian in pixels, above 0.
      stability: Added to differences and deviations, above 0.
      beta: The share of an image's largest error that selects a pixel, in `[0, 1]`.
      weight: The share of the plain cross-entropy, in `[0, 1]`.
      activation: `"sigmoid"` (ids: one class against the rest, as in the paper), `"softmax"`,
        `"auto"` (softmax for ids, sigmoid for labels of the logits' shape), or None where `logits`
        already are probabilities.
      class_weights: One factor of value and denominator per class, shape `[C]`.

    Returns:
      A scalar; float32 for half-precision input.

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
    window = checks.integer("window", window)
    if window < 1 or window % 2 == 0:
        checks.fail(ValueError, "window", window, "an odd integer of at least 1")
    of_images = {**options, "activation": activation, "per_image": True}
    pixels = read(logits, labels, of_images)
    each, scale = _one_against_rest(pixels.data, activation)
    formula = bind(_entropy, probabilities=activation is None)
    entropy = sigmoid.cost(formula, each, *scale).each()

    error = jax.lax.stop_gradient(_structural_error(pixels, window, sigma, stability))
    level = beta * error.max(pixels.spatial, keepdims=True, initial=0)
    structural = ~(error <= level)  # NaN is selected
    error = jnp.where(jnp.isnan(level), jnp.nan, error)
    similarity = reduce_values(
        error * entropy,
        options["reduction"],
        mask=structural if each.mask is None else structural & each.mask,
        weights=each.weights,
        normalizer=each.normalizer,
        axis_name=options["axis_name"],
    )
    return weight * reduce(entropy, options, each) + (1 - weight) * similarity


def _one_against_rest(data: Data, activation: str | None) -> tuple[Independent, tuple[Array, ...]]:
    """Returns the elements of the data, and the scale of their softmax if there is one."""
    if isinstance(data, Independent):
        return data, ()
    logits = data.unmasked_logits()
    mask, weights = (
        None if x is None else jnp.expand_dims(x, data.axis) for x in (data.mask, data.weights)
    )
    each = Independent(logits, data.dense_labels(), mask, weights, data.class_weights)
    return each, () if activation is None else log_softmax.scale(logits, data.axis)


def _entropy(z: Array, y: Array, *scale: Array, probabilities: bool) -> Array:
    """The cross-entropy of each class against the rest."""
    x = log_softmax.log_odds(z, *scale) if scale else z
    hit, miss = sigmoid.log_pair_of(x, probabilities)
    return numerics.product(y, hit) + numerics.product(1 - y, miss)


def _structural_error(pixels: Pixels, window: int, sigma: Array, stability: Array) -> Array:
    """Returns `e` of each pixel and class, 0 where a pixel does not count.

    A window of some rows is no slice that JAX takes of an axis split on a mesh of Explicit axes.
    """
    split = pixels.both()
    p, y = (sharding.whole(x, pixels.spatial) for x in split)
    sizes = [n if i in pixels.spatial else 1 for i, n in enumerate(p.shape)]
    valid = jnp.ones(sizes, p.dtype)
    if pixels.weight is not None:
        counts = sharding.whole(pixels.weight != 0, pixels.spatial)
        valid = valid * counts.astype(valid.dtype)

    def standing(x: Array) -> Array:
        mean, variance = _window_moments(x, valid, pixels.spatial, window, sigma)
        return (x - mean + stability) / (numerics.sqrt(variance) + stability)

    return sharding.like(split[0], valid * numerics.absolute(standing(y) - standing(p)))


def _window_moments(
    x: Array, mass: Array, axes: tuple[int, ...], window: int, sigma: Array
) -> tuple[Array, Array]:
    """Returns mean and variance under a Gaussian window, axis by axis, with the edges repeated.

    The variance is the mean variance plus the variance of the means, so nothing cancels: a constant
    neighbourhood has exactly variance 0.
    """
    half = window // 2
    mean, variance = x, jnp.zeros_like(x)
    if x.size == 0:  # there is no edge to repeat
        return mean, variance
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
