"""Ratios that price the two kinds of error: F-beta, asymmetric similarity, focal Tversky."""

from typing import Any

import jax
from jax.typing import ArrayLike

from jaxloss._core import checks, confusion, numerics
from jaxloss._core.reduction import AxisName

__all__ = ["asymmetric_similarity", "f_beta", "focal_tversky"]

Array = jax.Array


def f_beta(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    beta: ArrayLike = 1.0,
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
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      beta: How much more recall counts than precision, at least 0.
      smooth: Added to numerator and denominator, at least 0.
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
    name = "f_beta"
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
    return _f_beta(
        name,
        pixels,
        beta,
        smooth,
        reduction,
        include_background=include_background,
        absent=absent,
    )


def asymmetric_similarity(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    beta: ArrayLike = 1.5,
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
    """Computes the asymmetric similarity loss: F-beta with the price its authors recommend.

    With soft counts over an image's valid pixels::

        tp = sum p y    fp = sum p (1 - y)    fn = sum (1 - p) y
        ASL = 1 - ((1 + beta^2) tp + smooth) / ((1 + beta^2) tp + beta^2 fn + fp + smooth)

    It is :func:`jaxloss.f_beta` with `beta=1.5`: a missed pixel costs 2.25 times as much as one too
    many. Code that divides all by `1 + beta^2` first, as SegLoss does with weights 0.692
    and 0.308, adds a `smooth` that is `1 + beta^2` times as large here.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      beta: How much more recall counts than precision, at least 0.
      smooth: Added to numerator and denominator, at least 0.
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
    name = "asymmetric_similarity"
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
    return _f_beta(
        name,
        pixels,
        beta,
        smooth,
        reduction,
        include_background=include_background,
        absent=absent,
    )


def focal_tversky(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike = 0.3,
    beta: ArrayLike = 0.7,
    gamma: ArrayLike = 0.75,
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
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      alpha: Price of false positives, at least 0.
      beta: Price of false negatives, at least 0.
      gamma: The exponent, above 0.
      smooth: Added to numerator and denominator, at least 0.
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
      >>> print(jaxloss.focal_tversky(p, y, axis=None, activation=None).round(4))
      0.3419

    Reference:
      Abraham and Khan. A Novel Focal Tversky Loss Function with Improved Attention U-Net for
      Lesion Segmentation. ISBI 2019. https://arxiv.org/abs/1810.07842
    """
    name = "focal_tversky"
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
    alpha = checks.number(name, "alpha", alpha, dtype, "[0, inf)")
    beta = checks.number(name, "beta", beta, dtype, "[0, inf)")
    gamma = checks.number(name, "gamma", gamma, dtype, "(0, inf)")
    smooth = checks.number(name, "smooth", smooth, dtype, "[0, inf)")

    def loss(counts: confusion.Confusion, *parameters: Array) -> Array:
        alpha, beta, gamma, smooth = parameters
        tversky = confusion.complement(alpha * counts.fp + beta * counts.fn, counts.tp + smooth)
        return numerics.power(tversky, gamma)

    return confusion.score(
        name,
        loss,
        pixels,
        reduction,
        alpha,
        beta,
        gamma,
        smooth,
        include_background=include_background,
        absent=absent,
    )


def _f_beta(
    function: str,
    pixels: confusion.Pixels,
    beta: ArrayLike,
    smooth: ArrayLike,
    reduction: str,
    **options: Any,
) -> Array:
    """Returns the reduced F-beta loss."""
    dtype = pixels.p.dtype
    square = checks.number(function, "beta", beta, dtype, "[0, inf)") ** 2
    smooth = checks.number(function, "smooth", smooth, dtype, "[0, inf)")

    def loss(counts: confusion.Confusion, square: Array, smooth: Array) -> Array:
        return confusion.complement(
            square * counts.fn + counts.fp, (1 + square) * counts.tp + smooth
        )

    return confusion.score(function, loss, pixels, reduction, square, smooth, **options)
