"""Dice and Jaccard for soft labels: their minimum is at `p = y`, and they measure a distance."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import numerics
from jaxloss._core.confusion import Confusion
from jaxloss._core.families import segmentation
from jaxloss._core.images import difference, read
from jaxloss._core.scores import complement, score
from jaxloss.options import NonNegative, Numbers, Segmentation

__all__ = ["dice_semimetric", "jaccard_metric"]

Array = jax.Array


@segmentation
def dice_semimetric(
    logits: Numbers,
    labels: Numbers,
    *,
    smooth: NonNegative = 1.0,
    per_class: bool = True,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the Dice semimetric loss of each image and class: Dice that soft labels minimise.

    With probabilities `p` and targets `y`, sums over an image's valid pixels::

        d = sum |p - y|    s = sum p + sum y
        Dice semimetric = 1 - (s - d + smooth) / (s + smooth)

    For hard labels it is :func:`jaxloss.dice` with the same `smooth`. For soft ones, smoothed, of
    several annotators or of a teacher, it is 0 at `p = y` and nowhere else, where Dice draws every
    probability to 0 or 1. It is computed as wrong over right plus wrong, `right` being
    `2 sum min(p, y) + smooth`, so that nothing cancels. At `p = y` its gradient is 0. With
    `smooth=0` an image without the class costs 1, whatever the prediction.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> y = jnp.array([[0.7, 0.4, 0.0]])
      >>> for p in (y, y.round()):
      ...     print(jaxloss.dice_semimetric(p, y, axis=None, activation=None).round(4))
      0.0
      0.2258

    Reference:
      Wang, Popordanoska, Bertels, Lemmens and Blaschko. Dice Semimetric Losses: Optimizing the Dice
      Score with Soft Labels. MICCAI 2023. https://arxiv.org/abs/2303.16296
    """
    pixels = read(logits, labels, options)
    return score(_dice_semimetric, pixels, options, smooth, more=_distance, per_class=per_class)


@segmentation
def jaccard_metric(
    logits: Numbers,
    labels: Numbers,
    *,
    smooth: NonNegative = 1.0,
    per_class: bool = True,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the Jaccard metric loss of each image and class: Jaccard that soft labels minimise.

    With probabilities `p` and targets `y`, sums over an image's valid pixels::

        d = sum |p - y|    s = sum p + sum y
        Jaccard metric = 1 - (s - d + smooth) / (s + d + smooth)

    For hard labels it is :func:`jaxloss.jaccard` with half the `smooth`. For soft ones, smoothed,
    of several annotators or of a teacher, it is 0 at `p = y` and nowhere else, where Jaccard draws
    every probability to 0 or 1. It is computed as wrong over right plus wrong, `right` being
    `2 sum min(p, y) + smooth`, so that nothing cancels. At `p = y` its gradient is 0. With
    `smooth=0` an image without the class costs 1, whatever the prediction.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> y = jnp.array([[0.7, 0.4, 0.0]])
      >>> for p in (y, y.round()):
      ...     print(jaxloss.jaccard_metric(p, y, axis=None, activation=None).round(4))
      0.0
      0.3684

    Reference:
      Wang, Ning and Blaschko. Jaccard Metric Losses: Optimizing the Jaccard Index with Soft Labels.
      NeurIPS 2023. https://arxiv.org/abs/2302.05666
    """
    pixels = read(logits, labels, options)
    return score(_jaccard_metric, pixels, options, smooth, more=_distance, per_class=per_class)


def _dice_semimetric(counts: Confusion, smooth: Array) -> Array:
    d, common = counts.more
    return complement(d, 2 * common + smooth)


def _jaccard_metric(counts: Confusion, smooth: Array) -> Array:
    d, common = counts.more
    return complement(2 * d, 2 * common + smooth)


def _distance(p: Array, q: Array, y: Array) -> tuple[Array, Array]:
    """`|p - y|`, and what `p` and `y` have in common."""
    return numerics.absolute(difference(p, q, y)), jnp.minimum(p, y)
