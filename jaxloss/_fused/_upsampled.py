"""Losses of bilinearly upsampled logits that never hold them all at once."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics
from jaxloss._core.confusion import ABSENT
from jaxloss._core.reduction import REDUCTIONS, AxisName, everywhere
from jaxloss._fused import _cost, _dice, _pass, _resize, _rows
from jaxloss._fused._pass import Arrays

__all__ = ["upsampled_cross_entropy", "upsampled_dice_cross_entropy"]

Array = jax.Array


def upsampled_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    align_corners: bool = True,
    label_smoothing: ArrayLike = 0.0,
    z_loss: ArrayLike = 0.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the cross-entropy of small logits, upsampled to the size of the labels.

    This is, in value and derivatives of any order, ::

        cross_entropy(resize_logits(logits, labels.shape[1:], ...), labels, ...)

    of :func:`jaxloss.resize_logits` and :func:`jaxloss.cross_entropy`, but only some rows of the
    upsampled logits exist at a time. Value and gradient are one pass. Masks and weights are those
    of the labels: a masked pixel costs nothing, while the logits around it serve its neighbours.

    Args:
      logits: Unnormalised log-probabilities, shape `[B, ..., C]` (`C` at `axis`) with at least one
        pixel axis, floating and finite.
      labels: Integer ids, shape `[B, ...]`, with any number of pixels along each pixel axis. An id
        outside `[0, C)` that is not ignored makes its position's loss NaN, and the gradient of the
        logits that it mixes.
      align_corners: Whether the centres of the corner pixels stay in place, as with PyTorch's
        `align_corners`; False: the edges do.
      label_smoothing: The share of each target that is spread evenly over all classes, in `[0, 1)`.
      z_loss: Weight of the squared log-normaliser, at least 0; PaLM uses 1e-4.
      axis: The class axis; any axis works (1 for NCHW). The first remaining axis is the image.
      where: Boolean, the rank of the ids with each dimension equal or 1. What is False reaches
        neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      ignore_index: The id of positions to leave out.
      class_weights: One factor of value and denominator per class, shape `[C]`.
      reduction: `"mean"` (weighted, over the valid positions, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or the shape of the ids with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating, `labels` not integer or `where` not boolean.
      ValueError: If shapes do not match, an axis or option does not exist, or a number is out of
        its range.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits = jnp.array([[[4.0, 0.0], [0.0, 4.0]]])
      >>> labels = jnp.array([[0, 0, 1, 1]])
      >>> print(jaxloss.upsampled_cross_entropy(logits, labels, reduction="none").round(4))
      [[0.0181 0.234 0.234 0.0181]]

    Reference:
      Long et al. Fully Convolutional Networks for Semantic Segmentation. CVPR 2015.
      https://arxiv.org/abs/1411.4038
    """
    checks.option("reduction", reduction, REDUCTIONS)
    arrays, positions = _read(
        logits,
        labels,
        align_corners,
        axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
    )
    return _cross_entropy(arrays, positions, bool(align_corners), reduction, axis_name)


def upsampled_dice_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    align_corners: bool = True,
    dice_weight: ArrayLike = 1.0,
    cross_entropy_weight: ArrayLike = 1.0,
    smooth: ArrayLike = 1.0,
    squared: bool | str = False,
    label_smoothing: ArrayLike = 0.0,
    axis: int = -1,
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
    """Computes Dice plus cross-entropy of small logits, upsampled to the size of the labels.

    This is, in value and derivatives of any order, ::

        dice_cross_entropy(resize_logits(logits, labels.shape[1:], ...), labels, ...)

    of :func:`jaxloss.resize_logits` and :func:`jaxloss.dice_cross_entropy` for classes that
    compete, but only some rows of the upsampled logits exist at a time. The gradient passes over
    them twice: Dice has to know its sums first. Masks and weights are those of the labels.

    Args:
      logits: Unnormalised log-probabilities, shape `[B, ..., C]` (`C` at `axis`) with at least one
        pixel axis, floating and finite.
      labels: Integer ids, shape `[B, ...]`, with any number of pixels along each pixel axis. An id
        outside `[0, C)` that is not ignored makes its image's loss and gradient NaN.
      align_corners: Whether the centres of the corner pixels stay in place, as with PyTorch's
        `align_corners`; False: the edges do.
      dice_weight: Factor of Dice, at least 0.
      cross_entropy_weight: Factor of the cross-entropy, at least 0.
      smooth: Added to Dice's numerator and denominator, at least 0.
      squared: Dice's form: False, True (V-Net) or `"counts"` (nnU-Net's `square`).
      label_smoothing: That of the cross-entropy, in `[0, 1)`.
      axis: The class axis; any axis works (1 for NCHW). The first remaining axis is the image.
      where: Boolean, the rank of the ids with each dimension equal or 1. What is False reaches
        neither value nor gradient, not even as NaN.
      weights: Factors of the pixels in every sum, shaped like `where`.
      ignore_index: The id of pixels to leave out.
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
      TypeError: If `logits` is not floating, `labels` not integer or `where` not boolean.
      ValueError: If shapes do not match, an axis or option does not exist, a number is out of its
        range, or `reduction` is neither `"mean"` nor `"sum"`.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits = jnp.array([[[4.0, 0.0], [0.0, 4.0]]])
      >>> labels = jnp.array([[0, 0, 1, 1]])
      >>> print(jaxloss.upsampled_dice_cross_entropy(logits, labels).round(4))
      0.2167

    Reference:
      Isensee et al. nnU-Net: a Self-Configuring Method for Deep Learning-Based Biomedical Image
      Segmentation. Nature Methods 2021. https://arxiv.org/abs/1809.10486
    """
    checks.option("reduction", reduction, ("mean", "sum"))
    checks.option("squared", squared, (False, True, "counts"))
    checks.option("absent", absent, ABSENT)
    for option, value in (("per_image", per_image), ("include_background", include_background)):
        checks.option(option, value, (True, False))
    arrays, positions = _read(
        logits,
        labels,
        align_corners,
        axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
    )
    if not include_background and arrays["logits"].shape[-1] == 1:
        checks.fail(ValueError, "include_background", "False with a single class", "True")
    dtype = positions.factors.dtype
    shares = {
        option: checks.number(option, value, dtype, "[0, inf)")
        for option, value in (
            ("dice_weight", dice_weight),
            ("cross_entropy_weight", cross_entropy_weight),
            ("smooth", smooth),
        )
    }
    options = _dice.Options(per_image, include_background, absent, reduction, axis_name)
    return _dice_cross_entropy(arrays, positions, shares, bool(align_corners), squared, options)


