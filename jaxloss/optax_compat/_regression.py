"""Errors of numbers and of directions: Optax's regression losses."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _regression
from jaxloss._core import checks, numerics
from jaxloss._core.cost import Cost
from jaxloss._regression._robust import huber_of
from jaxloss.optax_compat import _reading
from jaxloss.optax_compat._reading import Axes

__all__ = [
    "cosine_distance",
    "cosine_similarity",
    "huber_loss",
    "l2_loss",
    "log_cosh",
    "squared_error",
]

Array = jax.Array


@checks.named
def squared_error(predictions: ArrayLike, targets: ArrayLike | None = None) -> Array:
    """Computes the square of each error: `jaxloss.l2`.

    Args:
      predictions: Predicted values, any shape, floating.
      targets: True values of the same shape; None: 0.

    Returns:
      One value for each element.

    Raises:
      TypeError: If `predictions` is not floating.
      ValueError: If the shapes differ (they never broadcast).

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> print(losses.squared_error(jnp.array([1.0, 4.0]), jnp.array([3.0, 5.0])))
      [4. 1.]
    """
    dtype, (x, y) = _pair(predictions, targets, broadcast=False)
    return _regression.l2(x, y, reduction="none").astype(dtype)


@checks.named
def l2_loss(predictions: ArrayLike, targets: ArrayLike | None = None) -> Array:
    """Computes half the square of each error.

    Args:
      predictions: Predicted values, any shape, floating.
      targets: True values of the same shape; None: 0.

    Returns:
      One value for each element.

    Raises:
      TypeError: If `predictions` is not floating.
      ValueError: If the shapes differ (they never broadcast).

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> print(losses.l2_loss(jnp.array([1.0, 4.0]), jnp.array([3.0, 5.0])))
      [2.  0.5]
    """
    dtype, (x, y) = _pair(predictions, targets, broadcast=False)
    return (_regression.l2(x, y, reduction="none") / 2).astype(dtype)


@checks.named
def huber_loss(
    predictions: ArrayLike, targets: ArrayLike | None = None, *, delta: ArrayLike = 1.0
) -> Array:
    """Computes the Huber loss of each error: `jaxloss.huber`.

    Args:
      predictions: Predicted values, any shape, floating.
      targets: True values, which broadcast against them; None: 0.
      delta: Where the loss becomes linear, at least 0; an array broadcasts too.

    Returns:
      One value for each element.

    Raises:
      TypeError: If `predictions` is not floating.
      ValueError: If a concrete `delta` is negative, which Optax does not check.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> print(losses.huber_loss(jnp.array([0.5, 3.0])))
      [0.125 2.5  ]
    """
    dtype, (x, y) = _pair(predictions, targets, delta)
    width = checks.number("delta", delta, x.dtype, "[0, inf)")
    cost = Cost(huber_of, tuple(jnp.broadcast_arrays(x, y, width)))
    return cost.each().astype(dtype)


@checks.named
def log_cosh(predictions: ArrayLike, targets: ArrayLike | None = None) -> Array:
    """Computes the log of the hyperbolic cosine of each error: `jaxloss.log_cosh`.

    It is accurate to a few ulp also near 0, where Optax loses all digits below 1e-7.

    Args:
      predictions: Predicted values, any shape, floating.
      targets: True values, which broadcast against them; None: 0.

    Returns:
      One value for each element.

    Raises:
      TypeError: If `predictions` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> print(losses.log_cosh(jnp.array([0.5, -3.0])).round(3))
      [0.12  2.309]
    """
    dtype, (x, y) = _pair(predictions, targets)
    return _regression.log_cosh(x, y, reduction="none").astype(dtype)


@checks.named
def cosine_similarity(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 0.0,
    axis: Axes = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Computes the cosine of the angle between vectors; higher is better.

    A vector of length 0 has the similarity 0 to every other, with zero gradient (Optax: NaN).
    Lengths neither under- nor overflow.

    Args:
      predictions: Vectors along `axis`, floating.
      targets: Vectors that broadcast against them, floating.
      epsilon: The smallest squared length by which a vector is divided, at least 0.
      axis: The axis of the vectors, several of them, or None for all.
      where: Boolean, which components count; broadcasts to both. What is False reaches neither
        value nor gradient, not even as NaN.

    Returns:
      One value for each pair: the shape without `axis`.

    Raises:
      TypeError: If an array is not floating or `where` not boolean.
      ValueError: If a concrete `epsilon` is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> a, b = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([[3.0, 4.0], [0.0, 0.0]])
      >>> print(losses.cosine_similarity(a, b))
      [0.6 0. ]
    """
    dtype, (u, _), (v, _) = _directions(predictions, targets, epsilon, axis, where)
    axes = _reading.axes_of(axis, max(u.ndim, v.ndim))
    return (u * v).sum(axes).astype(dtype)


