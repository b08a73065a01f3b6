"""Primitive 2, the sigmoid pair: both log-probabilities of a logit from one `log1p`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxloss._core import labels, numerics
from jaxloss._core.chunks import chunked, is_large
from jaxloss._core.cost import Cost, sum_and_slopes, weighted_sum
from jaxloss._core.platforms import ALIKE, Ways, bind
from jaxloss._core.sharding import blocks

Array = jax.Array


@jax.custom_jvp
def log_pair(x: Array) -> tuple[Array, Array]:
    """Returns `-log p` and `-log(1 - p)` for `p = sigmoid(x)`, accurate to a few ulp."""
    tail = jnp.log1p(jnp.exp(-jnp.abs(x)))
    return jnp.maximum(-x, 0) + tail, jnp.maximum(x, 0) + tail


@log_pair.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Any, Any]:
    (x,), (t,) = primals, tangents
    p, q = probability_pair(x)
    return log_pair(x), (-q * t, p * t)


@jax.custom_jvp
def log_miss(p: Array, q: Array) -> Array:
    """Returns `-log(1 - p)` of a probability and its complement, exact where either is small."""
    small = p < q
    return jnp.where(small, -jnp.log1p(-p), -jnp.log(jnp.where(small, 1, q)))


@log_miss.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    # By the inverse of a primal: a quotient of tangents would be derived by its square.
    return log_miss(*primals), -tangents[1] * numerics.reciprocal(primals[1])


def surprise(hit: Array, miss: Array) -> Array:
    """Returns `-log p` of such a pair, of which the cross-entropy is made."""
    return hit


def of_log_odds(
    x: Array,
    ids: Array,
    mask: Array | None,
    factors: Array | None,
    *parameters: Array,
    formula: Callable[..., Array],
) -> Array:
    """Returns `w formula(-log p, -log(1 - p))` of the log-odds of targets, 0 where masked."""
    return numerics.weighted(formula(*log_pair(x), *parameters), mask, factors)


def rate(
    x: Array,
    missed: Array,
    ids: Array,
    mask: Array | None,
    factors: Array | None,
    *parameters: Array,
    formula: Callable[..., Array],
) -> Array:
    """Returns its derivative by log-odds of which `1 - p` is known."""
    if formula is surprise:  # it needs no more than the probabilities
        return -numerics.weighted(missed, mask, factors)
    total = lambda x: of_log_odds(x, ids, mask, factors, *parameters, formula=formula).sum()
    return jax.grad(total)(x)


def entropy(x: Array, hits: Array, misses: Array, probabilities: bool = False) -> Array:
    """Returns `hits (-log p) + misses (-log(1 - p))` of logits, or of probabilities.

    Neither factor is negative; nothing of an infinite cost is no cost.
    """
    if not probabilities:
        return _entropy(x, hits, misses)
    hit, miss = log_pair_of_probability(x)
    return numerics.product(hits, hit) + numerics.product(misses, miss)


@jax.custom_jvp
def _entropy(x: Array, hits: Array, misses: Array) -> Array:
    against = jnp.where(x < 0, hits, misses)  # the side on which the logit is not
    return jnp.where(against == 0, 0, against * jnp.abs(x)) + _tail(x, hits, misses)


def entropy_of_finite(x: Array, hits: Array, misses: Array) -> Array:
    """Returns the same of logits without a select: NaN where nothing of an infinite cost counts."""
    return hits * jnp.maximum(-x, 0) + misses * jnp.maximum(x, 0) + _tail(x, hits, misses)


def _tail(x: Array, hits: Array, misses: Array) -> Array:
    return (hits + misses) * jnp.log1p(jnp.exp(-jnp.abs(x)))


@_entropy.defjvp
def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    (x, hits, misses), (t, t_hits, t_misses) = primals, tangents
    (p, q), (hit, miss) = probability_pair(x), log_pair(x)
    by_hits, by_misses = (jnp.where(jnp.isinf(cost), 0, cost) for cost in (hit, miss))
    slope = misses * p - hits * q
    return _entropy(x, hits, misses), slope * t + by_hits * t_hits + by_misses * t_misses


@jax.custom_jvp
def squared_focal(x: Array, y: Array, hits: Array, misses: Array) -> Array:
    """Returns `(1 - p_t)^2 (hits (-log p) + misses (-log(1 - p)))`, `1 - p_t` as in `focusing`.

    With the derivative by hand a CPU takes a fifth less time.
    """
    missed = missing(*probability_pair(x), y)
    return missed * missed * _entropy(x, hits, misses)


@squared_focal.defjvp
def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    (x, y, hits, misses), (t_x, t_y, t_hits, t_misses) = primals, tangents
    p, q = probability_pair(x)
    missed, cost = missing(p, q, y), _entropy(x, hits, misses)
    hit, miss, still = (jnp.where(jnp.isinf(cost), 0, cost) for cost in (*log_pair(x), cost))
    by_x = 2 * (1 - 2 * y) * p * q * still + missed * (misses * p - hits * q)
    by_y = 2 * (q - p) * still
    by_hits, by_misses = missed * missed * hit, missed * missed * miss
    slope = missed * (by_x * t_x + by_y * t_y) + by_hits * t_hits + by_misses * t_misses
    return missed * missed * cost, slope


def missing(p: Array, q: Array, y: Array) -> Array:
    """Returns `1 - p_t`, what targets miss of probabilities `p` and `q = 1 - p`."""
    return y * q + (1 - y) * p


@jax.custom_jvp
def probability_pair(x: Array) -> tuple[Array, Array]:
    """Returns `p = sigmoid(x)` and `1 - p` from one exponential, neither by a subtraction."""
    small = jnp.exp(-jnp.abs(x))
    larger = 1 / (1 + small)
    smaller = small * larger
    return jnp.where(x < 0, smaller, larger), jnp.where(x < 0, larger, smaller)


@probability_pair.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Any, Any]:
    (x,), (t,) = primals, tangents
    slope = steepness(x) * t
    return probability_pair(x), (slope, -slope)


@jax.custom_jvp
def steepness(x: Array) -> Array:
    """Returns `p (1 - p)`, without the selects of either: a CPU's compiler makes one loop of it."""
    small = jnp.exp(-jnp.abs(x))
    larger = 1 / (1 + small)
    return small * larger * larger


