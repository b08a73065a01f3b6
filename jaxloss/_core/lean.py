"""Costs whose value and derivatives keep nothing alive but their arguments."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxloss._core import numerics

Array = jax.Array

CHUNKS = 32
CHUNKED_FROM = 2**18  # elements; what is smaller fits into a processor's cache


def lean(
    cost: Callable[..., Any], evaluate: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """Makes a cost whose derivative, of any order and in both modes, is recomputed.

    The compiler would share the forward pass's intermediates with the backward pass and write them
    to memory. Hiding that the first argument is the same in both lets value and gradient of an
    elementwise cost fuse: 3 passes over the logits on a GPU instead of 8. Every array that needs a
    derivative must be an argument, none a closure; an argument may be None.

    Args:
      cost: A function of arrays, to one or several.
      evaluate: Another way to compute its value; the derivatives are those of `cost`.
    """

    @jax.custom_jvp
    def wrapped(*arguments: Array) -> Any:
        return (evaluate or cost)(*arguments)

    def jvp(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        moving = _moving(tangents)

        @functools.partial(jax.checkpoint, prevent_cse=False)
        def linear(primals: tuple[Array, ...], directions: tuple[Array, ...]) -> Any:
            return _along(cost, primals, moving, directions)

        return wrapped(*primals), linear(primals, tuple(tangents[i] for i in moving))

    wrapped.defjvp(jvp, symbolic_zeros=True)
    return wrapped


class Costs(NamedTuple):
    """The costs of all elements or positions, not computed until it is known what is wanted.

    Attributes:
      cost: `cost(x, *others)`, in the shape of `x` except that `classes` has size 1.
      arguments: `x`, and arrays of its rank that broadcast to it, or of another rank, which are
        the same for all values, or None.
      classes: The axis over which `cost` sums, which the values do not have; None: none.
      statistics: Whether the first three arguments are `softmax.statistics`.
    """

    cost: Callable[..., Array]
    arguments: tuple[Any, ...]
    classes: int | None = None
    statistics: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values."""
        return tuple(n for i, n in enumerate(self.arguments[0].shape) if i != self.classes)

    @property
    def dtype(self) -> Any:
        """The dtype of the values."""
        return self.arguments[0].dtype

    @property
    def _cut(self) -> tuple[int, ...] | None:
        """The axes that chunks may cut; None: it is a cost of elements."""
        if self.classes is None:
            return None
        return tuple(i for i in range(self.arguments[0].ndim) if i != self.classes)

    def each(self) -> Array:
        """Returns every value."""
        values = lean(self.cost, _in_chunks(self.cost, self._cut))(*self.arguments)
        return values if self.classes is None else values.squeeze(self.classes)

    def over(self, denominator: Array, weights: Array | None) -> Array:
        """Returns the weighted sum of the values over `denominator`, 0 where that is 0.

        A CPU's compiler writes the operands of a sum, and much of a long formula, to memory; in
        chunks they stay in its cache. There value and gradient are each one loop.
        """
        if self.classes is not None and weights is not None:
            weights = jnp.expand_dims(weights, self.classes)

        def total(x: Array, weights: Array | None, *others: Any) -> Array:
            values = self.cost(x, *others)
            return (values if weights is None else values * weights).sum()

        x, *others = self.arguments
        return _quotient(total, self._cut)(x, denominator, weights, *others)


def _quotient(total: Callable[..., Array], axes: tuple[int, ...] | None) -> Callable[..., Array]:
    """Makes a sum `total(x, *others)` over a denominator: `quotient(x, denominator, *others)`.

    Args:
      total: The sum.
      axes: Those that may be cut; None: it is a sum of elements.
    """

    def at_once(x: Array, denominator: Array, *others: Any) -> Array:
        return numerics.divide(total(x, *others), denominator)

    def value(x: Array, denominator: Array, *others: Any) -> Array:
        return numerics.divide(_in_chunks(total, axes)(x, *others), denominator)

    def with_slopes(moving: list[int]) -> Callable[..., tuple[Array, ...]]:
        places = tuple(max(i - 1, 0) for i in moving)  # in `total`, which has no denominator

        def function(x: Array, denominator: Array, *others: Any) -> tuple[Array, ...]:
            sum_, gradients = jax.value_and_grad(total, places)(*varying(x, *others))
            return sum_, *(numerics.divide(g, denominator) for g in gradients)

        def apart(x: Array, denominator: Array, *others: Any) -> tuple[Array, ...]:
            return total(x, *others), *function(_hide(x), denominator, *others)[1:]

        # What costs nothing but arithmetic a GPU does twice rather than write it to memory.
        return lean(function, _in_chunks(function, axes, apart if axes is None else function))

    quotient = jax.custom_jvp(value)

    def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        moving = _moving(tangents)
        directions = tuple(tangents[i] for i in moving)
        if all(jnp.shape(primals[i]) == primals[0].shape for i in moving):
            sum_, *slopes = with_slopes(moving)(*primals)
            pairs = zip(slopes, directions, strict=True)
            tangent = functools.reduce(jnp.add, [(s * t).sum() for s, t in pairs])
            return numerics.divide(sum_, primals[1]), tangent

        @functools.partial(jax.checkpoint, prevent_cse=False)
        def linear(primals: tuple[Any, ...], directions: tuple[Array, ...]) -> Array:
            return _along(at_once, primals, moving, directions)

        return quotient(*primals), linear(primals, directions)

    quotient.defjvp(jvp, symbolic_zeros=True)
    return quotient


