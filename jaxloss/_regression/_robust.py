"""Errors that are smooth near the target, tame far from it, or sharpened."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import numerics
from jaxloss._core.reduction import AxisName
from jaxloss._regression._paired import reduced

__all__ = ["balanced_l1", "charbonnier", "huber", "log_cosh", "smooth_l1", "wing"]

Array = jax.Array


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

    def cost(x: Array, y: Array, delta: Array) -> Array:
        difference = x - y
        near = jnp.clip(difference, -delta, delta)
        return near * (difference - near / 2)

    return reduced(
        "huber",
        cost,
        predictions,
        targets,
        ("delta", delta, "[0, inf)"),
        where=where,
        weights=weights,
        reduction=reduction,
        axis_name=axis_name,
    )


def smooth_l1(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    beta: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the smooth L1 loss of each prediction: the Huber loss over its threshold.

    With `d = predictions - targets`::

        S = d^2 / (2 beta)     where |d| < beta
            |d| - beta / 2     elsewhere

    Its slope far from the target is 1 whatever `beta`; `beta=0` is the absolute error.

    Args:
      predictions: Predicted values, any shape `[...]`, floating.
      targets: True values, shape `[...]`.
      beta: Where the loss becomes linear, at least 0, in the unit of the predictions.
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
      ValueError: If shapes do not match (they never broadcast), `beta` is negative or
        `reduction` is unknown.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.smooth_l1([0.0, 0.0], [0.5, 3.0], reduction="none"))
      [0.125 2.5  ]

    Reference:
      Girshick. Fast R-CNN. ICCV 2015. https://arxiv.org/abs/1504.08083
    """

    def cost(x: Array, y: Array, beta: Array) -> Array:
        size = numerics.absolute(x - y)
        near = size < beta
        inner = jnp.where(near, size, 0)
        return jnp.where(near, numerics.divide(inner * inner, 2 * beta), size - beta / 2)

    return reduced(
        "smooth_l1",
        cost,
        predictions,
        targets,
        ("beta", beta, "[0, inf)"),
        where=where,
        weights=weights,
        reduction=reduction,
        axis_name=axis_name,
    )


