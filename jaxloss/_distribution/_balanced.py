"""Binary cross-entropies that weigh positives against negatives by how rare they are."""

from __future__ import annotations

from typing import Annotated, Literal, Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics, sigmoid
from jaxloss._core.families import one_versus_rest
from jaxloss._core.labels import Independent
from jaxloss._core.platforms import bind
from jaxloss._core.reading import independent
from jaxloss._core.reduction import AxisName, everywhere, reduce
from jaxloss.options import Interval, Numbers, OneVersusRest, PerClass

__all__ = ["balanced_binary_cross_entropy", "weighted_binary_cross_entropy"]

Array = jax.Array


@one_versus_rest
def weighted_binary_cross_entropy(
    logits: Numbers,
    labels: Numbers,
    *,
    beta: PerClass | None = None,
    activation: Literal["sigmoid"] | None = "sigmoid",
    **options: Unpack[OneVersusRest],
) -> Array:
    """Computes the cross-entropy of each logit with its positives weighted by their rarity.

    With `p = sigmoid(logits)`::

        WCE  = -beta y log p - (1 - y) log(1 - p)
        beta = sum(1 - y) / sum(y)                  if None

    so that both classes weigh the same in all. The sums run over the valid elements of the call:
    those that `where`, `ignore_index` and a weight of 0 leave in. Without positives `beta` is 1,
    without negatives 0. It is a constant for the derivative, and never enters the mean's
    denominator.

    For one `beta` per image or per class pass an array. Jadon's collection uses
    `beta / (1 - beta)`, which at its `beta = 0.25` makes positives count less.

    Args:
      beta: The weight of positives, at least 0: a scalar, one per class `[C]`, or the rank of
        `logits` (or of the ids) with each dimension equal or 1. None: from the labels.
      axis_name: Mesh axis over which `beta` and the mean are taken globally inside `shard_map` or
        `pmap`.

    Example:
      One positive against three negatives:

      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.zeros(4), jnp.array([1.0, 0.0, 0.0, 0.0])
      >>> print(jaxloss.weighted_binary_cross_entropy(logits, labels, reduction="none").round(4))
      [2.0794 0.6931 0.6931 0.6931]

    Reference:
      Ronneberger, Fischer and Brox. U-Net: Convolutional Networks for Biomedical Image
      Segmentation (weights against class imbalance). MICCAI 2015.
      https://arxiv.org/abs/1505.04597
    """
    data = independent(logits, labels, options, activation)
    if beta is None:
        positives, negatives = _totals(data, options["axis_name"])
        beta = jnp.where(positives == 0, 1, numerics.divide(negatives, positives))
    else:
        beta = checks.per_class_or_element("beta", beta, data.logits.shape, data.axis)
    formula = bind(_weighted, probabilities=data.are_probabilities)
    return reduce(sigmoid.cost(formula, data, beta), options, data)


@one_versus_rest
def balanced_binary_cross_entropy(
    logits: Numbers,
    labels: Numbers,
    *,
    beta: Annotated[Numbers, Interval("[0, 1]", scalar=False)] | None = None,
    activation: Literal["sigmoid"] | None = "sigmoid",
    **options: Unpack[OneVersusRest],
) -> Array:
    """Computes the cross-entropy of each logit, positives and negatives weighted to sum 1.

    With `p = sigmoid(logits)`::

        BCE  = -beta y log p - (1 - beta)(1 - y) log(1 - p)
        beta = 1 - mean(y)                                     if None

    The mean runs over the valid elements of the call: those that `where`, `ignore_index` and a
    weight of 0 leave in. `beta` is a constant for the derivative, and never enters the mean's
    denominator. Where all labels are equal the loss is 0: nothing is left of the only class.

    For the paper's `beta` of each image pass an array. Twice this loss at `beta=0.5` is
    :func:`binary_cross_entropy`.

    Args:
      beta: The weight of positives, in `[0, 1]`; negatives weigh `1 - beta`. A scalar, one per
        class `[C]`, or the rank of `logits` (or of the ids) with each dimension equal or 1. None:
        from the labels.
      axis_name: Mesh axis over which `beta` and the mean are taken globally inside `shard_map` or
        `pmap`.

    Example:
      One positive against four negatives:

      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.zeros(5), jnp.array([1.0, 0.0, 0.0, 0.0, 0.0])
      >>> print(jaxloss.balanced_binary_cross_entropy(logits, labels, reduction="none").round(4))
      [0.5545 0.1386 0.1386 0.1386 0.1386]

    Reference:
      Xie and Tu. Holistically-Nested Edge Detection. ICCV 2015, equation 2.
      https://arxiv.org/abs/1504.06375
    """
    data = independent(logits, labels, options, activation)
    if beta is None:
        positives, negatives = _totals(data, options["axis_name"])
        beta = numerics.divide(negatives, positives + negatives)
    else:
        beta = checks.per_class_or_element("beta", beta, data.logits.shape, data.axis)
    formula = bind(_balanced, probabilities=data.are_probabilities)
    return reduce(sigmoid.cost(formula, data, beta), options, data)


def _weighted(x: Array, y: Array, beta: Array, *, probabilities: bool) -> Array:
    return sigmoid.entropy(x, beta * y, 1 - y, probabilities)


def _balanced(x: Array, y: Array, beta: Array, *, probabilities: bool) -> Array:
    return sigmoid.entropy(x, beta * y, (1 - beta) * (1 - y), probabilities)


def _totals(data: Independent, axis_name: AxisName | None) -> tuple[Array, Array]:
    """How much of the valid elements is positive, and how much negative; constants."""
    logits, targets = jax.lax.stop_gradient((data.logits, data.targets))
    each = data._replace(logits=logits, targets=targets, class_weights=None)
    counted = None if data.weights is None else (data.weights != 0).astype(logits.dtype)
    one = jnp.ones((), logits.dtype)
    positives, negatives = (
        everywhere(sigmoid.cost(formula, each).over(one, counted), axis_name)
        for formula in (_positive, _negative)
    )
    return positives, negatives


def _positive(x: Array, y: Array) -> Array:
    return jnp.where(jnp.isnan(y), 0, y)  # a bad id spoils its own position only


def _negative(x: Array, y: Array) -> Array:
    return jnp.where(jnp.isnan(y), 0, 1 - y)
