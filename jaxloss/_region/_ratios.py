"""Ratios that price the two kinds of error: F-beta, asymmetric similarity, focal Tversky."""

from __future__ import annotations

from typing import Unpack

import jax

from jaxloss._core import numerics
from jaxloss._core.confusion import Confusion
from jaxloss._core.families import segmentation
from jaxloss._core.images import read
from jaxloss._core.scores import complement, score
from jaxloss._region._overlap import tversky_loss
from jaxloss.options import NonNegative, Numbers, Positive, Segmentation

__all__ = ["asymmetric_similarity", "f_beta", "focal_tversky"]

Array = jax.Array


@segmentation
def f_beta(
    logits: Numbers,
    labels: Numbers,
    *,
    beta: NonNegative = 1.0,
    smooth: NonNegative = 1.0,
    per_class: bool = True,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the soft F-beta loss of each image and class: recall counts `beta` times precision.

    With soft counts over an image's valid pixels::

        tp = sum p y    fp = sum p (1 - y)    fn = sum (1 - p) y
        F  = 1 - ((1 + beta^2) tp + smooth) / ((1 + beta^2) tp + beta^2 fn + fp + smooth)

    `beta=1` is :func:`jaxloss.dice` with the same `smooth`; in general it is
    :func:`jaxloss.tversky` with the prices `1 / (1 + beta^2)` of false positives and
    `beta^2 / (1 + beta^2)` of false negatives, and `smooth / (1 + beta^2)`.

    It is computed as wrong over right plus wrong, so it is exactly 0 for a perfect prediction and
    never negative. With `smooth=0` an image without the class costs 1, whatever the prediction.

    Args:
      beta: How much more recall counts than precision, at least 0.

    Example:
      One pixel missed, or one too many:

      >>> import jax.numpy as jnp, jaxloss
      >>> y = jnp.array([[1.0, 1.0, 0.0, 0.0]])
      >>> for p in ([[1.0, 0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0, 0.0]]):
      ...     p = jnp.array(p)
      ...     print(jaxloss.f_beta(p, y, beta=2, axis=None, activation=None, smooth=0).round(4))
      0.4444
      0.0909

    Reference:
      Van Rijsbergen. Information Retrieval. Butterworths 1979.
      Hashemi et al. Asymmetric Loss Functions and Deep Densely Connected Networks for Highly
      Imbalanced Medical Image Segmentation. IEEE Access 2018. https://arxiv.org/abs/1803.11078
    """
    pixels = read(logits, labels, options)
    return score(_f_beta, pixels, options, beta, smooth, per_class=per_class)


@segmentation
def asymmetric_similarity(
    logits: Numbers,
    labels: Numbers,
    *,
    beta: NonNegative = 1.5,
    smooth: NonNegative = 1.0,
    per_class: bool = True,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the asymmetric similarity loss: F-beta with the price its authors recommend.

    With soft counts over an image's valid pixels::

        tp = sum p y    fp = sum p (1 - y)    fn = sum (1 - p) y
        ASL = 1 - ((1 + beta^2) tp + smooth) / ((1 + beta^2) tp + beta^2 fn + fp + smooth)

    It is :func:`jaxloss.f_beta` with `beta=1.5`: a missed pixel costs 2.25 times as much as one too
    many. Code that divides all by `1 + beta^2` first, as SegLoss does with weights 0.692
    and 0.308, adds a `smooth` that is `1 + beta^2` times as large here.

    Args:
      beta: How much more recall counts than precision, at least 0.

    Example:
      One pixel missed, or one too many:

      >>> import jax.numpy as jnp, jaxloss
      >>> y = jnp.array([[1.0, 1.0, 0.0, 0.0]])
      >>> for p in ([[1.0, 0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0, 0.0]]):
      ...     p = jnp.array(p)
      ...     print(jaxloss.asymmetric_similarity(p, y, axis=None, activation=None).round(4))
      0.3462
      0.1176

    Reference:
      Hashemi et al. Asymmetric Loss Functions and Deep Densely Connected Networks for Highly
      Imbalanced Medical Image Segmentation. IEEE Access 2018. https://arxiv.org/abs/1803.11078
    """
    pixels = read(logits, labels, options)
    return score(_f_beta, pixels, options, beta, smooth, per_class=per_class)


@segmentation
def focal_tversky(
    logits: Numbers,
    labels: Numbers,
    *,
    alpha: NonNegative = 0.3,
    beta: NonNegative = 0.7,
    gamma: Positive = 0.75,
    smooth: NonNegative = 1.0,
    per_class: bool = True,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the focal Tversky loss: a power of each image's and class's Tversky loss.

    With soft counts over an image's valid pixels::

        tp = sum p y    fp = sum p (1 - y)    fn = sum (1 - p) y
        TI = (tp + smooth) / (tp + alpha fp + beta fn + smooth)
        FT = (1 - TI)^gamma

    `gamma < 1` keeps the gradient large for classes that are almost right, `gamma > 1` discounts
    them. Each class is raised to the power before the mean, as in the paper; SegLoss and
    segmentation-models-pytorch raise the mean. The paper writes the exponent as `1 / gamma`, so its
    4/3 is 0.75 here, and exchanges the letters: its `alpha` is the price of false negatives.

    At a perfect prediction `gamma < 1` has an infinite slope; value and gradient are 0 there.

    Args:
      alpha: Price of false positives, at least 0.
      beta: Price of false negatives, at least 0.
      gamma: The exponent, above 0.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> p, y = jnp.array([[0.9, 0.2, 0.1]]), jnp.array([[1.0, 1.0, 0.0]])
      >>> print(jaxloss.focal_tversky(p, y, axis=None, activation=None).round(4))
      0.3419

    Reference:
      Abraham and Khan. A Novel Focal Tversky Loss Function with Improved Attention U-Net for
      Lesion Segmentation. ISBI 2019. https://arxiv.org/abs/1810.07842
    """
    pixels = read(logits, labels, options)
    return score(_focal_tversky, pixels, options, alpha, beta, gamma, smooth, per_class=per_class)


def _f_beta(counts: Confusion, beta: Array, smooth: Array) -> Array:
    square = beta**2
    return complement(square * counts.fn + counts.fp, (1 + square) * counts.tp + smooth)


def _focal_tversky(
    counts: Confusion, alpha: Array, beta: Array, gamma: Array, smooth: Array
) -> Array:
    return numerics.power(tversky_loss(counts, alpha, beta, smooth), gamma)
