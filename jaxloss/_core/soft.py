"""The cross-entropy of soft labels as a CPU computes it: the slope written beside the value.

Derived by JAX, the two would share what neither needs to keep, and the compiler would write it to
memory. Classes that are not last go by one after the other.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import classes, labels, log_softmax, numerics

Array = jax.Array
_Sums = tuple[Array, Array, Array]

MANY = 512  # classes; of more, `of_finite` of ids takes longer than chunks


class _Row(NamedTuple):
    """What each position has of all its classes, with a class axis of size 1.

    Attributes:
      top: The largest logit.
      rest: `sum_c exp(z_c - top) - 1`, exactly.
      mass: `m = sum_c y_c` of the classes that have not been removed.
      lead: `sum_c y_c (z_c - top)`.
    """

    top: Array
    rest: Array
    mass: Array
    lead: Array


def with_slope(z: Array, y: Array, weights: Array | None, axis: int) -> tuple[Array, Array]:
    """Returns `L = sum w y_c (-log p_c)` and `dL/dz_c = w (p_c (m - y_c) - y_c (1 - p_c))`.

    The difference `m p_c - y_c` would cancel where a class is all but certain. The slope of a
    removed class is 0.
    """
    row = (_by_class if classes.are_planes(z, axis) else _at_once)(z, y, axis)
    cost = row.mass * jnp.log1p(row.rest) - row.lead
    level = classes.above(z, row.top)
    slope = jnp.where(level == -jnp.inf, 0, slope_of(level, row.rest, row.mass, y))
    if weights is not None:
        cost, slope = cost * weights, slope * weights
    return cost.sum(), slope


def is_one_loop(z: Array, axis: int, has_ids: bool) -> bool:
    """Whether a CPU reduces the classes in the loop that makes what is reduced."""
    return not (classes.go_in_turn(z, axis) or (has_ids and z.shape[axis] > MANY))


def of_finite(
    z: Array,
    denominator: Array,
    target: Array,
    smoothing: Array | None,
    weights: Array | None,
    mask: Array | None,
    class_weights: Array | None,
    *,
    axis: int,
    has_ids: bool,
) -> tuple[Array, Array]:
    """Returns `L` and its slope over `denominator`, where that `is_one_loop`.

    No difference of logits may be infinite. Sums of what no select precedes, and no number of a
    position but those of its classes, a compiler makes without writing what it sums to memory.
    """
    count = z.shape[axis]
    level = z - classes.highest(z, axis, keepdims=True)
    rest = log_softmax.rest_of(jnp.exp(level), axis)

    def counted(x: Array) -> Array:
        return numerics.masked(numerics.times(x, weights), mask)

    if has_ids:
        ids = target.squeeze(axis)
        at = None if mask is None else mask.squeeze(axis)
        y = numerics.times(labels.one_hot(ids, at, z, axis), class_weights)
        mass, lead = labels.poison(ids, at, count, z.dtype), labels.of_ids(level, ids, axis)
        if class_weights is not None:
            of_target = jnp.take(class_weights.reshape(-1), ids, mode="clip")
            mass, lead = mass * of_target, lead * of_target
        mass, lead = jnp.expand_dims(mass, axis), jnp.expand_dims(lead, axis)
        lead = counted(lead).sum()
    else:
        y = numerics.times(numerics.masked(target, mask), class_weights)
        mass, lead = classes.total(y, axis, True), numerics.times(y * level, weights).sum()
    if smoothing is not None:
        even = smoothing / count
        total = count if class_weights is None else class_weights.sum()
        y = (1 - smoothing) * y + numerics.times(even, class_weights)
        mass = (1 - smoothing) * mass + even * total
        lead = (1 - smoothing) * lead + even * counted(numerics.times(level, class_weights)).sum()
    slope = counted(numerics.divide(slope_of(level, rest, mass, y), denominator))
    return counted(mass * jnp.log1p(rest)).sum() - lead, slope


def slope_of(level: Array, rest: Array, mass: Array, y: Array) -> Array:
    """Returns `p_c (m - y_c) - y_c (1 - p_c)` of `z_c - top` and the numbers of the position."""
    share, unit = jnp.exp(level), 1 / (1 + rest)
    p, q = share * unit, (rest + (1 - share)) * unit
    return p * (mass - y) - y * q


def _at_once(z: Array, y: Array, axis: int) -> _Row:
    top = z.max(axis, keepdims=True)
    level = classes.above(z, top)
    rest = log_softmax.rest_of(jnp.exp(level), axis)
    parts = _present(y, level), numerics.product(y, level)
    mass, lead = (x.sum(axis, keepdims=True) for x in parts)
    return _Row(top, rest, mass, lead)


def _by_class(z: Array, y: Array, axis: int) -> _Row:
    none = jnp.full_like(jax.lax.slice_in_dim(z, 0, 1, axis=axis), -jnp.inf)

    def higher(best: tuple[Array, Array], c: Any, z: Array) -> tuple[Array, Array]:
        top, first = best
        return jnp.maximum(top, z), jnp.where(z > top, c, first)

    top, first = classes.fold(higher, (none, jnp.zeros_like(none, jnp.int32)), axis, z)

    def add(sums: _Sums, c: Any, z: Array, y: Array) -> _Sums:
        rest, mass, lead = sums
        level = classes.above(z, top)
        others = jnp.where(first == c, 0, jnp.exp(level))
        return rest + others, mass + _present(y, level), lead + numerics.product(y, level)

    zero = jnp.zeros_like(none)
    return _Row(top, *classes.fold(add, (zero, zero, zero), axis, z, y))


def _present(y: Array, level: Array) -> Array:
    return jnp.where(level == -jnp.inf, 0, y)
