"""Numbers made of sums of an array's elements, of which nothing of its size is kept."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxloss._core.chunks import in_chunks, is_large
from jaxloss._core.lines import in_lines
from jaxloss._core.platforms import ALIKE, Ways, bind
from jaxloss._core.recompute import dot, linear_of, moving_of, recomputed, replaced
from jaxloss._core.sharding import varying

Array = jax.Array

Way = tuple[Callable[..., tuple[Array, ...]], tuple[int, ...]]  # terms, and what is summed of them
# Sums of arrays, and their derivative by the first times factors that follow.
Pair = tuple[Callable[..., tuple[Array, ...]], Callable[..., tuple[Array, ...]]]


def of_sums(
    terms: Callable[..., tuple[Array, ...]],
    axes: tuple[int, ...],
    arrays: tuple[Any, ...],
    finish: Callable[..., Array],
    parameters: tuple[Any, ...],
    of_chunk: Way | None = None,
    of_lines: Way | None = None,
    pairs: Ways = ALIKE,
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
      of_lines: How they are computed at once, with positions on one axis; None: as given.
      pairs: How platforms compute them, and their derivative by `x`, a `Pair` each; a CPU that has
        none does it in chunks.
      short: Whether the derivative is faster at once than in chunks: of one loop, or few.
    """
    total, in_chunk = (
        bind(_totals, terms=f, summed=summed)
        for f, summed in (of_lines or (terms, axes), of_chunk or (terms, axes))
    )
    if of_lines is not None:
        total = in_lines(total)
    pairs = pairs if is_large(arrays[0]) else ALIKE
    finished = _finished(total, in_chunk, axes, finish, len(arrays), pairs, short)
    return finished(*arrays, *parameters)


def _totals(
    *arrays: Any, terms: Callable[..., tuple[Array, ...]], summed: tuple[int, ...]
) -> tuple[Array, ...]:
    return tuple(term.sum(summed) for term in terms(*arrays))


def pair_of(terms: Callable[..., tuple[Array, ...]], axes: tuple[int, ...], count: int) -> Pair:
    """Makes a pair of terms of `count` arrays as `of_sums` takes them, at once."""
    total = bind(_totals, terms=terms, summed=axes)
    return total, bind(_slopes, total=total, inner=(0,), count=count)


@functools.cache
def _finished(
    total: Callable[..., tuple[Array, ...]],
    in_chunk: Callable[..., tuple[Array, ...]],
    axes: tuple[int, ...],
    finish: Callable[..., Array],
    count: int,
    pairs: Ways,
    short: bool,
) -> Callable[..., Array]:
    """Makes `finish(total(*arrays), *parameters)` of `count` arrays and some parameters."""
    others = total if pairs.cpu else in_chunks(in_chunk, axes, total)
    sums = recomputed(total, pairs.each(operator.itemgetter(0)).otherwise(others))

    @jax.custom_jvp
    def number(*values: Any) -> Array:
        return finish(sums(*values[:count]), *values[count:])

    def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        moving = moving_of(tangents)
        directions = tuple(tangents[i] for i in moving)
        parts = sums(*primals[:count])
        value = finish(parts, *primals[count:])
        inner = tuple(i for i in moving if i < count)
        if any(jnp.shape(primals[i]) != primals[0].shape for i in inner):
            whole = bind(_whole, total=total, finish=finish, count=count)
            return value, linear_of(whole, moving)(primals, directions)
        own = pairs if inner == (0,) else ALIKE
        linear = _by_slopes(total, in_chunk, axes, finish, count, moving, own, short)
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
    pairs: Ways,
    short: bool,
) -> Callable[..., Array]:
    """The derivative of such a number: that by its sums first, with which one pass is made."""
    inner = tuple(i for i in moving if i < count)
    outer = tuple(i - count for i in moving if i >= count)
    slope, in_chunk = (bind(_slopes, total=f, inner=inner, count=count) for f in (total, in_chunk))
    others = slope if short or pairs.cpu else in_chunks(in_chunk, axes, slope)
    slopes_of = recomputed(slope, pairs.each(operator.itemgetter(1)).otherwise(others))

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def linear(
        primals: tuple[Any, ...], parts: tuple[Array, ...], directions: tuple[Array, ...]
    ) -> Array:
        arrays, parameters = primals[:count], primals[count:]

        def finished(parts: tuple[Array, ...], *moved: Array) -> Array:
            return finish(parts, *replaced(parameters, outer, moved))

        places = tuple(range(1 + len(outer)))
        factors, *rates = jax.grad(finished, places)(parts, *(parameters[i] for i in outer))
        slopes = slopes_of(*arrays, *factors) if inner else ()
        return dot((*slopes, *rates), directions)

    return linear


def _slopes(
    *values: Any, total: Callable[..., tuple[Array, ...]], inner: tuple[int, ...], count: int
) -> tuple[Array, ...]:
    """The derivatives of a weighted sum of sums, by those arrays that move."""
    values = varying(*values)
    arrays, factors = values[:count], values[count:]

    def weighted(*moved: Array) -> Array:
        return dot(total(*replaced(arrays, inner, moved)), factors)

    return jax.grad(weighted, tuple(range(len(inner))))(*(arrays[i] for i in inner))
