"""The cross-entropy of soft labels as a GPU computes it, unless there are many classes.

Of a plane of each class its compiler makes one loop for the value. Reductions over the classes
would be loops of their own, and what value and slope share would be written to memory.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import gpu, labels, numerics, soft, turned

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
    four numbers of each position. Of few classes they are computed again, by each element that
    looks at all classes.
    """
    see = functools.partial(_see, axis=axis, has_ids=has_ids)
    row, cost = _row_and_cost(see(logits, targets, smoothing, factors, look=_split))
    logits, *others = numerics.hidden(logits, given, targets, smoothing, factors)
    if few := turned.pays(logits, axis):
        seen = see(logits, *others, look=_turned)
        row, _ = _row_and_cost(seen)
    else:
        row = jax.lax.optimization_barrier(row)
        seen = see(logits, *others, spread=row.spread, look=_split)

    own = slice(1 if few else None)
    slopes = [_slope(z, y, row) for z, y in zip(seen.z[own], seen.shares[own], strict=True)]
    slope = numerics.divide(jnp.concatenate(slopes, axis), denominator)
    cost, slope = (numerics.weighted(x, mask, weights) for x in (cost, slope))
    return cost.sum(), slope


class _Seen(NamedTuple):
    """The classes as planes, or as an element sees them.

    Attributes:
      z: The finite logits of each.
      shares: The share of each in the target, with all factors in it.
      spread: The share that smoothing gives each class that has not been removed, or None.
      bad: Whether an id is none of the classes, or None.
    """

    z: Sequence[Array]
    shares: Sequence[Array]
    spread: Array | None
    bad: Array | None


def _see(
    logits: Array,
    targets: Array,
    smoothing: Array | None,
    factors: Array | None,
    *,
    spread: Array | None = None,
    look: Callable[..., Sequence[Array]],
    axis: int,
    has_ids: bool,
) -> _Seen:
    count, dtype = logits.shape[axis], logits.dtype
    planes, bad = [numerics.cut(z) for z in look(logits, axis, count)], None
    if not has_ids:
        shares = look(targets, axis, count)
    elif look is _turned:
        hits, bad = turned.of_ids(targets, logits.shape, axis)
        shares = [hit.astype(dtype) for hit in hits]
    else:
        # A comparison that several sums need the compiler would write to memory.
        away = [jnp.abs((targets - c).astype(dtype)) for c in range(count)]
        shares = [jnp.maximum(1 - x, 0) for x in away]
        bad = labels.is_bad(targets, None, count)
    if smoothing is not None:
        if spread is None:
            left = _sum((~_is_removed(z)).astype(dtype) for z in planes)
            spread = numerics.divide(smoothing, left)
        added = [jnp.where(_is_removed(z), 0, spread) for z in planes]
        shares = [(1 - smoothing) * y + more for y, more in zip(shares, added, strict=True)]
    if factors is not None:
        shares = [y * f for y, f in zip(shares, look(factors, axis, count), strict=True)]
    return _Seen(planes, shares, spread, bad)


def _row_and_cost(seen: _Seen) -> tuple[_Row, Array]:
    planes = seen.z
    top = functools.reduce(jnp.maximum, planes)
    exponentials = [jnp.exp(z - top) for z in planes]
    total, below = _sum(exponentials), _sum(x - jnp.floor(x) for x in exponentials)
    rest = jnp.where(total > 1.5, total - 1, below)  # where several are the largest
    levels = [jnp.where(turned.is_beyond(z, top), -jnp.inf, z - top) for z in planes]
    pairs = list(zip(seen.shares, levels, strict=True))
    mass = _sum(jnp.where(level == -jnp.inf, 0, y) for y, level in pairs)
    if seen.bad is not None:
        mass = jnp.where(seen.bad, jnp.nan, mass)
    lead = _sum(jnp.where(y == 0, 0, y * level) for y, level in pairs)
    return _Row(top, rest, seen.spread, mass), mass * jnp.log1p(rest) - lead


def _slope(z: Array, y: Array, row: _Row) -> Array:
    slope = soft.slope_of(z - row.top, row.rest, row.mass, y)
    return jnp.where(turned.is_beyond(z, row.top), 0, slope)


def _is_removed(z: Array) -> Array:
    return z <= -numerics.limit(z.dtype)


def _split(x: Array, axis: int, count: int) -> Sequence[Array]:
    return [x] * count if x.shape[axis] == 1 else jax.lax.split(x, (1,) * count, axis)


def _turned(x: Array, axis: int, count: int) -> Sequence[Array]:
    return [x] * count if x.shape[axis] == 1 else turned.turns(x, axis)


def _sum(planes: Iterable[Array]) -> Array:
    return functools.reduce(operator.add, planes)
