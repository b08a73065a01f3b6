"""Soft counts of masks under a sigmoid, as a CPU computes them.

Its compiler sums products of arrays without writing them, if none of their factors is a select or
serves another sum, too. So both probabilities of a chunk are written, and `1 - y` is made of
another constant than they are.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxloss._core import numerics, sigmoid
from jaxloss._core.chunks import in_chunks
from jaxloss._core.platforms import bind
from jaxloss._core.sharding import blocks

Array = jax.Array

RUN = 64  # positions


def counts(
    x: Array, y: Array, mask: Array | None, weight: Array | None, *, summed: tuple[int, ...]
) -> tuple[Array, ...]:
    """Returns the sums of `p y`, `p (1 - y)` and `(1 - p) y` over some axes."""
    run = _run(x, summed)
    arrays = (_in_runs(a, x.shape, run) for a in (x, y, mask, weight))
    sums = in_chunks(bind(_counts, summed=summed), summed)(*arrays)
    return tuple(_of_classes(a, run) for a in sums)


def slope_of_counts(
    x: Array,
    y: Array,
    mask: Array | None,
    weight: Array | None,
    *factors: Array,
    summed: tuple[int, ...],
) -> tuple[Array]:
    """Returns the derivative by `x` of those sums times their factors."""
    x, y = numerics.masked(x, mask), numerics.masked(y, mask)
    by_tp, by_fp, by_fn = (jnp.expand_dims(factor, summed) for factor in factors)
    slope = sigmoid.steepness(x) * (by_fp + y * (by_tp - by_fp - by_fn))
    return (numerics.times(slope, weight),)


def _counts(
    x: Array, y: Array, mask: Array | None, weight: Array | None, *, summed: tuple[int, ...]
) -> tuple[Array, ...]:
    x, y = numerics.masked(x, mask), numerics.masked(y, mask)
    odds = jnp.exp(-x)
    p, q = 1 / (1 + odds), jnp.where(jnp.isinf(odds), 1, odds / (1 + odds))
    each = (numerics.times(v, weight) for v in (p * y, p * (y - 1), q * y))
    tp, minus_fp, fn = (values.sum(summed) for values in each)
    return tp, -minus_fp, fn


def _run(x: Array, summed: tuple[int, ...]) -> int:
    """How many positions make one axis with the classes behind them, which seldom fill vectors."""
    if x.ndim - 1 in summed or any(blocks(x, i) > 1 for i in range(x.ndim)):
        return 1
    return math.gcd(x.shape[-2], RUN)


def _in_runs(a: Any, shape: tuple[int, ...], run: int) -> Any:
    if a is None or run == 1:
        return a
    a = jnp.broadcast_to(a, (*a.shape[:-2], *shape[-2:]))
    return a.reshape(*a.shape[:-2], -1, run * shape[-1])


def _of_classes(sums: Array, run: int) -> Array:
    return sums if run == 1 else sums.reshape(*sums.shape[:-1], run, -1).sum(-2)