def log_cosh(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the logarithm of the hyperbolic cosine of each error.

    With `d = predictions - targets`::

        LC = log cosh d

    About `d^2 / 2` near the target and `|d| - log 2` far from it, with derivative `tanh d`. It is
    accurate to a few ulp at every size of error; a large one does not overflow.

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
      >>> print(jaxloss.log_cosh([0.0, 0.0], [0.5, 3.0], reduction="none").round(3))
      [0.12  2.309]

    Reference:
      Green. Reconstructions from Emission Tomography Data Using a Modified EM Algorithm.
      IEEE Transactions on Medical Imaging 1990.
    """
    return reduced(
        "log_cosh",
        lambda x, y: _log_cosh(x - y),
        predictions,
        targets,
        where=where,
        weights=weights,
        reduction=reduction,
        axis_name=axis_name,
    )


def charbonnier(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 1e-3,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the Charbonnier loss of each prediction: an absolute error that is smooth at 0.

    With `d = predictions - targets`::

        C = sqrt(d^2 + epsilon^2)

    A perfect prediction costs `epsilon`. Neither tiny nor huge errors under- or overflow.

    Args:
      predictions: Predicted values, any shape `[...]`, floating.
      targets: True values, shape `[...]`.
      epsilon: Where the loss turns from quadratic to linear, at least 0, in the unit of the
        predictions.
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
      ValueError: If shapes do not match (they never broadcast), `epsilon` is negative or
        `reduction` is unknown.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.charbonnier([0.0], [3.0], epsilon=4.0))
      5.0

    Reference:
      Charbonnier et al. Two Deterministic Half-Quadratic Regularization Algorithms for Computed
      Imaging. ICIP 1994.
    """

    def cost(x: Array, y: Array, epsilon: Array) -> Array:
        difference = x - y
        unit = jax.lax.stop_gradient(jnp.maximum(jnp.abs(difference), epsilon))
        unit = jnp.where(unit > 0, unit, 1)
        return unit * numerics.sqrt((difference / unit) ** 2 + (epsilon / unit) ** 2)

    return reduced(
        "charbonnier",
        cost,
        predictions,
        targets,
        ("epsilon", epsilon, "[0, inf)"),
        where=where,
        weights=weights,
        reduction=reduction,
        axis_name=axis_name,
    )


def balanced_l1(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    alpha: ArrayLike = 0.5,
    gamma: ArrayLike = 1.5,
    beta: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the balanced L1 loss of each prediction.

    With `d = predictions - targets` and `b = exp(gamma / alpha) - 1`::

        B = alpha / b (b |d| + beta) log(b |d| / beta + 1) - alpha |d|   where |d| < beta
            gamma |d| + beta gamma / b - alpha beta                      elsewhere

    It raises the gradient of small errors, `alpha log(b |d| / beta + 1)`, against that of large
    ones, `gamma`. mmdetection's code equals it only at `beta=1`, where it is continuous.

    Args:
      predictions: Predicted values, any shape `[...]`, floating.
      targets: True values, shape `[...]`.
      alpha: Gradient of small errors, above 0.
      gamma: Gradient of large errors, above 0.
      beta: Where large errors begin, above 0, in the unit of the predictions.
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
      ValueError: If shapes do not match (they never broadcast), a number is out of its range or
        `reduction` is unknown.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.balanced_l1([0.0, 0.0], [1.0, 3.0], reduction="none").round(3))
      [1.079 4.079]

    Reference:
      Pang et al. Libra R-CNN. CVPR 2019. https://arxiv.org/abs/1904.02701
    """

    def cost(x: Array, y: Array, alpha: Array, gamma: Array, beta: Array) -> Array:
        size, b = numerics.absolute(x - y), jnp.expm1(gamma / alpha)
        inner = jnp.minimum(size, beta)
        near = alpha / b * (b * inner + beta) * jnp.log1p(b * inner / beta) - alpha * inner
        return near + gamma * (size - inner)

    return reduced(
        "balanced_l1",
        cost,
        predictions,
        targets,
        ("alpha", alpha, "(0, inf)"),
        ("gamma", gamma, "(0, inf)"),
        ("beta", beta, "(0, inf)"),
        where=where,
        weights=weights,
        reduction=reduction,
        axis_name=axis_name,
    )


def wing(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    width: ArrayLike = 10.0,
    curvature: ArrayLike = 2.0,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the wing loss of each prediction, which keeps small errors important.

    With `d = predictions - targets`::

        W = width log(1 + |d| / curvature)                        where |d| < width
            |d| - width + width log(1 + width / curvature)        elsewhere

    The derivative at `d = 0` is 0; beside it it is `width / curvature`.

    Args:
      predictions: Predicted values, any shape `[...]`, floating.
      targets: True values, shape `[...]`.
      width: Where the loss becomes linear, at least 0, in the unit of the predictions.
      curvature: How sharply it bends at 0, above 0, in the same unit.
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
      ValueError: If shapes do not match (they never broadcast), a number is out of its range or
        `reduction` is unknown.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.wing([0.0, 0.0], [2.0, 12.0], reduction="none").round(3))
      [ 6.931 19.918]

    Reference:
      Feng et al. Wing Loss for Robust Facial Landmark Localisation. CVPR 2018.
      https://arxiv.org/abs/1711.06753
    """

    def cost(x: Array, y: Array, width: Array, curvature: Array) -> Array:
        size = numerics.absolute(x - y)
        inner = jnp.minimum(size, width)
        return width * jnp.log1p(inner / curvature) + (size - inner)

    return reduced(
        "wing",
        cost,
        predictions,
        targets,
        ("width", width, "[0, inf)"),
        ("curvature", curvature, "(0, inf)"),
        where=where,
        weights=weights,
        reduction=reduction,
        axis_name=axis_name,
    )


@jax.custom_jvp
def _log_cosh(x: Array) -> Array:
    size = jnp.abs(x)
    small = size < 1
    half_sinh = jnp.sinh(jnp.where(small, size, 0) / 2)
    large = size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2)
    return jnp.where(small, jnp.log1p(2 * half_sinh * half_sinh), large)


@_log_cosh.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _log_cosh(primals[0]), jnp.tanh(primals[0]) * tangents[0]
