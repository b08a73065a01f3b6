"""Logarithm and exponential at a temperature, smooth through their limit at temperature 1.

    log_t(u) = (u^(1 - t) - 1) / (1 - t)        exp_t its inverse

Both are written between logarithms, so that they keep their relative accuracy where `u` is close
to 1 and do not underflow where it is close to 0.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxloss._core import numerics

Array = jax.Array


def log_t(log_u: Array, rate: Array) -> Array:
    """Returns `(u^rate - 1) / rate`, the logarithm at temperature `1 - rate`, from `log u`."""
    return log_derivative(log_u, rate, 0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def log_derivative(log_u: Array, rate: Array, order: int) -> Array:
    """Returns the derivative of `log_t` of this order in the rate.

    It is the integral of `s^order u^(s rate)` over s in [0, 1], times `log(u)^(order + 1)`.
    """
    x = rate * log_u
    moving = jnp.where(rate == 0, 1, rate)
    if order == 0:
        # Also where x would underflow: the next term is less than half an ulp.
        linear = (rate == 0) | (jnp.abs(x) < jnp.finfo(x.dtype).eps)
        return jnp.where(linear, log_u, jnp.expm1(x) / moving)
    small = (jnp.abs(x) < 1) | (rate == 0)
    x = jnp.where(small & (rate != 0), x, 0)
    series = jnp.zeros_like(x)
    for k in reversed(range(_terms(x))):
        series = series * x + 1 / (math.factorial(k) * (order + k + 1))
    below = log_derivative(log_u, rate, order - 1)
    growth = numerics.product(jnp.exp(rate * log_u), log_u**order)
    return jnp.where(small, log_u ** (order + 1) * series, (growth - order * below) / moving)


@log_derivative.defjvp
def _(
    order: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    log_u, rate = primals
    largest = jnp.finfo(log_u.dtype).max
    finite = jnp.clip(log_u, -largest, largest)  # log 0, which meets rates of 0
    by_u = numerics.product(jnp.exp(rate * finite), finite**order)
    by_rate = jnp.clip(log_derivative(finite, rate, order + 1), -largest, largest)
    return log_derivative(log_u, rate, order), by_u * tangents[0] + by_rate * tangents[1]


@jax.custom_jvp
def surprise(u: Array, rate: Array) -> Array:
    """Returns `-log exp_t(-u)` for `t = 1 + rate`: inf, with zero gradient, where that is log 0."""
    dead = _dead(u, rate)
    u = jnp.where(dead, 0, u)
    cost = jnp.where(rate == 0, u, jnp.log1p(rate * u) / jnp.where(rate == 0, 1, rate))
    return jnp.where(dead, jnp.inf, cost)


@surprise.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    u, rate = primals
    cost = surprise(u, rate)
    dead = _dead(u, rate)
    finite = jnp.where(dead, 0, cost)
    by_u = jnp.where(dead, 0, jnp.exp(-rate * finite))
    by_rate = -by_u * numerics.finite(log_derivative(finite, rate, 1))
    return cost, by_u * tangents[0] + by_rate * tangents[1]


def _dead(u: Array, rate: Array) -> Array:
    return (u == jnp.inf) | (rate * jnp.where(u == jnp.inf, 0, u) <= -1)


def _terms(x: Any) -> int:
    """How many terms of a series in `x^k / k!` reach the precision of `x` for `|x| < 1`."""
    return 11 if x.dtype.itemsize == 4 else 19


def phi(log_ratio: Array, rate: Array) -> Array:
    """Returns `log_t` at `rate + 1` less that at `rate`, for `|log_ratio| (rate + 1) < 1`.

    It is of second order in the logarithm and does not cancel.
    """
    x = jnp.where(jnp.abs(log_ratio) * (rate + 1) < 1, log_ratio, 0)
    series = jnp.zeros_like(x)
    for k in reversed(range(_terms(x))):
        difference = (rate + 1) ** (k + 1) - rate ** (k + 1)
        series = series * x + difference / math.factorial(k + 2)
    return x * x * series