def _read(
    logits: ArrayLike,
    labels: ArrayLike,
    align_corners: bool,
    axis: int,
    *,
    where: ArrayLike | None,
    weights: ArrayLike | None,
    ignore_index: int | None,
    class_weights: ArrayLike | None,
    label_smoothing: ArrayLike,
    z_loss: ArrayLike = 0.0,
) -> tuple[Arrays, _cost.Positions]:
    """Reads logits, their classes moved to the last axis, options and labels."""
    scores, at = checks.images(logits, axis)
    assert at is not None
    scores = jnp.moveaxis(scores, at, -1)
    _resize.require_option(align_corners)
    _resize.require_pixels(scores, scores.shape[1:-1])
    classes, dtype = scores.shape[-1], checks.compute_dtype(scores)
    ids = jnp.asarray(labels)
    expected = (
        (scores.shape[0], *ids.shape[1:]) if ids.ndim == scores.ndim - 1 else scores.shape[:-1]
    )
    positions = _cost.read(
        ids,
        expected,
        classes,
        dtype,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
    )
    parameters = _cost.parameters(
        dtype,
        classes,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
    )
    return {"logits": scores} | parameters, positions


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _cross_entropy(
    arrays: Arrays,
    positions: _cost.Positions,
    align_corners: bool,
    reduction: str,
    axis_name: AxisName | None,
) -> Array:
    factors = positions.factors
    if reduction == "none":
        arrays = arrays | {"factors": factors}
        return factors * _rows.sums(_values, align_corners, arrays, positions.ids)["values"]
    if reduction == "mean":
        count = everywhere(_cost.count(positions, arrays.get("class_weights")), axis_name)
        factors = numerics.divide(factors, count)
    one_pass = functools.partial(_rows.with_slopes, _entropy, align_corners)
    total = _pass.total(one_pass, None, arrays | {"factors": factors}, positions.ids)
    return everywhere(total, axis_name)


def _values(z: Array, ids: Array, step: Array, arrays: Arrays) -> Arrays:
    return {"values": _cost.cross_entropy(z, ids, step, arrays)}


def _entropy(z: Array, ids: Array, step: Array, arrays: Arrays) -> Arrays:
    return {"total": (arrays["factors"] * _cost.cross_entropy(z, ids, step, arrays)).sum()}


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _dice_cross_entropy(
    arrays: Arrays,
    positions: _cost.Positions,
    shares: Arrays,
    align_corners: bool,
    squared: bool | str,
    options: _dice.Options,
) -> Array:
    ids, factors = positions.ids, positions.factors
    weights = arrays.get("class_weights")
    of_images = (factors * (ids != _cost.MASKED).astype(factors.dtype)).sum(
        tuple(range(1, ids.ndim))
    )
    count = jnp.ones((), factors.dtype)
    if options.reduction == "mean":
        count = _cost.count(positions, weights)
    others = shares | {"valid": of_images, "count": count}
    others |= {} if weights is None else {"class_weights": weights}
    of_pixels = functools.partial(_dice.counts, squared)
    arrays = arrays | {"factors": factors}
    return _dice.of_sums(options, of_pixels, align_corners, arrays, ids, others)
