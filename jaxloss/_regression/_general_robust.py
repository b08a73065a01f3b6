"""One robust error whose shape is a parameter, from squared over Cauchy to Welsch."""

from __future__ import annotations

import math
from typing import Annotated, TypeAlias, Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import numerics
from jaxloss._core.families import regression
from jaxloss._regression._elementwise import elementwise
from jaxloss.options import Interval, Number, Numbers, Positive, Regression

__all__ = ["general_robust"]

Array = jax.Array
Shape: TypeAlias = Annotated[Number, Interval("[-inf, inf]")]

# Taylor coefficients of atanh(sqrt(v)) / sqrt(v), and of expm1(t) / t: enough for float64.
_ATANH = tuple(1 / (2 * k + 1) for k in range(13))
_EXPM1 = tuple(1 / math.factorial(k + 1) for k in range(15))


@regression
def general_robust(
    predictions: Numbers,
    targets: Numbers,
    *,
    alpha: Shape = 1.0,
    scale: Positive = 1.0,
    **options: Unpack[Regression],
) -> Array:
    """Computes the general and adaptive robust loss of each prediction.

    With `x = (predictions - targets) / scale` and `b = |alpha - 2|`::

        R = b / alpha ((x^2 / b + 1)^(alpha / 2) - 1)

    which is, exactly or as a limit::

        alpha = 2       x^2 / 2                      squared
        alpha = 1       sqrt(x^2 + 1) - 1            smoothed L1, Charbonnier
        alpha = 0       log(x^2 / 2 + 1)             Cauchy
        alpha = -2      2 x^2 / (x^2 + 4)            Geman-McClure
        alpha = -inf    1 - exp(-x^2 / 2)            Welsch
        alpha = inf     exp(x^2 / 2) - 1

    All are `x^2 / 2` near the target. Value and derivatives, those by `alpha` and `scale` too, are
    accurate at and about each limit, and for errors of any size. Only at `alpha = 2` the exact
    derivative by `alpha` is infinite (about it, `x^2 / 4 log(x^2 / b)`): there it is about that of
    the next floating-point number.

    The loss grows with `alpha`, so that a learned one runs away to -inf unless something holds it,
    such as the log-normaliser of the paper's distribution.

    Args:
      alpha: The shape, any number or an infinity; the smaller, the less an outlier counts.
      scale: The size of an ordinary error, above 0, in the unit of the predictions.

    Example:
      >>> import jaxloss
      >>> for alpha in (2.0, 0.0, -float("inf")):
      ...     print(jaxloss.general_robust([4.0], [0.0], alpha=alpha).round(4))
      8.0
      2.1972
      0.9997

    Reference:
      Barron. A General and Adaptive Robust Loss Function. CVPR 2019.
      https://arxiv.org/abs/1701.03077
    """
    return elementwise(_general_robust, predictions, targets, options, alpha, scale)


# What a branch does not use is a harmless number in it, for the derivatives.


def _general_robust(x: Array, y: Array, alpha: Array, scale: Array) -> Array:
    """The loss by `m = b/2 log(x^2 / b + 1)`, which no limit of alpha makes infinite.

    About `alpha = 2`, where `alpha / b` is infinite, the power of `alpha / 2` is that of 1 times
    `exp(bend)`, `bend` near 0.
    """
    d = (x - y) / scale
    limits = jnp.finfo(d.dtype)
    most = math.sqrt(float(limits.max)) * (1 - 2 * float(limits.eps))
    square = jnp.clip(d, -most, most) ** 2
    b = jnp.where(alpha == 2, limits.eps, numerics.absolute(alpha - 2))
    log, m = _logarithm(d, square, b)

    from_2 = jnp.where(jnp.abs(alpha - 2) < 0.5, alpha - 2, 1)
    bend = from_2 / 2 * log
    about_2 = (jnp.abs(from_2) < 0.5) & (jnp.abs(bend) < 0.5) & (jnp.abs(d) < most)
    elsewhere = _of_logarithm(jnp.where(about_2, 0, m), alpha, 1 / b)
    a, b, bend = (jnp.where(about_2, *pair) for pair in ((alpha, 2), (b, 1), (bend, 0)))
    return jnp.where(about_2, (square + (b + square) * jnp.expm1(bend)) / a, elsewhere)


def _logarithm(d: Array, square: Array, b: Array) -> tuple[Array, Array]:
    """Returns `log(d^2 / b + 1)`, and that times `b / 2`, of any `d` and `b` up to infinity."""
    z = 1 / b * square
    small = z < 0.5
    near_z, far_b = jnp.where(small, z, 0), jnp.where(small, 1, b)
    far = jnp.where(small, 1, jnp.abs(d)) / jnp.sqrt(far_b)
    log = jnp.where(small, jnp.log1p(near_z), jnp.logaddexp(2 * jnp.log(far), 0))
    return log, jnp.where(small, square / 2 * _log1p_over(near_z), far_b / 2 * log)


def _of_logarithm(m: Array, alpha: Array, w: Array) -> Array:
    """Returns `(exp(r m) - 1) / r` with `r = alpha / b`, `w = 1 / b`: `m` at `alpha = 0`."""
    a_w = jnp.where(jnp.abs(alpha) < 1, alpha, 0) * w  # near 0 the sum below cancels
    r = jnp.where(jnp.abs(alpha) < 1, a_w, 2 * w + jnp.where(alpha < 2, -1, 1))
    t = r * m
    short = jnp.abs(t) < 0.5
    by_m = m * _expm1_over(jnp.where(short, t, 0))
    by_power = (jnp.exp(jnp.where(short, 1, t)) - 1) / jnp.where(short, 1, r)
    return jnp.where(short, by_m, by_power)


def _log1p_over(z: Array) -> Array:
    """Returns `log(1 + z) / z` for `z` in `[0, 1/2]`, with accurate derivatives."""
    v = z / (2 + z)
    return 2 / (2 + z) * _polynomial(_ATANH, v * v)


def _expm1_over(t: Array) -> Array:
    """Returns `(exp(t) - 1) / t` for `t` in `[-1/2, 1/2]`, with accurate derivatives."""
    return _polynomial(_EXPM1, t)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    total = jnp.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total
