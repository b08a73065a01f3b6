"""Soft counts of target ids, and a cost beside them, as a CPU computes them: with shares kept.

What the other classes have of a position, `exp(z_c - top)`, is written to memory once, for sums and
slopes. All its sums are products with numbers of the position or the class: nothing that is summed
is written. Where classes lie, `lines` says.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import classes, labels, numerics, sigmoid
from jaxloss._core.sharding import blocks, is_split, like

Array = jax.Array
Formula = Callable[..., Array]

PARTS = 64  # of the positions of an image, at most


def pays(logits: Array, axis: int) -> bool:
    """Whether this is the faster way: images that lie on several devices keep their sums."""
    split = any(is_split(logits, i) for i in range(1, logits.ndim)) or blocks(logits, axis) > 1
    return not split and (axis == logits.ndim - 1 or classes.are_planes(logits, axis))


def counts(
    z: Array,
    ids: Array,
    mask: Array | None,
    weight: Array | None,
    *cost: Any,
    axis: int,
    formula: Formula | None = None,
) -> tuple[Array, ...]:
    """Returns the sums as `gpu.counts` does."""
    ids, mask, weight, *of_cost = _of_positions(z, axis, ids, mask, weight, *cost)
    share, count = _share(z, ids, mask, axis), z.shape[axis]
    p, missed, unit = share.p, share.missed, share.unit
    if weight is not None:
        p, missed, unit = (x * weight for x in (p, missed, unit))
    fp = _over_pixels(share.others, unit, axis)
    # A bad id makes that NaN; sums of each class may drop it.
    tp, fn = (_of_each(x, ids, count) + 0 * fp for x in (p, missed))
    if formula is None:
        return tp, fp, fn, tp
    costs = sigmoid.of_log_odds(share.odds, *of_cost, formula=formula)
    costs = numerics.times(costs, weight)
    return tp, fp, fn, costs.sum(range(1, costs.ndim))[:, None]


def slope_of_counts(
    z: Array,
    ids: Array,
    mask: Array | None,
    weight: Array | None,
    *others: Any,
    axis: int,
    formula: Formula | None = None,
) -> tuple[Array]:
    """Returns the derivative as `gpu.slope_of_counts` does."""
    *cost, by_own, by_other, by_missed, by_cost = others
    if formula is not None:
        by_own = by_own - by_missed
    ids, mask, weight, *cost = _of_positions(z, axis, ids, mask, weight, *cost)
    share = _share(z, ids, mask, axis)
    mean = _over_classes(share.others, by_other, axis) * share.unit
    own = share.p * _of_target(by_own, ids)
    at_target, elsewhere = share.missed * own - share.p * mean, share.unit * (mean + own)
    if formula is not None:  # the target's log-odds move by 1 with its logit, else by a share
        rate = sigmoid.rate(share.odds, share.missed, *cost, formula=formula)
        rate = jnp.where(share.removed, 0, rate) * by_cost.reshape(-1, *(1 for _ in rate.shape[1:]))
        at_target = at_target + rate
        elsewhere = elsewhere + numerics.divide(rate, share.total)
    numbers = at_target, elsewhere, share.unit
    at_target, elsewhere, unit = (jnp.expand_dims(x, axis) for x in numbers)
    by_other = jnp.expand_dims(by_other, classes.positions(z.ndim, axis))
    hit = labels.is_target(ids, z.shape, axis)
    slope = jnp.where(hit, at_target, share.others * (unit * by_other - elsewhere))
    return (slope if weight is None else slope * jnp.expand_dims(weight, axis),)


def _of_positions(z: Array, axis: int, *arrays: Any) -> tuple[Any, ...]:
    """Takes the class axis from arrays of positions, in which it has size 1."""
    return tuple(a.squeeze(axis) if a is not None and a.ndim == z.ndim else a for a in arrays)


class _Share(NamedTuple):
    """The softmax of each position.

    Attributes:
      others: `exp(z_c - top)` of all classes but the target; what follows has no class axis.
      total: Their sum.
      unit: The probability of a class whose logit is `top`, NaN for a bad id and 0 where masked, as
        are the next two.
      p: The probability of the target.
      missed: `1 - p`.
      lead: The target's `z_y - top`, -inf where it has been removed.
    """

    others: Array
    total: Array
    unit: Array
    p: Array
    missed: Array
    lead: Array

    @property
    def removed(self) -> Array:
        """Whether the target has been removed."""
        return self.lead == -jnp.inf

    @property
    def odds(self) -> Array:
        """The log-odds of the target, NaN for a bad id and any number where masked."""
        odds = jnp.where(self.removed, -jnp.inf, self.lead - jnp.log(self.total))
        return odds + 0 * self.unit


def _share(z: Array, ids: Array, mask: Array | None, axis: int) -> _Share:
    count, last = z.shape[axis], axis == z.ndim - 1
    highest = classes.highest_by_class if classes.go_in_turn(z, axis) else classes.highest
    top = highest(z, axis, keepdims=True)
    if mask is not None:
        z, top = (jnp.where(jnp.expand_dims(mask, axis), x, 0) for x in (z, top))
    hit = labels.is_target(ids, z.shape, axis)
    others = jnp.exp(jnp.where(hit, -jnp.inf, classes.above(z, top)))
    if last:
        total = classes.total(others, axis)
    else:
        total = _over_classes(others, jnp.ones((len(z), count), z.dtype), axis)
    lead = classes.above(labels.of_ids(z, ids, axis), top.squeeze(axis))
    own = jnp.exp(lead)
    unit = numerics.divide(labels.poison(ids, mask, count, z.dtype), own + total)
    unit = numerics.masked(unit, mask)
    return _Share(others, total, unit, own * unit, total * unit, lead)


def _over_pixels(others: Array, unit: Array, axis: int) -> Array:
    """Sums shares times a number of each position: `[B, C]`."""
    if axis != others.ndim - 1:
        return _product(
            others, unit, classes.positions(others.ndim, axis), tuple(range(1, unit.ndim)), 1
        )
    # Line by line: what the compiler reshapes for a product it does not write the slopes over.
    of_lines = _product(unit, others, (axis - 1,), (axis - 1,), axis - 1)
    return of_lines.sum(range(1, axis - 1))


def _over_classes(others: Array, factors: Array, axis: int) -> Array:
    """Sums shares times a number of each image and class, which lie where the images do."""
    factors = like(others.sum(classes.positions(others.ndim, axis)), factors)
    apart = axis - 1 if axis == others.ndim - 1 else axis
    each = jnp.expand_dims(factors, range(1, apart))
    each = jnp.broadcast_to(each, (*others.shape[:apart], others.shape[axis]))
    return _product(each, others, (apart,), (axis,), apart)


def _product(
    one: Array, other: Array, over: tuple[int, ...], over_other: tuple[int, ...], apart: int
) -> Array:
    """Sums products over some axes of each, apart for the first few."""
    lines = tuple(range(apart))
    axes = ((over, over_other), (lines, lines))
    return jax.lax.dot_general(one, other, axes, precision="highest")


def _of_each(x: Array, ids: Array, count: int) -> Array:
    """Sums a number of each position to those of its class in each image: `[B, C]`."""
    if count <= classes.FEW:
        hits = [(ids == c).astype(x.dtype) for c in range(count)]
        return jnp.stack([(x * hit).sum(range(1, x.ndim)) for hit in hits], -1)

    # Part by part, so that no sum is long: it would lose digits.
    parts = math.gcd(math.prod(x.shape[1:]), PARTS)
    first = jnp.arange(parts, dtype=jnp.int32)[:, None] * count

    def of_image(*pixels: Array) -> Array:
        x, ids = (a.reshape(-1).reshape(parts, -1) for a in pixels)
        sums = jnp.zeros_like(x, shape=(parts * count,))
        return sums.at[ids + first].add(x, mode="drop").reshape(parts, -1).sum(0)

    return jax.vmap(of_image)(x, ids)


def _of_target(factors: Array, ids: Array) -> Array:
    """Takes the number of each position's class of those of an image, any for a bad id."""
    if factors.shape[-1] <= classes.FEW:
        first, *rest = jnp.expand_dims(factors.T, range(2, ids.ndim + 1))
        for c, factor in enumerate(rest, 1):
            first = jnp.where(ids == c, factor, first)
        return jnp.broadcast_to(first, ids.shape)
    rows = ids.reshape(len(ids), -1)
    return jnp.take_along_axis(factors, rows, 1, mode="clip").reshape(ids.shape)
