"""Generalised Dice: one ratio for all classes of an image, each weighted by its size."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, confusion, numerics, reduction
from jaxloss._core.reduction import AxisName

__all__ = ["generalized_dice", "penalty_generalized_dice"]

Array = jax.Array

WEIGHTINGS = {"square": 2, "simple": 1, "uniform": 0}


def generalized_dice(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    weighting: str = "square",
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
    """Computes the generalised Dice loss of each image: small classes count as much as large ones.

    With probabilities `p`, targets `y` and the class's size `T_c`, sums over an image's valid
    pixels::

        T_c = sum y_c
        w_c = 1 / T_c^2  ("square"),  1 / T_c  ("simple"),  1  ("uniform")
        GD  = (2 sum_c w_c sum p_c y_c + smooth) / (sum_c w_c sum (p_c + y_c) + smooth)
        L   = 1 - GD

    A class that an image's target does not hold takes the largest weight of the others. If the
    target holds no class at all, which only independent classes allow, the weights are 0 and so is
    the loss (1 with `smooth=0`), whatever the prediction.

    It is computed as wrong over right plus wrong, so it is exactly 0 for a perfect prediction and
    never negative. The weights vary with the labels: derivatives with respect to soft labels pass
    through them. This is Sudre's loss, as in MONAI and NiftyNet; Optax's
    `multiclass_generalized_dice_loss` is a weighted mean of the classes' own Dice losses.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      weighting: `"square"`, `"simple"` or `"uniform"`.
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
      class_weights: Factors of the classes' weights, shape `[C]`.
      per_image: Whether each image is scored by itself; False pools the batch.
      include_background: Whether class 0 takes part in the sums; it always does in the softmax.
      absent: `"score"` counts a class that an image's target does not hold, with the largest
        weight; `"skip"` leaves it out of the sums.
      reduction: `"mean"` over the images (0 if nothing is valid), `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean (the sums, if pooled) is taken globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar; with `reduction="none"` shape `[B]`, a scalar if pooled. float32 for half-precision
      input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        a number is out of its range, the background is excluded from a single class, or
        `ignore_index` comes with float labels.

    Example:
      A class of one pixel, missed or found:

      >>> import jax.numpy as jnp, jaxloss
      >>> labels = jnp.array([[0, 0, 0, 0, 0, 0, 0, 1]])
      >>> for small in (0.0, 1.0):
      ...     p = jnp.array([[0.0] * 7 + [small]])
      ...     p = jnp.stack([1 - p, p], axis=-1)
      ...     print(jaxloss.generalized_dice(p, labels, activation=None).round(4))
      0.7812
      0.0

    Reference:
      Sudre et al. Generalised Dice Overlap as a Deep Learning Loss Function for Highly Unbalanced
      Segmentations. DLMIA 2017. https://arxiv.org/abs/1707.03237
    """
    name = "generalized_dice"
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
    return generalized_of(
        name,
        pixels,
        weighting=weighting,
        smooth=smooth,
        include_background=include_background,
        absent=absent,
        reduction_=reduction,
    )


def penalty_generalized_dice(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    k: ArrayLike = 2.5,
    weighting: str = "square",
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
    """Computes the generalised Dice loss with a penalty on false positives and negatives.

    With the generalised Dice score `GD` of an image, see :func:`jaxloss.generalized_dice`::

        L = 1 - GD / (1 + k (1 - GD))

    which counts every error `1 + k` times, so `k=0` is generalised Dice. In contrast to Dice's its
    slope is steepest close to a perfect prediction. SegLoss feeds the negative of the score, which
    turns the penalty into its reverse.

    It is computed as wrong over right plus wrong, so it is exactly 0 for a perfect prediction and
    never negative. Absent classes and images without any are treated as in generalised Dice.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      k: The penalty, at least 0.
      weighting: `"square"`, `"simple"` or `"uniform"`.
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
      class_weights: Factors of the classes' weights, shape `[C]`.
      per_image: Whether each image is scored by itself; False pools the batch.
      include_background: Whether class 0 takes part in the sums; it always does in the softmax.
      absent: `"score"` counts a class that an image's target does not hold, with the largest
        weight; `"skip"` leaves it out of the sums.
      reduction: `"mean"` over the images (0 if nothing is valid), `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean (the sums, if pooled) is taken globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar; with `reduction="none"` shape `[B]`, a scalar if pooled. float32 for half-precision
      input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        a number is out of its range, the background is excluded from a single class, or
        `ignore_index` comes with float labels.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> labels = jnp.array([[0, 0, 0, 0, 0, 0, 0, 1]])
      >>> p = jnp.array([[0.0] * 7 + [0.8]])
      >>> p = jnp.stack([1 - p, p], axis=-1)
      >>> for k in (0.0, 2.5):
      ...     print(jaxloss.penalty_generalized_dice(p, labels, k=k, activation=None).round(4))
      0.0977
      0.2747

    Reference:
      Yang, Kweon and Kim. Major Vessel Segmentation on X-ray Coronary Angiography using Deep
      Networks with a Novel Penalty Loss Function. MIDL 2019.
      https://openreview.net/forum?id=H1lTh8unKN
    """
    name = "penalty_generalized_dice"
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
    return generalized_of(
        name,
        pixels,
        weighting=weighting,
        smooth=smooth,
        penalty=checks.number(name, "k", k, pixels.p.dtype, "[0, inf)"),
        include_background=include_background,
        absent=absent,
        reduction_=reduction,
    )


def generalized_of(
    function: str,
    pixels: confusion.Pixels,
    *,
    weighting: str,
    smooth: ArrayLike,
    include_background: bool,
    absent: str,
    reduction_: str,
    penalty: Array | float = 0.0,
) -> Array:
    """Returns the reduced loss of all images, every error counted `1 + penalty` times."""
    checks.option(function, "weighting", weighting, tuple(WEIGHTINGS))
    checks.option(function, "absent", absent, confusion.ABSENT)
    checks.option(function, "include_background", include_background, (True, False))
    smooth = checks.number(function, "smooth", smooth, pixels.p.dtype, "[0, inf)")
    axis_name = pixels.axis_name if pixels.per_image else None

    def finish(
        counts: confusion.Confusion, valid: Array, factors: Array | None, *parameters: Array
    ) -> Array:
        smooth, penalty = parameters
        right, wrong, size = 2 * counts.tp, counts.fp + counts.fn, counts.actual
        part = jnp.zeros_like(size, bool) | (valid > 0)
        if pixels.axis is None:
            right, wrong, size, part = (x[..., None] for x in (right, wrong, size, part))
        if not include_background:
            if size.shape[-1] == 1:
                got = "False with a single class"
                checks.fail(ValueError, function, "include_background", got, "True")
            right, wrong, size, part = (x[..., 1:] for x in (right, wrong, size, part))
            factors = None if factors is None else factors[1:]
        if absent == "skip":
            part = part & (size != 0)
        weight, unit = _weights(size, WEIGHTINGS[weighting])
        weight = jnp.where(part, weight, 0)
        if factors is not None:
            weight = weight * factors.reshape((1,) * (size.ndim - 1) + (-1,))
        wrong, right = (weight * wrong).sum(-1), (weight * right).sum(-1)
        loss = confusion.complement((1 + penalty) * wrong, right + smooth * unit)
        return reduction.reduce(function, loss, reduction_, mask=part.any(-1), axis_name=axis_name)

    penalty = jnp.asarray(penalty, smooth.dtype)
    scalar = reduction_ in ("mean", "sum")
    return confusion.of_counts(finish, pixels, smooth, penalty, scalar=scalar)


def _weights(size: Array, exponent: int) -> tuple[Array, Array]:
    """Returns `size ** -exponent` of each class over the largest of the image, and its inverse.

    The ratio does not change, and no weight overflows where a class is all but absent.
    """
    if exponent == 0:
        return jnp.ones_like(size), jnp.ones_like(size[..., 0])
    missing = size == 0
    smallest = jnp.where(missing, jnp.inf, size).min(-1, keepdims=True)
    empty = smallest == jnp.inf
    smallest = jnp.where(empty, 1, smallest)
    share = jnp.where(missing, 1, numerics.divide(smallest, size))
    return jnp.where(empty, 0, share**exponent), (smallest**exponent)[..., 0]
