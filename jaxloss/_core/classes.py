"""Reductions over the classes: of few they are written out, plane by plane.

Compilers reduce a tiny last axis slowly and write what they reduce to memory. Written out, it is
arithmetic between planes, which they fuse with what comes before and after.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxloss._core import sharding

Array = jax.Array

FEW = 8  # from there on one loop over the classes is as fast
BLOCK = 512  # classes at least


def are_few(x: Array, axis: int) -> bool:
    """Whether the classes of an array are written out: not where they lie on several devices."""
    return x.shape[axis] <= FEW and jax.typeof(x).sharding.spec[axis] is None


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


def best(x: Array, axis: int) -> Array:
    """The id of each position's highest class, the first of several; without a highest 0.

    Of `argmax`, one reduction to two numbers, several devices would exchange all partial results;
    of two reductions they exchange a number each.
    """
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


def softmax(logits: Array, axis: int) -> Array:
    """The probabilities of the classes."""
    if not are_few(logits, axis):
        return jax.nn.softmax(logits, axis)
    share = jnp.exp(logits - highest(logits, axis, keepdims=True))
    return share / total(share, axis, keepdims=True)


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
