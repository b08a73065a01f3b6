"""Unified focal loss."""

from __future__ import annotations

from typing import Annotated, Unpack

import jax
import jax.numpy as jnp

from jaxloss._compound._parts import read
from jaxloss._core import checks, numerics, sigmoid, softmax
from jaxloss._core.confusion import Confusion
from jaxloss._core.cost import Cost
from jaxloss._core.families import compound
from jaxloss._core.images import Data
from jaxloss._core.labels import Competing
from jaxloss._core.platforms import bind
from jaxloss._core.scores import Beside, complement, score
from jaxloss._region._rates import true_negatives
from jaxloss.options import Fraction, Interval, NonNegative, Number, Numbers, Segmentation

__all__ = ["unified_focal"]

Array = jax.Array


@compound
def unified_focal(
    logits: Numbers,
    labels: Numbers,
    *,
    weight: Fraction = 0.5,
    delta: Fraction = 0.6,
    gamma: Annotated[Number, Interval("[0, 1)")] = 0.5,
    asymmetric: bool = True,
    smooth: NonNegative = 1e-7,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the unified focal loss: a focal and a focal Tversky loss that share their numbers.

    `delta` balances foreground against background, and misses against false alarms; `gamma`
    discounts the easy background and enhances rare foreground. With class 0 as the background, `d`
    for `delta` and, for each image and class, `tp = sum p y`, `fp = sum p (1 - y)`,
    `fn = sum (1 - p) y`::

        F   = mean of -(1 - d)(1 - p_0)^gamma log p_0 on background, -d log p_y on foreground
        TI  = (tp + smooth) / (tp + d fn + (1 - d) fp + smooth)
        FT  = mean over the classes of 1 - TI_0 and (1 - TI_c)^(1 - gamma)
        unified_focal = weight F + (1 - weight) FT

    The symmetric variant has `(1 - p_y)^gamma` on every class of F and the power `1 - gamma` on
    every class of FT. Where each logit has a target of its own, each class is a foreground against
    its own background, and FT the mean of the two: a sigmoid of `x` costs what a softmax of
    `(0, x)` does. The derivative of the power is 0 at `TI = 1`.

    MONAI puts `weight` on F as here, the authors' code on FT. MONAI also divides F by its two
    classes, has `delta=0.7` and takes probabilities, whatever it calls them.

    Args:
      weight: The share of the focal part, in `[0, 1]`.
      delta: The weight of foreground pixels, and the price of misses, in `[0, 1]`; background
        pixels and false alarms have `1 - delta`.
      gamma: How much easy background is discounted and rare foreground enhanced, in `[0, 1)`.
      asymmetric: Whether only the background is discounted and only the foreground enhanced.
      smooth: Added to the Tversky index's numerator and denominator, at least 0.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> labels = jnp.array([[0, 0, 1]])
      >>> p = jnp.array([[[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]])
      >>> print(jaxloss.unified_focal(p, labels, activation=None).round(4))
      0.2547

    Reference:
      Yeung, Sala, Schoenlieb and Rundo. Unified Focal Loss: Generalising Dice and Cross
      Entropy-Based Losses to Handle Class Imbalanced Medical Image Segmentation. Computerized
      Medical Imaging and Graphics 2022. https://arxiv.org/abs/2102.04525
    """
    checks.option("asymmetric", asymmetric, (True, False))
    pixels = read(logits, labels, options)
    focal = _focal_of(pixels.data, delta, gamma, asymmetric)
    tversky = bind(_focal_tversky, asymmetric=asymmetric, compete=pixels.compete)
    beside = Beside(focal, pixels.data, (1 - weight, weight))
    parameters = (delta, gamma, smooth)
    return score(tversky, pixels, options, *parameters, more=true_negatives, beside=beside)


def _focal_of(data: Data, delta: Array, gamma: Array, asymmetric: bool) -> Cost:
    """Returns F of each position, or of each element."""
    gamma_foreground = jnp.zeros_like(gamma) if asymmetric else gamma
    if not isinstance(data, Competing):
        formula = bind(_focal_of_element, probabilities=data.are_probabilities)
        return sigmoid.cost(formula, data, delta, gamma, gamma_foreground)
    sizes = [n if i == data.axis else 1 for i, n in enumerate(data.logits.shape)]
    background = jax.lax.broadcasted_iota(jnp.int32, sizes, data.axis) == 0
    exponent = jnp.where(background, gamma, gamma_foreground)
    exponent = data.of_target(exponent) if data.has_ids else exponent
    factors = jnp.where(background, 1 - delta, delta)
    return softmax.cost(_focal, data, exponent, factors=factors)


def _focal(hit: Array, miss: Array, gamma: Array) -> Array:
    return numerics.product(jnp.exp(-gamma * numerics.finite(miss)), hit)


def _focal_of_element(
    x: Array, y: Array, delta: Array, gamma: Array, gamma_foreground: Array, *, probabilities: bool
) -> Array:
    hit, miss = sigmoid.log_pair_of(x, probabilities)
    positive, negative = _focal(hit, miss, gamma_foreground), _focal(miss, hit, gamma)
    return numerics.product(y * delta, positive) + numerics.product((1 - y) * (1 - delta), negative)


def _focal_tversky(
    counts: Confusion,
    delta: Array,
    gamma: Array,
    smooth: Array,
    *,
    asymmetric: bool,
    compete: bool,
) -> Array:
    """Returns FT of each image and class."""
    tp, fp, fn, (tn,) = counts
    loss = complement(delta * fn + (1 - delta) * fp, tp + smooth)
    enhanced = numerics.steep_power(loss, 1 - gamma)
    if not compete:
        background = complement(delta * fp + (1 - delta) * fn, tn + smooth)
        if not asymmetric:
            background = numerics.steep_power(background, 1 - gamma)
        return (enhanced + background) / 2
    if not asymmetric:
        return enhanced
    return jnp.concatenate([loss[..., :1], enhanced[..., 1:]], -1)