@checks.named
def cosine_distance(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 0.0,
    axis: Axes = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Computes 1 less the cosine of the angle between vectors: `jaxloss.cosine`.

    It is evaluated as half the squared distance of the unit vectors: exactly 0 for equal ones and
    never negative. A vector of length 0 costs 1 with zero gradient (Optax: NaN).

    Args:
      predictions: Vectors along `axis`, floating.
      targets: Vectors that broadcast against them, floating.
      epsilon: The smallest squared length by which a vector is divided, at least 0.
      axis: The axis of the vectors, several of them, or None for all.
      where: Boolean, which components count; broadcasts to both. What is False reaches neither
        value nor gradient, not even as NaN.

    Returns:
      One value for each pair: the shape without `axis`.

    Raises:
      TypeError: If an array is not floating or `where` not boolean.
      ValueError: If a concrete `epsilon` is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> a, b = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([[3.0, 4.0], [0.0, 0.0]])
      >>> print(losses.cosine_distance(a, b))
      [0.4 1. ]
    """
    dtype, (u, short_u), (v, short_v) = _directions(predictions, targets, epsilon, axis, where)
    axes = _reading.axes_of(axis, max(u.ndim, v.ndim))
    apart = ((u - v) ** 2).sum(axes)
    return ((apart + (short_u + short_v).squeeze(axes)) / 2).astype(dtype)


def _pair(
    predictions: ArrayLike,
    targets: ArrayLike | None,
    *parameters: ArrayLike,
    broadcast: bool = True,
) -> tuple[Any, list[Array]]:
    """Reads predictions and targets; the parameters have a say in the dtype of the result."""
    values = checks.floating("predictions", predictions)
    aims = jnp.zeros_like(values) if targets is None else jnp.asarray(targets)
    if not broadcast:
        checks.shape("targets", aims, values.shape, "the shape of `predictions`")
    dtype, (x, y, *_) = _reading.in_one_dtype(values, aims, *parameters)
    return dtype, list(jnp.broadcast_arrays(x, y))


def _directions(
    predictions: ArrayLike,
    targets: ArrayLike,
    epsilon: ArrayLike,
    axis: Axes,
    where: ArrayLike | None,
) -> tuple[Any, tuple[Array, Array], tuple[Array, Array]]:
    """Vectors over their lengths, and by how much the squared length of each falls short of 1."""
    checks.floating("predictions", predictions)
    checks.floating("targets", targets)
    dtype, (first, second, _) = _reading.in_one_dtype(predictions, targets, epsilon)
    least = checks.number("epsilon", epsilon, first.dtype, "[0, inf)")
    mask = None if where is None else checks.boolean("where", where)
    rank = max(first.ndim, second.ndim)
    pairs = []
    for vectors in (first, second):
        vectors = vectors.reshape((1,) * (rank - vectors.ndim) + vectors.shape)
        if mask is not None:
            vectors = jnp.where(jnp.broadcast_to(mask, vectors.shape), vectors, 0)
        pairs.append(_direction(vectors, least, _reading.axes_of(axis, rank)))
    return dtype, pairs[0], pairs[1]


def _direction(vectors: Array, least: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Divides vectors by their lengths, those of a squared length below `least` by its root."""
    unit = jax.lax.stop_gradient(jnp.abs(vectors)).max(axes, keepdims=True, initial=0)
    scaled = vectors / jnp.where(unit == 0, 1, unit)
    length = numerics.sqrt((scaled * scaled).sum(axes, keepdims=True))
    floor = numerics.sqrt(least)
    short = (unit * length <= floor) | (unit == 0)
    shrunk = numerics.divide(jnp.where(short, vectors, 0), jnp.where(short, floor, 1))
    unit_length = jnp.where(short, 0, numerics.divide(scaled, jnp.where(short, 1, length)))
    missing = jnp.where(short, 1 - (shrunk * shrunk).sum(axes, keepdims=True), 0)
    return jnp.where(short, shrunk, unit_length), missing
