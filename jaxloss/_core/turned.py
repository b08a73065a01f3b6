"""Ids of few classes as a GPU computes them, and a TPU of fewer: each element looks at all.

It sees its own logit, and the logits turned by one class, by two, and so on. All is elementwise
then, and the compiler makes one loop over the logits of each sum and of the slope. Reductions over
the classes would be loops of their own, and what they share would be written to memory: of few
classes as much as the logits. What each element computes anew is arithmetic alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import classes, gpu, numerics, sigmoid
from jaxloss._core.sharding import is_split

Array = jax.Array
Formula = Callable[..., Array]

COSTS_ON_TPU, COUNTS_ON_TPU = 2, 3  # classes: of more the statistics take it less arithmetic
FEW = 8  # classes: the arithmetic grows with them, what is read and written does not


def pays(logits: Array, axis: int) -> bool:
    """Whether this is the faster way."""
    return 1 < logits.shape[axis] <= FEW and not is_split(logits, axis)


def pays_on_tpu(logits: Array, axis: int, most: int) -> bool:
    """Whether it is on a TPU too, of at most so many classes: its arithmetic takes the time."""
    return logits.shape[axis] <= most and pays(logits, axis)


def total(logits: Array, weights: Array | None, *arrays: Any, formula: Formula, axis: int) -> Array:
    """Returns the sum `L` as `gpu.total` does, of few classes without parting them into planes."""
    if logits.shape[axis] > COSTS_ON_TPU:
        return gpu.total(logits, weights, *arrays, formula=formula, axis=axis)
    factor, *cost = gpu.beside_classes(axis, weights, *arrays)
    values = _of_cost(_see(logits, cost[0], cost[1], axis), *cost, formula=formula)
    return numerics.times(values, factor).sum()


def with_slope(
    logits: Array,
    weights: Array | None,
    *arrays: Any,
    formula: Formula,
    axis: int,
    half: Any = None,
) -> tuple[Array, Array]:
    """Returns the sum `L` and `dL/dz_c` as `gpu.with_slope` does, each from one loop."""
    sum_ = total(logits, weights, *arrays, formula=formula, axis=axis)
    logits, *again = numerics.hidden(logits, half, weights, *arrays)
    factor, *cost = gpu.beside_classes(axis, *again)
    seen = _see(logits, cost[0], cost[1], axis)
    slope = _slope_of_cost(seen, _of_target(seen), *cost, formula=formula)
    return sum_, numerics.times(slope, factor)


def counts(
    logits: Array,
    ids: Array,
    mask: Array | None,
    weight: Array | None,
    *cost: Any,
    axis: int,
    half: Any = None,
    formula: Formula | None = None,
) -> tuple[Array, ...]:
    """Returns the sums as `gpu.counts` does, two from a loop.

    What three sums share would be written to memory, but not what one of complex numbers needs.
    """
    space = classes.positions(logits.ndim, axis)

    def sums(*pair: Array) -> tuple[Array, Array]:
        one, other = (numerics.times(x, weight) for x in pair)
        of_both = jax.lax.complex(one, other).sum(space)
        return of_both.real, of_both.imag

    logits, ids, mask = numerics.hidden(logits, half, ids, mask)
    seen = _see(logits, ids, mask, axis)
    hit, (p, missed, _) = seen.hits[0], _of_class(seen)
    tp, fn = sums(jnp.where(hit, p, 0), jnp.where(hit, missed, 0))

    # Behind one barrier more: of what the next loop needs this one must share nothing.
    logits, ids, mask = numerics.hidden(logits, half, ids, mask)
    if logits.shape[axis] == 2:
        fp = jnp.flip(fn, -1)  # what one of two misses the other takes
        if formula is None:
            return tp, fp, fn, tp
        values = _of_cost(_see(logits, ids, mask, axis), *cost, formula=formula)
        return tp, fp, fn, numerics.times(values, weight).sum(space).sum(-1, keepdims=True)
    seen = _see(logits, ids, mask, axis)
    hit, (p, _, odds) = seen.hits[0], _of_class(seen)
    if formula is None:
        fp, last = sums(jnp.where(hit, 0, p), jnp.where(hit, p, 0))
        return tp, fp, fn, last
    values = sigmoid.of_log_odds(odds, *cost, formula=formula)
    fp, last = sums(jnp.where(hit, 0, p), jnp.where(hit | seen.bad, values, 0))
    return tp, fp, fn, last.sum(-1, keepdims=True)


def slope_of_counts(
    logits: Array,
    ids: Array,
    mask: Array | None,
    weight: Array | None,
    *others: Any,
    axis: int,
    half: Any = None,
    formula: Formula | None = None,
) -> tuple[Array]:
    """Returns the derivative as `gpu.slope_of_counts` does."""
    *cost, by_own, by_other, by_missed, by_cost = others
    if formula is not None:
        by_own = by_own - by_missed
    logits, ids, mask, by_own, by_other = numerics.hidden(logits, half, ids, mask, by_own, by_other)
    seen = _see(logits, ids, mask, axis)
    target = _of_target(seen)
    unit = numerics.masked(1 / (target.own + target.rest), seen.mask)
    space = classes.positions(logits.ndim, axis)
    of_own, of_other = (turns(jnp.expand_dims(x, space), axis) for x in (by_own, by_other))
    each = list(zip(seen.hits, target.shares, of_own, of_other, strict=True))
    own = unit * _sum([jnp.where(hit, x * a, 0) for hit, x, a, _ in each])
    mean = unit * _sum([jnp.where(hit, 0, x * b) for hit, x, _, b in each])
    hit, p, a, b = each[0][0], each[0][1] * unit, of_own[0], of_other[0]
    slope = p * jnp.where(hit, target.rest * unit * a - mean, b - mean - own)
    if formula is not None:
        by_cost = jnp.expand_dims(by_cost, space)
        slope = slope + _slope_of_cost(seen, target, *cost, formula=formula) * by_cost
    slope = jnp.where(seen.bad, jnp.nan, slope)
    return (numerics.times(slope, weight),)


class _Seen(NamedTuple):
    """What an element sees; all is in the shape of the logits, except the mask.

    Attributes:
      z: The finite logits of its class, of the next one, and so on; 0 where masked.
      hits: Which of these classes is the target; none where masked.
      bad: Whether the id is none of the classes.
      mask: Which positions count, or None.
    """

    z: Sequence[Array]
    hits: Sequence[Array]
    bad: Array
    mask: Array | None


def _see(logits: Array, ids: Array, mask: Array | None, axis: int) -> _Seen:
    hits, bad = of_ids(ids, logits.shape, axis)
    if mask is not None:
        hits, bad = [hit & mask for hit in hits], bad & mask
    return _Seen([gpu.finite(x, mask) for x in turns(logits, axis)], hits, bad, mask)


def of_ids(ids: Array, shape: tuple[int, ...], axis: int) -> tuple[Sequence[Array], Array]:
    """Returns which of the classes that an element sees is the target, and whether none is.

    Both in the shape of the logits: what only positions have would be written to memory.
    """
    count = shape[axis]
    at = jax.lax.broadcasted_iota(ids.dtype, shape, axis)
    ahead = ids - at  # how many classes the target is ahead, or `count` less
    hits = [(ahead == k) | (ahead == k - count) for k in range(count)]
    return hits, (ahead < -at) | (ahead >= count - at)


def turns(x: Array, axis: int) -> Sequence[Array]:
    """Returns an array, and it with each class in place of the one before, and so on."""
    count, zero = x.shape[axis], jnp.zeros((), x.dtype)

    def shifted(by: int) -> Array:  # no concatenation, which would be a loop of its own
        edges = [(by, -by, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
        return jax.lax.pad(x, zero, edges)

    return [x, *(shifted(-k) + shifted(count - k) for k in range(1, count))]


def _of_class(seen: _Seen) -> tuple[Array, Array, Array]:
    """Returns `p`, 0 where masked, `1 - p`, and the log-odds of each class, NaN for a bad id."""
    own, *others = seen.z
    top = functools.reduce(jnp.maximum, others)
    total, lead = _sum([jnp.exp(z - top) for z in others]), own - top
    odds = jnp.where(is_beyond(own, top), -jnp.inf, lead - jnp.log(total))
    ratio, odds = (jnp.where(seen.bad, jnp.nan, x) for x in (total * jnp.exp(-lead), odds))
    p = numerics.masked(1 / (1 + ratio), seen.mask)
    return p, 1 / (1 + 1 / ratio), odds


class _Target(NamedTuple):
    """The softmax of each position beside its target.

    Attributes:
      shares: `exp(z - top)` of the classes that an element sees.
      own: That of the target.
      rest: The sum of the others.
      odds: The log-odds of the target.
    """

    shares: Sequence[Array]
    own: Array
    rest: Array
    odds: Array


def _of_target(seen: _Seen) -> _Target:
    top = functools.reduce(jnp.maximum, seen.z)
    shares = [jnp.exp(z - top) for z in seen.z]
    target = _sum([jnp.where(hit, z, 0) for hit, z in zip(seen.hits, seen.z, strict=True)])
    rest = _sum([jnp.where(hit, 0, x) for hit, x in zip(seen.hits, shares, strict=True)])
    lead = target - top
    odds = jnp.where(is_beyond(target, top), -jnp.inf, lead - jnp.log(rest))
    return _Target(shares, jnp.exp(lead), rest, odds)


def _of_cost(seen: _Seen, *cost: Any, formula: Formula) -> Array:
    """Each position's cost, where its target is; NaN for a bad id and elsewhere 0."""
    values = sigmoid.of_log_odds(_of_target(seen).odds, *cost, formula=formula)
    return jnp.where(seen.hits[0], values, jnp.where(seen.bad, jnp.nan, 0))


def _slope_of_cost(seen: _Seen, target: _Target, *cost: Any, formula: Formula) -> Array:
    """The derivative of each position's cost by its logits."""
    missed = target.rest / (target.own + target.rest)
    rate = sigmoid.rate(target.odds, missed, *cost, formula=formula)
    rate = jnp.where(seen.bad, jnp.nan, jnp.where(target.odds == -jnp.inf, 0, rate))
    return rate * gpu.move(seen.hits[0], target.shares[0], target.rest)


def is_beyond(z: Array, top: Array) -> Array:
    """Whether a class has been removed, or is infinitely below another, of finite logits."""
    limit = numerics.limit(z.dtype)
    return (z <= -limit) | (z - top < -limit / 2)


def _sum(parts: Sequence[Array]) -> Array:
    return functools.reduce(jnp.add, parts)
