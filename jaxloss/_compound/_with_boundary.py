"""Dice beside a loss of the boundary."""

import jax
from jax import lax
from jax.typing import ArrayLike

from jaxloss._boundary._hausdorff import hausdorff_of
from jaxloss._boundary._maps import Sampling, scored
from jaxloss._boundary._surface import boundary_of
from jaxloss._core import checks, confusion, numerics
from jaxloss._core.reduction import AxisName
from jaxloss._region._generalized import generalized_of
from jaxloss._region._overlap import dice_of

__all__ = ["dice_boundary", "dice_hausdorff"]

Array = jax.Array


def dice_boundary(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike = 0.5,
    weighting: str = "square",
    smooth: ArrayLike = 1e-5,
    distance_map: ArrayLike | None = None,
    sampling: Sampling = None,
    activation: str | None = "auto",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    per_image: bool = True,
    include_background: bool | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes a blend of generalised Dice and the boundary loss.

    Dice finds the object, the boundary loss moves its outline::

        alpha generalized_dice + (1 - alpha) boundary

    The boundary loss alone finds no object from a random start. The paper's schedule has `alpha`
    fall from 1 by 0.01 an epoch down to 0.01. `alpha` may be traced: inside a compiled train step
    the value of an Optax schedule costs no second compilation::

        alpha = optax.linear_schedule(1.0, 0.01, transition_steps=99)(step // steps_per_epoch)

    Its minimum depends on the target and may be negative, as that of :func:`jaxloss.boundary`;
    Dice is :func:`jaxloss.generalized_dice`. Both leave out class 0 where classes compete, unless
    `include_background` says otherwise.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      alpha: Share of Dice, in `[0, 1]`; the boundary loss has the rest.
      weighting: The weight of a class in Dice: `"square"`, one over its squared size, `"simple"`,
        one over its size, or `"uniform"`.
      smooth: Added to Dice's numerator and denominator, at least 0.
      distance_map: The signed distances, if computed before, in the shape of `logits`.
      sampling: Size of a pixel along each spatial axis, one number or one per axis; None: 1.
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
      per_image: Whether each image is scored by itself; False pools the batch.
      include_background: Whether class 0 takes part; None: unless classes compete.
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
      >>> y = jnp.array([[[0.0, 0.0, 0.0, 1.0, 1.0]]])
      >>> p = jnp.array([[[0.5, 0.0, 0.5, 0.8, 0.8]]])
      >>> for alpha in (1.0, 0.5, 0.01):
      ...     print(jaxloss.dice_boundary(p, y, alpha=alpha, axis=None, activation=None).round(4))
      0.3043
      0.2722
      0.2406

    Reference:
      Kervadec et al. Boundary Loss for Highly Unbalanced Segmentation. MIDL 2019.
      https://arxiv.org/abs/1812.07032
    """
    name = "dice_boundary"
    checks.option(name, "reduction", reduction, ("mean", "sum"))
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
    share = checks.number(name, "alpha", alpha, pixels.p.dtype, "[0, 1]")
    pixels, phi = scored(name, pixels, include_background, distance_map)
    dice = generalized_of(
        name,
        pixels,
        weighting=weighting,
        smooth=smooth,
        include_background=True,
        absent="score",
        reduction_=reduction,
    )
    surface = boundary_of(name, pixels, phi, sampling, reduction)
    return share * dice + (1 - share) * surface


def dice_hausdorff(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    dice_weight: ArrayLike | str = 1.0,
    hausdorff_weight: ArrayLike = 1.0,
    smooth: ArrayLike = 1.0,
    squared: bool | str = False,
    alpha: ArrayLike = 2.0,
    log: bool = False,
    distance_map: ArrayLike | None = None,
    sampling: Sampling = None,
    activation: str | None = "auto",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    per_image: bool = True,
    include_background: bool | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the sum of soft Dice and the Hausdorff loss by distance transforms.

    Dice finds the object, the Hausdorff loss pulls in what is far from it::

        dice_weight dice + hausdorff_weight hausdorff_dt
        dice_weight="adaptive": the factor hausdorff_dt / dice, a constant for the derivative

    The Hausdorff loss grows with the square of the distances, Dice stays below 1: `"adaptive"`
    keeps both equal, as the paper does. Where Dice is 0 that factor is 0.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      dice_weight: Factor of Dice, at least 0, or `"adaptive"`.
      hausdorff_weight: Factor of the Hausdorff loss, at least 0.
      smooth: Added to Dice's numerator and denominator, at least 0.
      squared: Dice's form: False, True (V-Net) or `"counts"` (nnU-Net's `square`).
      alpha: Power of the distances in the Hausdorff loss, at least 0.
      log: Whether to take `log1p` of each image's and class's Hausdorff loss.
      distance_map: The distances of the target, if computed before, in the shape of `logits`.
      sampling: Size of a pixel along each spatial axis, one number or one per axis; None: 1.
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
      per_image: Whether each image is scored by itself; False pools the batch.
      include_background: Whether class 0 takes part; None: unless classes compete.
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
      >>> y = jnp.array([[[0.0, 0.0, 0.0, 1.0, 1.0]]])
      >>> p = jnp.array([[[0.9, 0.0, 0.0, 0.9, 0.9]]])
      >>> for weight in (1.0, "adaptive"):
      ...     options = {"dice_weight": weight, "axis": None, "activation": None}
      ...     print(jaxloss.dice_hausdorff(p, y, **options).round(4))
      1.833
      3.28

    Reference:
      Karimi and Salcudean. Reducing the Hausdorff Distance in Medical Image Segmentation with
      Convolutional Neural Networks. IEEE TMI 2020. https://arxiv.org/abs/1904.10030
    """
    name = "dice_hausdorff"
    checks.option(name, "reduction", reduction, ("mean", "sum"))
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
    scale = checks.number(name, "hausdorff_weight", hausdorff_weight, dtype, "[0, inf)")
    values, pixels, actual = hausdorff_of(
        name, pixels, alpha, log, distance_map, sampling, include_background
    )
    hausdorff = confusion.reduce(name, values, pixels, actual, reduction)
    dice = dice_of(
        name, pixels, smooth, squared, reduction, include_background=True, absent="score"
    )
    if isinstance(dice_weight, str):
        checks.option(name, "dice_weight", dice_weight, ("adaptive",))
        factor = lax.stop_gradient(numerics.divide(hausdorff, dice))
    else:
        factor = checks.number(name, "dice_weight", dice_weight, dtype, "[0, inf)")
    return factor * dice + scale * hausdorff
