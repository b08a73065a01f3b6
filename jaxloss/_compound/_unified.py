"""Unified focal loss."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, confusion, numerics, sigmoid, softmax
from jaxloss._core.labels import Competing
from jaxloss._core.lean import Costs
from jaxloss._core.reduction import AxisName

__all__ = ["unified_focal"]

Array = jax.Array


def unified_focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    weight: ArrayLike = 0.5,
    delta: ArrayLike = 0.6,
    gamma: ArrayLike = 0.5,
    asymmetric: bool = True,
    smooth: ArrayLike = 1e-7,
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
    """Computes the unified focal loss: a focal and a focal Tversky loss that share their numbers.

    `delta` balances foreground against background, and misses against false alarms; `gamma`
    discounts the easy background and enhances rare foreground. With class 0 as the background, `d`
    for `delta` and, for each image and class, `tp = sum p y`, `fp = sum p (1 - y)`,
    `fn = sum (1 - p) y`::

        F   = mean of -(1 - d)(1 - p_0)^gamma log p_0 on background, -d log p_y on foreground
        TI  = (tp + smooth) / (tp + d fn + (1 - d) fp + smooth)
        FT  = mean over the classes of 1 - TI_0 and (1 - TI_c)^(1 - gamma)
        unified_focal = weight F + (1 - weight) FT

    The symmetric variant has `(1 - p_y)^gamma` on every class of F and the power `1 - gamma` on
    every class of FT. Where each logit has a target of its own, each class is a foreground against
    its own background, and FT the mean of the two: a sigmoid of `x` costs what a softmax of
    `(0, x)` does. The derivative of the power is 0 at `TI = 1`.

    MONAI puts `weight` on F as here, the authors' code on FT. MONAI also divides F by its two
    classes, has `delta=0.7` and takes probabilities, whatever it calls them.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      weight: The share of the focal part, in `[0, 1]`.
      delta: The weight of foreground pixels, and the price of misses, in `[0, 1]`; background
        pixels and false alarms have `1 - delta`.
      gamma: How much easy background is discounted and rare foreground enhanced, in `[0, 1)`.
      asymmetric: Whether only the background is discounted and only the foreground enhanced.
      smooth: Added to the Tversky index's numerator and denominator, at least 0.
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
      per_image: Whether FT scores each image by itself; False pools the batch.
      include_background: Whether class 0 takes part in FT; it always does in F.
      absent: `"score"` scores a class that an image's target does not hold like any other;
        `"skip"` leaves it out of FT.
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
      >>> labels = jnp.array([[0, 0, 1]])
      >>> p = jnp.array([[[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]])
      >>> print(jaxloss.unified_focal(p, labels, activation=None).round(4))
      0.2547

    Reference:
      Yeung, Sala, Schoenlieb and Rundo. Unified Focal Loss: Generalising Dice and Cross
      Entropy-Based Losses to Handle Class Imbalanced Medical Image Segmentation. Computerized
      Medical Imaging and Graphics 2022. https://arxiv.org/abs/2102.04525
    """
    name = "unified_focal"
    checks.option(name, "reduction", reduction, ("mean", "sum"))
    checks.option(name, "asymmetric", asymmetric, (True, False))
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
    weight = checks.number(name, "weight", weight, dtype, "[0, 1]")
    delta = checks.number(name, "delta", delta, dtype, "[0, 1]")
    gamma = checks.number(name, "gamma", gamma, dtype, "[0, 1)")
    smooth = checks.number(name, "smooth", smooth, dtype, "[0, inf)")
    compete = pixels.compete

    def of_counts(counts: confusion.Confusion, *parameters: Array) -> Array:
        return _focal_tversky(counts, *parameters, asymmetric=asymmetric, compete=compete)

    assert pixels.source is not None
    values = _focal(pixels.source, delta, gamma, asymmetric, probabilities=activation is None)
    return confusion.score(
        name,
        of_counts,
        pixels,
        reduction,
        delta,
        gamma,
        smooth,
        more=lambda p, y: ((1 - p) * y, (1 - p) * (1 - y)),
        include_background=include_background,
        absent=absent,
        beside=confusion.Beside(values, pixels.source, (1 - weight, weight)),
    )


def _focal(
    data: confusion.Data,
    delta: Array,
    gamma: Array,
    asymmetric: bool,
    probabilities: bool,
) -> Costs:
    """Returns F at each position, or of each element."""
    focus = jnp.zeros_like(gamma) if asymmetric else gamma  # of the foreground

    def discounted(surprise: Array, other: Array, gamma: Array) -> Array:
        return numerics.product(jnp.exp(-gamma * numerics.finite(other)), surprise)

    if isinstance(data, Competing):
        sizes = [n if i == data.axis else 1 for i, n in enumerate(data.logits.shape)]
        background = jax.lax.broadcasted_iota(jnp.int32, sizes, data.axis) == 0
        exponent = jnp.where(background, gamma, focus)
        return softmax.costs(
            discounted,
            data,
            data.of_target(exponent) if data.has_ids else exponent,
            factors=jnp.where(background, 1 - delta, delta),
            probabilities=probabilities,
        )
    log_pair = sigmoid.log_pair_of_probability if probabilities else sigmoid.log_pair

    def cost(x: Array, y: Array, delta: Array, gamma: Array, focus: Array) -> Array:
        hit, miss = log_pair(x)
        positive, negative = discounted(hit, miss, focus), discounted(miss, hit, gamma)
        return numerics.product(y * delta, positive) + numerics.product(
            (1 - y) * (1 - delta), negative
        )

    return sigmoid.costs(cost, data, delta, gamma, focus)


def _focal_tversky(
    counts: confusion.Confusion,
    delta: Array,
    gamma: Array,
    smooth: Array,
    *,
    asymmetric: bool,
    compete: bool,
) -> Array:
    """Returns FT of each image and class."""
    tp, fp, (fn, tn) = counts.tp, counts.fp, counts.more

    def enhanced(loss: Array) -> Array:
        return numerics.steep_power(loss, 1 - gamma)

    loss = confusion.complement(delta * fn + (1 - delta) * fp, tp + smooth)
    if not compete:
        background = confusion.complement(delta * fp + (1 - delta) * fn, tn + smooth)
        return (enhanced(loss) + (background if asymmetric else enhanced(background))) / 2
    if not asymmetric:
        return enhanced(loss)
    return jnp.concatenate([loss[..., :1], enhanced(loss[..., 1:])], -1)
