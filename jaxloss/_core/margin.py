"""A position's statistics: what its target id needs of all classes.

The log-odds of class `c` against all others, `x_c = z_c - log sum_{j != c} exp(z_j)`, is the
negative margin `d`. It keeps its relative accuracy on confident samples, where
`logsumexp(z) - z_c` loses all digits. Three numbers of each position give it for the target.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxloss._core import classes, labels, numerics, sigmoid
from jaxloss._core.platforms import by_platform
from jaxloss._core.sharding import is_split

Array = jax.Array

# Classes that are not last: of so many a GPU's compiler makes a reduction across threads, and of
# one to several numbers it first writes each operand to memory.
COLUMN = 32


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
    on_gpu = at_once
    if axis < logits.ndim - 1 and logits.shape[axis] >= COLUMN:
        on_gpu = functools.partial(_apart, axis=axis)
    elif (blocks := classes.blocks(logits, axis)) > 1:
        on_gpu = functools.partial(_one_reduction, axis=axis, blocks=blocks)
    on_cpu = functools.partial(_two_reductions, axis=axis)
    return by_platform(logits, ids, mask, default=at_once, cpu=on_cpu, gpu=on_gpu)


@statistics.defjvp
def _(axis: int, primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    (logits, ids, mask), t = primals, tangents[0]
    top, total, target = statistics(logits, ids, mask, axis)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def linear(
        logits: Array, ids: Array, mask: Array | None, top: Array, t: Array
    ) -> tuple[Array, Array]:
        hit = labels.is_target(ids, logits.shape, axis)
        hit = hit if mask is None else hit & jnp.expand_dims(mask, axis)
        share = beside(logits, top, ids, mask, axis)
        return (share * t).sum(axis), jnp.where(hit, t, 0).sum(axis)

    return (top, total, target), (jnp.zeros_like(top), *linear(logits, ids, mask, top, t))


def _two_reductions(
    logits: Array, ids: Array, mask: Array | None, *, axis: int
) -> tuple[Array, Array, Array]:
    """The statistics by plain reductions: for a CPU."""
    # The target's own logit may be the top: what then underflows is below the smallest number.
    if classes.go_in_turn(logits, axis):
        return _by_class(logits, ids, mask, axis)
    top = classes.highest(logits, axis)
    total = classes.total(beside(logits, top, ids, mask, axis), axis)
    return top, total, labels.of_ids(logits, ids, axis)


def _apart(
    logits: Array, ids: Array, mask: Array | None, *, axis: int
) -> tuple[Array, Array, Array]:
    """The same by plain reductions of what is elementwise, the last two in one loop: for a GPU."""
    top = logits.max(axis)
    total = beside(logits, top, ids, mask, axis).sum(axis)
    target = jnp.where(labels.is_target(ids, logits.shape, axis), logits, 0).sum(axis)
    return top, total, target


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
    return jnp.exp(jnp.where(labels.is_target(ids, logits.shape, axis), -jnp.inf, level))


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

    hit = labels.is_target(ids, logits.shape, axis)
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


def log_odds(
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
    odds = numerics.masked(odds, mask)
    return odds * labels.poison(ids, mask, classes, odds.dtype)


def positions(
    rows: tuple[Array, Array, Array], ids: Array, mask: Array | None, classes: int
) -> tuple[Array, Array, Array]:
    """Returns each position's `p` and `1 - p` of its target, 0 where masked, and `p` at `top`."""
    odds = log_odds(*rows, ids, mask, classes)
    p, q = sigmoid.probability_pair(odds)
    top, total, target = rows
    if mask is not None:
        p, q, top, total, target = (jnp.where(mask, x, 0) for x in (p, q, *rows))
    infinite = jnp.isinf(target) | jnp.isinf(top)
    limit = jax.lax.stop_gradient(jnp.where(target == top, 0, target - top))
    lead = jnp.where(infinite, limit, jnp.where(infinite, 0, target) - top)
    return p, q, _unit(total, lead)


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


def shares(
    rows: tuple[Array, Array, Array], logits: Array, ids: Array, mask: Array | None, axis: int
) -> tuple[Array, Array, Array, Array]:
    """Returns `p y`, `p (1 - y)`, `(1 - p) y` and the one-hot `y`; all 0 where masked."""
    p, q, unit = (jnp.expand_dims(x, axis) for x in positions(rows, ids, mask, logits.shape[axis]))
    # A comparison that all its kernels share a GPU would write to memory.
    ids, again = jax.lax.optimization_barrier(ids), jax.lax.optimization_barrier((ids, rows[0]))[0]
    y = labels.one_hot(again, mask, logits, axis)
    others = beside(logits, rows[0], ids, mask, axis) * unit
    # The derivative of q y is that of p y: devices that share the classes sum one of both.
    hit = p * y
    missed = jax.lax.stop_gradient(q) * y + (jax.lax.stop_gradient(hit) - hit)
    return hit, others, missed, y


def missed(logits: Array, ids: Array, mask: Array | None, axis: int, half: Any = None) -> Array:
    """Returns `(1 - p) y` of ids, a constant: what other classes take of each position's target.

    A GPU gets it as one number for each position, of which it then sums those of each class.
    """
    logits, ids = numerics.hidden(jax.lax.stop_gradient(logits), half, ids)
    share = jnp.exp(logits - logits.max(axis, keepdims=True))
    hit = labels.is_target(ids, logits.shape, axis)
    if is_split(logits, axis):  # a selection would have to be split as the logits are
        others = share * (1 - hit.astype(share.dtype))
    else:
        others = jnp.where(hit, 0, share)
    others = others.sum(axis, keepdims=True)
    miss = jax.lax.optimization_barrier(others / share.sum(axis, keepdims=True))
    return miss * labels.one_hot(ids, mask, logits, axis)
