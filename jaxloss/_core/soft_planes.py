"""The cross-entropy of soft labels of few classes as a GPU computes it: a plane of each class.

Of planes its compiler makes a loop for the value and one for the slope. Reductions over the classes
would be loops of their own, and what value and slope share would be written to memory.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import gpu, labels, numerics, soft

Array = jax.Array


class _Row(NamedTuple):
    """What each position has of all its classes, with a class axis of size 1.

    Attributes:
      top: The largest logit.
      rest: `sum_c exp(z_c - top) - 1`, exactly.
      spread: The share that smoothing gives each class that has not been removed, or None.
      mass: The sum of the shares of those classes, NaN for a bad id.
    """

    top: Array
    rest: Array
    spread: Array | None
    mass: Array


def pays(logits: Array, axis: int) -> bool:
    """Whether this is the faster way: of more classes reductions are."""
    return logits.shape[axis] <= gpu.PLANES


def with_slope(
    logits: Array,
    denominator: Array,
    weights: Array | None,
    targets: Array,
    mask: Array | None,
    class_weights: None,
    smoothing: Array | None,
    factors: Array | None,
    *,
    axis: int,
    has_ids: bool,
    given: Any = None,
) -> tuple[Array, Array]:
    """Returns the sum of the costs, and its slope over `denominator`.

    With the shares `y_c`, their sum `m`, and `r = sum_c exp(z_c - top) - 1`::

        L       = sum w (m log(1 + r) - sum_c y_c (z_c - top))
        dL/dz_c = w (p_c (m - y_c) - y_c (1 - p_c))

    A removed class costs infinitely where its share is not 0, and has a slope of 0. The slope needs
    four numbers of each position; of two classes, as many as the logits, they are computed again.
    """
    positions: Any = (targets, smoothing, factors)
    row, cost = _row_and_cost(logits, *positions, axis=axis, has_ids=has_ids)
    logits, *positions = numerics.hidden(logits, given, *positions)
    if logits.shape[axis] == 2:
        row, _ = _row_and_cost(logits, *positions, axis=axis, has_ids=has_ids)
    else:
        row = jax.lax.optimization_barrier(row)

    planes = _split(numerics.cut(logits), axis, logits.shape[axis])
    shares = _shares(planes, row.spread, *positions, axis=axis, has_ids=has_ids)
    slopes = [_slope(z, y, row) for z, y in zip(planes, shares, strict=True)]
    slope = numerics.divide(jnp.concatenate(slopes, axis), denominator)
    if mask is not None:
        cost, slope = (jnp.where(mask, x, 0) for x in (cost, slope))
    if weights is not None:
        cost, slope = cost * weights, slope * weights
    return cost.sum(), slope


def _row_and_cost(
    logits: Array,
    targets: Array,
    smoothing: Array | None,
    factors: Array | None,
    *,
    axis: int,
    has_ids: bool,
) -> tuple[_Row, Array]:
    count, dtype = logits.shape[axis], logits.dtype
    planes = _split(numerics.cut(logits), axis, count)
    top = functools.reduce(jnp.maximum, planes)
    exponentials = [jnp.exp(z - top) for z in planes]
    total, below = _sum(exponentials), _sum(x - jnp.floor(x) for x in exponentials)
    rest = jnp.where(total > 1.5, total - 1, below)  # where several are the largest

    spread = None
    if smoothing is not None:
        left = _sum((~_is_removed(z)).astype(dtype) for z in planes)
        spread = numerics.divide(smoothing, left)
    shares = _shares(planes, spread, targets, smoothing, factors, axis=axis, has_ids=has_ids)
    levels = [jnp.where(_is_beyond(z, top), -jnp.inf, z - top) for z in planes]
    pairs = list(zip(shares, levels, strict=True))
    mass = _sum(jnp.where(level == -jnp.inf, 0, y) for y, level in pairs)
    if has_ids:
        mass = mass * labels.poison(targets, None, count, dtype)
    lead = _sum(jnp.where(y == 0, 0, y * level) for y, level in pairs)
    return _Row(top, rest, spread, mass), mass * jnp.log1p(rest) - lead


def _shares(
    planes: Sequence[Array],
    spread: Array | None,
    targets: Array,
    smoothing: Array | None,
    factors: Array | None,
    *,
    axis: int,
    has_ids: bool,
) -> Sequence[Array]:
    """The share of each class in the target, with all factors in it."""
    count, dtype = len(planes), planes[0].dtype
    shares = _split(targets, axis, count)
    if has_ids:
        # A comparison that several sums need the compiler would write to memory.
        shares = [
            jnp.maximum(1 - jnp.abs((ids - c).astype(dtype)), 0) for c, ids in enumerate(shares)
        ]
    if smoothing is not None and spread is not None:
        added = [jnp.where(_is_removed(z), 0, spread) for z in planes]
        shares = [(1 - smoothing) * y + more for y, more in zip(shares, added, strict=True)]
    if factors is not None:
        shares = [y * f for y, f in zip(shares, _split(factors, axis, count), strict=True)]
    return shares


def _slope(z: Array, y: Array, row: _Row) -> Array:
    slope = soft.slope_of(z - row.top, row.rest, row.mass, y)
    return jnp.where(_is_beyond(z, row.top), 0, slope)


def _is_removed(z: Array) -> Array:
    return z <= -numerics.limit(z.dtype)


def _is_beyond(z: Array, top: Array) -> Array:
    """Where a class has been removed, or is infinitely below another."""
    return _is_removed(z) | (z - top < -numerics.limit(z.dtype) / 2)


def _split(x: Array, axis: int, count: int) -> Sequence[Array]:
    return [x] * count if x.shape[axis] == 1 else jax.lax.split(x, (1,) * count, axis)


def _sum(planes: Iterable[Array]) -> Array:
    return functools.reduce(operator.add, planes)
