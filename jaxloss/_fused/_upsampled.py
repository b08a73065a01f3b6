"""Losses of bilinearly upsampled logits that never hold them all at once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics
from jaxloss._core.families import classification, compound_classification
from jaxloss._core.reduction import REDUCTIONS, everywhere
from jaxloss._core.scores import ABSENT
from jaxloss._fused import _cost, _dice, _pass, _resize, _rows
from jaxloss._fused._pass import Arrays
from jaxloss._region._overlap import Squared
from jaxloss.options import Absent, Classification, Factor, NonNegative, Numbers, Share

__all__ = ["upsampled_cross_entropy", "upsampled_dice_cross_entropy"]

Array = jax.Array


@classification
def upsampled_cross_entropy(
    logits: Numbers,
    labels: Numbers,
    *,
    align_corners: bool = True,
    label_smoothing: Share = 0.0,
    z_loss: Factor = 0.0,
    **options: Unpack[Classification],
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
      z_loss: Weight of the squared log-normaliser, at least 0; PaLM uses 1e-4.

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
    checks.option("reduction", options["reduction"], REDUCTIONS)
    arrays, ids, factors = _read(
        logits, labels, align_corners, options, label_smoothing=label_smoothing, z_loss=z_loss
    )
    if options["reduction"] == "none":
        arrays = arrays | {"factors": factors}
        return factors * _rows.sums(_values, align_corners, arrays, ids)["values"]
    if options["reduction"] == "mean":
        count = _cost.count(ids, factors, arrays.get("class_weights"))
        factors = numerics.divide(factors, everywhere(count, options["axis_name"]))
    one_pass = functools.partial(_rows.with_slopes, _entropy, align_corners)
    total = _pass.total(one_pass, None, arrays | {"factors": factors}, ids)
    return everywhere(total, options["axis_name"])


@compound_classification
def upsampled_dice_cross_entropy(
    logits: Numbers,
    labels: Numbers,
    *,
    align_corners: bool = True,
    dice_weight: NonNegative = 1.0,
    cross_entropy_weight: NonNegative = 1.0,
    smooth: NonNegative = 1.0,
    squared: Squared = False,
    label_smoothing: Share = 0.0,
    per_image: bool = True,
    include_background: bool = True,
    absent: Absent = "score",
    **options: Unpack[Classification],
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

    Returns:
      A scalar; float32 for half-precision input.

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
    checks.option("reduction", options["reduction"], ("mean", "sum"))
    checks.option("squared", squared, (False, True, "counts"))
    checks.option("absent", absent, ABSENT)
    checks.option("per_image", per_image, (True, False))
    checks.option("include_background", include_background, (True, False))
    arrays, ids, factors = _read(
        logits, labels, align_corners, options, label_smoothing=label_smoothing
    )
    if not include_background and arrays["logits"].shape[-1] == 1:
        checks.fail(ValueError, "include_background", "False with a single class", "True")
    weights = arrays.get("class_weights")
    counted = factors * (ids != _cost.MASKED).astype(factors.dtype)
    count = jnp.ones((), factors.dtype)
    if options["reduction"] == "mean":
        count = _cost.count(ids, factors, weights)
    others = {
        "dice_weight": dice_weight,
        "cross_entropy_weight": cross_entropy_weight,
        "smooth": smooth,
        "valid": counted.sum(tuple(range(1, ids.ndim))),
        "count": count,
    }
    others |= {} if weights is None else {"class_weights": weights}
    finish = _dice.Options(
        per_image, include_background, absent, options["reduction"], options["axis_name"]
    )
    of_pixels = functools.partial(_dice.counts, squared)
    return _dice.of_sums(
        finish, of_pixels, align_corners, arrays | {"factors": factors}, ids, others
    )


def _read(
    logits: ArrayLike,
    labels: ArrayLike,
    align_corners: bool,
    options: Mapping[str, Any],
    **numbers: Array | None,
) -> tuple[Arrays, Array, Array]:
    """Reads logits, their classes moved to the last axis, numbers, ids, and the ids' factors."""
    scores, at = checks.images(logits, labels, options["axis"])
    assert at is not None
    scores = jnp.moveaxis(scores, at, -1)
    _resize.require_option(align_corners)
    _resize.require_pixels(scores, scores.shape[1:-1])
    ids, dtype, classes = jnp.asarray(labels), checks.compute_dtype(scores), scores.shape[-1]
    pixels = ids.shape[1:] if ids.ndim == scores.ndim - 1 else scores.shape[1:-1]
    ids, factors = _cost.read(ids, (scores.shape[0], *pixels), classes, dtype, options)
    class_weights = options["class_weights"]
    parameters = _cost.parameters(classes, dtype, class_weights=class_weights, **numbers)
    return {"logits": scores} | parameters, ids, factors


def _values(z: Array, ids: Array, step: Array, arrays: Arrays) -> Arrays:
    return {"values": _cost.cross_entropy(z, ids, step, arrays)}


def _entropy(z: Array, ids: Array, step: Array, arrays: Arrays) -> Arrays:
    return {"total": (arrays["factors"] * _cost.cross_entropy(z, ids, step, arrays)).sum()}
