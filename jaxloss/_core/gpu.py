"""The cost and soft counts of target ids as a GPU computes them: each in one loop over the logits.

Elsewhere a cost is one of three numbers of each position, the statistics. A GPU's compiler makes a
single loop of what is written here: of the classes either a plane each, or reductions over the last
axis that follow one another. Of few classes `turned` has the faster way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import classes, labels, numerics, sigmoid
from jaxloss._core.sharding import is_split

Array = jax.Array
Formula = Callable[..., Array]
PLANES = 32  # classes: of more, a loop over them is as fast as one over planes


def pays(logits: Array, axis: int) -> bool:
    """Whether this is the faster way for a cost; else statistics are."""
    return is_row(logits, axis, 1) and not is_split(logits, axis)


def is_row(logits: Array, axis: int, least: int) -> bool:
    """Whether the compiler makes one loop of reductions over the classes and what follows them.

    Of last ones alone, up to 32. They fill tiles of a power of two: of too few it makes loops apart
    that write to memory what they share, and always of 17.
    """
    count = logits.shape[axis]
    return axis == logits.ndim - 1 and least <= count <= PLANES and count != 17


def total(logits: Array, weights: Array | None, *arrays: Any, formula: Formula, axis: int) -> Array:
    """Returns `L = sum w formula(-log p, -log(1 - p))` of the targets' probabilities.

    The arrays are those of positions: ids, mask and factors; and parameters.
    """
    factor, ids, mask, *rest = beside_classes(axis, weights, *arrays)
    odds = log_odds(logits, ids, mask, axis)
    return _sum(odds, factor, ids, mask, *rest, formula=formula)


def with_slope(
    logits: Array,
    weights: Array | None,
    *arrays: Any,
    formula: Formula,
    axis: int,
    half: Any = None,
) -> tuple[Array, Array]:
    """Returns the sum `L`, and `dL/dz_c = dL/dx dx/dz_c` by the target's log-odds `x`.

    `dx/dz_c` is 1 at the target and `-p_c / (1 - p)` elsewhere. Of the surprise, whose derivative
    is simple, `dL/dx` is computed from the logits as well; of any other cost the log-odds and it
    are written to memory, one number a position, since the compiler would split a loop with both.
    """
    simple = formula is sigmoid.surprise
    hide = jax.lax.optimization_barrier  # what is behind it is not shared with what is before
    factor, ids, mask, *rest = beside_classes(axis, weights, *arrays)
    odds = log_odds(logits, ids, mask, axis)
    odds = odds if simple else hide(odds)
    sum_ = _sum(odds, factor, ids, mask, *rest, formula=formula)
    # Before they get a class axis: behind one the compiler makes more loops of half precision.
    logits, *again = numerics.hidden(logits, half, weights, *arrays)
    factor, ids, mask, *rest = beside_classes(axis, *again)
    target = _target(logits, ids, mask, axis, in_planes=False)
    if simple:
        odds = _target_odds(target)
        missed = target.rest / (target.own + target.rest)
        missed = missed * labels.poison(ids, mask, logits.shape[axis], logits.dtype)
    else:
        odds = missed = hide(odds)
    rate = sigmoid.rate(odds, missed, ids, mask, *rest, formula=formula)
    rate = jnp.where(odds == -jnp.inf, 0, numerics.times(rate, factor))
    rate = rate if simple else jnp.expand_dims(hide(rate.squeeze(axis)), axis)
    return sum_, rate * move(target.hits[0], target.shares[0], target.rest)


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
    """Returns the sums of `w p y`, `w p (1 - y)`, `w (1 - p) y` and again `w p y`: `[B, C]` each.

    The last two are constants for the derivative. Beside a cost, a formula of the target and of
    the arrays `cost`, none is, and its sum stands last: `[B, 1]`.
    """
    share = _shares(logits, ids, mask, axis, half, kept=True)
    parts = [
        jnp.where(share.hit, share.own, 0),
        jnp.where(share.hit, 0, share.p),
        jnp.where(share.hit, share.missed, 0),
    ]
    if formula is not None:
        parts.append(sigmoid.of_log_odds(share.odds, *cost, formula=formula))
    space = classes.positions(logits.ndim, axis)
    tp, fp, fn, *last = (numerics.times(x, weight).sum(space) for x in parts)
    return tp, fp, fn, *(last or [tp])


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
    """Returns the derivative of these sums times four factors, behind the arrays of the cost.

    With `a` and `b` those of `w p y` and `w p (1 - y)`, and `s = sum_{c != y} b_c p_c`, that of
    the counts is `w p_y ((1 - p_y) a_y - s)` at the target `y` and `w p_c (b_c - s - p_y a_y)`
    elsewhere.
    """
    *cost, by_own, by_other, by_missed, by_cost = others
    if formula is not None:
        by_own = by_own - by_missed
    kept = not is_row(logits, axis, 14 if formula is None else 16)
    args = logits, ids, mask, axis, half, kept
    share = _shares(*args)
    space = classes.positions(logits.ndim, axis)
    a, b = (jnp.expand_dims(x, space) for x in (by_own, by_other))
    own = share.own * jnp.where(share.hit, a, 0).sum(axis, keepdims=True)
    mean = jnp.where(share.hit, 0, share.p * b).sum(axis, keepdims=True)
    if kept:
        share = _shares(*args, after=(own, mean))
    slope = share.p * jnp.where(share.hit, share.missed * a - mean, b - mean - own)
    if formula is not None:
        rate = sigmoid.rate(share.odds, share.missed, *cost, formula=formula)
        rate = jnp.where(share.odds == -jnp.inf, 0, rate) * jnp.expand_dims(by_cost, space)
        slope = slope + rate * move(share.hit, share.p, share.missed)
    return (numerics.times(slope, weight),)


def move(hit: Array, p: Array, missed: Array) -> Array:
    """The derivative of the target's log-odds by each logit, of `p` and `1 - p` in one unit."""
    return jnp.where(hit, 1, jnp.where(p == 0, 0, -p / missed))


