"""Exponential logarithmic loss."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jaxloss._compound._parts import read
from jaxloss._core import numerics, sigmoid, softmax
from jaxloss._core.confusion import Confusion
from jaxloss._core.cost import Cost
from jaxloss._core.families import compound
from jaxloss._core.images import Data, Pixels
from jaxloss._core.labels import Competing
from jaxloss._core.platforms import bind
from jaxloss._core.scores import Beside, score
from jaxloss.options import NonNegative, Numbers, Positive, Segmentation

__all__ = ["exp_log"]

Array = jax.Array


@compound
def exp_log(
    logits: Numbers,
    labels: Numbers,
    *,
    w_dice: NonNegative = 0.8,
    w_cross_entropy: NonNegative = 0.2,
    gamma: Positive = 0.3,
    smooth: NonNegative = 1.0,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the exponential logarithmic loss: powers of `-log Dice` and of the cross-entropy.

    With the Dice score `D` of each image and class, and for each pixel the probability `p_y` of its
    label and the weight of that label, from the numbers `n_c` of the batch's `n` valid pixels::

        w_c     = sqrt(n / n_c)
        exp_log = w_dice mean (-log D)^gamma + w_cross_entropy mean w_y (-log p_y)^gamma

    A power below 1 keeps the loss steep near the optimum, so that classes that are almost right
    improve further; one above 1 looks at the hard ones. Where each logit has a target of its own,
    a class and its complement are two labels with weights of their own.

    Both powers are taken one by one, before any mean, as in the paper; public code takes the power
    of the mean Dice and leaves it out of the cross-entropy. The weights are constants for the
    derivative, and the mean does not divide by them. For `gamma` below 1 the derivative of
    `u^gamma` is infinite at `u = 0`, but not in the logits: it is evaluated as
    `gamma u^gamma (u'/u)`, finite at any logit, and 0 where `u` is 0. No term is clamped.

    Args:
      w_dice: Factor of the Dice term, at least 0.
      w_cross_entropy: Factor of the cross-entropy term, at least 0.
      gamma: Exponent of both terms, above 0.
      smooth: Added to Dice's numerator and denominator, at least 0.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> labels = jnp.array([[0, 0, 1]])
      >>> p = jnp.array([[[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]])
      >>> print(jaxloss.exp_log(p, labels, activation=None).round(4))
      0.6853

    Reference:
      Wong, Moradi, Tang and Syeda-Mahmood. 3D Segmentation with Exponential Logarithmic Loss for
      Highly Unbalanced Object Sizes. MICCAI 2018. https://arxiv.org/abs/1809.00076
    """
    pixels = read(logits, labels, options)
    data = pixels.data._replace(class_weights=None)  # they are not divided out
    entropy = _entropy_of(data, gamma, *_label_weights(pixels))
    beside = Beside(entropy, data, (w_dice, w_cross_entropy))
    return score(_log_dice, pixels, options, gamma, smooth, beside=beside)


def _log_dice(counts: Confusion, gamma: Array, smooth: Array) -> Array:
    ratio = _log_ratio(counts.fp + counts.fn, 2 * counts.tp + smooth)
    return numerics.steep_power(ratio, gamma)


def _entropy_of(data: Data, gamma: Array, positive: Array, negative: Array) -> Cost:
    """Returns the power of the cross-entropy of each position, or of each element."""
    if isinstance(data, Competing):
        return softmax.cost(_steep, data, gamma, factors=positive)
    formula = bind(_of_element, probabilities=data.are_probabilities)
    return sigmoid.cost(formula, data, gamma, positive, negative)


def _steep(hit: Array, miss: Array, gamma: Array) -> Array:
    return numerics.steep_power(hit, gamma)


def _of_element(
    x: Array, y: Array, gamma: Array, positive: Array, negative: Array, *, probabilities: bool
) -> Array:
    hit, miss = (numerics.steep_power(u, gamma) for u in sigmoid.log_pair_of(x, probabilities))
    return numerics.product(y * positive, hit) + numerics.product((1 - y) * negative, miss)


def _label_weights(pixels: Pixels) -> tuple[Array, Array]:
    """Returns the weights of each class and of its complement; they broadcast to the logits."""
    if pixels.data.class_weights is not None:
        return pixels.data.class_weights, pixels.data.class_weights
    batch = pixels._replace(frame=pixels.frame._replace(per_image=False))
    y = pixels.targets()
    valid, known = batch.valid(), jnp.where(jnp.isnan(y), 0, y)
    shape = [-1 if i == pixels.axis else 1 for i in range(pixels.frame.rank)]

    def rarity(y: Array) -> Array:
        weight = numerics.sqrt(numerics.divide(valid, batch.total(y)))
        return jax.lax.stop_gradient(weight).reshape(shape)

    return rarity(known), rarity(1 - known)


def _log_ratio(wrong: Array, right: Array) -> Array:
    """Returns `-log(right / (right + wrong))`, +inf with zero gradient where `right` is 0."""
    large, empty = wrong > right, right == 0
    ratio = numerics.divide(jnp.where(large, 0, wrong), right)
    apart = jnp.log(jnp.where(large, right + wrong, 1)) - jnp.log(jnp.where(empty, 1, right))
    return jnp.where(empty, jnp.inf, jnp.where(large, apart, jnp.log1p(ratio)))
