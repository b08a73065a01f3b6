"""Combo loss: Dice and a cross-entropy that prices misses and false alarms."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._compound._parts import dice_and
from jaxloss._core import checks, numerics, sigmoid, softmax
from jaxloss._core import labels as labelled
from jaxloss._core.confusion import Data
from jaxloss._core.labels import Competing, Independent
from jaxloss._core.lean import Costs
from jaxloss._core.reduction import AxisName

__all__ = ["combo"]

Array = jax.Array


def combo(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike = 0.5,
    beta: ArrayLike = 0.5,
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
    """Computes the combo loss: Dice, and a cross-entropy that prices misses and false alarms.

    With the probability `p` and target `y` of each pixel and class::

        CE    = mean of -beta y log p - (1 - beta)(1 - y) log(1 - p)
        combo = alpha CE + (1 - alpha)(1 - Dice)

    `beta` above 1/2 makes misses dearer than false alarms. The mean is over pixels and classes;
    under a softmax `log(1 - p)` is the log-odds of the others, never a difference from 1. The paper
    subtracts Dice itself: its number is this one less `1 - alpha`, so that here 0 is perfect. The
    authors' code lacks a pair of parentheses and rewards false alarms.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      alpha: The share of the cross-entropy, in `[0, 1]`.
      beta: The price of misses, in `[0, 1]`; false alarms cost `1 - beta`.
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
      >>> p, y = jnp.array([[0.9, 0.8, 0.1]]), jnp.array([[1.0, 1.0, 0.0]])
      >>> for beta in (0.2, 0.8):
      ...     print(jaxloss.combo(p, y, beta=beta, axis=None, activation=None).round(4))
      0.0667
      0.089

    Reference:
      Taghanaki et al. Combo Loss: Handling Input and Output Imbalance in Multi-Organ Segmentation.
      Computerized Medical Imaging and Graphics 2019. https://arxiv.org/abs/1805.02798
    """
    name = "combo"

    def balanced(data: Data) -> tuple[Costs, Data]:
        price = checks.number(name, "beta", beta, data.logits.dtype, "[0, 1]")
        log_pair = sigmoid.log_pair_of_probability if activation is None else sigmoid.log_pair

        def cost(x: Array, y: Array, beta: Array) -> Array:
            hit, miss = log_pair(x)
            return numerics.product(beta * y, hit) + numerics.product((1 - beta) * (1 - y), miss)

        def of_part(part: Competing, beta: Array) -> Array:
            z = part.unmasked_logits()
            x = z if activation is None else softmax.log_odds(z, *softmax.scale(z, part.axis))
            values = cost(x, part.dense_labels(), beta)
            weighted = values if part.class_weights is None else values * part.class_weights
            return weighted.sum(part.axis)

        if isinstance(data, Independent):
            return sigmoid.costs(cost, data, price), data
        # A position counts as much as all of its classes together.
        shape = [n if i == data.axis else 1 for i, n in enumerate(data.logits.shape)]
        factors = jnp.ones(shape, data.logits.dtype)
        factors = factors if data.class_weights is None else data.class_weights
        every = data._replace(class_weights=jnp.broadcast_to(factors.sum(), shape))
        return labelled.costs(of_part, data, price), every

    def shares(dtype: Any) -> tuple[Array, Array]:
        share = checks.number(name, "alpha", alpha, dtype, "[0, 1]")
        return 1 - share, share

    return dice_and(
        name,
        balanced,
        shares,
        logits,
        labels,
        smooth=smooth,
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
