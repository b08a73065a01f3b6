"""Weighted sums of Dice and a distribution loss."""

from __future__ import annotations

from typing import Annotated, Unpack

import jax

from jaxloss._compound._parts import read
from jaxloss._core.families import compound
from jaxloss._core.scores import Beside
from jaxloss._distribution._cross_entropy import cross_entropy_of
from jaxloss._distribution._focal import focal_of
from jaxloss._distribution._hard_examples import reduce_hardest
from jaxloss._region._overlap import Squared, dice_of
from jaxloss.options import (
    Exponent,
    Interval,
    NonNegative,
    Number,
    Numbers,
    PerClass,
    Segmentation,
    Share,
)

__all__ = ["dice_cross_entropy", "dice_focal", "dice_top_k"]

Array = jax.Array


@compound
def dice_cross_entropy(
    logits: Numbers,
    labels: Numbers,
    *,
    dice_weight: NonNegative = 1.0,
    cross_entropy_weight: NonNegative = 1.0,
    smooth: NonNegative = 1.0,
    squared: Squared = False,
    label_smoothing: Share = 0.0,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the sum of soft Dice and cross-entropy, the loss of nnU-Net.

    Dice looks at each image and class as a whole, cross-entropy at each pixel::

        dice_weight dice + cross_entropy_weight cross_entropy

    The cross-entropy is that of the activation: :func:`jaxloss.cross_entropy` where classes
    compete, :func:`jaxloss.binary_cross_entropy` where each logit has its own target. Masks and
    weights act on both parts. For regions of which some pixels are ignored nnU-Net sums the latter
    over the channels: `cross_entropy_weight=C`.

    Args:
      dice_weight: Factor of Dice, at least 0.
      cross_entropy_weight: Factor of the cross-entropy, at least 0.
      smooth: Added to Dice's numerator and denominator, at least 0.
      squared: Dice's form: False, True (V-Net) or `"counts"` (nnU-Net's `square`).

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> labels = jnp.array([[[0, 0, 1], [0, 1, 1]]])
      >>> logits = 4.0 * jnp.array([[[1.0, 1.0, -1.0], [1.0, -1.0, 1.0]]])
      >>> logits = jnp.stack([logits, -logits], axis=-1)
      >>> print(jaxloss.dice_cross_entropy(logits, labels).round(4))
      1.4797

    Reference:
      Isensee et al. nnU-Net: a Self-Configuring Method for Deep Learning-Based Biomedical Image
      Segmentation. Nature Methods 2021. https://arxiv.org/abs/1809.10486
    """
    pixels = read(logits, labels, options)
    entropy = cross_entropy_of(pixels.data, label_smoothing)
    beside = Beside(entropy, pixels.data, (dice_weight, cross_entropy_weight))
    return dice_of(pixels, options, smooth, squared, beside)


@compound
def dice_focal(
    logits: Numbers,
    labels: Numbers,
    *,
    dice_weight: NonNegative = 1.0,
    focal_weight: NonNegative = 1.0,
    smooth: NonNegative = 1.0,
    squared: Squared = False,
    gamma: Exponent = 2.0,
    alpha: PerClass | None = None,
    label_smoothing: Share = 0.0,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the sum of soft Dice and the focal loss.

    Dice balances small structures against large ones, the focal loss hard pixels against easy
    ones::

        dice_weight dice + focal_weight focal

    The focal loss is that of the activation: :func:`jaxloss.softmax_focal` where classes compete,
    :func:`jaxloss.sigmoid_focal` where each logit has its own target. MONAI's `DiceFocalLoss` takes
    the sigmoid one even beside a softmax Dice: `dice(logits, ids) + sigmoid_focal(logits, ids)`.
    Its `smooth_nr` and `smooth_dr` are `smooth`.

    Args:
      dice_weight: Factor of Dice, at least 0.
      focal_weight: Factor of the focal loss, at least 0.
      smooth: Added to Dice's numerator and denominator, at least 0.
      squared: Dice's form: False, True (V-Net) or `"counts"` (nnU-Net's `square`).
      gamma: Focusing exponent, at least 0; larger values discount easy pixels more.
      alpha: Sigmoid: the weight of positives, in `[0, 1]`; negatives weigh `1 - alpha`. Softmax: a
        scalar or one factor per class `[C]`, at least 0. It never enters the mean's denominator.
        None: 1.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> labels = jnp.array([[[0, 0, 1], [0, 1, 1]]])
      >>> logits = 4.0 * jnp.array([[[1.0, 1.0, -1.0], [1.0, -1.0, 1.0]]])
      >>> logits = jnp.stack([logits, -logits], axis=-1)
      >>> print(jaxloss.dice_focal(logits, labels).round(4))
      1.4785

    Reference:
      Zhu et al. AnatomyNet: Deep Learning for Fast and Fully Automated Whole-Volume Segmentation of
      Head and Neck Anatomy. Medical Physics 2019. https://arxiv.org/abs/1808.05238
    """
    pixels = read(logits, labels, options)
    focal = focal_of(pixels.data, gamma, alpha, label_smoothing)
    beside = Beside(focal, pixels.data, (dice_weight, focal_weight))
    return dice_of(pixels, options, smooth, squared, beside)


@compound
def dice_top_k(
    logits: Numbers,
    labels: Numbers,
    *,
    dice_weight: NonNegative = 1.0,
    top_k_weight: NonNegative = 1.0,
    smooth: NonNegative = 1.0,
    squared: Squared = False,
    fraction: Annotated[Number, Interval("(0, 1]")] = 0.1,
    label_smoothing: Share = 0.0,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the sum of soft Dice and the cross-entropy of the hardest pixels.

    Dice looks at each image and class as a whole, the other part at the
    `k = max(1, floor(fraction n))` pixels of the batch that are predicted worst, `n` of which are
    valid::

        dice_weight dice + top_k_weight mean of the k largest cross-entropies

    The second part is :func:`jaxloss.top_k_cross_entropy` where classes compete; where each logit
    has its own target, the `k` hardest elements of :func:`jaxloss.binary_cross_entropy`. The
    selection is exact and a constant for the derivative; elements that tie with the `k`-th share
    what is left of `k`. Weights act before the selection and never enter its mean's denominator.

    Args:
      dice_weight: Factor of Dice, at least 0.
      top_k_weight: Factor of the cross-entropy of the hardest pixels, at least 0.
      smooth: Added to Dice's numerator and denominator, at least 0.
      squared: Dice's form: False, True (V-Net) or `"counts"` (nnU-Net's `square`).
      fraction: The share of the valid pixels that is selected, in `(0, 1]`; 1 takes all.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> labels = jnp.array([[[0, 0, 1], [0, 1, 1]]])
      >>> logits = 4.0 * jnp.array([[[1.0, 1.0, -1.0], [1.0, -1.0, 1.0]]])
      >>> logits = jnp.stack([logits, -logits], axis=-1)
      >>> print(jaxloss.dice_top_k(logits, labels, fraction=0.5).round(4))
      2.813

    Reference:
      Ma et al. Loss Odyssey in Medical Image Segmentation. Medical Image Analysis 2021.
      https://doi.org/10.1016/j.media.2021.102035
    """
    pixels = read(logits, labels, options)
    entropy = cross_entropy_of(pixels.data, label_smoothing)
    hardest = reduce_hardest(entropy, fraction, options, pixels.data)
    return dice_weight * dice_of(pixels, options, smooth, squared) + top_k_weight * hardest