def of_sums(
    terms: Callable[..., tuple[Array, ...]],
    axes: tuple[int, ...],
    arguments: tuple[Any, ...],
    finish: Callable[..., Array],
    parameters: tuple[Any, ...],
    summed: tuple[int, ...] | None = None,
) -> Array:
    """Returns a number made of sums of an array's elements, computed in chunks on a CPU.

    Args:
      terms: `terms(x, *others)`, arrays in the shape of `x`.
      axes: The axes of `x` over which each of them is summed.
      arguments: `x`, and arrays that broadcast to it, or None.
      finish: `finish(sums, *parameters)`, a scalar.
      parameters: Arrays, or None.
      summed: Where those axes are in the terms; None: where they are in `x`.
    """
    count = len(arguments)
    summed = axes if summed is None else summed

    def total(*arguments: Any) -> tuple[Array, ...]:
        return tuple(term.sum(summed) for term in terms(*arguments))

    sums = lean(total, _in_chunks(total, axes))

    def whole(*values: Any) -> Array:
        return finish(total(*values[:count]), *values[count:])

    @jax.custom_jvp
    def wrapped(*values: Any) -> Array:
        return finish(sums(*values[:count]), *values[count:])

    def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        moving = _moving(tangents)
        inner = [i for i in moving if i < count]
        outer = [i - count for i in moving if i >= count]
        parts = sums(*primals[:count])

        @functools.partial(jax.checkpoint, prevent_cse=False)
        def linear(
            primals: tuple[Any, ...], parts: tuple[Array, ...], directions: tuple[Array, ...]
        ) -> Array:
            if any(jnp.shape(primals[i]) != primals[0].shape for i in inner):
                return _along(whole, primals, moving, directions)
            arguments, parameters = primals[:count], primals[count:]

            def finished(parts: tuple[Array, ...], *moved: Array) -> Array:
                return finish(parts, *_replaced(parameters, outer, moved))

            places = tuple(range(1 + len(outer)))
            factors, *rates = jax.grad(finished, places)(parts, *(parameters[i] for i in outer))
            slopes = _slopes(total, axes, inner, count)(*arguments, *factors) if inner else ()
            rates = [*slopes, *rates]
            pairs = zip(rates, directions, strict=True)
            return functools.reduce(jnp.add, [(rate * t).sum() for rate, t in pairs])

        directions = tuple(tangents[i] for i in moving)
        return finish(parts, *primals[count:]), linear(primals, parts, directions)

    wrapped.defjvp(jvp, symbolic_zeros=True)
    return wrapped(*arguments, *parameters)


def _slopes(
    total: Callable[..., tuple[Array, ...]], axes: tuple[int, ...], inner: list[int], count: int
) -> Callable[..., tuple[Array, ...]]:
    """The derivatives of a weighted sum of sums, by those arguments that move."""

    def function(*values: Any) -> tuple[Array, ...]:
        def weighted(*moved: Array) -> Array:
            parts = total(*_replaced(arguments, inner, moved))
            products = [(a * b).sum() for a, b in zip(parts, factors, strict=True)]
            return functools.reduce(jnp.add, products)

        values = varying(*values)
        arguments, factors = values[:count], values[count:]
        return jax.grad(weighted, tuple(range(len(inner))))(*(arguments[i] for i in inner))

    return lean(function, _in_chunks(function, axes))


