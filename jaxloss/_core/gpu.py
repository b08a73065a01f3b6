"""The cost of target ids as a GPU computes it: value and slope, each in one loop over the logits.

Elsewhere a cost is one of three numbers of each position, the statistics. Of few classes these
are as large as the logits. A GPU's compiler makes a single loop of what is written here, in this
form: of the classes either a plane each, or reductions over the last axis that follow one another.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import classes, labels, numerics, sigmoid
from jaxloss._core.platforms import bind
from jaxloss._core.sharding import is_split

Array = jax.Array
Formula = Callable[..., Array]
Way = Literal["marked", "in pairs", "planes", "at once", "kept"]

FEW = 3  # classes: up to here the slope of a cost alone is one loop over planes
MARKED = 6  # up to here probabilities are kept, marked
PLANES = 32  # up to here the value is; of more, a loop over them is as fast


def pays(logits: Array, axis: int) -> bool:
    """Whether this is the faster way: of many classes that are not last, the statistics are."""
    last = axis == logits.ndim - 1
    return (last or logits.shape[axis] <= FEW) and not is_split(logits, axis)


def total(
    logits: Array,
    weights: Array | None,
    ids: Array,
    mask: Array | None,
    *others: Any,
    formula: Formula,
    axis: int,
) -> Array:
    """Returns `L = sum w formula(-log p, -log(1 - p))` of the targets' probabilities."""
    odds = _odds(logits, ids, mask, axis)
    return _sum_of_odds(odds, weights, mask, *others, formula=formula)


def with_slope(
    logits: Array,
    weights: Array | None,
    ids: Array,
    mask: Array | None,
    *others: Any,
    formula: Formula,
    axis: int,
    given: Any = None,
) -> tuple[Array, Array]:
    """Returns the sum `L`, and `dL/dz_c = dL/dx dx/dz_c` by the target's log-odds `x`.

    `dx/dz_c` is 1 at the target and `-p_c / (1 - p)` elsewhere. Of the surprise, a simple formula,
    `dL/dx = -w (1 - p)` is computed from the logits as well; of any other the log-odds and the rate
    are written to memory, one number a position, since the compiler would split a loop with both.
    """
    simple = formula is sigmoid.surprise
    hide = jax.lax.optimization_barrier  # what is behind it is not shared with what is before
    odds = _odds(logits, ids, mask, axis)
    odds = odds if simple else hide(odds)
    sum_ = _sum_of_odds(odds, weights, mask, *others, formula=formula)
    logits, ids, mask, *rest = numerics.hidden(logits, given, ids, mask, *others)
    target = _target(logits, ids, mask, axis, in_planes=axis != logits.ndim - 1)
    if simple:
        unit = (jnp.ones_like(odds),) * 2
        by_hit, _ = jax.grad(bind(_weighted_sum, formula=formula))(unit, weights, mask, *rest)
        factor = by_hit * labels.poison(ids, mask, logits.shape[axis], logits.dtype)
        miss = target.rest / (target.own + target.rest)
        rate = jnp.where(target.removed, 0, -jnp.expand_dims(factor, axis) * miss)
    else:
        again = hide(odds)
        rate = jax.grad(bind(_sum_of_odds, formula=formula))(again, weights, mask, *rest)
        rate = jnp.expand_dims(hide(jnp.where(again == -jnp.inf, 0, rate)), axis)
    moves = _moves(target.hits, target.shares, [target.rest] * len(target.hits))
    return sum_, jnp.concatenate([rate * move for move in moves], axis)


