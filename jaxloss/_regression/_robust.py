"""Errors that are smooth near the target, tame far from it, or sharpened."""

from __future__ import annotations

import math
from typing import Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import numerics
from jaxloss._core.families import regression
from jaxloss._regression._elementwise import elementwise
from jaxloss.options import NonNegative, Numbers, Positive, Regression

__all__ = ["balanced_l1", "charbonnier", "huber", "log_cosh", "smooth_l1", "wing"]

Array = jax.Array


@regression
def huber(
    predictions: Numbers,
    targets: Numbers,
    *,
    delta: NonNegative = 1.0,
    **options: Unpack[Regression],
) -> Array:
    """Computes the Huber loss of each prediction: squared near the target, linear far from it.

    With `d = predictions - targets`::

        H = 1/2 d^2                      where |d| <= delta
            delta (|d| - delta / 2)      elsewhere

    A large error is never squared, so it cannot overflow. Its gradient is `d` clipped to
    `[-delta, delta]`. `delta=0` gives 0 everywhere.

    Args:
      delta: Where the loss becomes linear, at least 0, in the unit of the predictions.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.huber([0.0, 0.0], [0.5, 3.0], delta=1.0, reduction="none"))
      [0.125 2.5  ]

    Reference:
      Huber. Robust Estimation of a Location Parameter. Annals of Mathematical Statistics 1964.
    """
    return elementwise(huber_of, predictions, targets, options, delta)


@regression
def smooth_l1(
    predictions: Numbers,
    targets: Numbers,
    *,
    beta: NonNegative = 1.0,
    **options: Unpack[Regression],
) -> Array:
    """Computes the smooth L1 loss of each prediction: the Huber loss over its threshold.

    With `d = predictions - targets`::

        S = d^2 / (2 beta)     where |d| < beta
            |d| - beta / 2     elsewhere

    Its slope far from the target is 1 whatever `beta`; `beta=0` is the absolute error.

    Args:
      beta: Where the loss becomes linear, at least 0, in the unit of the predictions.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.smooth_l1([0.0, 0.0], [0.5, 3.0], reduction="none"))
      [0.125 2.5  ]

    Reference:
      Girshick. Fast R-CNN. ICCV 2015. https://arxiv.org/abs/1504.08083
    """
    return elementwise(_smooth_l1, predictions, targets, options, beta)


@regression
def log_cosh(predictions: Numbers, targets: Numbers, **options: Unpack[Regression]) -> Array:
    """Computes the logarithm of the hyperbolic cosine of each error.

    With `d = predictions - targets`::

        LC = log cosh d

    About `d^2 / 2` near the target and `|d| - log 2` far from it, with derivative `tanh d`. It is
    accurate to a few ulp at every size of error; a large one does not overflow.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.log_cosh([0.0, 0.0], [0.5, 3.0], reduction="none").round(3))
      [0.12  2.309]

    Reference:
      Green. Reconstructions from Emission Tomography Data Using a Modified EM Algorithm.
      IEEE Transactions on Medical Imaging 1990.
    """
    return elementwise(_log_cosh_error, predictions, targets, options)


@regression
def charbonnier(
    predictions: Numbers,
    targets: Numbers,
    *,
    epsilon: NonNegative = 1e-3,
    **options: Unpack[Regression],
) -> Array:
    """Computes the Charbonnier loss of each prediction: an absolute error that is smooth at 0.

    With `d = predictions - targets`::

        C = sqrt(d^2 + epsilon^2)

    A perfect prediction costs `epsilon`. Neither tiny nor huge errors under- or overflow.

    Args:
      epsilon: Where the loss turns from quadratic to linear, at least 0, in the unit of the
        predictions.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.charbonnier([0.0], [3.0], epsilon=4.0))
      5.0

    Reference:
      Charbonnier et al. Two Deterministic Half-Quadratic Regularization Algorithms for Computed
      Imaging. ICIP 1994.
    """
    return elementwise(_charbonnier, predictions, targets, options, epsilon)


