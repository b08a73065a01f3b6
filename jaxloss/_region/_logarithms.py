"""Dice on another scale: its negative logarithm, and log-cosh of its loss."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, confusion, numerics
from jaxloss._core.reduction import AxisName

__all__ = ["log_cosh_dice", "log_dice"]

Array = jax.Array


def log_dice(
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

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
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
      >>> p, y = jnp.array([[0.9, 0.8, 0.1]]), jnp.array([[1.0, 1.0, 0.0]])
      >>> print(jaxloss.log_dice(p, y, axis=None, activation=None, smooth=0).round(4))
      0.1112

    Reference:
      Wong et al. 3D Segmentation with Exponential Logarithmic Loss for Highly Unbalanced Object
      Sizes. MICCAI 2018. https://arxiv.org/abs/1809.00076
    """
    name = "log_dice"
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
        wrong, right = counts.fp + counts.fn, 2 * counts.tp + smooth
        tiny = jnp.finfo(right.dtype).tiny
        scored = ~(right <= tiny * (right + wrong))  # NaN stays NaN
        odds = numerics.divide(wrong, jnp.where(scored, right, 1))
        return jnp.where(scored, jnp.log1p(odds), -jnp.log(jnp.asarray(tiny, odds.dtype)))

    return confusion.score(
        name,
        loss,
        pixels,
        reduction,
        smooth,
        include_background=include_background,
        absent=absent,
    )


def log_cosh_dice(
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
    """Computes the logarithm of the hyperbolic cosine of each image's and class's Dice loss.

    With probabilities `p` and targets `y`, sums over an image's valid pixels::

        dice = 1 - (2 sum p y + smooth) / (sum p + sum y + smooth)
        L    = log cosh dice

    About `dice^2 / 2` near a perfect prediction, where its gradient goes to 0, and 0.4338 at a
    wholly wrong one. It is exactly 0 for a perfect prediction and accurate close to it, where
    `cosh` rounds to 1. The paper's code pools the batch (`per_image=False`).

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
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
      >>> p, y = jnp.array([[0.9, 0.8, 0.1]]), jnp.array([[1.0, 1.0, 0.0]])
      >>> print(jaxloss.log_cosh_dice(p, y, axis=None, activation=None, smooth=0).round(5))
      0.00553

    Reference:
      Jadon. A Survey of Loss Functions for Semantic Segmentation. CIBCB 2020.
      https://arxiv.org/abs/2006.14822
    """
    name = "log_cosh_dice"
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
        dice = confusion.complement(counts.fp + counts.fn, 2 * counts.tp + smooth)
        return jnp.log1p(jnp.sinh(dice) ** 2) / 2  # cosh^2 = 1 + sinh^2

    return confusion.score(
        name,
        loss,
        pixels,
        reduction,
        smooth,
        include_background=include_background,
        absent=absent,
    )
