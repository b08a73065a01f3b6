"""Negative log-likelihoods of a value under a predicted distribution."""

from __future__ import annotations

import math
from typing import Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics
from jaxloss._core.families import regression
from jaxloss._core.labels import per_value
from jaxloss._core.platforms import bind
from jaxloss._core.reading import paired
from jaxloss._core.reduction import reduce
from jaxloss._regression._elementwise import NAMES, elementwise
from jaxloss.options import Numbers, Regression

__all__ = ["gaussian_nll", "poisson_nll"]

Array = jax.Array

_LEAST = 1e-6  # of the variance


@regression
def gaussian_nll(
    predictions: Numbers,
    targets: Numbers,
    variance: Numbers,
    *,
    full: bool = False,
    **options: Unpack[Regression],
) -> Array:
    """Computes the negative log-likelihood of each target under a predicted normal distribution.

    With `d = predictions - targets` and `v = max(variance, 1e-6)`::

        N = 1/2 (log v + d^2 / v)       + 1/2 log(2 pi) if full

    A variance below 1e-6 has gradient 0, as in PyTorch.

    Args:
      variance: Predicted variances, the rank of `predictions` with each dimension equal or 1, or a
        scalar.
      full: Whether the constant is added, which makes it the likelihood itself.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.gaussian_nll([0.0, 1.0], [1.0, 1.0], 4.0, reduction="none").round(4))
      [0.8181 0.6931]

    Reference:
      Nix and Weigend. Estimating the Mean and Variance of the Target Probability Distribution.
      ICNN 1994.
    """
    data = paired(predictions, targets, options, names=NAMES)
    v = checks.real("variance", variance, data.prediction.dtype)
    if v.ndim > 0:
        v = checks.broadcastable("variance", v, data.prediction.shape)
    if data.mask is not None:
        v = jnp.where(data.mask, v, 1)
    formula = bind(_gaussian_nll, full=full)
    pair = (data.prediction, data.target)
    return reduce(per_value(formula, pair, data.mask, v), options, data)


@regression
def poisson_nll(
    predictions: Numbers,
    targets: Numbers,
    *,
    log_input: bool = True,
    full: bool = False,
    **options: Unpack[Regression],
) -> Array:
    """Computes the negative log-likelihood of each count under a predicted Poisson rate.

    With `x = predictions` and `y = targets`::

        P = exp(x) - y x          log_input, x the logarithm of the rate
        P = x - y log x           otherwise, x the rate; 0 log 0 = 0
            + y log y - y + 1/2 log(2 pi y)   where y > 1, if full (Stirling)

    PyTorch adds 1e-8 to the rate; here a rate of 0 costs infinity where the count is not 0.

    Args:
      log_input: Whether `predictions` are logarithms of rates.
      full: Whether the targets' own term is added, which moves values but no gradient.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.poisson_nll([0.0, 1.0], [1.0, 2.0], reduction="none").round(4))
      [1.     0.7183]

    Reference:
      Cameron and Trivedi. Regression Analysis of Count Data. Cambridge University Press 1998.
    """
    formula = bind(_poisson_nll if log_input else _poisson_nll_of_rate, full=full)
    return elementwise(formula, predictions, targets, options)


def _gaussian_nll(x: Array, y: Array, v: Array, full: bool) -> Array:
    v = jnp.where(v < _LEAST, _LEAST, v)
    d = x - y
    loss = (jnp.log(v) + d * numerics.divide(d, v)) / 2  # neither d^2 nor v^2 needs to fit
    return loss + math.log(2 * math.pi) / 2 if full else loss


def _poisson_nll(x: Array, y: Array, full: bool) -> Array:
    loss = jnp.exp(x) - y * x
    return loss + _stirling(y) if full else loss


def _poisson_nll_of_rate(x: Array, y: Array, full: bool) -> Array:
    loss = x - _times_log(y, x)
    return loss + _stirling(y) if full else loss


@jax.custom_jvp
def _times_log(y: Array, x: Array) -> Array:
    """Returns `y log x`, -inf for `x <= 0`; no derivative forms `1 / x^2` where `y = 0`."""
    return numerics.product(y, _log(x))


@_times_log.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    y, x = primals
    log_x, positive = _log(x), x > 0
    by_y = jnp.where(positive, log_x, 0)
    by_x = jnp.where(positive, numerics.divide(y, jnp.where(positive, x, 1)), 0)
    return numerics.product(y, log_x), by_y * tangents[0] + by_x * tangents[1]


def _log(x: Array) -> Array:
    positive = x > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, x, 1)), -jnp.inf)


def _stirling(y: Array) -> Array:
    """About the logarithm of `y!`, where `y > 1`."""
    large = jnp.where(y > 1, y, 1)
    log_factorial = large * jnp.log(large) - large + jnp.log(2 * jnp.pi * large) / 2
    return jnp.where(y > 1, log_factorial, 0)