def counts(
    logits: Array,
    ids: Array,
    mask: Array | None,
    weight: Array | None,
    *cost: Any,
    axis: int,
    given: Any = None,
    formula: Formula | None = None,
) -> tuple[Array, ...]:
    """Returns the sums of `w p y`, `w p (1 - y)`, `w (1 - p) y` and again `w p y`: `[B, C]` each.

    The last two are constants for the derivative. Beside a cost, a formula of the target and of
    the arrays `cost`, none is, and its sum stands last: `[B, 1]`.
    """
    count = logits.shape[axis]
    way: Way = "marked" if count <= MARKED else "kept"
    if _are_halves(count, given, formula):
        way = "in pairs"
    share = _shares(logits, ids, mask, axis, given, way)
    each = list(zip(share.hits, share.p, share.missed, strict=True))
    own, other, missed, costs = (
        [x if weight is None else x * weight for x in parts]
        for parts in (
            [jnp.where(hit, p, 0) for hit, p, _ in each],
            [jnp.where(hit, 0, p) for hit, p, _ in each],
            [jnp.where(hit, miss, 0) for hit, _, miss in each],
            [] if formula is None else [sigmoid.of_log_odds(share.odds, *cost, formula=formula)],
        )
    )
    if len(each) == 1:
        space = classes.positions(logits.ndim, axis)
        tp, fp, fn, *last = (x.sum(space) for x in (*own, *other, *missed, *costs))
    else:
        planes = [x.squeeze(axis) for x in (*own, *other, *missed, *costs)]
        sums = jnp.stack(_sums(planes), -1)
        tp, fp, fn, *last = jnp.split(sums, list(range(count, len(planes), count)), -1)
    return tp, fp, fn, *(last or [tp])


def _sums(planes: Sequence[Array]) -> list[Array]:
    """Returns the sums of each image in one loop, which reads once what the planes share."""
    zero = jnp.zeros((), planes[0].dtype)
    add = lambda one, other: tuple(map(jnp.add, one, other))
    axes = tuple(range(1, planes[0].ndim))
    return jax.lax.reduce(tuple(planes), (zero,) * len(planes), add, axes)


