"""Primitive 1, classes that compete: a softmax loss is a sigmoid loss of one log-odds.

With `x_c` the log-odds of class `c` against all others, `p_c = sigmoid(x_c)`, and a cost written in
`-log p` and `-log(1 - p)` serves both. Of target ids `margin` has the log-odds, of soft labels and
smoothing `log_softmax` has both logarithms of every class.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxloss._core import (
    classes,
    gpu,
    lines,
    log_softmax,
    margin,
    numerics,
    sigmoid,
    soft,
    soft_planes,
    turned,
)
from jaxloss._core import labels as labelled
from jaxloss._core.chunks import chunked, is_large
from jaxloss._core.cost import Cost, Source
from jaxloss._core.platforms import Ways, bind
from jaxloss._core.sharding import blocks

Array = jax.Array


def cost(
    formula: Callable[..., Array],
    data: labelled.Competing,
    *parameters: Array,
    label_smoothing: Array | None = None,
    factors: Array | None = None,
) -> Cost:
    """Returns `sum_c w_c y_c formula(-log p_c, -log(1 - p_c))` of each position, 0 where masked.

    Args:
      formula: An elementwise function of `-log p`, `-log(1 - p)` and the parameters.
      data: The logits, or probabilities, and their labels.
      *parameters: Scalars, passed on to `formula`; derivatives reach them.
      label_smoothing: `y` becomes `(1 - e) y + e / C` over the `C` classes not removed. None: 0.
      factors: What `w` holds besides the class weights; broadcasts to the logits. None: 1.
    """
    if data.class_weights is not None:
        factors = data.class_weights if factors is None else factors * data.class_weights
    if data.has_ids and label_smoothing is None:
        return _of_targets(formula, data, factors, parameters)
    part = bind(_of_shares, formula=formula)
    plain = data._replace(class_weights=None)
    values = labelled.per_position(part, plain, label_smoothing, factors, *parameters)
    if data.are_probabilities:
        return values
    return _in_planes(values, data, formula)


def _in_planes(cost: Cost, data: labelled.Competing, formula: Callable[..., Array]) -> Cost:
    """Gives a cost of large logits the ways of a GPU and a TPU, unless there are many classes."""
    pays = soft_planes.pays(data.logits, data.axis) and is_large(data.logits)
    if not pays or blocks(data.logits, data.axis) > 1:
        return cost
    fixed = {"formula": formula, "has_ids": data.has_ids, "half": data.half}
    with_slope = bind(soft_planes.with_slope, axis=data.axis, **fixed)
    on_gpu = with_slope
    on_tpu = with_slope if soft_planes.pays_on_tpu(data.logits, data.axis, data.has_ids) else None
    if lines.pays(data.logits, data.axis):
        on_gpu = lines.in_lines(bind(soft_planes.with_slope, axis=lines.CLASSES, **fixed))
    return cost._replace(both=cost.both._replace(gpu=on_gpu, tpu=on_tpu))


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
    log_p, p, q = log_softmax.log_probability(z, part.axis)
    return -log_p, sigmoid.log_miss(p, q)


def _shares(part: labelled.Competing, smoothing: Array | None, factors: Array | None) -> Array:
    """The share of each class in the target, with all factors in it."""
    return numerics.times(smoothed(part, smoothing), factors)


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
    rows = margin.statistics(data.logits, data.labels, data.mask, data.axis)
    fixed = bind(_of_statistics, formula=formula, classes=data.logits.shape[data.axis])
    arrays = (*rows, data.labels, data.mask, factors, *parameters)
    few = turned.pays(data.logits, data.axis)
    if not (few or gpu.pays(data.logits, data.axis)):
        return Cost(fixed, arrays, of_target=formula)
    merge = not few and lines.pays(data.logits, data.axis)
    axis = lines.CLASSES if merge else data.axis
    way = turned if few else gpu
    total = bind(way.total, formula=formula, axis=axis)
    with_slope = bind(way.with_slope, formula=formula, axis=axis, half=data.half)
    if merge:
        total, with_slope = lines.in_lines(total), lines.in_lines(with_slope)
    on_tpu = turned.pays_on_tpu(data.logits, data.axis, turned.COSTS_ON_TPU)
    totals, both = (Ways(gpu=f, tpu=f if on_tpu else None) for f in (total, with_slope))
    source = Source(data.logits, bind(_statistics, axis=data.axis), totals, both, data.half)
    return Cost(fixed, arrays, of_target=formula, source=source)


def _statistics(
    logits: Array, ids: Array, mask: Array | None, *, axis: int
) -> tuple[Array, Array, Array]:
    return margin.statistics(logits, ids, mask, axis)


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
    odds = margin.log_odds(top, total, target, ids, mask, classes)
    return numerics.weighted(formula(*sigmoid.log_pair(odds), *parameters), mask, factors)


def cross_entropy(data: labelled.Competing, label_smoothing: Array | None = None) -> Cost:
    """Returns `sum_c w_c y_c (-log p_c)` of each position, 0 where masked.

    Of soft labels it needs no log-odds: `-log p_c = (top - z_c) + log1p(rest)` does not cancel.
    """
    if data.are_probabilities or (data.has_ids and label_smoothing is None):
        return cost(sigmoid.surprise, data, label_smoothing=label_smoothing)
    plain, factors = data._replace(class_weights=None), data.class_weights
    values = labelled.per_position(_cross_entropy, plain, label_smoothing, factors)
    if blocks(data.logits, data.axis) > 1:  # of which the devices would exchange more numbers
        return values
    on_cpu = bind(_with_slope, axis=data.axis, has_ids=data.has_ids)
    values = values._replace(both=Ways(cpu=on_cpu))
    return _in_planes(values, data, sigmoid.surprise)


def _cross_entropy(
    part: labelled.Competing, smoothing: Array | None, factors: Array | None
) -> Array:
    z = part.unmasked_logits()
    rows = jax.lax.stop_gradient(log_softmax.scale(z, part.axis))
    shares = _shares(part, smoothing, factors)
    return log_softmax.entropy(z, shares, *rows, part.axis).squeeze(part.axis)


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
    planes = lines.planes_pay(z, axis)
    fixed = {"axis": lines.PLANES if planes else axis, "has_ids": has_ids}
    exact, of_finite = bind(_with_any_slope, **fixed), bind(soft.of_finite, **fixed)
    if planes:
        exact, of_finite = (lines.in_planes(f, axis) for f in (exact, of_finite))
    in_chunks = functools.partial(chunked, axes=tuple(i for i in range(z.ndim) if i != axis))
    whole = exact if planes else in_chunks(exact)  # a chunk of planes would be slower
    if not (is_large(z) and soft.is_one_loop(z, axis, has_ids)):
        return whole(*arrays)
    if weights is None and mask is None and factors is None:
        return _of_finite_or(*arrays, of_finite=of_finite, exact=whole)
    # Masked or weighted, the labels would be written to memory.
    if z.shape[axis] <= classes.FEW:
        return whole(*arrays)
    return in_chunks(bind(_of_finite_or, of_finite=of_finite, exact=exact))(*arrays)


def _of_finite_or(
    z: Array, *others: Any, of_finite: Callable[..., Any], exact: Callable[..., Any]
) -> tuple[Array, Array]:
    no_overflow = jnp.abs(z).max() <= numerics.limit(z.dtype)
    return jax.lax.cond(no_overflow, of_finite, exact, z, *others)


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


def log_sum_exp(data: labelled.Competing) -> Array:
    """Returns the log of each position's normaliser; 0 where masked or all classes are removed."""
    top, rest = log_softmax.scale(data.unmasked_logits(), data.axis)
    lse = (top + jnp.log1p(rest)).squeeze(data.axis)
    return numerics.masked(lse, data.mask)


def smoothed(data: labelled.Competing, smoothing: Array | None) -> Array:
    """Returns targets of the logits' shape; a bad id is NaN, a masked position 0."""
    targets = data.dense_labels()
    if smoothing is None:
        return targets
    present = data.unmasked_logits() > -jnp.inf
    count = present.sum(data.axis, keepdims=True).astype(data.logits.dtype)
    share = numerics.divide(smoothing, count)
    return data.masked((1 - smoothing) * targets + jnp.where(present, share, 0))