class _Share(NamedTuple):
    """The softmax of each position.

    Attributes:
      hit: Whether a class is the target.
      p: Its probability, NaN for a bad id; where masked 0.
      missed: `1 - p` of the target; of size 1 at the class axis.
      odds: The log-odds of the target; likewise.
      own: The target's `p`; likewise: sums of it need not read the logits.
    """

    hit: Array
    p: Array
    missed: Array
    odds: Array
    own: Array


def _shares(
    logits: Array,
    ids: Array,
    mask: Array | None,
    axis: int,
    half: Any,
    kept: bool,
    after: Sequence[Array] = (),
) -> _Share:
    """The probabilities, or those of numbers of each position that are kept in memory.

    Those of kept numbers are computed again `after` other arrays, which the compiler does not see
    to be the same: it would write them to memory for both.
    """
    count = logits.shape[axis]
    logits, ids = numerics.hidden(logits, half, ids)
    target = _target(logits, ids, mask, axis, in_planes=kept and count <= PLANES)
    # One more reduction over the last axis would split the loop; of planes it is one step less.
    at_once = len(target.shares) == 1
    whole = target.own + target.rest if at_once else functools.reduce(jnp.add, target.shares)
    bad = labels.poison(ids, mask, count, logits.dtype)
    unit, odds = 1 / whole * bad, _target_odds(target) * bad
    unit = numerics.masked(unit, mask)
    missed = target.rest * unit
    if not kept:
        return _Share(target.hits[0], target.shares[0] * unit, missed, odds, target.own * unit)
    missed, unit, top, odds, ids, own = jax.lax.optimization_barrier(
        (missed, unit, target.top, odds, ids, target.own * unit)
    )
    logits, _ = numerics.hidden(logits, half, after)
    hit = jax.lax.broadcasted_iota(ids.dtype, logits.shape, axis) == ids
    return _Share(hit, jnp.exp(finite(logits, mask) - top) * unit, missed, odds, own)


class _Target(NamedTuple):
    """The softmax of each position beside its target, with a class axis of size 1.

    Attributes:
      shares: `exp(z_c - top)`, a plane each, or in one array.
      hits: Whether a class is the target, in the same parts.
      own: `exp(z_y - top)` of the target.
      rest: The sum of the others' shares.
      top: The largest logit.
      lead: `z_y - top`.
    """

    shares: Sequence[Array]
    hits: Sequence[Array]
    own: Array
    rest: Array
    top: Array
    lead: Array


def _target(logits: Array, ids: Array, mask: Array | None, axis: int, in_planes: bool) -> _Target:
    z = finite(logits, mask)
    sizes = (1,) * z.shape[axis] if in_planes else (z.shape[axis],)
    parts = jax.lax.split(z, sizes, axis)
    each = jax.lax.split(jax.lax.broadcasted_iota(ids.dtype, z.shape, axis), sizes, axis)
    hits = [c == ids for c in each]
    top = _over_classes(parts, axis, jnp.max, jnp.maximum)
    levels = [x - top for x in parts]
    shares = [jnp.exp(x) for x in levels]
    others = [jnp.where(h, 0, x) for h, x in zip(hits, shares, strict=True)]
    leads = [jnp.where(h, x, 0) for h, x in zip(hits, levels, strict=True)]
    rest, lead = (_over_classes(x, axis) for x in (others, leads))
    return _Target(shares, hits, jnp.exp(lead), rest, top, lead)


def _over_classes(
    parts: Sequence[Array],
    axis: int,
    reduce: Callable[..., Array] = jnp.sum,
    join: Callable[..., Array] = jnp.add,
) -> Array:
    """Reduces planes, or one array, over the classes."""
    return functools.reduce(join, [reduce(x, axis=axis, keepdims=True) for x in parts])


def finite(logits: Array, mask: Array | None) -> Array:
    """The logits without infinities, 0 where masked."""
    return numerics.cut(numerics.masked(logits, mask))


def log_odds(logits: Array, ids: Array, mask: Array | None, axis: int) -> Array:
    """The log-odds of each position's target against the others, NaN for a bad id."""
    count = logits.shape[axis]
    target = _target(logits, ids, mask, axis, in_planes=count <= PLANES)
    return _target_odds(target) * labels.poison(ids, mask, count, logits.dtype)


def _target_odds(target: _Target) -> Array:
    removed = target.lead < -numerics.limit(target.lead.dtype) / 2
    return jnp.where(removed, -jnp.inf, target.lead - jnp.log(target.rest))


def _sum(odds: Array, weights: Array | None, *cost: Any, formula: Formula) -> Array:
    values = sigmoid.of_log_odds(odds, *cost, formula=formula)
    return numerics.times(values, weights).sum()


def beside_classes(axis: int, *arrays: Any) -> list[Any]:
    """Gives arrays of the positions a class axis of size 1."""
    return [a if a is None or jnp.ndim(a) == 0 else jnp.expand_dims(a, axis) for a in arrays]
