"""Weighted sums of Dice and a distribution loss."""

from collections.abc import Callable
from typing import Any

import jax
from jax.typing import ArrayLike

from jaxloss._compound._parts import dice_and
from jaxloss._core import checks
from jaxloss._core.confusion import Data
from jaxloss._core.labels import Competing
from jaxloss._core.lean import Costs
from jaxloss._core.reduction import AxisName
from jaxloss._distribution._cross_entropy import competing_entropy, independent_entropy, spread
from jaxloss._distribution._focal import competing_focal, independent_focal
from jaxloss._distribution._hard_examples import reduce_hardest

__all__ = ["dice_cross_entropy", "dice_focal", "dice_top_k"]

Array = jax.Array


def dice_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    dice_weight: ArrayLike = 1.0,
    cross_entropy_weight: ArrayLike = 1.0,
    smooth: ArrayLike = 1.0,
    squared: bool | str = False,
    label_smoothing: ArrayLike = 0.0,
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
    """Computes the sum of soft Dice and cross-entropy, the loss of nnU-Net.

    Dice looks at each image and class as a whole, cross-entropy at each pixel::

        dice_weight dice + cross_entropy_weight cross_entropy

    The cross-entropy is that of the activation: :func:`jaxloss.cross_entropy` where classes
    compete, :func:`jaxloss.binary_cross_entropy` where each logit has its own target. Masks and
    weights act on both parts.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      dice_weight: Factor of Dice, at least 0.
      cross_entropy_weight: Factor of the cross-entropy, at least 0.
      smooth: Added to Dice's numerator and denominator, at least 0.
      squared: Dice's form: False, True (V-Net) or `"counts"` (nnU-Net's `square`).
      label_smoothing: That of the cross-entropy, in `[0, 1)`.
      activation: `"auto"` (softmax for ids, sigmoid for labels of the logits' shape), `"softmax"`,
        `"sigmoid"`, or None where `logits` already are probabilities. One-hot labels that are
        meant to compete need `"softmax"`.
      axis: The class axis; any axis works (1 for NCHW). None: binary masks without a class axis,
        labels of the logits' shape. The first remaining axis is the image, the others its pixels.
      where: Boolean mask of the pixels, the rank of the ids (sigmoid: or of the logits) with each
        dimension equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of the pixels in every sum, shaped like `where`.
      ignore_index: The integer label of pixels to leave out.
      class_weights: One weight per class, shape `[C]`, in both parts.
      per_image: Whether Dice scores each image by itself; False pools the batch.
      include_background: Whether class 0 takes part in Dice; it always does in the cross-entropy.
      absent: `"score"` scores a class that an image's target does not hold like any other;
        `"skip"` leaves it out of Dice.
      reduction: `"mean"` or `"sum"` of each part; they have no elements in common.
      axis_name: Mesh axis over which the mean (the sums, if pooled) is taken globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        a number is out of its range, the background is excluded from a single class,
        `ignore_index` comes with float labels, or `reduction` is neither `"mean"` nor `"sum"`.

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
    name = "dice_cross_entropy"
    is_p = activation is None

    shares = _shares(name, dice_weight=dice_weight, cross_entropy_weight=cross_entropy_weight)
    return dice_and(
        name,
        lambda data: (_entropy(name, data, label_smoothing, is_p), data),
        shares,
        logits,
        labels,
        smooth=smooth,
        squared=squared,
        activation=activation,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
        per_image=per_image,
        include_background=include_background,
        absent=absent,
        reduction=reduction,
        axis_name=axis_name,
    )


def dice_focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    dice_weight: ArrayLike = 1.0,
    focal_weight: ArrayLike = 1.0,
    smooth: ArrayLike = 1.0,
    squared: bool | str = False,
    gamma: ArrayLike = 2.0,
    alpha: ArrayLike | None = None,
    label_smoothing: ArrayLike = 0.0,
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
    """Computes the sum of soft Dice and the focal loss.

    Dice balances small structures against large ones, the focal loss hard pixels against easy
    ones::

        dice_weight dice + focal_weight focal

    The focal loss is that of the activation: :func:`jaxloss.softmax_focal` where classes compete,
    :func:`jaxloss.sigmoid_focal` where each logit has its own target. MONAI's `DiceFocalLoss` takes
    the sigmoid one even beside a softmax Dice; its `smooth_nr` and `smooth_dr` are `smooth`.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      dice_weight: Factor of Dice, at least 0.
      focal_weight: Factor of the focal loss, at least 0.
      smooth: Added to Dice's numerator and denominator, at least 0.
      squared: Dice's form: False, True (V-Net) or `"counts"` (nnU-Net's `square`).
      gamma: Focusing exponent, at least 0; larger values discount easy pixels more.
      alpha: Sigmoid: the weight of positives, in `[0, 1]`; negatives weigh `1 - alpha`. Softmax: a
        scalar or one factor per class `[C]`, at least 0. It never enters the mean's denominator.
        None: 1.
      label_smoothing: That of the focal loss, in `[0, 1)`.
      activation: `"auto"` (softmax for ids, sigmoid for labels of the logits' shape), `"softmax"`,
        `"sigmoid"`, or None where `logits` already are probabilities. One-hot labels that are
        meant to compete need `"softmax"`.
      axis: The class axis; any axis works (1 for NCHW). None: binary masks without a class axis,
        labels of the logits' shape. The first remaining axis is the image, the others its pixels.
      where: Boolean mask of the pixels, the rank of the ids (sigmoid: or of the logits) with each
        dimension equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of the pixels in every sum, shaped like `where`.
      ignore_index: The integer label of pixels to leave out.
      class_weights: One weight per class, shape `[C]`, in both parts.
      per_image: Whether Dice scores each image by itself; False pools the batch.
      include_background: Whether class 0 takes part in Dice; it always does in the focal loss.
      absent: `"score"` scores a class that an image's target does not hold like any other;
        `"skip"` leaves it out of Dice.
      reduction: `"mean"` or `"sum"` of each part; they have no elements in common.
      axis_name: Mesh axis over which the mean (the sums, if pooled) is taken globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        a number is out of its range, the background is excluded from a single class,
        `ignore_index` comes with float labels, or `reduction` is neither `"mean"` nor `"sum"`.

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
    name = "dice_focal"
    options = (gamma, alpha, label_smoothing, activation is None)

    def focused(data: Data) -> tuple[Costs, Data]:
        if isinstance(data, Competing):
            return competing_focal(name, data, *options), data
        return independent_focal(name, data, *options), data

    shares = _shares(name, dice_weight=dice_weight, focal_weight=focal_weight)
    return dice_and(
        name,
        focused,
        shares,
        logits,
        labels,
        smooth=smooth,
        squared=squared,
        activation=activation,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
        per_image=per_image,
        include_background=include_background,
        absent=absent,
        reduction=reduction,
        axis_name=axis_name,
    )


def dice_top_k(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    dice_weight: ArrayLike = 1.0,
    top_k_weight: ArrayLike = 1.0,
    smooth: ArrayLike = 1.0,
    squared: bool | str = False,
    fraction: ArrayLike = 0.1,
    label_smoothing: ArrayLike = 0.0,
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
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      dice_weight: Factor of Dice, at least 0.
      top_k_weight: Factor of the cross-entropy of the hardest pixels, at least 0.
      smooth: Added to Dice's numerator and denominator, at least 0.
      squared: Dice's form: False, True (V-Net) or `"counts"` (nnU-Net's `square`).
      fraction: The share of the valid pixels that is selected, in `(0, 1]`; 1 takes all.
      label_smoothing: That of the cross-entropy, in `[0, 1)`.
      activation: `"auto"` (softmax for ids, sigmoid for labels of the logits' shape), `"softmax"`,
        `"sigmoid"`, or None where `logits` already are probabilities. One-hot labels that are
        meant to compete need `"softmax"`.
      axis: The class axis; any axis works (1 for NCHW). None: binary masks without a class axis,
        labels of the logits' shape. The first remaining axis is the image, the others its pixels.
      where: Boolean mask of the pixels, the rank of the ids (sigmoid: or of the logits) with each
        dimension equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of the pixels in every sum, shaped like `where`.
      ignore_index: The integer label of pixels to leave out.
      class_weights: One weight per class, shape `[C]`, in both parts.
      per_image: Whether Dice scores each image by itself; False pools the batch.
      include_background: Whether class 0 takes part in Dice; it always does in the cross-entropy.
      absent: `"score"` scores a class that an image's target does not hold like any other;
        `"skip"` leaves it out of Dice.
      reduction: `"mean"` or `"sum"` of each part; they have no elements in common.
      axis_name: Mesh axis over which the mean (the sums, if pooled) is taken globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        a number is out of its range, the background is excluded from a single class,
        `ignore_index` comes with float labels, or `reduction` is neither `"mean"` nor `"sum"`.

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
    name = "dice_top_k"
    is_p = activation is None

    def hard_pixels(data: Data) -> Array:
        share = checks.number(name, "fraction", fraction, data.logits.dtype, "(0, 1]")
        values = _entropy(name, data, label_smoothing, is_p)
        return reduce_hardest(name, values, share, reduction, data, axis_name)

    shares = _shares(name, dice_weight=dice_weight, top_k_weight=top_k_weight)
    return dice_and(
        name,
        hard_pixels,
        shares,
        logits,
        labels,
        smooth=smooth,
        squared=squared,
        activation=activation,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
        per_image=per_image,
        include_background=include_background,
        absent=absent,
        reduction=reduction,
        axis_name=axis_name,
    )


def _shares(function: str, **weights: ArrayLike) -> Callable[[Any], tuple[Array, ...]]:
    """Returns what gives the factors of Dice and of the other part in a dtype."""
    return lambda dtype: tuple(
        checks.number(function, name, weight, dtype, "[0, inf)") for name, weight in weights.items()
    )


def _entropy(
    function: str,
    data: Data,
    label_smoothing: ArrayLike,
    probabilities: bool,
) -> Costs:
    """Returns the cross-entropy of each position, or of each element."""
    if isinstance(data, Competing):
        smoothing = spread(function, label_smoothing, data.logits.dtype)
        return competing_entropy(data, smoothing, probabilities=probabilities)
    return independent_entropy(function, data, label_smoothing, probabilities=probabilities)
