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
from jaxloss._core.platforms import bind

Array = jax.Array

FEW_SMOOTHED, FEW_SOFT = 4, 2  # classes of which a TPU makes planes


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


def pays_on_tpu(logits: Array, axis: int, has_ids: bool) -> bool:
    """Whether it is on a TPU too, whose arithmetic takes longer than its memory."""
    return logits.shape[axis] <= (FEW_SMOOTHED if has_ids else FEW_SOFT)


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
    half: Any = None,
) -> tuple[Array, Array]:
    """Returns the sum of `w sum_c y_c formula(-log p_c, -log(1 - p_c))`, and its slope.

    The slope is that over `denominator`; a removed class has 0, and costs infinitely where its
    share is not 0.
    """
    see = functools.partial(_see, axis=axis, has_ids=has_ids)
    few, arrays = turned.pays(logits, axis), (logits, targets, smoothing, factors)
    if formula is sigmoid.surprise:
        cost, slopes = _entropy(see, *arrays, few=few, half=half)
    else:
        costs = functools.partial(_costs, parameters=parameters, formula=formula)
        cost, slopes = _other(see, costs, *arrays, few=few, half=half)
    slope = numerics.divide(jnp.concatenate(slopes, axis), denominator)
    cost, slope = (numerics.weighted(x, mask, weights) for x in (cost, slope))
    return cost.sum(), slope


def _entropy(
    see: Callable[..., _Seen], logits: Array, *others: Any, few: bool, half: Any
) -> tuple[Array, list[Array]]:
    """Returns the cross-entropy of each position, and its slope by each class or by their own.

    With the shares `y_c`, their sum `m`, and `r = sum_c exp(z_c - top) - 1`::

        L       = m log(1 + r) - sum_c y_c (z_c - top)
        dL/dz_c = p_c (m - y_c) - y_c (1 - p_c)

    The slope needs four numbers of each position. Of few classes they are computed again, by each
    element that looks at all classes.
    """
    row, cost = _row_and_cost(see(logits, *others, look=_split))
    logits, *again = numerics.hidden(logits, half, *others)
    if few:
        seen = see(logits, *again, look=_turned)
        row, _ = _row_and_cost(seen)
        seen = seen.own()
    else:
        row = jax.lax.optimization_barrier(row)
        seen = see(logits, *again, spread=row.spread, look=_split)
    return cost, [_slope(z, y, row) for z, y in zip(seen.z, seen.shares, strict=True)]


def _other(
    see: Callable[..., _Seen],
    costs: Callable[..., list[_Cost]],
    logits: Array,
    *others: Any,
    few: bool,
    half: Any,
) -> tuple[Array, list[Array]]:
    """Returns the same of any other cost.

    With the log-odds `x_c` of each class, and the derivative `g_c` by them::

        dL/dz_c = g_c - p_c sum_{k != c} g_k / (1 - p_k)

    The value, these sums and the slope look at the logits anew: what two of them need of each class
    the compiler would write to memory.
    """
    seen = see(logits, *others, look=_split)
    cost = _sum(x.cost for x in costs(seen, *_scale(seen.z)))

    logits, *again = numerics.hidden(logits, half, *others)
    seen = see(logits, *again, look=_split)
    scale, spread = _scale(seen.z), seen.spread
    each = costs(seen, *scale)
    pulls, below = _sum(x.pull for x in each), _sum(jnp.where(x.leads, 0, x.pull) for x in each)
    if seen.bad is not None:
        cost, pulls, below = (jnp.where(seen.bad, jnp.nan, x) for x in (cost, pulls, below))
    scale, spread, pulls, below = jax.lax.optimization_barrier((scale, spread, pulls, below))

    logits, *again = numerics.hidden(logits, half, *again)
    if few:
        seen = see(logits, *again, look=_turned)
        own = costs(seen.own(), *_scale(seen.z))
    else:
        own = costs(see(logits, *again, spread=spread, look=_split), *scale)
    return cost, [x.rate - x.p * jnp.where(x.leads, below, pulls - x.pull) for x in own]


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
    of_class = jax.jit(bind(_of_class, formula=formula))  # which is traced once
    pairs = zip(seen.z, seen.shares, strict=True)
    return [of_class(z, y, top, rest, *parameters) for z, y in pairs]


def _of_class(
    z: Array, y: Array, top: Array, rest: Array, *parameters: Array, formula: Callable[..., Array]
) -> _Cost:
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

    def own(self) -> _Seen:
        """Returns what an element sees of its own class."""
        return self._replace(z=self.z[:1], shares=self.shares[:1])


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