@steepness.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (t,) = primals, tangents
    p, q = probability_pair(x)
    return steepness(x), steepness(x) * (q - p) * t


def log_pair_of_probability(p: Array) -> tuple[Array, Array]:
    """Returns `-log p` and `-log(1 - p)`, each in `[0, 100]`, beyond which the gradient is 0."""

    def surprise(x: Array) -> Array:
        floor = jnp.exp(jnp.asarray(-100, x.dtype))
        inside = (x > floor) & (x <= 1)
        beyond = jnp.where(x > 1, 0, 100 + 0 * x)  # NaN stays NaN
        return jnp.where(inside, -jnp.log(jnp.where(inside, x, 1)), beyond)

    return surprise(p), surprise(1 - p)


def log_pair_of(x: Array, probabilities: bool) -> tuple[Array, Array]:
    """Returns `-log p` and `-log(1 - p)` of logits, or of probabilities."""
    return log_pair_of_probability(x) if probabilities else log_pair(x)


@jax.custom_jvp
def focusing(x: Array, y: Array, gamma: Array) -> Array:
    """Returns `(1 - p_t)^gamma` with `1 - p_t = y (1 - p) + (1 - y) p`, in log space.

    Raised directly, `1 - p_t` would have NaN derivatives where it rounds to 0.
    """
    return jnp.exp(-gamma * _log_miss(x, y))


