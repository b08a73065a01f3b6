"""Binary cross-entropies that weigh positives against negatives by how rare they are."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics, sigmoid
from jaxloss._core.labels import Independent, independent
from jaxloss._core.lean import Costs
from jaxloss._core.reduction import AxisName, everywhere, reduce_labelled

__all__ = ["balanced_binary_cross_entropy", "weighted_binary_cross_entropy"]

Array = jax.Array


def weighted_binary_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    beta: ArrayLike | None = None,
    activation: str | None = "sigmoid",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
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
      logits: Log-odds, any shape `[...]`, floating; probabilities with `activation=None`.
      labels: Targets in `[0, 1]` of the same shape: float, boolean, or integer 0 and 1 (another
        integer gives NaN). Or integer ids without the class axis: one class against the rest.
      beta: The weight of positives, at least 0: a scalar, one per class `[C]`, or the rank of
        `logits` (or of the ids) with each dimension equal or 1. None: from the labels.
      activation: `"sigmoid"`, or None where `logits` already are probabilities: their logarithms
        are cut at -100, beyond which the gradient is 0. Prefer logits.
      axis: The class axis of `class_weights`, `beta` and ids; None if there is none.
      where: Boolean, the rank of `logits` (or of the ids) with each dimension equal or 1. What is
        False reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      ignore_index: The integer label of elements (or ids of positions) to leave out.
      class_weights: One factor of value and denominator per class, shape `[C]`.
      reduction: `"mean"` (weighted, over the valid elements, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which `beta` and the mean are taken globally inside `shard_map` or
        `pmap`.

    Returns:
      A scalar, or the shape of `logits` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match (they never broadcast), an axis or option does not exist,
        a number is out of its range, or `ignore_index` comes with float labels.

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
    name = "weighted_binary_cross_entropy"
    data = _read(
        name, logits, labels, activation, axis, where, weights, ignore_index, class_weights
    )
    if beta is None:
        positives, negatives = _shares(data, axis_name)
        beta = jnp.where(positives == 0, 1, numerics.divide(negatives, positives))
    else:
        beta = _factor(name, beta, "[0, inf)", data, axis)
    loss = _weighted(data, activation, beta, jnp.ones_like(beta))
    return reduce_labelled(name, loss, reduction, data, axis_name)


def balanced_binary_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    beta: ArrayLike | None = None,
    activation: str | None = "sigmoid",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
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
      logits: Log-odds, any shape `[...]`, floating; probabilities with `activation=None`.
      labels: Targets in `[0, 1]` of the same shape: float, boolean, or integer 0 and 1 (another
        integer gives NaN). Or integer ids without the class axis: one class against the rest.
      beta: The weight of positives, in `[0, 1]`; negatives weigh `1 - beta`. A scalar, one per
        class `[C]`, or the rank of `logits` (or of the ids) with each dimension equal or 1. None:
        from the labels.
      activation: `"sigmoid"`, or None where `logits` already are probabilities: their logarithms
        are cut at -100, beyond which the gradient is 0. Prefer logits.
      axis: The class axis of `class_weights`, `beta` and ids; None if there is none.
      where: Boolean, the rank of `logits` (or of the ids) with each dimension equal or 1. What is
        False reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      ignore_index: The integer label of elements (or ids of positions) to leave out.
      class_weights: One factor of value and denominator per class, shape `[C]`.
      reduction: `"mean"` (weighted, over the valid elements, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which `beta` and the mean are taken globally inside `shard_map` or
        `pmap`.

    Returns:
      A scalar, or the shape of `logits` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match (they never broadcast), an axis or option does not exist,
        a number is out of its range, or `ignore_index` comes with float labels.

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
    name = "balanced_binary_cross_entropy"
    data = _read(
        name, logits, labels, activation, axis, where, weights, ignore_index, class_weights
    )
    if beta is None:
        positives, negatives = _shares(data, axis_name)
        beta = numerics.divide(negatives, positives + negatives)
    else:
        beta = _factor(name, beta, "[0, 1]", data, axis)
    loss = _weighted(data, activation, beta, 1 - beta)
    return reduce_labelled(name, loss, reduction, data, axis_name)


def _read(
    name: str,
    logits: ArrayLike,
    labels: ArrayLike,
    activation: str | None,
    axis: int | None,
    where: ArrayLike | None,
    weights: ArrayLike | None,
    ignore_index: int | None,
    class_weights: ArrayLike | None,
) -> Independent:
    checks.option(name, "activation", activation, ("sigmoid", None))
    return independent(
        name,
        logits,
        labels,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
    )


def _factor(
    name: str, beta: ArrayLike, interval: str, data: Independent, axis: int | None
) -> Array:
    """One number, one per class, or one per element or position, to broadcast to the logits."""
    factor = checks.number(name, "beta", beta, data.logits.dtype, interval)
    shape = data.logits.shape
    if factor.ndim == 0:
        return factor
    if axis is not None and factor.shape == (shape[axis],):
        return checks.per_class_or_element(name, "beta", factor, shape, axis)
    return checks.broadcastable(name, "beta", factor, shape, axis)


def _shares(data: Independent, axis_name: AxisName | None) -> tuple[Array, Array]:
    """How much of the valid elements is positive, and how much negative; constants."""
    each = jax.lax.stop_gradient(data._replace(weights=None, class_weights=None))
    dtype = data.logits.dtype
    counted = None if data.weights is None else (data.weights != 0).astype(dtype)

    def total(share: Callable[[Array], Array]) -> Array:
        def cost(x: Array, y: Array) -> Array:
            return jnp.where(jnp.isnan(y), 0, share(y))  # a bad id spoils its own position only

        sums = sigmoid.costs(cost, each).over(jnp.ones((), dtype), counted)
        return everywhere(sums, axis_name)

    return total(lambda y: y), total(lambda y: 1 - y)


def _weighted(data: Independent, activation: str | None, positive: Array, negative: Array) -> Costs:
    def cost(x: Array, y: Array, positive: Array, negative: Array) -> Array:
        return sigmoid.entropy(x, positive * y, negative * (1 - y), activation is None)

    return sigmoid.costs(cost, data, positive, negative)