def _in_chunks(
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

    def chunked(*arguments: Any) -> Any:
        x = arguments[0]
        axis = max(_long_axes(x, axes), key=lambda i: x.shape[i])
        stop = axis + 1
        if axes is None:  # a CPU's compiler vectorises the last axis only: of many, make one
            stop = next((i for i in range(stop, x.ndim) if is_split(x, i)), x.ndim)
        cut = _Cut(x.shape, axis, stop)

        def of_part(start: Any, length: int) -> Any:
            return function(*(cut.part(a, start, length) for a in arguments))

        def add(result: Any, start: Any, length: int) -> Any:
            join = functools.partial(cut.join, start=start)
            return jax.tree.map(join, result, of_part(start, length))

        step = -(-x.shape[axis] // CHUNKS)
        whole, rest = divmod(x.shape[axis], step)
        result = jax.tree.map(functools.partial(cut.empty, cut.merged(x)), of_part(0, step))
        result = add(result, whole * step, rest) if rest else result
        result = jax.lax.fori_loop(0, whole, lambda i, r: add(r, i * step, step), result)
        return jax.tree.map(cut.restored, result)

    def evaluate(x: Array, *others: Any) -> Any:
        if x.size < CHUNKED_FROM or not _long_axes(x, axes):
            return function(x, *others)
        return jax.lax.platform_dependent(x, *others, cpu=chunked, default=default or function)

    return evaluate


class _Cut(NamedTuple):
    """How arrays are cut along an axis, into which those up to `stop` are merged.

    Attributes:
      shape: That of the array by which the others go.
      axis: It counts the rows that are cut.
      stop: Behind the last axis that is merged.
    """

    shape: tuple[int, ...]
    axis: int
    stop: int

    @property
    def row(self) -> int:
        """How many elements a row has."""
        return math.prod(self.shape[self.axis + 1 : self.stop])

    @property
    def merged_shape(self) -> tuple[int, ...]:
        """The shape with the axes merged."""
        size = self.shape[self.axis] * self.row
        return (*self.shape[: self.axis], size, *self.shape[self.stop :])

    def merged(self, a: Array) -> Array:
        """Returns an array with the axes merged."""
        return a.reshape(*a.shape[: self.axis], -1, *a.shape[self.stop :])

    def part(self, a: Any, start: Any, length: int) -> Any:
        """Returns the rows of an array that has them, merged; of another all."""
        axis, row = self.axis, self.row
        if a is None or jnp.ndim(a) != len(self.shape):
            return a
        if a.shape == self.shape:
            return jax.lax.dynamic_slice_in_dim(self.merged(a), start * row, length * row, axis)
        if a.shape[axis] == self.shape[axis]:
            a = jax.lax.dynamic_slice_in_dim(a, start, length, axis)
        if row > 1 and math.prod(a.shape[axis : self.stop]) > 1:
            inner = (length, *self.shape[axis + 1 : self.stop])
            a = jnp.broadcast_to(a, (*a.shape[:axis], *inner, *a.shape[self.stop :]))
        return self.merged(a)

    def empty(self, x: Array, part: Array) -> Array:
        """Returns zeros for a sum, or for an array of which a part is given, placed as `x`."""
        if part.ndim < x.ndim:
            return jnp.zeros_like(part)
        for i, size in enumerate(part.shape):
            x = x if i == self.axis else jax.lax.slice_in_dim(x, 0, size, axis=i)
        return jnp.zeros_like(x)

    def join(self, whole: Array, part: Array, start: Any) -> Array:
        """Adds to a sum, or writes the rows from `start` on."""
        if part.ndim < len(self.merged_shape):
            return whole + part
        return jax.lax.dynamic_update_slice_in_dim(whole, part, start * self.row, self.axis)

    def restored(self, a: Array) -> Array:
        """Undoes the merging."""
        return a.reshape(self.shape) if a.shape == self.merged_shape else a


def _long_axes(x: Array, axes: tuple[int, ...] | None) -> list[int]:
    """The axes that may be cut: not the first, over which a batch may be sharded."""
    axes = tuple(range(x.ndim)) if axes is None else axes
    return [i for i in axes if i != 0 and x.shape[i] >= CHUNKS and not is_split(x, i)]


def is_split(x: Array, axis: int) -> bool:
    """Whether an axis is known to be sharded: that of a mesh with Explicit axes."""
    return jax.typeof(x).sharding.spec[axis] is not None


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


def _moving(tangents: tuple[Any, ...]) -> list[int]:
    """The arguments that move: a zero tangent would meet infinite derivatives in the others."""
    return [i for i, t in enumerate(tangents) if t is not None and not isinstance(t, SymbolicZero)]


def _along(
    cost: Callable[..., Any],
    primals: tuple[Any, ...],
    moving: list[int],
    directions: tuple[Array, ...],
) -> Any:
    """The derivative of a cost along a direction of the arguments that move."""
    hidden = (_hide(primals[0]), *primals[1:])

    def moved(*values: Array) -> Array:
        return cost(*_replaced(hidden, moving, values))

    return jax.jvp(moved, tuple(hidden[i] for i in moving), directions)[1]


def _replaced(values: tuple[Any, ...], places: list[int], news: tuple[Any, ...]) -> list[Any]:
    """The values with others in some places."""
    result = list(values)
    for i, new in zip(places, news, strict=True):
        result[i] = new
    return result


def _hide(x: Array) -> Array:
    """Returns `x` in a form that the compiler does not find equal to `x`.

    The barrier serves a GPU; a CPU's compiler removes it too early, but does not see that the
    condition always holds.
    """
    x = jax.lax.optimization_barrier(x)
    return jnp.where((x == x) | (x != x), x, 0)
