"""Primitive 1, the target margin: a softmax loss is a sigmoid loss of one log-odds.

The log-odds of class `c` against all others, `x_c = z_c - log sum_{j != c} exp(z_j)`, is the
negative margin `d`. With it `p_c = sigmoid(x_c)`, and a cost written in `-log p` and
`-log(1 - p)` serves sigmoid and softmax alike. It keeps its relative accuracy on confident samples,
where `logsumexp(z) - z_c` loses all digits. A logit of -inf is a class that has been removed.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxloss._core import classes, gpu, lines, numerics, sigmoid, soft, soft_planes, turned
from jaxloss._core import labels as labelled
from jaxloss._core.chunks import chunked, is_large
from jaxloss._core.cost import Cost, Source
from jaxloss._core.platforms import bind
from jaxloss._core.sharding import blocks, is_split

Array = jax.Array


def _target_log_odds(
    top: Array, total: Array, target: Array, ids: Array, mask: Array | None, classes: int
) -> Array:
    """Returns each position's log-odds of its target against all other classes.

    Masked positions give 0 and pass nothing of their logits on; ids outside the range give NaN in
    value and gradient; a removed target gives -inf with zero gradient. An offset common to all
    logits cancels before anything is rounded.
    """
    if mask is not None:
        top, total, target = (jnp.where(mask, x, 0) for x in (top, total, target))
    infinite, alone = jnp.isinf(target), (total == 0) | (top == -jnp.inf)
    limit = jnp.where(target == top, 0, target)
    lead = jnp.where(infinite, limit, jnp.where(infinite, 0, target) - top)
    odds = jnp.where(alone, jnp.inf, lead - numerics.log(jnp.where(alone, 1, total)))
    odds = jnp.where(target == -jnp.inf, -jnp.inf, odds)
    odds = odds if mask is None else jnp.where(mask, odds, 0)
    return odds * labelled.poison(ids, mask, classes, odds.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def statistics(
    logits: Array, ids: Array, mask: Array | None, axis: int
) -> tuple[Array, Array, Array]:
    """Each position's `top`, the sum of `exp(z_j - top)` over the other classes, and its target.

    No other logit exceeds `top`, which is a constant for the derivative: the log-odds do not depend
    on it. What is masked is not looked at here, except that nothing of it moves.
    """
    if is_split(logits, axis):  # one reduction would exchange all partial results
        return _two_reductions(logits, ids, mask, axis=axis)
    at_once = functools.partial(_one_reduction, axis=axis)
    forms = {"cpu": functools.partial(_two_reductions, axis=axis), "default": at_once}
    if (blocks := classes.blocks(logits, axis)) > 1:
        in_blocks = functools.partial(_one_reduction, axis=axis, blocks=blocks)
        forms |= {"tpu": at_once, "default": in_blocks}
    return jax.lax.platform_dependent(logits, ids, mask, **forms)


@statistics.defjvp
def _(axis: int, primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    (logits, ids, mask), t = primals, tangents[0]
    top, total, target = statistics(logits, ids, mask, axis)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def linear(
        logits: Array, ids: Array, mask: Array | None, top: Array, t: Array
    ) -> tuple[Array, Array]:
        hit = labelled.is_target(ids, logits.shape, axis)
        hit = hit if mask is None else hit & jnp.expand_dims(mask, axis)
        share = beside(logits, top, ids, mask, axis)
        return (share * t).sum(axis), jnp.where(hit, t, 0).sum(axis)

    return (top, total, target), (jnp.zeros_like(top), *linear(logits, ids, mask, top, t))


def shares(
    rows: tuple[Array, Array, Array], logits: Array, ids: Array, mask: Array | None, axis: int
) -> tuple[Array, Array, Array, Array]:
    """Returns `p y`, `p (1 - y)`, `(1 - p) y` and the one-hot `y`; all 0 where masked."""
    p, q, unit = (jnp.expand_dims(x, axis) for x in positions(rows, ids, mask, logits.shape[axis]))
    # A comparison that all its kernels share a GPU would write to memory.
    ids, again = jax.lax.optimization_barrier(ids), jax.lax.optimization_barrier((ids, rows[0]))[0]
    y = labelled.one_hot(again, mask, logits, axis)
    others = beside(logits, rows[0], ids, mask, axis) * unit
    # The derivative of q y is that of p y: devices that share the classes sum one of both.
    hit = p * y
    missed = jax.lax.stop_gradient(q) * y + (jax.lax.stop_gradient(hit) - hit)
    return hit, others, missed, y


def positions(
    rows: tuple[Array, Array, Array], ids: Array, mask: Array | None, classes: int
) -> tuple[Array, Array, Array]:
    """Returns each position's `p` and `1 - p` of its target, 0 where masked, and `p` at `top`."""
    odds = _target_log_odds(*rows, ids, mask, classes)
    p, q = sigmoid.probability_pair(odds)
    top, total, target = rows
    if mask is not None:
        p, q, top, total, target = (jnp.where(mask, x, 0) for x in (p, q, *rows))
    infinite = jnp.isinf(target) | jnp.isinf(top)
    limit = jax.lax.stop_gradient(jnp.where(target == top, 0, target - top))
    lead = jnp.where(infinite, limit, jnp.where(infinite, 0, target) - top)
    return p, q, _unit(total, lead)


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


