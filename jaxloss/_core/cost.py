"""Costs whose value and derivatives keep nothing alive but their arguments.

What JAX transforms is made here, once for each formula and structure, and found again by them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import numerics
from jaxloss._core.chunks import chunked, in_chunks, is_large
from jaxloss._core.platforms import ALIKE, Ways, bind
from jaxloss._core.recompute import dot, hide, linear_of, moving_of, recomputed
from jaxloss._core.sharding import varying

Array = jax.Array


class Source(NamedTuple):
    """The logits of which a cost has the statistics, and how some platforms compute from them.

    They are faster where they read the logits again than where they write the statistics.

    Attributes:
      logits: They, to which all that follows belongs.
      statistics: `statistics(logits, ids, mask)`, the first three arrays of the cost.
      totals: `total(logits, weights, ids, mask, *others)`, the weighted sum of the cost.
      both: Beside it its derivative by the logits, written out.
      half: The dtype of half precision in which the logits came, or None.
    """

    logits: Array
    statistics: Callable[..., tuple[Array, ...]]
    totals: Ways
    both: Ways
    half: Any = None


Both = Callable[..., tuple[Array, Array]]


class Cost(NamedTuple):
    """What each element or position costs, not computed until it is known what is wanted.

    Attributes:
      formula: `formula(x, *others)`, in the shape of `x` except that `classes` has size 1. It
        closes over no array, and equals another of the same.
      arrays: `x`, and arrays of its rank that broadcast to it, or of another rank, which are the
        same for all values, or None.
      classes: The axis over which `formula` sums, which the values do not have; None: none.
      of_target: What it is of the target's probability, `of_target(-log p, -log(1 - p),
        *parameters)`, where that is one of ids. Then the arrays are `margin.statistics`, which are
        three, the ids, the mask, factors and the parameters. None: it is something else.
      source: What some platforms compute a sum from instead; None: from the arrays too.
      both: How platforms compute `both(x, denominator, weights, *others)`, the weighted sum of the
        values, and the derivative by `x` of that over the denominator.
      half: The dtype of half precision in which `x` came, or None.
    """

    formula: Callable[..., Array]
    arrays: tuple[Any, ...]
    classes: int | None = None
    of_target: Callable[..., Array] | None = None
    source: Source | None = None
    both: Ways = ALIKE
    half: Any = None

    @property
    def is_written(self) -> bool:
        """Whether a platform has a way of its own to compute the sum and its derivative."""
        return any(self.both)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values."""
        return tuple(n for i, n in enumerate(self.arrays[0].shape) if i != self.classes)

    @property
    def dtype(self) -> Any:
        """The dtype of the values."""
        return self.arrays[0].dtype

    @property
    def _cut(self) -> tuple[int, ...] | None:
        """The axes that chunks may cut; None: it is a cost of elements."""
        if self.classes is None:
            return None
        return tuple(i for i in range(self.arrays[0].ndim) if i != self.classes)

    def now(self) -> Array:
        """Returns every value as part of another cost, which sees to its memory."""
        values = self.formula(*self.arrays)
        return values if self.classes is None else values.squeeze(self.classes)

    def each(self) -> Array:
        """Returns every value."""
        evaluate = in_chunks(self.formula, self._cut)
        values = recomputed(self.formula, evaluate, self.half)(*self.arrays)
        return values if self.classes is None else values.squeeze(self.classes)

    def over(self, denominator: Array, weights: Array | None) -> Array:
        """Returns the weighted sum of the values over `denominator`, 0 where that is 0.

        A CPU's compiler writes the operands of a sum, and much of a long formula, to memory; in
        chunks they stay in its cache. There value and gradient are each one loop.
        """
        if self.source is not None and is_large(self.source.logits):
            logits, *ways, _ = self.source
            number = _of_logits(self.formula, *ways)
            return number(logits, denominator, weights, *self.arrays[3:])
        if self.classes is not None and weights is not None:
            weights = jnp.expand_dims(weights, self.classes)
        x, *others = self.arrays
        total = bind(weighted_sum, formula=self.formula)
        quotient = _quotient(total, self._cut, self.both, self.half)
        return quotient(x, denominator, weights, *others)

    def apart(self) -> Cost:
        """Returns the same cost, with which a GPU's compiler joins no loop of the same logits.

        Loops over the last axis that it joins it would split into more.
        """
        if self.source is None:
            return self
        logits, rest = numerics.hidden(self.source.logits, self.source.half, self.arrays[3:])
        source = self.source._replace(logits=logits)
        return self._replace(arrays=(*self.arrays[:3], *rest), source=source)

    def times(self, factors: Array) -> Cost:
        """Returns the cost times factors in its shape; a factor of 0 makes nothing of infinity."""
        factors = factors if self.classes is None else jnp.expand_dims(factors, self.classes)
        x, *others = self.arrays
        return Cost(bind(_product, formula=self.formula), (x, factors, *others), self.classes)


def weighted_sum(
    x: Array, weights: Array | None, *others: Any, formula: Callable[..., Array]
) -> Array:
    values = formula(x, *others)
    return numerics.times(values, weights).sum()


@functools.cache
def _of_logits(
    formula: Callable[..., Array],
    statistics: Callable[..., tuple[Array, ...]],
    totals: Ways,
    both: Ways,
) -> Callable[..., Array]:
    """Makes the weighted sum of such a cost over a denominator."""
    by_rows = bind(_of_statistics, formula=formula, statistics=statistics)
    derived = bind(_with_slope, number=by_rows)
    with_slope = both.each(lambda way: bind(_both_over, both=way)).otherwise(derived)
    with_slope = recomputed(derived, with_slope)
    number = totals.each(lambda way: bind(_over, total=way)).otherwise(by_rows)
    number = jax.custom_jvp(number)

    def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        moving = moving_of(tangents)
        directions = tuple(tangents[i] for i in moving)
        if moving != (0,):
            return number(*primals), linear_of(by_rows, moving)(primals, directions)
        result, slopes = with_slope(*primals)
        return result, dot((slopes,), directions)

    number.defjvp(jvp, symbolic_zeros=True)
    return number


def _of_statistics(
    logits: Array,
    denominator: Array,
    weights: Array | None,
    ids: Array,
    mask: Array | None,
    *others: Any,
    formula: Callable[..., Array],
    statistics: Callable[..., tuple[Array, ...]],
) -> Array:
    rows = statistics(logits, ids, mask)
    return Cost(formula, (*rows, ids, mask, *others)).over(denominator, weights)


def _with_slope(*arrays: Any, number: Callable[..., Array]) -> tuple[Array, Array]:
    return jax.value_and_grad(number)(*varying(*arrays))


def _both_over(
    logits: Array, denominator: Array, *others: Any, both: Callable[..., tuple[Array, Array]]
) -> tuple[Array, ...]:
    return tuple(numerics.divide(x, denominator) for x in both(logits, *others))


def _product(x: Array, factors: Array, *others: Any, formula: Callable[..., Array]) -> Array:
    return numerics.product(factors, formula(x, *others))


@functools.cache
def _quotient(
    total: Callable[..., Array],
    axes: tuple[int, ...] | None,
    both: Ways,
    half: Any,
) -> Callable[..., Array]:
    """Makes a sum `total(x, *others)` over a denominator: `quotient(x, denominator, *others)`.

    Args:
      total: The sum.
      axes: Those that may be cut; None: it is a sum of elements.
      both: How platforms compute the sum beside the derivative by `x`.
      half: The dtype of half precision in which `x` came, or None.
    """
    evaluate = bind(_over, total=in_chunks(total, axes))
    if both.cpu is not None:
        on_cpu = Ways(cpu=bind(_first_over, both=both.cpu))
        evaluate = on_cpu.otherwise(bind(_over, total=total))
    quotient = jax.custom_jvp(evaluate)

    def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        moving = moving_of(tangents)
        directions = tuple(tangents[i] for i in moving)
        if 1 not in moving and all(jnp.shape(primals[i]) == primals[0].shape for i in moving):
            ways = both if moving == (0,) else ALIKE
            sum_, *slopes = _with_slopes(total, axes, moving, ways, half)(*primals)
            return numerics.divide(sum_, primals[1]), dot(slopes, directions)
        over = bind(_over, total=total)
        return quotient(*primals), linear_of(over, moving)(primals, directions)

    quotient.defjvp(jvp, symbolic_zeros=True)
    return quotient


def _first_over(x: Array, denominator: Array, *others: Any, both: Both) -> Array:
    return numerics.divide(both(x, denominator, *others)[0], denominator)


def _over(x: Array, denominator: Array, *others: Any, total: Callable[..., Array]) -> Array:
    return numerics.divide(total(x, *others), denominator)


@functools.cache
def _with_slopes(
    total: Callable[..., Array],
    axes: tuple[int, ...] | None,
    moving: tuple[int, ...],
    both: Ways,
    half: Any,
) -> Callable[..., tuple[Array, ...]]:
    """A sum beside its derivatives over the denominator: both are known in one pass."""
    function = bind(sum_and_slopes, total=total, moving=moving)
    if any(both):
        ways = both._replace(cpu=both.cpu or chunked(function, axes))
        return recomputed(function, ways.otherwise(function))
    # What costs nothing but arithmetic a GPU does twice rather than write it to memory.
    apart = bind(_sum_apart, total=total, moving=moving, half=half)
    default = apart if axes is None else function
    return recomputed(function, in_chunks(function, axes, default))


def sum_and_slopes(
    x: Array, denominator: Array, *others: Any, total: Callable[..., Array], moving: tuple[int, ...]
) -> tuple[Array, ...]:
    places = tuple(max(i - 1, 0) for i in moving)  # in `total`, which has no denominator
    sum_, gradients = jax.value_and_grad(total, places)(*varying(x, *others))
    return sum_, *(numerics.divide(g, denominator) for g in gradients)


def _sum_apart(
    x: Array,
    denominator: Array,
    *others: Any,
    total: Callable[..., Array],
    moving: tuple[int, ...],
    half: Any,
) -> tuple[Array, ...]:
    again = hide(x, half)
    slopes = sum_and_slopes(again, denominator, *others, total=total, moving=moving)[1:]
    return total(x, *others), *slopes
