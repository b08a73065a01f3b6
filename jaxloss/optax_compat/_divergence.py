"""Divergences from log-probabilities, which are used as they are: nothing is normalised."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics
from jaxloss.optax_compat import _reading
from jaxloss.optax_compat._reading import Axes

__all__ = [
    "convex_kl_divergence",
    "generalized_kl_divergence",
    "kl_divergence",
    "kl_divergence_with_log_targets",
]

Array = jax.Array


@checks.named
def kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axes = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Computes `sum_c y_c (log y_c - log_predictions_c)` for each position.

    With `0 log 0 = 0` in value and gradient: a target of 0 costs nothing and passes nothing on,
    whatever the prediction, -inf included (Optax: NaN). `jaxloss.kl_divergence` takes logits.

    Args:
      log_predictions: Log-probabilities, floating.
      targets: The probability of each class, floating, which broadcasts against them.
      axis: The class axis, several of them, or None for all.
      where: Boolean, which classes count; broadcasts too. What is False reaches neither value nor
        gradient, not even as NaN.

    Returns:
      One value for each position: the shape without `axis`.

    Raises:
      TypeError: If an array is not floating or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> log_p, y = jnp.log(jnp.array([0.7, 0.3, 0.0])), jnp.array([0.5, 0.5, 0.0])
      >>> print(losses.kl_divergence(log_p, y).round(4))
      0.0872
    """
    checks.floating("targets", targets)
    return _summed(_kl, log_predictions, targets, axis, where, idle=0)


@checks.named
def kl_divergence_with_log_targets(
    log_predictions: ArrayLike,
    log_targets: ArrayLike,
    axis: Axes = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Computes :func:`kl_divergence` of targets that are given by their logarithms.

    A log-target of -inf costs nothing (Optax: NaN).

    Args:
      log_predictions: Log-probabilities, floating.
      log_targets: The log-probability of each class, floating, which broadcasts against them.
      axis: The class axis, several of them, or None for all.
      where: Boolean, which classes count; broadcasts too. What is False reaches neither value nor
        gradient, not even as NaN.

    Returns:
      One value for each position: the shape without `axis`.

    Raises:
      TypeError: If an array is not floating or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> log_p, y = jnp.log(jnp.array([0.7, 0.2, 0.1])), jnp.array([0.5, 0.5, 0.0])
      >>> print(losses.kl_divergence_with_log_targets(log_p, jnp.log(y)).round(4))
      0.2899
    """
    checks.floating("log_targets", log_targets)
    return _summed(_kl_of_logs, log_predictions, log_targets, axis, where, idle=-jnp.inf)


@checks.named
def generalized_kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axes = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Computes the divergence of positive numbers that need not sum to 1.

    Each class adds `y (log y - log_predictions) - y + exp(log_predictions)`, which is never
    negative. It is evaluated as one term: where prediction and target almost agree, Optax's
    difference of two sums has lost all digits.

    Args:
      log_predictions: Logarithms of the predictions, floating.
      targets: The target of each class, floating, which broadcasts against them.
      axis: The class axis, several of them, or None for all.
      where: Boolean, which classes count; broadcasts too. What is False reaches neither value nor
        gradient, not even as NaN.

    Returns:
      One value for each position: the shape without `axis`.

    Raises:
      TypeError: If an array is not floating or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> log_p, y = jnp.log(jnp.array([2.0, 1.0, 0.5])), jnp.array([1.0, 1.0, 0.0])
      >>> print(losses.generalized_kl_divergence(log_p, y).round(4))
      0.8069
    """
    checks.floating("targets", targets)
    return _summed(_generalized_kl, log_predictions, targets, axis, where, idle=0)


@checks.named
def convex_kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axes = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Computes :func:`generalized_kl_divergence` under the name that Optax has deprecated.

    Args:
      log_predictions: Logarithms of the predictions, floating.
      targets: The target of each class, floating, which broadcasts against them.
      axis: The class axis, several of them, or None for all.
      where: Boolean, which classes count.

    Returns:
      One value for each position: the shape without `axis`.

    Example:
      >>> import warnings, jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> with warnings.catch_warnings(action="ignore"):
      ...     print(losses.convex_kl_divergence(jnp.log(jnp.array([2.0])), jnp.ones(1)).round(4))
      0.3069
    """
    warnings.warn(
        "The function convex_kl_divergence is deprecated. "
        "Please use generalized_kl_divergence instead.",
        DeprecationWarning,
        stacklevel=2,
    )
    return generalized_kl_divergence(log_predictions, targets, axis, where)


def _kl(log_p: Array, y: Array) -> Array:
    return numerics.product(y, _excess(log_p, y))


def _kl_of_logs(log_p: Array, log_y: Array) -> Array:
    absent = log_y == -jnp.inf
    excess = jnp.where(absent, 0, log_y) - jnp.where(absent, 0, log_p)
    return numerics.product(jnp.exp(log_y), excess)


def _generalized_kl(log_p: Array, y: Array) -> Array:
    excess = _excess(log_p, y)
    absent = jnp.exp(jnp.where(y == 0, log_p, -jnp.inf))
    return numerics.product(y, excess + jnp.expm1(-excess)) + absent


def _excess(log_p: Array, y: Array) -> Array:
    """Returns `log y - log p`, 0 where `y = 0`."""
    held = y != 0
    return numerics.log(jnp.where(held, y, 1)) - jnp.where(held, log_p, 0)


def _summed(
    formula: Callable[[Array, Array], Array],
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axes,
    where: ArrayLike | None,
    idle: float,
) -> Array:
    """Sums a formula over the classes that count; the others have the target `idle`."""
    checks.floating("log_predictions", log_predictions)
    dtype: Any
    dtype, (log_p, y) = _reading.together(log_predictions, targets)
    axes = _reading.axes_of(axis, log_p.ndim)
    if where is None:
        return formula(log_p, y).sum(axes).astype(dtype)
    mask = jnp.broadcast_to(checks.boolean("where", where), log_p.shape)
    log_p, y = jnp.where(mask, log_p, 0), jnp.where(mask, y, idle)
    return jnp.where(mask, formula(log_p, y), 0).sum(axes).astype(dtype)
