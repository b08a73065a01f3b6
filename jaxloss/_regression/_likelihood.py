"""Negative log-likelihoods of a value under a predicted distribution."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics
from jaxloss._core.labels import paired
from jaxloss._core.reduction import AxisName, reduce
from jaxloss._regression._paired import NAMES, reduced

__all__ = ["gaussian_nll", "poisson_nll"]

Array = jax.Array


def gaussian_nll(
    predictions: ArrayLike,
    targets: ArrayLike,
    variance: ArrayLike,
    *,
    full: bool = False,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the negative log-likelihood of each target under a predicted normal distribution.

    With `d = predictions - targets` and `v = max(variance, 1e-6)`::

        N = 1/2 (log v + d^2 / v)       + 1/2 log(2 pi) if full

    A variance below 1e-6 has gradient 0, as in PyTorch.

    Args:
      predictions: Predicted values, any shape `[...]`, floating.
      targets: True values, shape `[...]`.
      variance: Predicted variances, the rank of `predictions` with each dimension equal or 1, or a
        scalar.
      full: Whether the constant is added, which makes it the likelihood itself.
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
      >>> print(jaxloss.gaussian_nll([0.0, 1.0], [1.0, 1.0], 4.0, reduction="none").round(4))
      [0.8181 0.6931]

    Reference:
      Nix and Weigend. Estimating the Mean and Variance of the Target Probability Distribution.
      ICNN 1994.
    """
    values, aims, mask, factor = paired(
        "gaussian_nll", predictions, targets, names=NAMES, where=where, weights=weights
    )
    spread = checks.real("gaussian_nll", "variance", variance, values.dtype)
    if spread.ndim > 0:
        spread = checks.broadcastable("gaussian_nll", "variance", spread, values.shape)
    if mask is not None:
        spread = jnp.where(mask, spread, 1)
    spread = jnp.where(spread < 1e-6, 1e-6, spread)
    loss = (jnp.log(spread) + (values - aims) ** 2 / spread) / 2
    if full:
        loss = loss + math.log(2 * math.pi) / 2
    return reduce("gaussian_nll", loss, reduction, mask=mask, weights=factor, axis_name=axis_name)


def poisson_nll(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    log_input: bool = True,
    full: bool = False,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the negative log-likelihood of each count under a predicted Poisson rate.

    With `x = predictions` and `y = targets`::

        P = exp(x) - y x          log_input, x the logarithm of the rate
        P = x - y log x           otherwise, x the rate; 0 log 0 = 0
            + y log y - y + 1/2 log(2 pi y)   where y > 1, if full (Stirling)

    PyTorch adds 1e-8 to the rate; here a rate of 0 costs infinity where the count is not 0.

    Args:
      predictions: Predicted values, any shape `[...]`, floating.
      targets: True values, shape `[...]`.
      log_input: Whether `predictions` are logarithms of rates.
      full: Whether the targets' own term is added, which moves values but no gradient.
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
      >>> print(jaxloss.poisson_nll([0.0, 1.0], [1.0, 2.0], reduction="none").round(4))
      [1.     0.7183]

    Reference:
      Cameron and Trivedi. Regression Analysis of Count Data. Cambridge University Press 1998.
    """

    def cost(rate: Array, count: Array) -> Array:
        if log_input:
            loss = jnp.exp(rate) - count * rate
        else:
            positive = rate > 0
            log_rate = jnp.where(positive, jnp.log(jnp.where(positive, rate, 1)), -jnp.inf)
            loss = rate - numerics.product(count, log_rate)
        if full:
            large = jnp.where(count > 1, count, 1)
            stirling = large * jnp.log(large) - large + jnp.log(2 * jnp.pi * large) / 2
            loss = loss + jnp.where(count > 1, stirling, 0)
        return loss

    return reduced(
        "poisson_nll",
        cost,
        predictions,
        targets,
        where=where,
        weights=weights,
        reduction=reduction,
        axis_name=axis_name,
    )
