"""Errors between a prediction and its target: plain, squared, one-sided, of direction."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics
from jaxloss._core.labels import paired
from jaxloss._core.lean import Costs
from jaxloss._core.reduction import AxisName, reduce
from jaxloss._regression._paired import NAMES, reduced

__all__ = ["cosine", "l1", "l2", "quantile"]

Array = jax.Array


def l1(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the absolute error of each prediction.

    With `d = predictions - targets`::

        L1 = |d|

    The derivative at `d = 0` is 0.

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
      >>> print(jaxloss.l1([[1.0, 2.0]], [[3.0, 5.0]]))
      2.5

    Reference:
      Boscovich. De litteraria expeditione per pontificiam ditionem. 1757.
    """
    return reduced(
        "l1",
        lambda x, y: numerics.absolute(x - y),
        predictions,
        targets,
        where=where,
        weights=weights,
        reduction=reduction,
        axis_name=axis_name,
    )


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
    return reduced(
        "l2",
        lambda x, y: (x - y) ** 2,
        predictions,
        targets,
        where=where,
        weights=weights,
        reduction=reduction,
        axis_name=axis_name,
    )


def quantile(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    q: ArrayLike = 0.5,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the quantile (pinball) loss of each prediction.

    With `d = targets - predictions`::

        Q = max(q d, (q - 1) d)

    whose expectation is least at the `q`-quantile of the targets: a prediction below costs `q` per
    unit, one above `1 - q`. `q=0.5` is half the absolute error. The derivative at `d = 0` is 0.

    Args:
      predictions: Predicted values, any shape `[...]`, floating.
      targets: True values, shape `[...]`.
      q: The quantile, in `[0, 1]`.
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
      ValueError: If shapes do not match (they never broadcast), `q` is out of range or
        `reduction` is unknown.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.quantile([0.0, 2.0], [1.0, 1.0], q=0.75, reduction="none"))
      [0.75 0.25]

    Reference:
      Koenker and Bassett. Regression Quantiles. Econometrica 1978.
    """

    def cost(x: Array, y: Array, q: Array) -> Array:
        below = y - x
        return jnp.where(below > 0, q, q - 1) * jnp.where(below == 0, 0, below)

    return reduced(
        "quantile",
        cost,
        predictions,
        targets,
        ("q", q, "[0, 1]"),
        where=where,
        weights=weights,
        reduction=reduction,
        axis_name=axis_name,
    )


def cosine(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the cosine distance of each pair of vectors.

    With `u` and `v` the vectors over their lengths::

        C = 1 - u . v = |u - v|^2 / 2                 in [0, 2]

    in the second form, which is exactly 0 for equal directions and never negative. A vector of
    length 0 has no direction: it costs 1 with zero gradient. Lengths neither under- nor overflow.

    Args:
      predictions: Vectors along `axis`, any shape `[..., D]`, floating.
      targets: Vectors of the same shape.
      axis: The axis along which the vectors lie.
      where: Boolean, the rank of `predictions` less `axis` with each dimension equal or 1. What is
        False reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      reduction: `"mean"` (weighted, over the valid pairs, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or shape `[...]` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `predictions` is not floating or `where` not boolean.
      ValueError: If shapes do not match (they never broadcast), the axis does not exist or
        `reduction` is unknown.

    Example:
      >>> import jaxloss
      >>> a, b = [[1.0, 0.0], [1.0, 0.0]], [[3.0, 0.0], [0.0, 2.0]]
      >>> print(jaxloss.cosine(a, b, reduction="none"))
      [0. 1.]

    Reference:
      Salton, Wong and Yang. A Vector Space Model for Automatic Indexing. Communications of the ACM
      1975.
    """
    vectors = checks.floating("cosine", "predictions", predictions)
    checks.minimum_rank("cosine", "predictions", vectors, 1, "one of them holds the vectors")
    at = checks.axis("cosine", axis, vectors.ndim)
    others = jnp.asarray(targets)
    checks.shape("cosine", "targets", others, vectors.shape, "the shape of `predictions`")
    values, aims, mask, factor = paired(
        "cosine",
        jnp.moveaxis(vectors, at, -1),
        jnp.moveaxis(others, at, -1),
        names=NAMES,
        where=where,
        weights=weights,
        inner=1,
    )

    def cost(values: Array, aims: Array, mask: Array | None) -> Array:
        (u, no_u), (v, no_v) = _direction(values), _direction(aims)
        loss = jnp.where(no_u | no_v, 1, ((u - v) ** 2).sum(-1, keepdims=True) / 2)
        return loss if mask is None else jnp.where(mask, loss, 0)

    slots = None if mask is None else mask[..., None]
    costs = Costs(cost, (values, aims, slots), values.ndim - 1)
    return reduce("cosine", costs, reduction, mask=mask, weights=factor, axis_name=axis_name)


def _direction(vectors: Array) -> tuple[Array, Array]:
    """Unit vectors along the last axis, and which vectors have no direction."""
    unit = jax.lax.stop_gradient(jnp.abs(vectors)).max(-1, keepdims=True)
    none = unit == 0
    scaled = vectors / jnp.where(none, 1, unit)
    length = numerics.sqrt((scaled**2).sum(-1, keepdims=True))
    return numerics.divide(scaled, length), none
