"""Reductions over the classes: of few they are written out, plane by plane.

Compilers reduce a tiny last axis slowly and write what they reduce to memory. Written out, it is
arithmetic between planes, which they fuse with what comes before and after.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array

FEW = 8  # from there on one loop over the classes is as fast


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