def missed(logits: Array, ids: Array, mask: Array | None, axis: int, given: Any = None) -> Array:
    """Returns `(1 - p) y` of ids, a constant: what other classes take of each position's target.

    A GPU gets it as one number for each position, of which it then sums those of each class.
    """
    logits, ids = numerics.hidden(jax.lax.stop_gradient(logits), given, ids)
    share = jnp.exp(logits - logits.max(axis, keepdims=True))
    hit = labelled.is_target(ids, logits.shape, axis)
    if is_split(logits, axis):  # a selection would have to be split as the logits are
        others = share * (1 - hit.astype(share.dtype))
    else:
        others = jnp.where(hit, 0, share)
    others = others.sum(axis, keepdims=True)
    miss = jax.lax.optimization_barrier(others / share.sum(axis, keepdims=True))
    return miss * labelled.one_hot(ids, mask, logits, axis)


@jax.custom_jvp
def _unit(total: Array, lead: Array) -> Array:
    """Returns `1 / (total + exp(lead))`, the probability of a class at `top`."""
    return numerics.divide(jnp.ones_like(total), total + jnp.exp(lead))


@_unit.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    total, lead = primals
    unit, ahead = _unit(total, lead), lead > 0
    behind = jnp.exp(-jnp.where(ahead, lead, 0))
    p = jnp.where(ahead, 1 / (1 + total * behind), jnp.exp(jnp.where(ahead, 0, lead)) * unit)
    return unit, -unit * (p * tangents[1] + unit * tangents[0])


def _two_reductions(
    logits: Array, ids: Array, mask: Array | None, *, axis: int
) -> tuple[Array, Array, Array]:
    """The statistics by plain reductions: for a CPU."""
    # The target's own logit may be the top: what then underflows is below the smallest number.
    if classes.are_planes(logits, axis) and logits.shape[axis] > classes.FEW:
        return _by_class(logits, ids, mask, axis)
    top = classes.highest(logits, axis)
    total = classes.total(beside(logits, top, ids, mask, axis), axis)
    return top, total, labelled.of_ids(logits, ids, axis)


def _by_class(
    logits: Array, ids: Array, mask: Array | None, axis: int
) -> tuple[Array, Array, Array]:
    """The same in a loop over the classes."""
    ids = jnp.expand_dims(ids, axis)
    kept = True if mask is None else jnp.expand_dims(mask, axis)
    top = classes.highest_by_class(logits, axis, keepdims=True)

    def add(sums: tuple[Array, Array], c: Any, z: Array) -> tuple[Array, Array]:
        total, target = sums
        hit = ids == c
        share = jnp.where(kept & ~hit, jnp.exp(classes.above(z, top)), 0)
        return total + share, jnp.where(hit, z, target)

    zero = jnp.zeros_like(top)
    total, target = classes.fold(add, (zero, zero), axis, logits)
    return top.squeeze(axis), total.squeeze(axis), target.squeeze(axis)


def beside(logits: Array, top: Array, ids: Array, mask: Array | None, axis: int) -> Array:
    """`exp(z_j - top)` of all classes but the target, 0 where masked.

    A CPU computes it once, for value and derivative, in the memory of the gradient.
    """
    level = classes.above(logits, jnp.expand_dims(top, axis))
    if mask is not None:
        # Asked for the mask itself, a CPU's compiler would branch at every position.
        bound = jnp.where(mask, jnp.inf, -jnp.full((), jnp.inf, logits.dtype))
        level = jnp.where(level <= jnp.expand_dims(bound, axis), level, -jnp.inf)
    return jnp.exp(jnp.where(labelled.is_target(ids, logits.shape, axis), -jnp.inf, level))


