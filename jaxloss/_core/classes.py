"""Reductions over the classes: of few they are written out, plane by plane.

Compilers reduce a tiny last axis slowly and write what they reduce to memory. Written out, it is
arithmetic between planes, which they fuse with what comes before and after. An axis that is not
last a CPU reduced, before JAX 0.12, far slower than it goes through its planes in a loop.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxloss._core import sharding
from jaxloss._core.platforms import by_platform

Array = jax.Array
Carry = TypeVar("Carry")

FEW = 8  # from there on one loop over the classes is as fast
UNFILLED = 16  # so few, lying last, are not enough for the vectors of a CPU
PLANE = 2**13  # elements; of smaller ones the turns of a loop take longer than their arithmetic
BLOCK = 512  # classes at least
REDUCES_ANY_AXIS = jax.__version_info__ >= (0, 12)  # at once, as fast as it reads


def are_few(x: Array, axis: int) -> bool:
    """Whether the classes of an array are written out: not where they lie on several devices."""
    return x.shape[axis] <= FEW and jax.typeof(x).sharding.spec[axis] is None


def are_planes(x: Array, axis: int) -> bool:
    """Whether a CPU goes through the classes of an array one by one: they are large and whole."""
    large = math.prod(x.shape) >= PLANE * x.shape[axis]
    return axis != x.ndim - 1 and large and sharding.blocks(x, axis) == 1


def go_in_turn(x: Array, axis: int) -> bool:
    """Whether a CPU should reduce the classes of an array in a loop: many of them in planes."""
    return not REDUCES_ANY_AXIS and x.shape[axis] > FEW and are_planes(x, axis)


def positions(rank: int, axis: int | None) -> tuple[int, ...]:
    """The axes of the positions of images whose classes lie along an axis."""
    return tuple(i for i in range(1, rank) if i != axis)


def fold(step: Callable[..., Carry], start: Carry, axis: int, *arrays: Array) -> Carry:
    """Goes through the classes with `carry = step(carry, c, *planes)`, a plane of each array.

    Of few it is written out. The planes keep the axis; an array in which it has size 1 is the same
    for all classes.
    """
    count = max(x.shape[axis] for x in arrays)

    def turn(c: Any, carry: Carry) -> Carry:
        return step(carry, c, *(_plane(x, c, axis) for x in arrays))

    if count <= FEW:
        return functools.reduce(lambda carry, c: turn(c, carry), range(count), start)
    return jax.lax.fori_loop(0, count, turn, start)


def _plane(x: Array, c: Any, axis: int) -> Array:
    if x.shape[axis] == 1:
        return x
    if isinstance(c, int):
        return jax.lax.slice_in_dim(x, c, c + 1, axis=axis)
    return jax.lax.dynamic_slice_in_dim(x, c, 1, axis)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def total(x: Array, axis: int, keepdims: bool = False) -> Array:
    """Sums over the classes."""
    return _reduced(jnp.add, jnp.sum, x, axis, keepdims)


@total.defjvp
def _(
    axis: int, keepdims: bool, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    # Transposed, a plain sum is a broadcast.
    return total(*primals, axis, keepdims), tangents[0].sum(axis, keepdims=keepdims)


def highest(x: Array, axis: int, keepdims: bool = False) -> Array:
    """The maximum over the classes, a constant."""
    return _reduced(jnp.maximum, jnp.max, jax.lax.stop_gradient(x), axis, keepdims)


def highest_by_class(x: Array, axis: int, keepdims: bool = False) -> Array:
    """The same in a loop, where they `go_in_turn`: 2 to 18 times as fast."""
    x = jax.lax.stop_gradient(x)
    none = jnp.full_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis), -jnp.inf)
    top = fold(lambda top, c, x: jnp.maximum(top, x), none, axis, x)
    return top if keepdims else top.squeeze(axis)


def above(logits: Array, top: Array) -> Array:
    """`logits - top`, 0 for a logit of +inf and -inf for one of -inf."""
    return jnp.where(logits == jnp.inf, 0, logits - jnp.where(top == -jnp.inf, 0, top))


def best(x: Array, axis: int) -> Array:
    """The id of each position's highest class, the first of several; without a highest any.

    Of `argmax`, one reduction to two numbers, several devices would exchange all partial results;
    of two reductions they exchange a number each. A CPU is faster by `argmax`.
    """
    by_two = functools.partial(_best, axis=axis)
    if sharding.blocks(x, axis) > 1:
        return by_two(x)
    at_once = functools.partial(jax.lax.argmax, axis=axis, index_dtype=jnp.int32)
    return by_platform(x, cpu=at_once, default=by_two)


def _best(x: Array, *, axis: int) -> Array:
    ids = jax.lax.broadcasted_iota(jnp.int32, x.shape, axis)
    hit = x == highest(x, axis, keepdims=True)
    at = _reduced(jnp.minimum, jnp.min, jnp.where(hit, ids, x.shape[axis]), axis, False)
    return at % x.shape[axis]  # NaN equals nothing


def blocks(x: Array, axis: int) -> int:
    """Into how many blocks to part many classes before a variadic reduction.

    Of the devices on which the classes may lie each reduces its own then, and tells the others of
    the result by plain reductions, a number each. Of a variadic reduction they would exchange all
    partial results. A GPU reads blocks as fast as the whole; a TPU would write them anew.
    """
    count = sharding.blocks(x, axis)
    return count if x.shape[axis] >= BLOCK * count else 1


def in_blocks(x: Array, axis: int, count: int) -> Array:
    """Parts the classes: an axis of blocks, and one of the classes of each."""
    return x.reshape(*x.shape[:axis], count, -1, *x.shape[axis + 1 :])


def _reduced(
    join: Callable[[Array, Array], Array],
    reduce: Callable[..., Array],
    x: Array,
    axis: int,
    keepdims: bool,
) -> Array:
    if not are_few(x, axis) or x.shape[axis] == 0:
        return reduce(x, axis=axis, keepdims=keepdims)
    planes = jax.lax.split(x, (1,) * x.shape[axis], axis % x.ndim)
    joined = functools.reduce(join, planes)
    return joined if keepdims else joined.squeeze(axis)