def slope_of_counts(
    logits: Array,
    ids: Array,
    mask: Array | None,
    weight: Array | None,
    *others: Any,
    axis: int,
    given: Any = None,
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
    count, last = logits.shape[axis], axis == logits.ndim - 1
    way: Way = "marked" if count <= MARKED else "at once" if last else "kept"
    if _are_halves(count, given, formula):
        way = "at once" if last else "planes"
    args = logits, ids, mask, axis, given, way
    share = _shares(*args)
    space = classes.positions(logits.ndim, axis)
    sizes = [x.shape[axis] for x in share.hits]
    by = [jax.lax.split(jnp.expand_dims(x, space), sizes, axis) for x in (by_own, by_other)]
    each = list(zip(share.hits, share.p, *by, strict=True))
    own = _over_classes([jnp.where(h, p * a, 0) for h, p, a, _ in each], axis)
    mean = _over_classes([jnp.where(h, 0, p * b) for h, p, _, b in each], axis)
    if way == "kept":
        share = _shares(*args, after=(own, mean))
    slopes = [
        p * jnp.where(h, miss * a - mean, b - mean - own)
        for p, h, miss, a, b in zip(share.p, share.hits, share.missed, *by, strict=True)
    ]
    if formula is not None:
        rate = sigmoid.rate(share.odds, share.missed[0], *cost, formula=formula)
        rate = jnp.where(share.removed, 0, rate) * jnp.expand_dims(by_cost, space)
        moves = _moves(share.hits, share.p, share.missed)
        slopes = [x + rate * move for x, move in zip(slopes, moves, strict=True)]
    slope = jnp.concatenate(slopes, axis)
    return (slope if weight is None else slope * weight,)


def _are_halves(count: int, given: Any, formula: Formula | None) -> bool:
    """Whether the counts are of two classes in half precision, half as wide as what is kept."""
    return count == 2 and given is not None and formula is None


def _moves(hits: Sequence[Array], p: Sequence[Array], missed: Sequence[Array]) -> list[Array]:
    """The derivative of the target's log-odds by each logit."""
    return [
        jnp.where(h, 1, jnp.where(x == 0, 0, -x / miss))
        for h, x, miss in zip(hits, p, missed, strict=True)
    ]


class _Share(NamedTuple):
    """The softmax of each position, in planes or one array.

    Attributes:
      hits: Whether a class is the target.
      p: Its probability, NaN for a bad id; where masked any number, of weight 0.
      missed: `1 - p` where it is the target.
      odds: The log-odds of the target; of size 1 at the class axis.
      removed: Whether the target has been removed; likewise.
    """

    hits: Sequence[Array]
    p: Sequence[Array]
    missed: Sequence[Array]
    odds: Array
    removed: Array


def _marked(target: _Target, axis: int) -> _Share:
    """The probabilities of few classes, written to memory for sums and slopes: a plane each.

    One that is negative is the target's, so that its class is not read again: 0 if it has been
    removed, and else no less than the smallest number.
    """
    unit = 1 / (target.own + target.rest)
    least = jnp.where(target.removed, 0, jnp.finfo(unit.dtype).tiny)
    planes = [
        jnp.where(hit, -jnp.maximum(x * unit, least), x * unit)
        for hit, x in zip(target.hits, target.shares, strict=True)
    ]
    planes, odds = jax.lax.optimization_barrier((planes, _target_odds(target)))
    hits, p = [jnp.signbit(x) for x in planes], [jnp.abs(x) for x in planes]
    miss = _over_classes([jnp.maximum(x, 0) for x in planes], axis)
    own = _over_classes([jnp.minimum(x, 0) for x in planes], axis)
    return _Share(hits, p, [miss] * len(hits), odds, removed=own == 0)


def _in_pairs(target: _Target, parts: list[Array]) -> _Share:
    """The probabilities of few classes in planes, each from its differences to the others.

    With `r = sum_{d != c} exp(z_d - z_c)` they are `1 / (1 + r)`, and `1 - p = 1 / (1 + 1 / r)`.
    The compiler would write exponentials that the classes share to memory.
    """
    ratios = [
        functools.reduce(jnp.add, [jnp.exp(x - own) for x in parts[:c] + parts[c + 1 :]])
        for c, own in enumerate(parts)
    ]
    p, missed = [1 / (1 + r) for r in ratios], [1 / (1 + 1 / r) for r in ratios]
    return _Share(target.hits, p, missed, _target_odds(target), target.removed)


def _shares(
    logits: Array,
    ids: Array,
    mask: Array | None,
    axis: int,
    given: Any,
    way: Way,
    after: Sequence[Array] = (),
) -> _Share:
    """The probabilities in one of the ways, or of numbers kept in memory of each position.

    Those of kept numbers are computed again `after` other arrays, which the compiler does not see
    to be the same: it would write them to memory for both.
    """
    ids, mask = ids.squeeze(axis), None if mask is None else mask.squeeze(axis)
    logits, ids = numerics.hidden(logits, given, ids)
    bad = jnp.expand_dims(labels.poison(ids, mask, logits.shape[axis], logits.dtype), axis)
    if way in ("marked", "in pairs"):
        # Poured into one class it reaches all, and the compiler does not write it to memory.
        first, *rest = jax.lax.split(_finite(logits, mask, axis), (1,) * logits.shape[axis], axis)
        parts = [first * bad, *rest]
        target = _target(jnp.concatenate(parts, axis), ids, None, axis, in_planes=True)
        return _marked(target, axis) if way == "marked" else _in_pairs(target, parts)
    unrolled = way == "planes" or (way == "kept" and logits.shape[axis] <= PLANES)
    target = _target(logits, ids, mask, axis, unrolled)
    # One more reduction over the last axis would split the loop; of planes it is one step less.
    at_once = len(target.shares) == 1
    whole = target.own + target.rest if at_once else functools.reduce(jnp.add, target.shares)
    unit, odds = 1 / whole * bad, _target_odds(target) * bad
    if mask is not None:
        unit = jnp.where(jnp.expand_dims(mask, axis), unit, 0)
    miss = target.rest * unit
    if way != "kept":
        p = [x * unit for x in target.shares]
        return _Share(target.hits, p, [miss] * len(p), odds, target.removed)
    kept = jax.lax.optimization_barrier((miss, unit, target.top, odds, ids))
    miss, unit, top, odds, ids = kept
    logits, _ = numerics.hidden(logits, given, after)
    hit = labels.is_target(ids, logits.shape, axis)
    p = jnp.exp(_finite(logits, mask, axis) - top) * unit
    return _Share([hit], [p], [miss], odds, odds == -jnp.inf)


class _Target(NamedTuple):
    """The softmax of each position beside its target, with a class axis of size 1.

    Attributes:
      shares: `exp(z_c - top)`, a plane each, or in one array.
      hits: Whether a class is the target, in the same parts.
      own: `exp(z_y - top)` of the target.
      rest: The sum of the others' shares.
      top: The largest logit.
      lead: `z_y - top`.
      removed: Whether the target has been removed.
    """

    shares: Sequence[Array]
    hits: Sequence[Array]
    own: Array
    rest: Array
    top: Array
    lead: Array
    removed: Array


def _target(logits: Array, ids: Array, mask: Array | None, axis: int, in_planes: bool) -> _Target:
    z, limit = _finite(logits, mask, axis), numerics.limit(logits.dtype)
    sizes = (1,) * z.shape[axis] if in_planes else (z.shape[axis],)
    parts = jax.lax.split(z, sizes, axis)
    each = jax.lax.split(jax.lax.broadcasted_iota(ids.dtype, z.shape, axis), sizes, axis)
    hits = [c == jnp.expand_dims(ids, axis) for c in each]

    top = _over_classes(parts, axis, jnp.max, jnp.maximum)
    levels = [x - top for x in parts]
    shares = [jnp.exp(x) for x in levels]
    others = [jnp.where(h, 0, x) for h, x in zip(hits, shares, strict=True)]
    leads = [jnp.where(h, x, 0) for h, x in zip(hits, levels, strict=True)]
    rest, lead = (_over_classes(x, axis) for x in (others, leads))
    return _Target(shares, hits, jnp.exp(lead), rest, top, lead, removed=lead < -limit / 2)


def _over_classes(
    parts: Sequence[Array],
    axis: int,
    reduce: Callable[..., Array] = jnp.sum,
    join: Callable[..., Array] = jnp.add,
) -> Array:
    """Reduces planes, or one array, over the classes."""
    return functools.reduce(join, [reduce(x, axis=axis, keepdims=True) for x in parts])


def _finite(logits: Array, mask: Array | None, axis: int) -> Array:
    if mask is not None:
        logits = jnp.where(jnp.expand_dims(mask, axis), logits, 0)
    return numerics.cut(logits)


def _odds(logits: Array, ids: Array, mask: Array | None, axis: int) -> Array:
    """The log-odds of each position's target against the others, NaN for a bad id."""
    count = logits.shape[axis]
    target = _target(logits, ids, mask, axis, in_planes=count <= PLANES)
    odds = _target_odds(target)
    return odds.squeeze(axis) * labels.poison(ids, mask, count, odds.dtype)


def _target_odds(target: _Target) -> Array:
    return jnp.where(target.removed, -jnp.inf, target.lead - jnp.log(target.rest))


def _sum_of_odds(odds: Array, *others: Any, formula: Formula) -> Array:
    return _weighted_sum(sigmoid.log_pair(odds), *others, formula=formula)


def _weighted_sum(
    pair: tuple[Array, Array],
    weights: Array | None,
    mask: Array | None,
    factors: Array | None,
    *parameters: Array,
    formula: Formula,
) -> Array:
    values = numerics.weighted(formula(*pair, *parameters), mask, factors)
    return (values if weights is None else values * weights).sum()
