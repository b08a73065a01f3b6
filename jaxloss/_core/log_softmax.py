"""The logarithm of the softmax of every class, and what is computed with it.

All from the largest logit and the sum of the other shares, so that neither `p_c` nor `1 - p_c`
comes from a subtraction that cancels. A logit of -inf is a class that has been removed.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxloss._core import classes, numerics
from jaxloss._core.platforms import by_platform

Array = jax.Array


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def scale(logits: Array, axis: int) -> tuple[Array, Array]:
    """Returns the largest logit, as a constant, and `sum_c exp(z_c - top) - 1`, exactly.

    Both keep the class axis with size 1. `top + log1p(rest)` is the log-sum-exp. `top` is 0 where
    all classes are removed.
    """
    return by_platform(
        logits,
        cpu=functools.partial(_scale_by_two, axis=axis),
        default=functools.partial(_scale_by_one, axis=axis),
    )


@scale.defjvp
def _(axis: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Any, Any]:
    (logits,), (t,) = primals, tangents
    top, rest = scale(logits, axis)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def linear(logits: Array, top: Array, t: Array) -> Array:
        return (jnp.exp(classes.above(logits, top)) * t).sum(axis, keepdims=True)

    return (top, rest), (jnp.zeros_like(top), linear(logits, top, t))


def _scale_by_two(logits: Array, *, axis: int) -> tuple[Array, Array]:
    """The scale by plain reductions: for a CPU."""
    top = _finite(logits.max(axis, keepdims=True))
    return top, rest_of(jnp.exp(classes.above(logits, top)), axis)


def rest_of(shares: Array, axis: int) -> Array:
    """Returns `sum_c share_c - 1` of shares of which the largest is 1, exactly."""
    # The whole part of a share is 1 if it is the largest, else 0: a select would not be fused.
    total, below = (classes.total(x, axis, True) for x in (shares, shares - jnp.floor(shares)))
    several = total > 1.5  # of them are the largest
    return jnp.where(several, total - 1, below)


def _scale_by_one(logits: Array, *, axis: int) -> tuple[Array, Array]:
    """The same in one variadic reduction: for a GPU or TPU."""

    def combine(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        (top_a, rest_a), (top_b, rest_b) = a, b
        ratio = jnp.where(top_a == top_b, 1, jnp.exp(-jnp.abs(top_a - top_b)))
        first = top_a >= top_b
        higher, lower = jnp.where(first, rest_a, rest_b), jnp.where(first, rest_b, rest_a)
        top = jnp.maximum(top_a, top_b)  # NaN stays NaN
        return top, jnp.where(jnp.isnan(top), top, higher + (1 + lower) * ratio)

    zero = jnp.zeros((), logits.dtype)
    absent = jnp.where(logits == -jnp.inf, zero - 1, zero)
    top, rest = jax.lax.reduce((logits, absent), (zero - jnp.inf, zero - 1), combine, (axis,))
    top, rest = jnp.expand_dims(top, axis), jnp.expand_dims(rest, axis)
    return _finite(top), jnp.where(top == -jnp.inf, 0, rest)


def _finite(top: Array) -> Array:
    """Returns 0 for the largest logit where all classes are removed."""
    return jnp.where(top == -jnp.inf, 0, top)


def log_odds(logits: Array, top: Array, rest: Array) -> Array:
    """Returns the log-odds of every class against the others, in the shape of the logits.

    -inf with zero gradient for a removed class, +inf for the only class left. `top` and `rest` are
    those of `scale`; the sum over all classes but `c`, `rest + (1 - exp(z_c - top))`, does not
    cancel.
    """
    level = classes.above(logits, top)
    removed = level == -jnp.inf
    level = jnp.where(removed, 0, level)
    others = rest + (1 - jnp.exp(level))
    alone = others == 0
    odds = level - numerics.log(jnp.where(alone, 1, others))
    return jnp.where(removed, -jnp.inf, jnp.where(alone, jnp.inf, odds))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def log_probability(logits: Array, axis: int) -> tuple[Array, Array, Array]:
    """Returns `log p_c`, `p_c` and `1 - p_c`, accurate also where one of them is close to 1.

    -inf with zero gradient for a removed class.
    """
    top, rest = scale(logits, axis)
    return -_surprise(logits, top, rest, axis), *_probability_pair(logits, top, rest, axis)


@log_probability.defjvp
def _(axis: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Any, Any]:
    (logits,), (t,) = primals, tangents
    log_p, p, q = log_probability(logits, axis)
    # A class of more than half has the shares of the others: its `1 - p` would cancel.
    largest = p > q
    others = jnp.where(largest, 0, p * t).sum(axis, keepdims=True)
    own = jnp.where(largest, p * t, 0).sum(axis, keepdims=True)
    shift = jnp.where(largest, q * t, t - own) - others
    shift = jnp.where(log_p == -jnp.inf, 0, shift)
    return (log_p, p, q), (shift, p * shift, -p * shift)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def entropy(logits: Array, shares: Array, top: Array, rest: Array, axis: int) -> Array:
    """The cost; its derivative by the logits includes that through their scale."""
    cost = _surprise(logits, top, rest, axis)
    return numerics.product(shares, cost).sum(axis, keepdims=True)


@entropy.defjvp
def _(axis: int, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    (logits, shares, top, rest), (t, t_shares, *_) = primals, tangents
    removed = classes.above(logits, top) == -jnp.inf
    p, q = _probability_pair(logits, top, rest, axis)
    total = jnp.where(removed, 0, shares).sum(axis, keepdims=True)
    # Not total p - y, which cancels where a class is all but certain.
    slope = jnp.where(removed, 0, p * (total - shares) - shares * q)
    by_share = jnp.where(removed, 0, _surprise(logits, top, rest, axis))
    tangent = (slope * t + by_share * t_shares).sum(axis, keepdims=True)
    return entropy(logits, shares, top, rest, axis), tangent


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _surprise(logits: Array, top: Array, rest: Array, axis: int) -> Array:
    """Returns `-log p_c`; its derivative by the logits includes that through their scale."""
    return jnp.log1p(rest) - classes.above(logits, top)


@_surprise.defjvp
def _(axis: int, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    t = tangents[0]
    p, _ = _probability_pair(*primals, axis)
    return _surprise(*primals, axis), (p * t).sum(axis, keepdims=True) - t


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _probability_pair(logits: Array, top: Array, rest: Array, axis: int) -> tuple[Array, Array]:
    """Returns `p_c` and `1 - p_c`, neither by a subtraction that cancels."""
    share, norm = jnp.exp(classes.above(logits, top)), 1 / (1 + rest)
    return share * norm, (rest + (1 - share)) * norm


@_probability_pair.defjvp
def _(axis: int, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Any, Any]:
    t = tangents[0]
    p, q = _probability_pair(*primals, axis)
    slope = p * (t - (p * t).sum(axis, keepdims=True))
    return (p, q), (slope, -slope)


def probability_pair(logits: Array, axis: int) -> tuple[Array, Array]:
    """Returns the softmax and its complement, neither by a subtraction that cancels."""
    p = jax.nn.softmax(logits, axis)
    # Written as the softmax is, so that the compiler finds both in the same pass.
    level = jax.lax.stop_gradient(logits - logits.max(axis, keepdims=True))
    share, largest = jnp.exp(level), (level == 0).astype(level.dtype)
    below = jnp.where(level < 0, share, 0).sum(axis, keepdims=True)
    rest = below + (largest.sum(axis, keepdims=True) - 1)
    q = (rest + (1 - share)) / (1 + rest)
    return p, q + (jax.lax.stop_gradient(p) - p)  # the derivative needs nothing but p
