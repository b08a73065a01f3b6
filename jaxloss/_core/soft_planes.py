"""Costs of soft labels as a GPU computes them, unless there are many classes.

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

from jaxloss._core import gpu, labels, numerics, sigmoid, soft, turned

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


def entropy_with_slope(
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
    """Returns the sum of the cross-entropies, and its slope over `denominator`.

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


def with_slope(
    logits: Array,
    denominator: Array,
    weights: Array | None,
    targets: Array,
    mask: Array | None,
    class_weights: None,
    smoothing: Array | None,
    factors: Array | None,
    *parameters: Array,
    formula: Callable[..., Array],
    axis: int,
    has_ids: bool,
    given: Any = None,
) -> tuple[Array, Array]:
    """Returns the sum of other costs, and its slope over `denominator`.

    With the log-odds `x_c` of each class, and the derivative `g_c` by them::

        L       = sum w y_c formula(-log p_c, -log(1 - p_c))
        dL/dz_c = w (g_c - p_c sum_{k != c} g_k / (1 - p_k))

    The value, these sums and the slope look at the logits anew: what two of them need of each class
    the compiler would write to memory.
    """
    see = functools.partial(_see, axis=axis, has_ids=has_ids)
    costs = functools.partial(_costs, parameters=parameters, formula=formula)
    arrays: Any = targets, smoothing, factors
    seen = see(logits, *arrays, look=_split)
    cost = _sum(x.cost for x in costs(seen, *_scale(seen.z)))

    logits, *arrays = numerics.hidden(logits, given, *arrays)
    seen = see(logits, *arrays, look=_split)
    top, rest = _scale(seen.z)
    each = costs(seen, top, rest)
    pulls, below = _sum(x.pull for x in each), _sum(jnp.where(x.leads, 0, x.pull) for x in each)
    if seen.bad is not None:
        cost, pulls, below = (jnp.where(seen.bad, jnp.nan, x) for x in (cost, pulls, below))
    scale, spread = (top, rest), seen.spread
    scale, spread, pulls, below = jax.lax.optimization_barrier((scale, spread, pulls, below))

    logits, *arrays = numerics.hidden(logits, given, *arrays)
    if turned.pays(logits, axis):
        seen = see(logits, *arrays, look=_turned)
        own = costs(seen, *_scale(seen.z))[:1]
    else:
        own = costs(see(logits, *arrays, spread=spread, look=_split), *scale)
    slopes = [x.rate - x.p * jnp.where(x.leads, below, pulls - x.pull) for x in own]
    slope = numerics.divide(jnp.concatenate(slopes, axis), denominator)
    cost, slope = (numerics.weighted(x, mask, weights) for x in (cost, slope))
    return cost.sum(), slope


class _Cost(NamedTuple):
    """What a class adds.

    Attributes:
      cost: Its cost.
      rate: The derivative of that by its log-odds, 0 of infinite ones.
      pull: That over `1 - p`.
      p: Its probability.
      leads: Whether it has more than all others.
    """

    cost: Array
    rate: Array
    pull: Array
    p: Array
    leads: Array


def _costs(
    seen: _Seen,
    top: Array,
    rest: Array,
    *,
    parameters: tuple[Array, ...],
    formula: Callable[..., Array],
) -> list[_Cost]:
    def of_class(z: Array, y: Array) -> _Cost:
        share = jnp.exp(z - top)
        others = rest + (1 - share)
        alone, removed = others == 0, turned.is_beyond(z, top)
        odds = jnp.where(alone, jnp.inf, z - top - jnp.log(jnp.where(alone, 1, others)))
        odds = jnp.where(removed, -jnp.inf, odds)

        def cost(odds: Array) -> Array:
            return numerics.product(y, formula(*sigmoid.log_pair(odds), *parameters))

        value, rate = jax.jvp(cost, (odds,), (jnp.ones_like(odds),))
        rate = jnp.where(alone | removed, 0, rate)
        pull = numerics.divide(rate * (1 + rest), others)
        return _Cost(value, rate, pull, share / (1 + rest), share > others)

    return [of_class(z, y) for z, y in zip(seen.z, seen.shares, strict=True)]


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
    top, rest = _scale(seen.z)
    levels = [jnp.where(turned.is_beyond(z, top), -jnp.inf, z - top) for z in seen.z]
    pairs = list(zip(seen.shares, levels, strict=True))
    mass = _sum(jnp.where(level == -jnp.inf, 0, y) for y, level in pairs)
    if seen.bad is not None:
        mass = jnp.where(seen.bad, jnp.nan, mass)
    lead = _sum(jnp.where(y == 0, 0, y * level) for y, level in pairs)
    return _Row(top, rest, seen.spread, mass), mass * jnp.log1p(rest) - lead


def _scale(planes: Sequence[Array]) -> tuple[Array, Array]:
    """Returns the largest logit and `sum_c exp(z_c - top) - 1`, exactly."""
    top = functools.reduce(jnp.maximum, planes)
    exponentials = [jnp.exp(z - top) for z in planes]
    total, below = _sum(exponentials), _sum(x - jnp.floor(x) for x in exponentials)
    return top, jnp.where(total > 1.5, total - 1, below)  # where several are the largest


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
