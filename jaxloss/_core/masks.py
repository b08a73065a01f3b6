"""Soft counts of masks under a sigmoid, as a CPU computes them: with both probabilities kept.

Its compiler sums products of arrays without writing them, if none of their factors is a select or
serves another sum, too. So `p` and `1 - p` are written once each, for the sums and the slopes, and
`1 - y` is made of another constant than they are.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxloss._core import numerics

Array = jax.Array

KEPT = 2**25  # bytes; the system gives memory for more page by page, anew in each call


def pays(x: Array) -> bool:
    """Whether this is faster than chunks, which keep nothing."""
    return x.nbytes <= KEPT


def counts(
    x: Array, y: Array, mask: Array | None, weight: Array | None, *, summed: tuple[int, ...]
) -> tuple[Array, ...]:
    """Returns the sums of `p y`, `p (1 - y)` and `(1 - p) y` over some axes."""
    x, y = _valid(x, y, mask)
    p, q = jax.lax.logistic(x), jax.lax.logistic(-x)
    each = (numerics.weighted(v, None, weight) for v in (p * y, p * (y - 1), q * y))
    tp, minus_fp, fn = (values.sum(summed) for values in each)
    return tp, -minus_fp, fn


def slope_of_counts(
    x: Array,
    y: Array,
    mask: Array | None,
    weight: Array | None,
    *factors: Array,
    summed: tuple[int, ...],
) -> tuple[Array]:
    """Returns the derivative by `x` of those sums times their factors."""
    x, y = _valid(x, y, mask)
    by_tp, by_fp, by_fn = (jnp.expand_dims(factor, summed) for factor in factors)
    rate = jax.lax.logistic(x) * jax.lax.logistic(-x)
    slope = rate * (by_fp + y * (by_tp - by_fp - by_fn))
    return (numerics.weighted(slope, None, weight),)


def _valid(x: Array, y: Array, mask: Array | None) -> Any:
    return (x, y) if mask is None else (jnp.where(mask, x, 0), jnp.where(mask, y, 0))