@focusing.defjvp
def _(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    (x, y, gamma), (t_x, t_y, t_gamma) = primals, tangents
    p, q = probability_pair(x)
    log_miss = _log_miss(x, y)
    value = jnp.exp(-gamma * log_miss)
    blend = jnp.where((y == 0) | (y == 1), 1, missing(p, q, y))
    ratio = jnp.where(y == 1, p, jnp.where(y == 0, q, p * q / blend))  # p q / (1 - p_t)
    by_x = gamma * value * (1 - 2 * y) * ratio
    steep = numerics.finite(jnp.exp((1 - gamma) * log_miss))
    by_y = jnp.where(gamma == 0, 0, gamma * steep * (q - p))
    by_gamma = -log_miss * value
    return value, by_x * t_x + by_y * t_y + by_gamma * t_gamma


def _log_miss(x: Array, y: Array) -> Array:
    """`-log(1 - p_t)`, finite, to full accuracy for hard targets."""
    hit, miss = log_pair(x)
    hard = (y == 0) | (y == 1)
    p, q = probability_pair(x)
    blend = jnp.where(hard, 1, missing(p, q, y))
    return numerics.finite(jnp.where(y == 1, miss, jnp.where(y == 0, hit, -jnp.log(blend))))


def cost(
    formula: Callable[..., Array],
    data: labels.Independent,
    *parameters: Array | None,
    of_finite: Callable[..., Array] | None = None,
) -> Cost:
    """Returns `w formula(x, y, *parameters)` of each element, `w` its class weight, 0 where masked.

    Args:
      formula: An elementwise function of logits, targets and the parameters.
      data: The logits and their targets.
      *parameters: Arrays that broadcast to the logits, or None; derivatives reach them.
      of_finite: The same function without a select, no finite number where it would need one; None:
        there is none.
    """
    read = (data.logits, data.targets, data.classes, data.mask, data.class_weights)
    weighted, both = bind(_weighted, formula=formula), ALIKE
    if of_finite is not None and all(a is None for a in read[2:]):
        finite = bind(_weighted, formula=of_finite)
        both = Ways(cpu=bind(_with_slope, formula=weighted, of_finite=finite))
    return Cost(weighted, (*read, *parameters), both=both, half=data.half)


def _with_slope(
    x: Array,
    denominator: Array,
    weights: Array | None,
    *others: Any,
    formula: Callable[..., Array],
    of_finite: Callable[..., Array],
) -> tuple[Array, Array]:
    """The sum of a cost and its slope over the denominator.

    A CPU's compiler sums what holds no select without writing it to memory, and the slope by itself
    is one loop more. Whether no select was needed the sum shows.
    """
    arrays = x, denominator, weights, *others
    total = bind(weighted_sum, formula=formula)
    both = bind(sum_and_slopes, total=total, moving=(0,))
    if not is_large(x) or any(blocks(x, i) > 1 for i in range(1, x.ndim)):
        return chunked(both, None)(*arrays)
    flat = [_flattened(a, x.shape) for a in arrays]
    sum_ = weighted_sum(flat[0], *flat[2:], formula=of_finite)

    def as_summed(*flat: Any) -> tuple[Array, Array]:
        return sum_, both(*flat)[1]

    def anew(x: Array, denominator: Array, *others: Any) -> tuple[Array, Array]:
        return chunked(total, None)(x, *others), both(x, denominator, *others)[1]

    sum_, slope = jax.lax.cond(jnp.isfinite(sum_), as_summed, anew, *flat)
    return sum_, slope.reshape(x.shape)


def _flattened(a: Any, shape: tuple[int, ...]) -> Any:
    """Merges the axes behind the first: the compiler vectorises the last one only."""
    if a is None or a.ndim != len(shape) or a.ndim < 3:
        return a
    return jnp.broadcast_to(a, shape).reshape(shape[0], -1)


def _weighted(
    x: Array,
    targets: Array,
    ids: Array | None,
    mask: Array | None,
    class_weights: Array | None,
    *parameters: Any,
    formula: Callable[..., Array],
) -> Array:
    y = labels.of_each(targets, ids, x.dtype)
    x, y = numerics.masked(x, mask), numerics.masked(y, mask)
    return numerics.weighted(formula(x, y, *parameters), mask, class_weights)
