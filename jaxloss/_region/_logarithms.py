"""Dice on another scale: its negative logarithm, and log-cosh of its loss."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import numerics
from jaxloss._core.confusion import Confusion
from jaxloss._core.families import segmentation
from jaxloss._core.images import read
from jaxloss._core.scores import score
from jaxloss._region._overlap import dice_loss
from jaxloss.options import NonNegative, Numbers, Segmentation

__all__ = ["log_cosh_dice", "log_dice"]

Array = jax.Array


@segmentation
def log_dice(
    logits: Numbers,
    labels: Numbers,
    *,
    smooth: NonNegative = 1.0,
    per_class: bool = True,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the negative logarithm of each image's and class's soft Dice score.

    With probabilities `p` and targets `y`, sums over an image's valid pixels::

        D = (2 sum p y + smooth) / (sum p + sum y + smooth)
        L = -log D

    It is `log(1 + wrong / right)` with `wrong = sum p (1 - y) + sum (1 - p) y` and
    `right = 2 sum p y + smooth`, which keeps its relative accuracy on good predictions. A bad
    prediction has a steep gradient, of about `1 / D`; a floor under the score, as in
    segmentation-models-pytorch, would leave a wholly wrong one none. Only a score below the
    smallest normal number of the dtype, 0 with `smooth=0`, is cut: it costs 87.3 in float32, with
    gradient 0.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> p, y = jnp.array([[0.9, 0.8, 0.1]]), jnp.array([[1.0, 1.0, 0.0]])
      >>> print(jaxloss.log_dice(p, y, axis=None, activation=None, smooth=0).round(4))
      0.1112

    Reference:
      Wong et al. 3D Segmentation with Exponential Logarithmic Loss for Highly Unbalanced Object
      Sizes. MICCAI 2018. https://arxiv.org/abs/1809.00076
    """
    pixels = read(logits, labels, options)
    return score(_log_dice, pixels, options, smooth, per_class=per_class)


@segmentation
def log_cosh_dice(
    logits: Numbers,
    labels: Numbers,
    *,
    smooth: NonNegative = 1.0,
    per_class: bool = True,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the logarithm of the hyperbolic cosine of each image's and class's Dice loss.

    With probabilities `p` and targets `y`, sums over an image's valid pixels::

        dice = 1 - (2 sum p y + smooth) / (sum p + sum y + smooth)
        L    = log cosh dice

    About `dice^2 / 2` near a perfect prediction, where its gradient goes to 0, and 0.4338 at a
    wholly wrong one. It is exactly 0 for a perfect prediction and accurate close to it, where
    `cosh` rounds to 1. The paper's code pools the batch (`per_image=False`).

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> p, y = jnp.array([[0.9, 0.8, 0.1]]), jnp.array([[1.0, 1.0, 0.0]])
      >>> print(jaxloss.log_cosh_dice(p, y, axis=None, activation=None, smooth=0).round(5))
      0.00553

    Reference:
      Jadon. A Survey of Loss Functions for Semantic Segmentation. CIBCB 2020.
      https://arxiv.org/abs/2006.14822
    """
    pixels = read(logits, labels, options)
    return score(_log_cosh_dice, pixels, options, smooth, per_class=per_class)


def _log_dice(counts: Confusion, smooth: Array) -> Array:
    wrong, right = counts.fp + counts.fn, 2 * counts.tp + smooth
    tiny = jnp.finfo(right.dtype).tiny
    scored = ~(right <= tiny * (right + wrong))  # NaN stays NaN
    odds = numerics.divide(wrong, jnp.where(scored, right, 1))
    return jnp.where(scored, jnp.log1p(odds), -jnp.log(jnp.asarray(tiny, odds.dtype)))


def _log_cosh_dice(counts: Confusion, smooth: Array) -> Array:
    dice = dice_loss(counts, smooth)
    return jnp.log1p(jnp.sinh(dice) ** 2) / 2  # cosh^2 = 1 + sinh^2
