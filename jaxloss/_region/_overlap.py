"""Ratios of overlap: Dice, Jaccard, Tversky."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Unpack

import jax

from jaxloss._core import checks
from jaxloss._core.confusion import Confusion
from jaxloss._core.families import segmentation
from jaxloss._core.images import Pixels, difference, read
from jaxloss._core.scores import Beside, complement, score
from jaxloss.options import NonNegative, Numbers, Segmentation

__all__ = ["dice", "jaccard", "tversky"]

Array = jax.Array
Squared = bool | Literal["counts"]


@segmentation
def dice(
    logits: Numbers,
    labels: Numbers,
    *,
    smooth: NonNegative = 1.0,
    squared: Squared = False,
    per_class: bool = True,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the soft Dice loss of each image and class.

    With probabilities `p` and targets `y`, sums over an image's valid pixels::

        Dice = 1 - (2 sum p y + smooth) / (sum p + sum y + smooth)

    `squared=True` is V-Net's form, `squared="counts"` nnU-Net's::

        1 - (2 sum p y + smooth) / (sum p^2 + sum y^2 + smooth)
        1 - (2 tp + smooth) / (2 tp + fp + fn + smooth)     tp = sum (p y)^2
                                     fp = sum (p (1-y))^2,  fn = sum ((1-p) y)^2

    It is computed as wrong over right plus wrong, so it is exactly 0 for a perfect prediction and
    never negative. `smooth` is added to `2 sum p y`, as in MONAI and nnU-Net; Optax adds it to half
    of that, so its `smooth=1` is `smooth=2` here. An image without the class scores
    `1 - smooth / (sum p + smooth)`; with `smooth=0` it costs 1, whatever the prediction. For soft
    targets only `squared=True` has its minimum at `p = y`.

    Args:
      smooth: Added to numerator and denominator, at least 0. Small values make the gradient of an
        image without the class large, about `1 / smooth` per pixel.
      squared: False, True (V-Net) or `"counts"` (nnU-Net's `square`).

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> labels = jnp.array([[[0, 0, 1], [0, 1, 1]]])
      >>> logits = 4.0 * jnp.array([[[1.0, 1.0, -1.0], [1.0, -1.0, 1.0]]])
      >>> logits = jnp.stack([logits, -logits], axis=-1)
      >>> print(jaxloss.dice(logits, labels).round(4))
      0.146

    Reference:
      Milletari, Navab and Ahmadi. V-Net. 3DV 2016. https://arxiv.org/abs/1606.04797
      Drozdzal et al. The Importance of Skip Connections in Biomedical Image Segmentation. 2016.
      https://arxiv.org/abs/1608.04117
    """
    pixels = read(logits, labels, options)
    return dice_of(pixels, options, smooth, squared, per_class=per_class)


@segmentation
def jaccard(
    logits: Numbers,
    labels: Numbers,
    *,
    smooth: NonNegative = 1.0,
    per_class: bool = True,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the soft Jaccard (intersection over union) loss of each image and class.

    With probabilities `p` and targets `y`, sums over an image's valid pixels::

        I       = sum p y
        Jaccard = 1 - (I + smooth) / (sum p + sum y - I + smooth)

    It is computed as wrong over right plus wrong, so it is exactly 0 for a perfect prediction and
    never negative. An image without the class scores `1 - smooth / (sum p + smooth)`; with
    `smooth=0` it costs 1, whatever the prediction. MONAI's `smooth` counts half.

    Args:
      smooth: Added to intersection and union, at least 0.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> p, y = jnp.array([[0.9, 0.8, 0.1]]), jnp.array([[1.0, 1.0, 0.0]])
      >>> print(jaxloss.jaccard(p, y, axis=None, activation=None, smooth=0).round(4))
      0.1905

    Reference:
      Rahman and Wang. Optimizing Intersection-Over-Union in Deep Neural Networks for Image
      Segmentation. ISVC 2016.
    """
    pixels = read(logits, labels, options)
    return score(_jaccard, pixels, options, smooth, per_class=per_class)


@segmentation
def tversky(
    logits: Numbers,
    labels: Numbers,
    *,
    alpha: NonNegative = 0.5,
    beta: NonNegative = 0.5,
    smooth: NonNegative = 1.0,
    per_class: bool = True,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the Tversky loss of each image and class: Dice with a price for each kind of error.

    With soft counts over an image's valid pixels::

        tp = sum p y    fp = sum p (1 - y)    fn = sum (1 - p) y
        Tversky = 1 - (tp + smooth) / (tp + alpha fp + beta fn + smooth)

    `alpha=beta=0.5` is Dice with twice the `smooth`, `alpha=beta=1` is Jaccard. A larger `beta`
    than `alpha` favours recall. `alpha` is the price of false positives, as in the paper; Abraham
    and Khan, and code that follows them, exchange the letters.

    It is computed as wrong over right plus wrong, so it is exactly 0 for a perfect prediction and
    never negative. With `smooth=0` an image without the class costs 1.

    Args:
      alpha: Price of false positives, at least 0.
      beta: Price of false negatives, at least 0. The paper's best are 0.3 and 0.7.
      smooth: Added to numerator and denominator, at least 0.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> p, y = jnp.array([[0.9, 0.2, 0.1]]), jnp.array([[1.0, 1.0, 0.0]])
      >>> print(jaxloss.tversky(p, y, alpha=0.3, beta=0.7, axis=None, activation=None).round(4))
      0.2391

    Reference:
      Salehi, Erdogmus and Gholipour. Tversky Loss Function for Image Segmentation Using 3D Fully
      Convolutional Deep Networks. MLMI 2017. https://arxiv.org/abs/1706.05721
    """
    pixels = read(logits, labels, options)
    return score(tversky_loss, pixels, options, alpha, beta, smooth, per_class=per_class)


def dice_of(
    pixels: Pixels,
    options: Mapping[str, Any],
    smooth: Array,
    squared: Squared,
    beside: Beside | None = None,
    per_class: bool = True,
) -> Array:
    """Returns the reduced Dice loss, and what is to be added to it."""
    checks.option("squared", squared, tuple(_DICE))
    formula, more = _DICE[squared]
    return score(formula, pixels, options, smooth, more=more, beside=beside, per_class=per_class)


def dice_loss(counts: Confusion, smooth: Array) -> Array:
    return complement(counts.fp + counts.fn, 2 * counts.tp + smooth)


def _dice_of_errors(counts: Confusion, smooth: Array) -> Array:
    (errors,) = counts.more
    return complement(errors, 2 * counts.tp + smooth)


def _errors(p: Array, q: Array, y: Array) -> tuple[Array]:
    return (difference(p, q, y) ** 2,)


def _dice_of_squares(counts: Confusion, smooth: Array) -> Array:
    tp, fp, fn = counts.more
    return complement(fp + fn, 2 * tp + smooth)


def _squares(p: Array, q: Array, y: Array) -> tuple[Array, Array, Array]:
    return (p * y) ** 2, (p * (1 - y)) ** 2, (q * y) ** 2


def _jaccard(counts: Confusion, smooth: Array) -> Array:
    return complement(counts.fp + counts.fn, counts.tp + smooth)


def tversky_loss(counts: Confusion, alpha: Array, beta: Array, smooth: Array) -> Array:
    return complement(alpha * counts.fp + beta * counts.fn, counts.tp + smooth)


_DICE = {
    False: (dice_loss, None),
    True: (_dice_of_errors, _errors),
    "counts": (_dice_of_squares, _squares),
}
