"""Regression losses: one value per element of the predictions."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks
from jaxloss._core.labels import paired
from jaxloss._core.reduction import AxisName, reduce

__all__ = ["huber", "l2"]

Array = jax.Array

_NAMES = ("predictions", "targets")


def l2(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the squared error of each prediction.

    With `d = predictions - targets`::

        L2 = d^2

    There is no factor 1/2: the mean is the mean squared error.

    Args:
      predictions: Predicted values, any shape `[...]`, floating.
      targets: True values, shape `[...]`.
      where: Boolean, the rank of `predictions` with each dimension equal or 1. What is False
        reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      reduction: `"mean"` (weighted, over the valid elements, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or shape `[...]` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `predictions` is not floating or `where` not boolean.
      ValueError: If shapes do not match (they never broadcast) or `reduction` is unknown.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.l2([[1.0, 2.0], [3.0, 4.0]], [[3.0, 5.0], [8.0, 6.0]]))
      10.5

    Reference:
      Gauss. Theoria combinationis observationum erroribus minimis obnoxiae. 1823.
    """
    values, aims, mask, factor = paired(
        "l2", predictions, targets, names=_NAMES, where=where, weights=weights
    )
    difference = values - aims
    loss = difference * difference
    return reduce("l2", loss, reduction, mask=mask, weights=factor, axis_name=axis_name)


def huber(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    delta: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the Huber loss of each prediction: squared near the target, linear far from it.

    With `d = predictions - targets`::

        H = 1/2 d^2                      where |d| <= delta
            delta (|d| - delta / 2)      elsewhere

    A large error is never squared, so it cannot overflow. Its gradient is `d` clipped to
    `[-delta, delta]`. `delta=0` gives 0 everywhere.

    Args:
      predictions: Predicted values, any shape `[...]`, floating.
      targets: True values, shape `[...]`.
      delta: Where the loss becomes linear, at least 0, in the unit of the predictions.
      where: Boolean, the rank of `predictions` with each dimension equal or 1. What is False
        reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      reduction: `"mean"` (weighted, over the valid elements, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or shape `[...]` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `predictions` is not floating or `where` not boolean.
      ValueError: If shapes do not match (they never broadcast), `delta` is negative or `reduction`
        is unknown.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.huber([0.0, 0.0], [0.5, 3.0], delta=1.0, reduction="none"))
      [0.125 2.5  ]

    Reference:
      Huber. Robust Estimation of a Location Parameter. Annals of Mathematical Statistics 1964.
    """
    values, aims, mask, factor = paired(
        "huber",
        predictions,
        targets,
        names=("predictions", "targets"),
        where=where,
        weights=weights,
    )
    difference = values - aims
    delta = checks.number("huber", "delta", delta, values.dtype, "[0, inf)")
    near = jnp.clip(difference, -delta, delta)
    loss = near * (difference - near / 2)
    return reduce("huber", loss, reduction, mask=mask, weights=factor, axis_name=axis_name)
