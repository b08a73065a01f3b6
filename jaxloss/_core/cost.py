"""Costs whose value and derivatives keep nothing alive but their arguments.

What JAX transforms is made here, once for each formula and structure, and found again by them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxloss._core import numerics, sharding
from jaxloss._core.sharding import is_split

Array = jax.Array

CHUNKS = 32  # at most
CHUNK = 2**17  # elements at least, where each is by itself: turns of the loop take their time
CHUNKED_FROM = 2**18  # elements


def bind(function: Callable[..., Any], /, **fixed: Hashable) -> Callable[..., Any]:
    """Fixes arguments that are no arrays; gives the same function for the same arguments.

    What JAX builds of a function it finds again by identity: a lambda or a `functools.partial` made
    anew at each call would be compiled anew.
    """
    return _bound(function, tuple(fixed.items()))


@functools.cache
def _bound(
    function: Callable[..., Any], fixed: tuple[tuple[str, Hashable], ...]
) -> Callable[..., Any]:
    return functools.partial(function, **dict(fixed))


class Source(NamedTuple):
    """The logits of which a cost has the statistics, and how a GPU computes from them.

    It is faster where it reads the logits again than where it writes the statistics.

    Attributes:
      logits: They, to which all that follows belongs.
      statistics: `statistics(logits, ids, mask)`, the first three arrays of the cost.
      total: `total(logits, weights, ids, mask, *others)`, the weighted sum of the cost.
      with_slope: Beside it its derivative by the logits, written out.
      given: The dtype of half precision in which the logits came, or None.
    """

    logits: Array
    statistics: Callable[..., tuple[Array, ...]]
    total: Callable[..., Array]
    with_slope: Callable[..., tuple[Array, Array]]
    given: Any = None


OnCpu = Callable[..., tuple[Array, Array]]


class Cost(NamedTuple):
    """What each element or position costs, not computed until it is known what is wanted.

    Attributes:
      formula: `formula(x, *others)`, in the shape of `x` except that `classes` has size 1. It
        closes over no array, and equals another of the same.
      arrays: `x`, and arrays of its rank that broadcast to it, or of another rank, which are the
        same for all values, or None.
      classes: The axis over which `formula` sums, which the values do not have; None: none.
      of_target: What it is of the target's probability, `of_target(-log p, -log(1 - p),
        *parameters)`, where that is one of ids. Then the arrays are `softmax.statistics`, which are
        three, the ids, the mask, factors and the parameters. None: it is something else.
      source: What a GPU computes a sum from instead; None: from the arrays too.
      at_once: Whether a CPU computes the values alone faster at once than in chunks: of a long
        formula of few classes.
      on_cpu: `on_cpu(x, denominator, weights, *others)`, the weighted sum of the values, and the
        derivative by `x` of that over the denominator, as a CPU computes them; None: as all others
        do.
      given: The dtype of half precision in which `x` came, or None.
    """

    formula: Callable[..., Array]
    arrays: tuple[Any, ...]
    classes: int | None = None
    of_target: Callable[..., Array] | None = None
    source: Source | None = None
    at_once: bool = False
    on_cpu: OnCpu | None = None
    given: Any = None

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
        evaluate = None if self.at_once else in_chunks(self.formula, self._cut)
        values = recomputed(self.formula, evaluate, self.given)(*self.arrays)
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
        quotient = _quotient(total, self._cut, self.at_once, self.on_cpu, self.given)
        return quotient(x, denominator, weights, *others)

    def apart(self) -> Cost:
        """Returns the same cost, with which a GPU's compiler joins no loop of the same logits.

        Loops over the last axis that it joins it would split into more.
        """
        if self.source is None:
            return self
        logits, rest = numerics.hidden(self.source.logits, self.source.given, self.arrays[3:])
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
    return (values if weights is None else values * weights).sum()


@functools.cache
def _of_logits(
    formula: Callable[..., Array],
    statistics: Callable[..., tuple[Array, ...]],
    total: Callable[..., Array],
    with_slope: Callable[..., tuple[Array, Array]],
) -> Callable[..., Array]:
    """Makes the weighted sum of such a cost over a denominator."""
    by_rows = bind(_of_statistics, formula=formula, statistics=statistics)
    derived, written = bind(_with_slope, number=by_rows), bind(_both_over, both=with_slope)
    both = recomputed(derived, bind(_on_gpu, gpu=written, default=derived))
    number = jax.custom_jvp(bind(_on_gpu, gpu=bind(_over, total=total), default=by_rows))

    def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        moving = _moving(tangents)
        directions = tuple(tangents[i] for i in moving)
        if moving != (0,):
            return number(*primals), _linear(by_rows, moving)(primals, directions)
        result, slopes = both(*primals)
        return result, _dot((slopes,), directions)

    number.defjvp(jvp, symbolic_zeros=True)
    return number


def _on_gpu(*arrays: Any, gpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    return jax.lax.platform_dependent(*arrays, cuda=gpu, rocm=gpu, default=default)


def _on_cpu(*arrays: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    return jax.lax.platform_dependent(*arrays, cpu=cpu, default=default)


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
def recomputed(
    formula: Callable[..., Any],
    evaluate: Callable[..., Any] | None = None,
    given: Any = None,
) -> Callable[..., Any]:
    """Makes a function whose derivative, of any order and in both modes, is recomputed.

    The compiler would share the forward pass's intermediates with the backward pass and write them
    to memory. Hiding that the first argument is the same in both lets value and gradient of an
    elementwise formula fuse: 3 passes over the logits on a GPU instead of 8. Every array that needs
    a derivative must be an argument, none a closure; an argument may be None.

    Args:
      formula: A function of arrays, to one or several.
      evaluate: Another way to compute its value; the derivatives are those of `formula`.
      given: The dtype of half precision in which the first argument came, or None.
    """

    @jax.custom_jvp
    def function(*arguments: Array) -> Any:
        return (evaluate or formula)(*arguments)

    def jvp(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        moving = _moving(tangents)
        linear = _linear(formula, moving, given)
        return function(*primals), linear(primals, tuple(tangents[i] for i in moving))

    function.defjvp(jvp, symbolic_zeros=True)
    return function


@functools.cache
def _linear(
    formula: Callable[..., Any], moving: tuple[int, ...], given: Any = None
) -> Callable[..., Any]:
    """The derivative of a function along a direction of the arguments that move, recomputed."""

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def linear(primals: tuple[Any, ...], directions: tuple[Array, ...]) -> Any:
        hidden = (_hide(primals[0], given), *primals[1:])

        def moved(*values: Array) -> Any:
            return formula(*_replaced(hidden, moving, values))

        return jax.jvp(moved, tuple(hidden[i] for i in moving), directions)[1]

    return linear


@functools.cache
def _quotient(
    total: Callable[..., Array],
    axes: tuple[int, ...] | None,
    at_once: bool,
    on_cpu: OnCpu | None,
    given: Any,
) -> Callable[..., Array]:
    """Makes a sum `total(x, *others)` over a denominator: `quotient(x, denominator, *others)`.

    Args:
      total: The sum.
      axes: Those that may be cut; None: it is a sum of elements.
      at_once: Whether a CPU computes the sum alone at once.
      on_cpu: How a CPU computes the sum beside the derivative by `x`; None: as others do.
      given: The dtype of half precision in which `x` came, or None.
    """
    evaluate = bind(_over, total=total if at_once else in_chunks(total, axes))
    if on_cpu is not None:
        by_hand = bind(_first_over, both=on_cpu)
        evaluate = bind(_on_cpu, cpu=by_hand, default=bind(_over, total=total))
    quotient = jax.custom_jvp(evaluate)

    def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        moving = _moving(tangents)
        directions = tuple(tangents[i] for i in moving)
        if 1 not in moving and all(jnp.shape(primals[i]) == primals[0].shape for i in moving):
            by_hand = on_cpu if moving == (0,) else None
            sum_, *slopes = _with_slopes(total, axes, moving, by_hand, given)(*primals)
            return numerics.divide(sum_, primals[1]), _dot(slopes, directions)
        over = bind(_over, total=total)
        return quotient(*primals), _linear(over, moving)(primals, directions)

    quotient.defjvp(jvp, symbolic_zeros=True)
    return quotient


def _first_over(x: Array, denominator: Array, *others: Any, both: OnCpu) -> Array:
    return numerics.divide(both(x, denominator, *others)[0], denominator)


def _over(x: Array, denominator: Array, *others: Any, total: Callable[..., Array]) -> Array:
    return numerics.divide(total(x, *others), denominator)


@functools.cache
def _with_slopes(
    total: Callable[..., Array],
    axes: tuple[int, ...] | None,
    moving: tuple[int, ...],
    on_cpu: OnCpu | None,
    given: Any,
) -> Callable[..., tuple[Array, ...]]:
    """A sum beside its derivatives over the denominator: both are known in one pass."""
    function = bind(sum_and_slopes, total=total, moving=moving)
    if on_cpu is not None:
        return recomputed(function, bind(_on_cpu, cpu=on_cpu, default=function))
    # What costs nothing but arithmetic a GPU does twice rather than write it to memory.
    apart = bind(_sum_apart, total=total, moving=moving, given=given)
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
    given: Any,
) -> tuple[Array, ...]:
    again = _hide(x, given)
    slopes = sum_and_slopes(again, denominator, *others, total=total, moving=moving)[1:]
    return total(x, *others), *slopes


Pair = tuple[Callable[..., tuple[Array, ...]], Callable[..., tuple[Array]]]


class Written(NamedTuple):
    """Sums of arrays, and their derivative by `x` times factors that follow, for some platforms.

    None: such a platform computes them as all others do, a CPU in chunks.
    """

    gpu: Pair | None = None
    cpu: Pair | None = None

    def way(
        self, i: int, in_chunks: Callable[..., Any], at_once: Callable[..., Any]
    ) -> Callable[..., Any]:
        """How to compute the sums, or their derivative, given what chunks a CPU."""
        others = in_chunks
        if self.cpu:
            others = bind(_on_cpu, cpu=self.cpu[i], default=at_once)
        return bind(_on_gpu, gpu=self.gpu[i], default=others) if self.gpu else others


def of_sums(
    terms: Callable[..., tuple[Array, ...]],
    axes: tuple[int, ...],
    arrays: tuple[Any, ...],
    finish: Callable[..., Array],
    parameters: tuple[Any, ...],
    of_chunk: tuple[Callable[..., tuple[Array, ...]], tuple[int, ...]] | None = None,
    written: Written | None = None,
    short: bool = False,
) -> Array:
    """Returns a number made of sums of an array's elements, computed in chunks on a CPU.

    Args:
      terms: `terms(x, *others)`, arrays in the shape of `x`.
      axes: The axes of `x` over which each of them is summed.
      arrays: `x`, and arrays that broadcast to it, or None.
      finish: `finish(sums, *parameters)`, a scalar.
      parameters: Arrays, or None.
      of_chunk: Another way to compute the terms of a chunk, and where those axes are in them; None:
        none.
      written: How some platforms compute them; None: all in the same way.
      short: Whether the derivative is faster at once than in chunks: of one loop, or few.
    """
    total, in_chunk = (
        bind(_totals, terms=f, summed=summed)
        for f, summed in ((terms, axes), of_chunk or (terms, axes))
    )
    if written is None or not is_large(arrays[0]):
        written = Written()
    finished = _finished(total, in_chunk, axes, finish, len(arrays), written, short)
    return finished(*arrays, *parameters)


def _totals(
    *arrays: Any, terms: Callable[..., tuple[Array, ...]], summed: tuple[int, ...]
) -> tuple[Array, ...]:
    return tuple(term.sum(summed) for term in terms(*arrays))


@functools.cache
def _finished(
    total: Callable[..., tuple[Array, ...]],
    in_chunk: Callable[..., tuple[Array, ...]],
    axes: tuple[int, ...],
    finish: Callable[..., Array],
    count: int,
    written: Written,
    short: bool,
) -> Callable[..., Array]:
    """Makes `finish(total(*arrays), *parameters)` of `count` arrays and some parameters."""
    sums = recomputed(total, written.way(0, in_chunks(in_chunk, axes, total), total))

    @jax.custom_jvp
    def number(*values: Any) -> Array:
        return finish(sums(*values[:count]), *values[count:])

    def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        moving = _moving(tangents)
        directions = tuple(tangents[i] for i in moving)
        parts = sums(*primals[:count])
        value = finish(parts, *primals[count:])
        inner = tuple(i for i in moving if i < count)
        if any(jnp.shape(primals[i]) != primals[0].shape for i in inner):
            whole = bind(_whole, total=total, finish=finish, count=count)
            return value, _linear(whole, moving)(primals, directions)
        by_hand = written if inner == (0,) else Written()
        linear = _by_slopes(total, in_chunk, axes, finish, count, moving, by_hand, short)
        return value, linear(primals, parts, directions)

    number.defjvp(jvp, symbolic_zeros=True)
    return number


def _whole(
    *values: Any,
    total: Callable[..., tuple[Array, ...]],
    finish: Callable[..., Array],
    count: int,
) -> Array:
    return finish(total(*values[:count]), *values[count:])


@functools.cache
def _by_slopes(
    total: Callable[..., tuple[Array, ...]],
    in_chunk: Callable[..., tuple[Array, ...]],
    axes: tuple[int, ...],
    finish: Callable[..., Array],
    count: int,
    moving: tuple[int, ...],
    written: Written,
    short: bool,
) -> Callable[..., Array]:
    """The derivative of such a number: that by its sums first, with which one pass is made."""
    inner = tuple(i for i in moving if i < count)
    outer = tuple(i - count for i in moving if i >= count)
    slope, in_chunk = (bind(_slopes, total=f, inner=inner, count=count) for f in (total, in_chunk))
    parted = slope if short else in_chunks(in_chunk, axes, slope)
    slopes_of = recomputed(slope, written.way(1, parted, slope))

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def linear(
        primals: tuple[Any, ...], parts: tuple[Array, ...], directions: tuple[Array, ...]
    ) -> Array:
        arrays, parameters = primals[:count], primals[count:]

        def finished(parts: tuple[Array, ...], *moved: Array) -> Array:
            return finish(parts, *_replaced(parameters, outer, moved))

        places = tuple(range(1 + len(outer)))
        factors, *rates = jax.grad(finished, places)(parts, *(parameters[i] for i in outer))
        slopes = slopes_of(*arrays, *factors) if inner else ()
        return _dot((*slopes, *rates), directions)

    return linear


def _slopes(
    *values: Any, total: Callable[..., tuple[Array, ...]], inner: tuple[int, ...], count: int
) -> tuple[Array, ...]:
    """The derivatives of a weighted sum of sums, by those arrays that move."""
    values = varying(*values)
    arrays, factors = values[:count], values[count:]

    def weighted(*moved: Array) -> Array:
        return _dot(total(*_replaced(arrays, inner, moved)), factors)

    return jax.grad(weighted, tuple(range(len(inner))))(*(arrays[i] for i in inner))


def _dot(one: Sequence[Array], other: Sequence[Array]) -> Array:
    products = [(a * b).sum() for a, b in zip(one, other, strict=True)]
    return functools.reduce(jnp.add, products)


def in_chunks(
    function: Callable[..., Any],
    axes: tuple[int, ...] | None,
    default: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Makes a CPU compute sums, and arrays in the shape of the first argument, chunk by chunk.

    Args:
      function: Gives them of `x` and further arrays, of which those of the rank of `x` are cut with
        it. What has the rank of `x` is an array, the rest are sums.
      axes: Those that may be cut; None: the function is elementwise.
      default: What others than a CPU compute; None: the same at once.
    """
    return bind(_evaluated, function=function, axes=axes, default=default or function)


def _evaluated(
    x: Array,
    *others: Any,
    function: Callable[..., Any],
    axes: tuple[int, ...] | None,
    default: Callable[..., Any],
) -> Any:
    if _is_whole(x, axes):
        return function(x, *others)
    return _on_cpu(x, *others, cpu=chunked(function, axes), default=default)


def chunked(function: Callable[..., Any], axes: tuple[int, ...] | None) -> Callable[..., Any]:
    """Makes any platform do what `in_chunks` makes a CPU do."""
    return bind(_cut_up, function=function, axes=axes)


def _cut_up(
    x: Array,
    *others: Any,
    function: Callable[..., Any],
    axes: tuple[int, ...] | None,
) -> Any:
    if _is_whole(x, axes):
        return function(x, *others)
    return _chunked(x, *others, function=function, axes=axes)


def is_large(x: Array) -> bool:
    """Whether an array does not fit into a processor's cache."""
    return x.size >= CHUNKED_FROM


def _is_whole(x: Array, axes: tuple[int, ...] | None) -> bool:
    return not is_large(x) or _cut_axis(x, axes) is None


def _chunked(*arguments: Any, function: Callable[..., Any], axes: tuple[int, ...] | None) -> Any:
    x = arguments[0]
    axis = _cut_axis(x, axes)
    assert axis is not None
    stop = axis + 1
    if axes is None:  # a CPU's compiler vectorises the last axis only: of many, make one
        stop = next((i for i in range(stop, x.ndim) if sharding.blocks(x, i) > 1), x.ndim)
    cut = _Cut(x.shape, axis, stop, sharding.blocks(x, axis))

    def of_part(start: Any, length: int) -> Any:
        return function(*(cut.part(a, start, length) for a in arguments))

    def add(result: Any, start: Any, length: int) -> Any:
        join = functools.partial(cut.join, start=start)
        return jax.tree.map(join, result, of_part(start, length))

    rows = x.shape[axis] // cut.blocks
    turns = min(CHUNKS, x.size // CHUNK) if axes is None else CHUNKS
    # A few more where they leave no rest: half as much to compile.
    exact = (more for more in range(turns, turns * 5 // 4 + 1) if rows % more == 0)
    step = -(-rows // next(exact, turns))
    whole, rest = divmod(rows, step)
    result = jax.tree.map(functools.partial(cut.empty, x), of_part(0, step))
    result = add(result, whole * step, rest) if rest else result
    result = jax.lax.fori_loop(0, whole, lambda i, r: add(r, i * step, step), result)
    return jax.tree.map(cut.restored, result)


class _Cut(NamedTuple):
    """How arrays are cut along an axis, into which those up to `stop` are merged.

    The axis may lie in blocks on several devices, which all have a part of every chunk: a cut from
    one block to the next would send for the arrays.

    Attributes:
      shape: That of the array by which the others go.
      axis: It counts the rows that are cut.
      stop: Behind the last axis that is merged.
      blocks: Into how many the rows are divided.
    """

    shape: tuple[int, ...]
    axis: int
    stop: int
    blocks: int

    @property
    def row(self) -> int:
        """How many elements a row has."""
        return math.prod(self.shape[self.axis + 1 : self.stop])

    @property
    def rank(self) -> int:
        """How many axes there are with some merged."""
        return len(self.shape) - (self.stop - self.axis - 1)

    def merged(self, a: Array) -> Array:
        """Returns an array with the axes merged."""
        return a.reshape(*a.shape[: self.axis], -1, *a.shape[self.stop :])

    def in_blocks(self, a: Array) -> Array:
        """Returns a merged array with an axis of blocks before that of their rows."""
        return a.reshape(*a.shape[: self.axis], self.blocks, -1, *a.shape[self.axis + 1 :])

    def rows(self, a: Array, start: Any, length: int) -> Array:
        """Returns some rows of every block of a merged array."""
        part = jax.lax.dynamic_slice_in_dim(self.in_blocks(a), start, length, self.axis + 1)
        return part.reshape(*a.shape[: self.axis], -1, *a.shape[self.axis + 1 :])

    def part(self, a: Any, start: Any, length: int) -> Any:
        """Returns the rows of an array that has them, merged; of another all."""
        axis, row = self.axis, self.row
        if a is None or jnp.ndim(a) != len(self.shape):
            return a
        if a.shape == self.shape:
            return self.rows(self.merged(a), start * row, length * row)
        if a.shape[axis] == self.shape[axis]:
            a = self.rows(a, start, length)
        if row > 1 and math.prod(a.shape[axis : self.stop]) > 1:
            inner = (self.blocks * length, *self.shape[axis + 1 : self.stop])
            a = jnp.broadcast_to(a, (*a.shape[:axis], *inner, *a.shape[self.stop :]))
        return self.merged(a)

    def empty(self, x: Array, part: Array) -> Array:
        """Returns zeros for a sum, or for an array of which a part is given, placed as `x`."""
        if part.ndim < self.rank:
            return jnp.zeros_like(part)
        x = self.merged(x)
        for i, size in enumerate(part.shape):
            x = x if i == self.axis else jax.lax.slice_in_dim(x, 0, size, axis=i)
        return jnp.zeros_like(self.in_blocks(x))

    def join(self, whole: Array, part: Array, start: Any) -> Array:
        """Adds to a sum, or writes the rows of each block from `start` on."""
        if part.ndim < self.rank:
            return whole + part
        part = self.in_blocks(part)
        return jax.lax.dynamic_update_slice_in_dim(whole, part, start * self.row, self.axis + 1)

    def restored(self, a: Array) -> Array:
        """Undoes the merging and the blocks."""
        if a.ndim < self.rank:
            return a
        before, behind = a.shape[: self.axis], a.shape[self.axis + 2 :]
        return a.reshape(*before, -1, *behind).reshape(
            *before, *self.shape[self.axis : self.stop], *behind
        )


def _cut_axis(x: Array, axes: tuple[int, ...] | None) -> int | None:
    """The axis to cut, the first that is long: what a chunk reads then lies together.

    Devices may share a batch: with more than one it is not the first.
    """
    axes = tuple(range(x.ndim)) if axes is None else axes
    long = (i for i in axes if x.shape[i] >= CHUNKS and not is_split(x, i))
    return next((i for i in long if i != 0 or jax.device_count() == 1), None)


def varying(*arrays: Any) -> tuple[Any, ...]:
    """Returns arrays that all vary over the mesh axes over which one of them does.

    A gradient by an array that the devices of a `shard_map` share would be the sum of theirs.
    """
    zeros = [jnp.zeros_like(a, jnp.float32, shape=()) for a in arrays if a is not None]
    zero = functools.reduce(jnp.add, zeros)  # adding it is no operation to the compiler
    floating = (a is not None and jnp.issubdtype(a.dtype, jnp.floating) for a in arrays)
    return tuple(
        a + zero.astype(a.dtype) if yes else a for a, yes in zip(arrays, floating, strict=True)
    )


def _moving(tangents: tuple[Any, ...]) -> tuple[int, ...]:
    """The arguments that move: a zero tangent would meet infinite derivatives in the others."""
    return tuple(
        i for i, t in enumerate(tangents) if t is not None and not isinstance(t, SymbolicZero)
    )


def _replaced(values: Sequence[Any], places: tuple[int, ...], news: Sequence[Any]) -> list[Any]:
    """The values with others in some places."""
    result = list(values)
    for i, new in zip(places, news, strict=True):
        result[i] = new
    return result


def _hide(x: Array, given: Any) -> Array:
    """Returns `x` in a form that the compiler does not find equal to `x`.

    The barrier serves a GPU; a CPU's compiler removes it too early, but does not see that the
    condition always holds.
    """
    (x,) = numerics.hidden(x, given)
    return jnp.where((x == x) | (x != x), x, 0)
