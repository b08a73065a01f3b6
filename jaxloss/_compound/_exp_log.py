"""Exponential logarithmic loss."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, confusion, numerics, sigmoid, softmax
from jaxloss._core.labels import Competing, per_class
from jaxloss._core.reduction import AxisName

__all__ = ["exp_log"]

Array = jax.Array


def exp_log(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    w_dice: ArrayLike = 0.8,
    w_cross_entropy: ArrayLike = 0.2,
    gamma: ArrayLike = 0.3,
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
    """Computes the exponential logarithmic loss: powers of `-log Dice` and of the cross-entropy.

    With the Dice score `D` of each image and class, and for each pixel the probability `p_y` of its
    label and the weight of that label, from the numbers `n_c` of the batch's `n` valid pixels::

        w_c     = sqrt(n / n_c)
        exp_log = w_dice mean (-log D)^gamma + w_cross_entropy mean w_y (-log p_y)^gamma

    A power below 1 keeps the loss steep near the optimum, so that classes that are almost right
    improve further; one above 1 looks at the hard ones. Where each logit has a target of its own,
    a class and its complement are two labels with weights of their own.

    Both powers are taken one by one, before any mean, as in the paper; public code takes the power
    of the mean Dice and leaves it out of the cross-entropy. The weights are constants for the
    derivative, and the mean does not divide by them. For `gamma` below 1 the derivative of
    `u^gamma` is infinite at `u = 0`, but not in the logits: it is evaluated as
    `gamma u^gamma (u'/u)`, finite at any logit, and 0 where `u` is 0. No term is clamped.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      w_dice: Factor of the Dice term, at least 0.
      w_cross_entropy: Factor of the cross-entropy term, at least 0.
      gamma: Exponent of both terms, above 0.
      smooth: Added to Dice's numerator and denominator, at least 0.
      activation: `"auto"` (softmax for ids, sigmoid for labels of the logits' shape), `"softmax"`,
        `"sigmoid"`, or None where `logits` already are probabilities. One-hot labels that are
        meant to compete need `"softmax"`.
      axis: The class axis; any axis works (1 for NCHW). None: binary masks without a class axis,
        labels of the logits' shape. The first remaining axis is the image, the others its pixels.
      where: Boolean mask of the pixels, the rank of the ids (sigmoid: or of the logits) with each
        dimension equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of the pixels in every sum, shaped like `where`.
      ignore_index: The integer label of pixels to leave out.
      class_weights: One weight per class, shape `[C]`: a factor of its pixels' cross-entropy, and
        its weight in Dice's mean, which is normalised. None: `sqrt(n / n_c)` and 1.
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
      >>> labels = jnp.array([[0, 0, 1]])
      >>> p = jnp.array([[[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]])
      >>> print(jaxloss.exp_log(p, labels, activation=None).round(4))
      0.6853

    Reference:
      Wong, Moradi, Tang and Syeda-Mahmood. 3D Segmentation with Exponential Logarithmic Loss for
      Highly Unbalanced Object Sizes. MICCAI 2018. https://arxiv.org/abs/1809.00076
    """
    name = "exp_log"
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
    w_dice = checks.number(name, "w_dice", w_dice, dtype, "[0, inf)")
    w_cross_entropy = checks.number(name, "w_cross_entropy", w_cross_entropy, dtype, "[0, inf)")
    gamma = checks.number(name, "gamma", gamma, dtype, "(0, inf)")
    smooth = checks.number(name, "smooth", smooth, dtype, "[0, inf)")

    def of_counts(counts: confusion.Confusion, gamma: Array, smooth: Array) -> Array:
        (missed,) = counts.more  # not as a difference, which a steep power would not forgive
        ratio = _log_ratio(counts.fp + missed, 2 * counts.tp + smooth)
        return numerics.steep_power(ratio, gamma)

    is_p = activation is None
    positive, negative = _label_weights(name, pixels, class_weights)
    assert pixels.source is not None
    data = pixels.source._replace(class_weights=None)
    if isinstance(data, Competing):
        values = softmax.costs(
            lambda hit, miss, gamma: numerics.steep_power(hit, gamma),
            data,
            gamma,
            factors=positive,
            probabilities=is_p,
        )
    else:
        log_pair = sigmoid.log_pair_of_probability if is_p else sigmoid.log_pair

        def cost(x: Array, y: Array, gamma: Array, positive: Array, negative: Array) -> Array:
            hit, miss = (numerics.steep_power(u, gamma) for u in log_pair(x))
            return numerics.product(y * positive, hit) + numerics.product((1 - y) * negative, miss)

        values = sigmoid.costs(cost, data, gamma, positive, negative)
    return confusion.score(
        name,
        of_counts,
        pixels,
        reduction,
        gamma,
        smooth,
        more=lambda p, y: ((1 - p) * y,),
        include_background=include_background,
        absent=absent,
        beside=confusion.Beside(values, data, (w_dice, w_cross_entropy)),
    )


def _label_weights(
    function: str, pixels: confusion.Pixels, class_weights: ArrayLike | None
) -> tuple[Array, Array]:
    """Returns the weights of each class and of its complement; they broadcast to the logits."""
    p, axis = pixels.p, pixels.axis
    given = per_class(function, "class_weights", class_weights, p, axis)
    if given is not None:
        return given, given
    batch = pixels._replace(per_image=False)
    valid, known = batch.valid(), jnp.where(jnp.isnan(pixels.y), 0, pixels.y)
    shape = [-1 if i == axis else 1 for i in range(p.ndim)]

    def rarity(y: Array) -> Array:
        weight = numerics.sqrt(numerics.divide(valid, batch.total(y)))
        return jax.lax.stop_gradient(weight).reshape(shape)

    return rarity(known), rarity(1 - known)


def _log_ratio(wrong: Array, right: Array) -> Array:
    """Returns `-log(right / (right + wrong))`, +inf with zero gradient where `right` is 0."""
    large, empty = wrong > right, right == 0
    ratio = numerics.divide(jnp.where(large, 0, wrong), right)
    apart = jnp.log(jnp.where(large, right + wrong, 1)) - jnp.log(jnp.where(empty, 1, right))
    return jnp.where(empty, jnp.inf, jnp.where(large, apart, jnp.log1p(ratio)))
