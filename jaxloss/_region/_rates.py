"""Rates of error: sensitivity and specificity, Matthews correlation, noise-robust Dice."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, confusion, numerics
from jaxloss._core.reduction import AxisName

__all__ = ["mcc", "noise_robust_dice", "sensitivity_specificity"]

Array = jax.Array


def sensitivity_specificity(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    r: ArrayLike = 0.05,
    smooth: ArrayLike = 1.0,
    activation: str | None = "auto",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    per_image: bool = True,
    include_background: bool = True,
    absent: str = "score",
    reduction: str = "mean",
    axis_name: AxisName | None = None,
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
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      r: Weight of the error on the pixels of the class, in `[0, 1]`; the others weigh `1 - r`.
      smooth: Added to both denominators, at least 0.
      activation: `"auto"` (softmax for ids, sigmoid for labels of the logits' shape), `"softmax"`,
        `"sigmoid"`, or None where `logits` already are probabilities. One-hot labels that are
        meant to compete need `"softmax"`.
      axis: The class axis; any axis works (1 for NCHW). None: binary masks without a class axis,
        labels of the logits' shape. The first remaining axis is the image, the others its pixels.
      where: Boolean mask of the pixels, the rank of the ids (sigmoid: or of the logits) with each
        dimension equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of the pixels in every sum, shaped like `where`.
      ignore_index: The integer label of pixels to leave out.
      class_weights: The weights of the mean over classes, shape `[C]`; they are normalised.
      per_image: Whether each image is scored by itself; False pools the batch.
      include_background: Whether class 0 takes part in the mean; it always does in the softmax.
      absent: `"score"` scores a class that an image's target does not hold like any other;
        `"skip"` leaves it out of the mean.
      reduction: `"mean"` over the classes of an image that take part, then over images (0 if
        nothing is valid), `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean (the sums, if pooled) is taken globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar; with `reduction="none"` shape `[B, C]` (less the background), `[C]` if pooled, `[B]`
      for `axis=None`. float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        a number is out of its range, the background is excluded from a single class, or
        `ignore_index` comes with float labels.

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
    name = "sensitivity_specificity"
    pixels = confusion.read(
        name,
        logits,
        labels,
        activation=activation,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
        per_image=per_image,
        axis_name=axis_name,
    )
    dtype = pixels.p.dtype
    r = checks.number(name, "r", r, dtype, "[0, 1]")
    smooth = checks.number(name, "smooth", smooth, dtype, "[0, inf)")

    def more(p: Array, y: Array) -> tuple[Array, ...]:
        error = (y - p) ** 2
        return error * y, error * (1 - y), 1 - y

    def loss(counts: confusion.Confusion, r: Array, smooth: Array) -> Array:
        missed, taken, others = counts.more
        sensitivity = numerics.divide(missed, counts.actual + smooth)
        return r * sensitivity + (1 - r) * numerics.divide(taken, others + smooth)

    return confusion.score(
        name,
        loss,
        pixels,
        reduction,
        r,
        smooth,
        more=more,
        include_background=include_background,
        absent=absent,
    )


def mcc(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    smooth: ArrayLike = 1.0,
    activation: str | None = "auto",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    per_image: bool = True,
    include_background: bool = True,
    absent: str = "score",
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes one minus the soft Matthews correlation coefficient of each image and class.

    With soft counts over an image's valid pixels, and `smooth` added to `tp` and `tn`::

        tp = sum p y    fp = sum p (1 - y)    fn = sum (1 - p) y    tn = sum (1 - p)(1 - y)
        MCC = (tp tn - fp fn) / sqrt((tp + fp)(tp + fn)(tn + fp)(tn + fn))
        L   = 1 - MCC

    All four counts have a say, so a background that is far larger than the class is no advantage.
    The loss is in `[0, 2)`: 1 for a prediction that is unrelated to the target, more for one that
    is worse than that. It is computed without the difference `1 - MCC`: exactly 0 for a perfect
    prediction, empty and full masks included, and accurate close to it. Counts are divided by their
    sum first, so no product overflows.

    segmentation-models-pytorch adds its 1e-5 to all four counts, takes probabilities and pools the
    batch. With `smooth=0` an empty or a full mask costs 1, whatever the prediction.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      smooth: Added to true positives and true negatives, at least 0.
      activation: `"auto"` (softmax for ids, sigmoid for labels of the logits' shape), `"softmax"`,
        `"sigmoid"`, or None where `logits` already are probabilities. One-hot labels that are
        meant to compete need `"softmax"`.
      axis: The class axis; any axis works (1 for NCHW). None: binary masks without a class axis,
        labels of the logits' shape. The first remaining axis is the image, the others its pixels.
      where: Boolean mask of the pixels, the rank of the ids (sigmoid: or of the logits) with each
        dimension equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of the pixels in every sum, shaped like `where`.
      ignore_index: The integer label of pixels to leave out.
      class_weights: The weights of the mean over classes, shape `[C]`; they are normalised.
      per_image: Whether each image is scored by itself; False pools the batch.
      include_background: Whether class 0 takes part in the mean; it always does in the softmax.
      absent: `"score"` scores a class that an image's target does not hold like any other;
        `"skip"` leaves it out of the mean.
      reduction: `"mean"` over the classes of an image that take part, then over images (0 if
        nothing is valid), `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean (the sums, if pooled) is taken globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar; with `reduction="none"` shape `[B, C]` (less the background), `[C]` if pooled, `[B]`
      for `axis=None`. float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        a number is out of its range, the background is excluded from a single class, or
        `ignore_index` comes with float labels.

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
    name = "mcc"
    pixels = confusion.read(
        name,
        logits,
        labels,
        activation=activation,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
        per_image=per_image,
        axis_name=axis_name,
    )
    smooth = checks.number(name, "smooth", smooth, pixels.p.dtype, "[0, inf)")

    def loss(counts: confusion.Confusion, smooth: Array) -> Array:
        # Not from the number of pixels, from which a small count of negatives would not survive.
        (others,) = counts.more
        return _uncorrelated(counts.tp, counts.fp, counts.fn, others - counts.fp, smooth)

    return confusion.score(
        name,
        loss,
        pixels,
        reduction,
        smooth,
        more=lambda p, y: (1 - y,),
        include_background=include_background,
        absent=absent,
    )


def noise_robust_dice(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: ArrayLike = 1.5,
    smooth: ArrayLike = 1e-5,
    activation: str | None = "auto",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    per_image: bool = True,
    include_background: bool = True,
    absent: str = "score",
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the noise-robust Dice loss of each image and class.

    With probabilities `p` and targets `y`, sums over an image's valid pixels::

        NR = sum |p - y|^gamma / (sum p^2 + sum y^2 + smooth)

    `gamma=2` is :func:`jaxloss.dice` with `squared=True`; a smaller `gamma` weighs large errors
    less, as the mean absolute error does, and with them pixels whose label is wrong. It has its
    minimum, 0, at `p = y`, for soft targets too; there its gradient is 0 for every `gamma`.

    This is the paper's denominator; the authors' PyMIC divides by `sum (p + y)`.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      gamma: Exponent of the errors, in `[1, 2]`.
      smooth: Added to the denominator, at least 0.
      activation: `"auto"` (softmax for ids, sigmoid for labels of the logits' shape), `"softmax"`,
        `"sigmoid"`, or None where `logits` already are probabilities. One-hot labels that are
        meant to compete need `"softmax"`.
      axis: The class axis; any axis works (1 for NCHW). None: binary masks without a class axis,
        labels of the logits' shape. The first remaining axis is the image, the others its pixels.
      where: Boolean mask of the pixels, the rank of the ids (sigmoid: or of the logits) with each
        dimension equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of the pixels in every sum, shaped like `where`.
      ignore_index: The integer label of pixels to leave out.
      class_weights: The weights of the mean over classes, shape `[C]`; they are normalised.
      per_image: Whether each image is scored by itself; False pools the batch.
      include_background: Whether class 0 takes part in the mean; it always does in the softmax.
      absent: `"score"` scores a class that an image's target does not hold like any other;
        `"skip"` leaves it out of the mean.
      reduction: `"mean"` over the classes of an image that take part, then over images (0 if
        nothing is valid), `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean (the sums, if pooled) is taken globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar; with `reduction="none"` shape `[B, C]` (less the background), `[C]` if pooled, `[B]`
      for `axis=None`. float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        a number is out of its range, the background is excluded from a single class, or
        `ignore_index` comes with float labels.

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
    name = "noise_robust_dice"
    pixels = confusion.read(
        name,
        logits,
        labels,
        activation=activation,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
        per_image=per_image,
        axis_name=axis_name,
    )
    dtype = pixels.p.dtype
    gamma = checks.number(name, "gamma", gamma, dtype, "[1, 2]")
    smooth = checks.number(name, "smooth", smooth, dtype, "[0, inf)")

    def loss(counts: confusion.Confusion, smooth: Array) -> Array:
        wrong, squares = counts.more
        return numerics.divide(wrong, squares + smooth)

    return confusion.score(
        name,
        loss,
        pixels,
        reduction,
        smooth,
        more=lambda p, y, gamma: (_error(p, y, gamma), p * p + y * y),
        extra=(gamma,),
        include_background=include_background,
        absent=absent,
    )


def _uncorrelated(tp: Array, fp: Array, fn: Array, tn: Array, smooth: Array) -> Array:
    """Returns `1 - MCC` as a quotient; 1 where it is 0 / 0.

    With `joint = tp tn - fp fn`, the two factors under the root are `joint + u` and `joint + v`,
    where `u` and `v` hold the errors only.
    """
    size = tp + fp + fn + tn + smooth
    size = jnp.where(size == 0, 1, size)
    tp, fp, fn, tn = (tp + smooth) / size, fp / size, fn / size, (tn + smooth) / size
    joint = tp * tn - fp * fn
    u = fn * (tp + fp) + fp * (tn + fn)
    v = fp * (tp + fn) + fn * (tn + fp)
    root = numerics.sqrt((tp + fp) * (tn + fn)) * numerics.sqrt((tp + fn) * (tn + fp))
    better = joint > 0  # than chance: then `root - joint` cancels
    both = jnp.where(better, root + joint, 1)
    apart = joint / both * (u + v) + u / both * v
    return jnp.where(root == 0, 1, numerics.divide(jnp.where(better, apart, root - joint), root))


@jax.custom_jvp
def _error(p: Array, y: Array, gamma: Array) -> Array:
    """Returns `|p - y| ** gamma`, with derivative 0 at `p = y`."""
    return numerics.power(numerics.absolute(p - y), gamma)


@_error.defjvp
def _(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    # One factor for all of the slope: a CPU writes each select of a chain to memory.
    (p, y, gamma), (t_p, t_y, t_gamma) = primals, tangents
    value, off = _error(p, y, gamma), p - y
    slope = gamma * numerics.divide(value, off)
    by_gamma = value * jnp.log(jnp.where(off == 0, 1, numerics.absolute(off)))
    return value, slope * (t_p - t_y) + by_gamma * t_gamma