def _one_reduction(
    logits: Array, ids: Array, mask: Array | None, *, axis: int, blocks: int = 1
) -> tuple[Array, Array, Array]:
    """The same in one variadic reduction, which reads the logits once: for a GPU or TPU.

    Where the classes are parted into blocks, one of each block, and plain ones of what they give.
    """

    def combine(a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[Array, ...]:
        (top_a, sum_a, target_a), (top_b, sum_b, target_b) = a, b
        top = jnp.maximum(top_a, top_b)
        scale_a = jnp.where(top_a == top, 1, jnp.exp(top_a - top))
        scale_b = jnp.where(top_b == top, 1, jnp.exp(top_b - top))
        return top, sum_a * scale_a + sum_b * scale_b, target_a + target_b

    hit = labelled.is_target(ids, logits.shape, axis)
    beside, picked = jnp.where(hit, -jnp.inf, logits), jnp.where(hit, logits, 0)
    operands = (beside, jnp.ones_like(logits), picked)
    zero = jnp.zeros((), logits.dtype)
    start = (zero - jnp.inf, zero, zero)
    if blocks == 1:
        return tuple(jax.lax.reduce(operands, start, combine, (axis,)))
    apart = tuple(classes.in_blocks(x, axis, blocks) for x in operands)
    tops, totals, targets = jax.lax.reduce(apart, start, combine, (axis + 1,))
    top = tops.max(axis, keepdims=True)
    shares = totals * jnp.where(tops == top, 1, jnp.exp(tops - top))
    return top.squeeze(axis), shares.sum(axis), targets.sum(axis)


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
def scale(logits: Array, axis: int) -> tuple[Array, Array]:
    """Returns the largest logit, as a constant, and `sum_c exp(z_c - top) - 1`, exactly.

    Both keep the class axis with size 1. `top + log1p(rest)` is the log-sum-exp. `top` is 0 where
    all classes are removed.
    """
    top, rest = jax.lax.platform_dependent(
        logits,
        cpu=functools.partial(_scale_by_two, axis=axis),
        default=functools.partial(_scale_by_one, axis=axis),
    )
    empty = top == -jnp.inf
    return jnp.where(empty, 0, top), jnp.where(empty, 0, rest)


@scale.defjvp
def _(axis: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Any, Any]:
    (logits,), (t,) = primals, tangents
    top, rest = scale(logits, axis)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def linear(logits: Array, top: Array, t: Array) -> Array:
        return (jnp.exp(classes.above(logits, top)) * t).sum(axis, keepdims=True)

    return (top, rest), (jnp.zeros_like(top), linear(logits, top, t))


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


def _scale_by_two(logits: Array, *, axis: int) -> tuple[Array, Array]:
    """The scale by plain reductions: for a CPU."""
    top = logits.max(axis, keepdims=True)
    level = classes.above(logits, top)
    shares = jnp.exp(level)
    total, below = (
        values.sum(axis, keepdims=True) for values in (shares, jnp.where(level < 0, shares, 0))
    )
    return top, jnp.where(total - below > 1.5, total - 1, below)  # where several are the largest


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
    return jnp.expand_dims(top, axis), jnp.expand_dims(rest, axis)


def cost(
    formula: Callable[..., Array],
    data: labelled.Competing,
    *parameters: Array,
    label_smoothing: Array | float | None = None,
    factors: Array | None = None,
) -> Cost:
    """Returns `sum_c w_c y_c formula(-log p_c, -log(1 - p_c))` of each position, 0 where masked.

    Args:
      formula: An elementwise function of `-log p`, `-log(1 - p)` and the parameters.
      data: The logits, or probabilities, and their labels.
      *parameters: Scalars, passed on to `formula`; derivatives reach them.
      label_smoothing: `y` becomes `(1 - e) y + e / C` over the `C` classes not removed. A Python
        number is 0: none, as None.
      factors: What `w` holds besides the class weights; broadcasts to the logits. None: 1.
    """
    smoothing = smoothing_of(label_smoothing)
    if data.class_weights is not None:
        factors = data.class_weights if factors is None else factors * data.class_weights
    if data.has_ids and smoothing is None:
        return _of_targets(formula, data, factors, parameters)
    part = bind(_of_shares, formula=formula)
    plain = data._replace(class_weights=None)
    values = labelled.per_position(part, plain, smoothing, factors, *parameters)
    if data.are_probabilities:
        return values
    return _in_planes(values, data, formula)


def _in_planes(cost: Cost, data: labelled.Competing, formula: Callable[..., Array]) -> Cost:
    """Gives a cost of large logits the way of a GPU, unless there are many classes."""
    pays = soft_planes.pays(data.logits, data.axis) and is_large(data.logits)
    if not pays or blocks(data.logits, data.axis) > 1:
        return cost
    merge = lines.pays(data.logits, data.axis)
    with_slope = bind(
        soft_planes.with_slope,
        formula=formula,
        axis=lines.CLASSES if merge else data.axis,
        has_ids=data.has_ids,
        given=data.given,
    )
    return cost._replace(on_gpu=lines.in_lines(with_slope) if merge else with_slope)


def smoothing_of(label_smoothing: Array | float | None) -> Array | None:
    """Returns the share of each target that is spread; None where none is, for any data."""
    return None if isinstance(label_smoothing, float) else label_smoothing


def _of_shares(
    part: labelled.Competing,
    smoothing: Array | None,
    factors: Array | None,
    *parameters: Array,
    formula: Callable[..., Array],
) -> Array:
    shares = _shares(part, smoothing, factors)
    return numerics.product(shares, formula(*log_pair(part), *parameters)).sum(part.axis)


def log_pair(part: labelled.Competing) -> tuple[Array, Array]:
    """Returns `-log p_c` and `-log(1 - p_c)` of every class; masked logits count as 0."""
    z = part.unmasked_logits()
    if part.are_probabilities:
        return sigmoid.log_pair_of_probability(z)
    log_p, p, q = log_probability(z, part.axis)
    return -log_p, sigmoid.log_miss(p, q)


def _shares(part: labelled.Competing, smoothing: Array | None, factors: Array | None) -> Array:
    """The share of each class in the target, with all factors in it."""
    shares = smoothed(part, smoothing)
    return shares if factors is None else shares * factors


def _of_targets(
    formula: Callable[..., Array],
    data: labelled.Competing,
    factors: Array | None,
    parameters: tuple[Array, ...],
) -> Cost:
    """The cost of each position's target id."""
    if factors is not None:
        factors = data.of_target(factors)
    if data.are_probabilities:
        p = data.at_target(data.unmasked_logits())
        fixed = bind(_of_probability, formula=formula)
        return Cost(fixed, (p, data.mask, factors, *parameters))
    rows = statistics(data.logits, data.labels, data.mask, data.axis)
    fixed = bind(_of_statistics, formula=formula, classes=data.logits.shape[data.axis])
    arrays = (*rows, data.labels, data.mask, factors, *parameters)
    few = turned.pays(data.logits, data.axis)
    if not (few or gpu.pays(data.logits, data.axis)):
        return Cost(fixed, arrays, of_target=formula)
    merge = not few and lines.pays(data.logits, data.axis)
    axis = lines.CLASSES if merge else data.axis
    total = bind(gpu.total, formula=formula, axis=axis)
    both = turned.with_slope if few else gpu.with_slope
    with_slope = bind(both, formula=formula, axis=axis, given=data.given)
    if merge:
        total, with_slope = lines.in_lines(total), lines.in_lines(with_slope)
    source = Source(data.logits, bind(_statistics, axis=data.axis), total, with_slope, data.given)
    return Cost(fixed, arrays, of_target=formula, source=source)


def _statistics(
    logits: Array, ids: Array, mask: Array | None, *, axis: int
) -> tuple[Array, Array, Array]:
    return statistics(logits, ids, mask, axis)


def _of_probability(
    p: Array,
    mask: Array | None,
    factors: Array | None,
    *parameters: Array,
    formula: Callable[..., Array],
) -> Array:
    return numerics.weighted(
        formula(*sigmoid.log_pair_of_probability(p), *parameters), mask, factors
    )


def _of_statistics(
    top: Array,
    total: Array,
    target: Array,
    ids: Array,
    mask: Array | None,
    factors: Array | None,
    *parameters: Array,
    formula: Callable[..., Array],
    classes: int,
) -> Array:
    odds = _target_log_odds(top, total, target, ids, mask, classes)
    return numerics.weighted(formula(*sigmoid.log_pair(odds), *parameters), mask, factors)


def cross_entropy(data: labelled.Competing, label_smoothing: Array | float | None = None) -> Cost:
    """Returns `sum_c w_c y_c (-log p_c)` of each position, 0 where masked.

    Of soft labels it needs no log-odds: `-log p_c = (top - z_c) + log1p(rest)` does not cancel.
    """
    smoothing = smoothing_of(label_smoothing)
    if data.are_probabilities or (data.has_ids and smoothing is None):
        return cost(sigmoid.surprise, data, label_smoothing=label_smoothing)
    plain, factors = data._replace(class_weights=None), data.class_weights
    values = labelled.per_position(_cross_entropy, plain, smoothing, factors)
    if blocks(data.logits, data.axis) > 1:  # of which the devices would exchange more numbers
        return values
    values = values._replace(on_cpu=bind(_with_slope, axis=data.axis, has_ids=data.has_ids))
    return _in_planes(values, data, sigmoid.surprise)


def _cross_entropy(
    part: labelled.Competing, smoothing: Array | None, factors: Array | None
) -> Array:
    z = part.unmasked_logits()
    rows = jax.lax.stop_gradient(scale(z, part.axis))
    shares = _shares(part, smoothing, factors)
    return _entropy(z, shares, *rows, part.axis).squeeze(part.axis)


def _with_slope(
    z: Array,
    denominator: Array,
    weights: Array | None,
    labels: Array,
    mask: Array | None,
    class_weights: None,
    smoothing: Array | None,
    factors: Array | None,
    *,
    axis: int,
    has_ids: bool,
) -> tuple[Array, Array]:
    arrays = z, denominator, labels, smoothing, weights, mask, factors
    if lines.planes_pay(z, axis):  # at once, since a chunk would be slower
        moved = bind(_with_any_slope, axis=lines.PLANES, has_ids=has_ids)
        return lines.in_planes(moved, axis)(*arrays)
    exact = bind(_with_any_slope, axis=axis, has_ids=has_ids)
    in_chunks = chunked(exact, tuple(i for i in range(z.ndim) if i != axis))
    plain = weights is None and mask is None and factors is None
    plain = plain and not (has_ids and z.shape[axis] > soft.MANY)
    if not (plain and axis == z.ndim - 1 and is_large(z)):
        return in_chunks(*arrays)
    of_finite = bind(soft.of_finite, has_ids=has_ids)
    no_overflow = jnp.abs(z).max() <= numerics.limit(z.dtype)
    return jax.lax.cond(no_overflow, of_finite, in_chunks, *arrays[:4])


def _with_any_slope(
    z: Array,
    denominator: Array,
    labels: Array,
    smoothing: Array | None,
    weights: Array | None = None,
    mask: Array | None = None,
    factors: Array | None = None,
    *,
    axis: int,
    has_ids: bool,
) -> tuple[Array, Array]:
    part = labelled.unweighted(z, labels, mask, axis, has_ids)
    shares = _shares(part, smoothing, factors)
    cost, slope = soft.with_slope(part.unmasked_logits(), shares, weights, axis)
    return cost, numerics.divide(slope, denominator)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def _entropy(logits: Array, shares: Array, top: Array, rest: Array, axis: int) -> Array:
    """The cost; its derivative by the logits includes that through their scale."""
    cost = _surprise(logits, top, rest, axis)
    return numerics.product(shares, cost).sum(axis, keepdims=True)


@_entropy.defjvp
def _(axis: int, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    (logits, shares, top, rest), (t, t_shares, *_) = primals, tangents
    removed = classes.above(logits, top) == -jnp.inf
    p, q = _probability_pair(logits, top, rest, axis)
    total = jnp.where(removed, 0, shares).sum(axis, keepdims=True)
    # Not total p - y, which cancels where a class is all but certain.
    slope = jnp.where(removed, 0, p * (total - shares) - shares * q)
    by_share = jnp.where(removed, 0, _surprise(logits, top, rest, axis))
    tangent = (slope * t + by_share * t_shares).sum(axis, keepdims=True)
    return _entropy(logits, shares, top, rest, axis), tangent


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


def log_sum_exp(data: labelled.Competing) -> Array:
    """Returns the log of each position's normaliser; 0 where masked or all classes are removed."""
    top, rest = scale(data.unmasked_logits(), data.axis)
    lse = (top + jnp.log1p(rest)).squeeze(data.axis)
    return lse if data.mask is None else jnp.where(data.mask, lse, 0)


def smoothed(data: labelled.Competing, smoothing: Array | None) -> Array:
    """Returns targets of the logits' shape; a bad id is NaN, a masked position 0."""
    targets = data.dense_labels()
    if smoothing is None:
        return targets
    present = data.unmasked_logits() > -jnp.inf
    count = present.sum(data.axis, keepdims=True).astype(data.logits.dtype)
    share = numerics.divide(smoothing, count)
    targets = (1 - smoothing) * targets + jnp.where(present, share, 0)
    if data.mask is None:
        return targets
    return jnp.where(jnp.expand_dims(data.mask, data.axis), targets, 0)