@regression
def balanced_l1(
    predictions: Numbers,
    targets: Numbers,
    *,
    alpha: Positive = 0.5,
    gamma: Positive = 1.5,
    beta: Positive = 1.0,
    **options: Unpack[Regression],
) -> Array:
    """Computes the balanced L1 loss of each prediction.

    With `d = predictions - targets` and `b = exp(gamma / alpha) - 1`::

        B = alpha / b (b |d| + beta) log(b |d| / beta + 1) - alpha |d|   where |d| < beta
            gamma |d| + beta gamma / b - alpha beta                      elsewhere

    It raises the gradient of small errors, `alpha log(b |d| / beta + 1)`, against that of large
    ones, `gamma`. mmdetection's code equals it only at `beta=1`, where it is continuous.

    Args:
      alpha: Gradient of small errors, above 0.
      gamma: Gradient of large errors, above 0.
      beta: Where large errors begin, above 0, in the unit of the predictions.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.balanced_l1([0.0, 0.0], [1.0, 3.0], reduction="none").round(3))
      [1.079 4.079]

    Reference:
      Pang et al. Libra R-CNN. CVPR 2019. https://arxiv.org/abs/1904.02701
    """
    return elementwise(_balanced_l1, predictions, targets, options, alpha, gamma, beta)


@regression
def wing(
    predictions: Numbers,
    targets: Numbers,
    *,
    width: NonNegative = 10.0,
    curvature: Positive = 2.0,
    **options: Unpack[Regression],
) -> Array:
    """Computes the wing loss of each prediction, which keeps small errors important.

    With `d = predictions - targets`::

        W = width log(1 + |d| / curvature)                        where |d| < width
            |d| - width + width log(1 + width / curvature)        elsewhere

    The derivative at `d = 0` is 0; beside it it is `width / curvature`.

    Args:
      width: Where the loss becomes linear, at least 0, in the unit of the predictions.
      curvature: How sharply it bends at 0, above 0, in the same unit.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.wing([0.0, 0.0], [2.0, 12.0], reduction="none").round(3))
      [ 6.931 19.918]

    Reference:
      Feng et al. Wing Loss for Robust Facial Landmark Localisation. CVPR 2018.
      https://arxiv.org/abs/1711.06753
    """
    return elementwise(_wing, predictions, targets, options, width, curvature)


def huber_of(x: Array, y: Array, delta: Array) -> Array:
    """The Huber loss of a prediction."""
    d = x - y
    near = jnp.clip(d, -delta, delta)
    return near * (d - near / 2)


def _smooth_l1(x: Array, y: Array, beta: Array) -> Array:
    size = numerics.absolute(x - y)
    near = size < beta
    inner = jnp.where(near, size, 0)
    return jnp.where(near, numerics.divide(inner * inner, 2 * beta), size - beta / 2)


def _log_cosh_error(x: Array, y: Array) -> Array:
    return _log_cosh(x - y)


def _charbonnier(x: Array, y: Array, epsilon: Array) -> Array:
    return numerics.length(x - y, epsilon)


def _balanced_l1(x: Array, y: Array, alpha: Array, gamma: Array, beta: Array) -> Array:
    size, b = numerics.absolute(x - y), jnp.expm1(gamma / alpha)
    inner = jnp.minimum(size, beta)
    near = alpha / b * (b * inner + beta) * jnp.log1p(b * inner / beta) - alpha * inner
    return near + gamma * (size - inner)


def _wing(x: Array, y: Array, width: Array, curvature: Array) -> Array:
    size = numerics.absolute(x - y)
    inner = jnp.minimum(size, width)
    return width * jnp.log1p(inner / curvature) + (size - inner)


@jax.custom_jvp
def _log_cosh(d: Array) -> Array:
    size = jnp.abs(d)
    small = size < 1
    half_sinh = jnp.sinh(jnp.where(small, size, 0) / 2)
    large = size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2)
    return jnp.where(small, jnp.log1p(2 * half_sinh * half_sinh), large)


@_log_cosh.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (d,) = primals
    return _log_cosh(d), jnp.tanh(d) * tangents[0]
