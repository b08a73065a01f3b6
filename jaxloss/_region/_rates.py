"""Rates of error: sensitivity and specificity, Matthews correlation, noise-robust Dice."""

from __future__ import annotations

from typing import Annotated, Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import numerics
from jaxloss._core.confusion import Confusion
from jaxloss._core.families import segmentation
from jaxloss._core.images import difference, read
from jaxloss._core.scores import score
from jaxloss.options import Fraction, Interval, NonNegative, Number, Numbers, Segmentation

__all__ = ["mcc", "noise_robust_dice", "sensitivity_specificity"]

Array = jax.Array


@segmentation
def sensitivity_specificity(
    logits: Numbers,
    labels: Numbers,
    *,
    r: Fraction = 0.05,
    smooth: NonNegative = 1.0,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the mean squared errors inside and outside of each class, weighted against another.

    With probabilities `p` and targets `y`, sums over an image's valid pixels::

        SS = r       sum (y - p)^2 y       / (sum y + smooth)
           + (1 - r) sum (y - p)^2 (1 - y) / (sum (1 - y) + smooth)

    The first term falls with the sensitivity, the second with the specificity; NiftyNet and SegLoss
    exchange the two names, not the terms. A small `r` makes up for there being many more pixels
    outside. It has its minimum, 0, at `p = y`, for soft targets too. A term of 0 / 0 is 0.

    The paper sums over the classes; this is their mean. NiftyNet adds 1e-5 to the denominators.

    Args:
      r: Weight of the error on the pixels of the class, in `[0, 1]`; the others weigh `1 - r`.
      smooth: Added to both denominators, at least 0.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> p, y = jnp.array([[0.9, 0.2, 0.1]]), jnp.array([[1.0, 1.0, 0.0]])
      >>> for r in (0.05, 0.5):
      ...     loss = jaxloss.sensitivity_specificity(p, y, r=r, axis=None, activation=None)
      ...     print(loss.round(4))
      0.0156
      0.1108

    Reference:
      Brosch et al. Deep Convolutional Encoder Networks for Multiple Sclerosis Lesion Segmentation.
      MICCAI 2015. https://doi.org/10.1007/978-3-319-24574-4_1
    """
    pixels = read(logits, labels, options)
    return score(_sensitivity_specificity, pixels, options, r, smooth, more=_squared_errors)


@segmentation
def mcc(
    logits: Numbers,
    labels: Numbers,
    *,
    smooth: NonNegative = 1.0,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes one minus the soft Matthews correlation coefficient of each image and class.

    With soft counts over an image's valid pixels and their sum `n`::

        tp = sum p y    fp = sum p (1 - y)    fn = sum (1 - p) y    tn = sum (1 - p)(1 - y)
        e   = smooth (fp + fn) / n
        MCC = (tp tn - fp fn) / sqrt((tp + fp + e)(tn + fn + e)(tp + fn)(tn + fp))
        L   = 1 - MCC
        L   = (fp + fn) / (fp + fn + smooth)    for an empty or a full target

    All four counts have a say, so a background that is far larger than the class is no advantage.
    The loss is in `[0, 2]`: 1 for a prediction that is unrelated to the target, such as a constant
    one, whatever the size of the object, more for one that is worse than that. `smooth` gives
    constant predictions a gradient; it goes with the errors, so that a perfect prediction costs 0.
    It is computed without the difference `1 - MCC`: exactly 0 for a perfect prediction, empty and
    full masks included, and accurate close to it. Counts are divided by their sum first, so no
    product overflows.

    segmentation-models-pytorch adds its 1e-5 to all four counts, takes probabilities and pools the
    batch.

    Args:
      smooth: At least 0. Without it an empty or a full prediction of an object has no gradient; of
        an empty or a full target, that many wrong pixels cost 1/2.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> y = jnp.array([[1.0, 1.0, 0.0, 0.0]])
      >>> for p in (y, 0.5 + 0 * y, 1 - y):
      ...     print(jaxloss.mcc(p, y, axis=None, activation=None, smooth=0).round(4))
      0.0
      1.0
      2.0

    Reference:
      Abhishek and Hamarneh. Matthews Correlation Coefficient Loss for Deep Convolutional Networks:
      Application to Skin Lesion Segmentation. ISBI 2021. https://arxiv.org/abs/2010.13454
    """
    return score(_mcc, read(logits, labels, options), options, smooth, more=true_negatives)


@segmentation
def noise_robust_dice(
    logits: Numbers,
    labels: Numbers,
    *,
    gamma: Annotated[Number, Interval("[1, 2]")] = 1.5,
    smooth: NonNegative = 1e-5,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the noise-robust Dice loss of each image and class.

    With probabilities `p` and targets `y`, sums over an image's valid pixels::

        NR = sum |p - y|^gamma / (sum p^2 + sum y^2 + smooth)

    `gamma=2` is :func:`jaxloss.dice` with `squared=True`; a smaller `gamma` weighs large errors
    less, as the mean absolute error does, and with them pixels whose label is wrong. It has its
    minimum, 0, at `p = y`, for soft targets too; there its gradient is 0 for every `gamma`.

    This is the paper's denominator; the authors' PyMIC divides by `sum (p + y)`.

    Args:
      gamma: Exponent of the errors, in `[1, 2]`.
      smooth: Added to the denominator, at least 0.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> p, y = jnp.array([[0.9, 0.2, 0.1]]), jnp.array([[1.0, 1.0, 0.0]])
      >>> print(jaxloss.noise_robust_dice(p, y, axis=None, activation=None).round(4))
      0.2723

    Reference:
      Wang et al. A Noise-Robust Framework for Automatic Segmentation of COVID-19 Pneumonia Lesions
      from CT Images. IEEE Transactions on Medical Imaging 2020.
      https://doi.org/10.1109/TMI.2020.3000314
    """
    pixels = read(logits, labels, options)
    return score(_noise_robust_dice, pixels, options, smooth, more=_powers, maps=(gamma,))


def _sensitivity_specificity(counts: Confusion, r: Array, smooth: Array) -> Array:
    missed, taken, others = counts.more
    sensitivity = numerics.divide(missed, counts.actual + smooth)
    return r * sensitivity + (1 - r) * numerics.divide(taken, others + smooth)


def _squared_errors(p: Array, q: Array, y: Array) -> tuple[Array, Array, Array]:
    square = difference(p, q, y) ** 2
    return square * y, square * (1 - y), 1 - y


def _mcc(counts: Confusion, smooth: Array) -> Array:
    """Returns `1 - r` of `r = (tp tn - fp fn) / root`, for `r > 0` as `(1 - r^2) / (1 + r)`.

    Of shares `tp + fp + fn + tn = 1`, with `joint = tp tn - fp fn`, `root^2` is `(joint + u)` times
    `(joint + v)`, where `u` and `v` hold the errors only: `root^2 - joint^2` does not cancel.
    """
    (tn,) = counts.more
    unit = numerics.reciprocal(counts.tp + counts.fp + counts.fn + tn)
    tp, fp, fn, tn, s = (x * unit for x in (counts.tp, counts.fp, counts.fn, tn, smooth))
    wrong = fp + fn
    e, joint = s * wrong, tp * tn - fp * fn
    u = fn * (tp + fp) + fp * (tn + fn) + e * (1 + e)
    v = fp * (tp + fn) + fn * (tn + fp)
    has_one = (tp + fn) * (tn + fp) == 0  # NaN counts as both
    root = numerics.sqrt((tp + fp + e) * (tn + fn + e)) * numerics.sqrt((tp + fn) * (tn + fp))
    inverse = numerics.reciprocal(root)
    r = joint * inverse
    apart = r * (u + v) * inverse + (u * inverse) * (v * inverse)
    missing, total = jnp.where(r > 0, apart, 1 - r), jnp.where(r > 0, 1 + r, 1)
    return jnp.where(has_one, numerics.share(wrong, s), missing * numerics.reciprocal(total))


def true_negatives(p: Array, q: Array, y: Array) -> tuple[Array]:
    return (q * (1 - y),)


def _noise_robust_dice(counts: Confusion, smooth: Array) -> Array:
    wrong, squares = counts.more
    return numerics.divide(wrong, squares + smooth)


def _powers(p: Array, q: Array, y: Array, gamma: Array) -> tuple[Array, Array]:
    return _power(difference(p, q, y), gamma), p * p + y * y


@jax.custom_jvp
def _power(error: Array, gamma: Array) -> Array:
    """Returns `|error| ** gamma`, with derivative 0 at 0."""
    return numerics.power(numerics.absolute(error), gamma)


@_power.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    # One factor for all of the slope: a CPU writes each select of a chain to memory.
    (error, gamma), (t, t_gamma) = primals, tangents
    value = _power(error, gamma)
    slope = gamma * numerics.divide(value, error)
    by_gamma = value * jnp.log(jnp.where(error == 0, 1, numerics.absolute(error)))
    return value, slope * t + by_gamma * t_gamma
