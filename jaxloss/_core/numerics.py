"""Arithmetic that stays exact and differentiable where the textbook formula does not.

None of these adds an epsilon: each gives the limit, in value and in derivative.

A CPU's compiler makes an array of every quotient and root that several operations share, and so
of all that leads to it. Of one behind a `where`, as here, it does not: a long formula of small
arrays is one loop.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


@jax.custom_jvp
def divide(numerator: Array, denominator: Array) -> Array:
    """Returns the quotient, and 0 with zero gradient where the denominator is 0."""
    defined = denominator != 0
    return jnp.where(defined, numerator / jnp.where(defined, denominator, 1), 0)


@divide.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    numerator, denominator = primals
    quotient = divide(numerator, denominator)
    # Not through 1 / denominator^2, which overflows where the derivative does not. An infinite
    # quotient must not meet the zero tangent of a constant denominator.
    slope = jnp.where(jnp.isinf(quotient), 0, quotient)
    return quotient, divide(tangents[0] - slope * tangents[1], denominator)


@jax.custom_jvp
def share(part: Array, rest: Array) -> Array:
    """Returns `part / (part + rest)`, and 0 with zero gradient where the sum is 0.

    No derivative is a difference of what the part has in both.
    """
    return divide(part, part + rest)


@share.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    part, rest = primals
    own, others = share(part, rest), share(rest, part)
    return own, divide(others * tangents[0] - own * tangents[1], part + rest)


@jax.custom_jvp
def reciprocal(u: Array) -> Array:
    """Returns `1 / u`, and 0 where `u` is not a normal number; NaN stays NaN."""
    inside = ~((jnp.abs(u) < jnp.finfo(u.dtype).tiny) | jnp.isinf(u))
    return jnp.where(inside, 1 / jnp.where(inside, u, 1), 0)


@reciprocal.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    inverse = reciprocal(*primals)
    return inverse, -inverse * (inverse * tangents[0])  # in this order it does not overflow


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def hidden(x: Array, half: Any, *others: Any) -> tuple[Any, ...]:
    """Returns arrays that a compiler does not find equal to these: it shares nothing of them.

    Args:
      x: An array.
      half: The dtype of half precision in which it came, so that it is hidden before it is cast,
        as the cast would be written to memory; None: it was not.
      *others: More arrays, or trees of them.
    """
    kept = x if half is None else x.astype(half)
    kept, *others = jax.lax.optimization_barrier((kept, *others))
    return kept.astype(x.dtype), *others


@hidden.defjvp
def _(
    half: Any, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    results = hidden(primals[0], half, *primals[1:])

    def alike(result: Array, t: Array) -> Array:
        if t.dtype == jax.dtypes.float0:
            return t
        # Behind the barrier all vary over the mesh axes over which one of them does.
        return t + jnp.zeros_like(result, shape=())

    return results, tuple(jax.tree.map(alike, results, tangents))


def unit(x: Array) -> Array:
    """Returns the nearest power of two that is normal, as its inverse is: products do not round.

    A constant for the derivative; of 0 or less the smallest one.
    """
    limits = jnp.finfo(x.dtype)
    x = jnp.clip(jax.lax.stop_gradient(x), limits.tiny, limits.max / 4)
    return jax.lax.reduce_precision(x, limits.nexp, mantissa_bits=0)


def per_unit(x: Array) -> Array:
    """Returns `1 / unit(x)`, by the difference of exponents and not by a division."""
    bits = functools.partial(jax.lax.bitcast_convert_type, new_dtype=f"int{8 * x.dtype.itemsize}")
    one = jnp.ones((), x.dtype)
    return jax.lax.bitcast_convert_type(2 * bits(one) - bits(unit(x)), x.dtype)


@jax.custom_jvp
def product(weight: Array, value: Array) -> Array:
    """Returns `weight * value` with `0 * inf = 0`: nothing of an infinite cost is no cost.

    Where the value is infinite the weight is a constant for the derivative.
    """
    return weight * jnp.where((weight == 0) & jnp.isinf(value), 0, value)


@product.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    weight, value = primals
    slope = jnp.where(jnp.isinf(value), 0, value)
    return product(weight, value), slope * tangents[0] + weight * tangents[1]


@jax.custom_jvp
def log(x: Array) -> Array:
    """Returns the logarithm; no derivative forms `1 / x^2`, which overflows early."""
    return jnp.log(x)


@log.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return log(*primals), _inverse(*primals) * tangents[0]


@jax.custom_jvp
def expm1(x: Array) -> Array:
    """Returns `exp(x) - 1`; the derivative keeps its digits where that is nearly -1."""
    return jnp.expm1(x)


@expm1.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return expm1(*primals), jnp.exp(*primals) * tangents[0]


@jax.custom_jvp
def _inverse(x: Array) -> Array:
    return 1 / x


@_inverse.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    inverse = _inverse(*primals)
    return inverse, -inverse * (inverse * tangents[0])


def power(base: Array, exponent: Array) -> Array:
    """Returns `base ** exponent` for `base >= 0`, with derivative 0 in both at `base = 0`.

    `0 ** 0` is 1.
    """
    positive = ~(base <= 0)  # NaN stays NaN
    raised = jnp.exp(exponent * jnp.log(jnp.where(positive, base, 1)))
    return jnp.where(positive, raised, jnp.where(exponent == 0, 1, jnp.zeros_like(raised)))


@jax.custom_jvp
def steep_power(u: Array, exponent: Array) -> Array:
    """Returns `u^exponent` for `u >= 0`, whose derivatives of any order stay finite.

    They are 0 at `u = 0`. Elsewhere, where an exponent below 1 makes them large, no factor exceeds
    `1 / u`: what multiplies it in the chain rule is about as small as `u`.
    """
    return power(u, exponent)


@steep_power.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    u, exponent = primals
    value = steep_power(u, exponent)
    inside = (u >= jnp.finfo(u.dtype).tiny) & (u < jnp.inf)
    slope = jnp.where(inside, value, 0) * exponent * reciprocal(u)
    by_exponent = jnp.where(inside, value * jnp.log(jnp.where(inside, u, 1)), 0)
    return value, slope * tangents[0] + by_exponent * tangents[1]


@jax.custom_jvp
def sqrt(x: Array) -> Array:
    """Returns the square root, with derivative 0 at 0."""
    positive = ~(x <= 0)  # NaN stays NaN
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), jnp.zeros_like(x))


@sqrt.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    root = sqrt(*primals)
    return root, reciprocal(2 * root) * tangents[0]


def length(*parts: Array) -> Array:
    """Returns the root of the sum of the squares, of numbers of any size; derivative 0 at 0."""
    largest = functools.reduce(jnp.maximum, map(jnp.abs, parts))
    shrink = per_unit(largest)
    squares = [(part * shrink) ** 2 for part in parts]
    return unit(largest) * sqrt(functools.reduce(jnp.add, squares))


def absolute(x: Array) -> Array:
    """Returns `|x|`, with derivative 0 at 0."""
    return maximum(x, -x)  # at the tie each side has half the derivative


@jax.custom_jvp
def in_order(x: Array, y: Array) -> tuple[Array, Array]:
    """The smaller and the larger; at a tie each has half the derivative, as with `jnp.maximum`.

    The derivative has fewer operations than its, and no division: less to compile, and half the
    time on a CPU.
    """
    return jnp.minimum(x, y), jnp.maximum(x, y)


@in_order.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Any, Any]:
    (x, y), (t, u) = primals, tangents
    share = _share_of_larger(x, y)
    return in_order(x, y), ((1 - share) * t + share * u, share * t + (1 - share) * u)


def _share_of_larger(x: Array, y: Array) -> Array:
    """1 where `x` is the larger, 1/2 at a tie."""
    return ((x > y).astype(x.dtype) + (x >= y).astype(x.dtype)) / 2


@jax.custom_jvp
def positive(x: Array) -> Array:
    """Returns `max(x, 0)`, with half the derivative at 0."""
    return jnp.maximum(x, 0)


@positive.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,) = primals
    return positive(x), _share_of_larger(x, jnp.zeros_like(x)) * tangents[0]


def minimum(x: Array, y: Array) -> Array:
    """Returns the smaller; at a tie each has half the derivative."""
    return in_order(x, y)[0]


def maximum(x: Array, y: Array) -> Array:
    """Returns the larger; at a tie each has half the derivative."""
    return in_order(x, y)[1]


def clip(x: Array, low: Array | float, high: Array | float) -> Array:
    """Returns `x` between two bounds; at one of them each has half the derivative."""
    return minimum(maximum(x, jnp.asarray(low, x.dtype)), jnp.asarray(high, x.dtype))


def finite(x: Array) -> Array:
    """Returns `x` with +inf replaced by the largest number, so that `0 * x` is 0 there."""
    return jnp.where(x == jnp.inf, jnp.finfo(x.dtype).max, x)


def limit(dtype: jnp.dtype) -> float:
    """Returns a quarter of the largest number: differences of what it bounds are finite."""
    return float(jnp.finfo(dtype).max) / 4


def cut(x: Array) -> Array:
    """Returns `x` between that limit and its negative: without infinities."""
    return jnp.clip(x, -limit(x.dtype), limit(x.dtype))


def masked(x: Array, mask: Array | None) -> Array:
    """Returns `x`, 0 where masked."""
    return x if mask is None else jnp.where(mask, x, 0)


def times(x: Array, factors: Array | None) -> Array:
    """Returns `x` times its factors; None: 1."""
    return x if factors is None else x * factors


def weighted(x: Array, mask: Array | None, factors: Array | None) -> Array:
    """Returns `x` times its factors, 0 where masked."""
    return times(masked(x, mask), factors)
