"""Combo loss: Dice and a cross-entropy that prices misses and false alarms."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jaxloss._compound._parts import read
from jaxloss._core import numerics, sigmoid, softmax
from jaxloss._core.cost import Cost
from jaxloss._core.families import compound
from jaxloss._core.images import Data
from jaxloss._core.labels import Competing, Independent, per_position
from jaxloss._core.platforms import bind
from jaxloss._core.scores import Beside
from jaxloss._region._overlap import dice_of
from jaxloss.options import Fraction, NonNegative, Numbers, Segmentation

__all__ = ["combo"]

Array = jax.Array


@compound
def combo(
    logits: Numbers,
    labels: Numbers,
    *,
    alpha: Fraction = 0.5,
    beta: Fraction = 0.5,
    smooth: NonNegative = 1.0,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the combo loss: Dice, and a cross-entropy that prices misses and false alarms.

    With the probability `p` and target `y` of each pixel and class::

        CE    = mean of -beta y log p - (1 - beta)(1 - y) log(1 - p)
        combo = alpha CE + (1 - alpha)(1 - Dice)

    `beta` above 1/2 makes misses dearer than false alarms. The mean is over pixels and classes;
    under a softmax `log(1 - p)` is the log-odds of the others, never a difference from 1. The paper
    subtracts Dice itself: its number is this one less `1 - alpha`, so that here 0 is perfect. The
    authors' code lacks a pair of parentheses and rewards false alarms.

    Args:
      alpha: The share of the cross-entropy, in `[0, 1]`.
      beta: The price of misses, in `[0, 1]`; false alarms cost `1 - beta`.
      smooth: Added to Dice's numerator and denominator, at least 0.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> p, y = jnp.array([[0.9, 0.8, 0.1]]), jnp.array([[1.0, 1.0, 0.0]])
      >>> for beta in (0.2, 0.8):
      ...     print(jaxloss.combo(p, y, beta=beta, axis=None, activation=None).round(4))
      0.0667
      0.089

    Reference:
      Taghanaki et al. Combo Loss: Handling Input and Output Imbalance in Multi-Organ Segmentation.
      Computerized Medical Imaging and Graphics 2019. https://arxiv.org/abs/1805.02798
    """
    pixels = read(logits, labels, options)
    entropy, data = _priced_entropy(pixels.data, beta)
    beside = Beside(entropy, data, (1 - alpha, alpha))
    return dice_of(pixels, options, smooth, squared=False, beside=beside)


def _priced_entropy(data: Data, beta: Array) -> tuple[Cost, Data]:
    """Returns the cross-entropy of all classes against the rest, and by what its mean is taken."""
    if isinstance(data, Independent):
        return sigmoid.cost(bind(_priced, probabilities=data.are_probabilities), data, beta), data
    # A position counts as much as all of its classes together.
    shape = [n if i == data.axis else 1 for i, n in enumerate(data.logits.shape)]
    factors = jnp.ones(shape, data.logits.dtype)
    factors = factors if data.class_weights is None else data.class_weights
    every = data._replace(class_weights=jnp.broadcast_to(factors.sum(), shape))
    return per_position(_of_part, data, beta), every


def _of_part(part: Competing, beta: Array) -> Array:
    values = _of_pair(*softmax.log_pair(part), part.dense_labels(), beta)
    return numerics.times(values, part.class_weights).sum(part.axis)


def _priced(x: Array, y: Array, beta: Array, *, probabilities: bool) -> Array:
    return _of_pair(*sigmoid.log_pair_of(x, probabilities), y, beta)


def _of_pair(hit: Array, miss: Array, y: Array, beta: Array) -> Array:
    return numerics.product(beta * y, hit) + numerics.product((1 - beta) * (1 - y), miss)
