"""Errors between a prediction and its target: plain, squared, one-sided, of direction."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics
from jaxloss._core.families import regression
from jaxloss._core.labels import per_value
from jaxloss._core.reading import paired
from jaxloss._core.reduction import reduce
from jaxloss._regression._elementwise import NAMES, elementwise
from jaxloss.options import Fraction, Numbers, Regression

__all__ = ["cosine", "l1", "l2", "quantile"]

Array = jax.Array


@regression
def l1(predictions: Numbers, targets: Numbers, **options: Unpack[Regression]) -> Array:
    """Computes the absolute error of each prediction.

    With `d = predictions - targets`::

        L1 = |d|

    The derivative at `d = 0` is 0.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.l1([[1.0, 2.0]], [[3.0, 5.0]]))
      2.5

    Reference:
      Boscovich. De litteraria expeditione per pontificiam ditionem. 1757.
    """
    return elementwise(_l1, predictions, targets, options)


@regression
def l2(predictions: Numbers, targets: Numbers, **options: Unpack[Regression]) -> Array:
    """Computes the squared error of each prediction.

    With `d = predictions - targets`::

        L2 = d^2

    There is no factor 1/2: the mean is the mean squared error.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.l2([[1.0, 2.0], [3.0, 4.0]], [[3.0, 5.0], [8.0, 6.0]]))
      10.5

    Reference:
      Gauss. Theoria combinationis observationum erroribus minimis obnoxiae. 1823.
    """
    return elementwise(_l2, predictions, targets, options)


@regression
def quantile(
    predictions: Numbers, targets: Numbers, *, q: Fraction = 0.5, **options: Unpack[Regression]
) -> Array:
    """Computes the quantile (pinball) loss of each prediction.

    With `d = targets - predictions`::

        Q = max(q d, (q - 1) d)

    whose expectation is least at the `q`-quantile of the targets: a prediction below costs `q` per
    unit, one above `1 - q`. `q=0.5` is half the absolute error. The derivative at `d = 0` is 0.

    Args:
      q: The quantile, in `[0, 1]`.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.quantile([0.0, 2.0], [1.0, 1.0], q=0.75, reduction="none"))
      [0.75 0.25]

    Reference:
      Koenker and Bassett. Regression Quantiles. Econometrica 1978.
    """
    return elementwise(_quantile, predictions, targets, options, q)


@regression
def cosine(
    predictions: Numbers, targets: Numbers, *, axis: int = -1, **options: Unpack[Regression]
) -> Array:
    """Computes the cosine distance of each pair of vectors.

    With `u` and `v` the vectors over their lengths::

        C = 1 - u . v = |u - v|^2 / 2                 in [0, 2]

    in the second form, which is exactly 0 for equal directions and never negative. A vector of
    length 0 has no direction: it costs 1 with zero gradient. Lengths neither under- nor overflow.

    Args:
      predictions: Vectors along `axis`, any shape `[..., D]`, floating.
      axis: The axis along which the vectors lie.
      where: Boolean, the rank of `predictions` less `axis` with each dimension equal or 1. What is
        False reaches neither value nor gradient, not even as NaN.

    Example:
      >>> import jaxloss
      >>> a, b = [[1.0, 0.0], [1.0, 0.0]], [[3.0, 0.0], [0.0, 2.0]]
      >>> print(jaxloss.cosine(a, b, reduction="none"))
      [0. 1.]

    Reference:
      Salton, Wong and Yang. A Vector Space Model for Automatic Indexing. Communications of the ACM
      1975.
    """
    vectors = checks.floating("predictions", predictions)
    checks.minimum_rank("predictions", vectors, 1, "one of them holds the vectors")
    at = checks.axis(axis, vectors.ndim)
    aims = jnp.asarray(targets)
    checks.shape("targets", aims, vectors.shape, "the shape of `predictions`")
    last = (jnp.moveaxis(x, at, -1) for x in (vectors, aims))
    data = paired(*last, options, names=NAMES, inner=1)
    pair = (data.prediction, data.target)
    return reduce(per_value(_cosine, pair, data.mask, inner=vectors.ndim - 1), options, data)


def _l1(x: Array, y: Array) -> Array:
    return numerics.absolute(x - y)


def _l2(x: Array, y: Array) -> Array:
    return (x - y) ** 2


def _quantile(x: Array, y: Array, q: Array) -> Array:
    d = y - x
    return jnp.where(d > 0, q, q - 1) * jnp.where(d == 0, 0, d)


def _cosine(x: Array, y: Array) -> Array:
    """The cosine distance of vectors along the last axis."""
    (u, no_u), (v, no_v) = _direction(x), _direction(y)
    return jnp.where(no_u | no_v, 1, ((u - v) ** 2).sum(-1, keepdims=True) / 2)


def _direction(vectors: Array) -> tuple[Array, Array]:
    """Unit vectors along the last axis, and which vectors have no direction."""
    largest = jax.lax.stop_gradient(jnp.abs(vectors)).max(-1, keepdims=True)
    scaled = vectors * numerics.per_unit(largest)
    length = numerics.sqrt((scaled**2).sum(-1, keepdims=True))
    return scaled * numerics.reciprocal(length), largest == 0
