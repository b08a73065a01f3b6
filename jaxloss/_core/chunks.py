"""Large arrays on a CPU: sums, and arrays of their shape, chunk by chunk within the cache."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import sharding
from jaxloss._core.platforms import bind, by_platform
from jaxloss._core.sharding import is_split

Array = jax.Array

CHUNKS = 32  # at most
CHUNK = 2**17  # elements at least: each turn of the loop takes its time
CHUNKED_FROM = 2**18  # elements


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
    if _cut_axis(x, axes) is None:
        return function(x, *others)
    return by_platform(x, *others, cpu=chunked(function, axes), default=default)


def chunked(function: Callable[..., Any], axes: tuple[int, ...] | None) -> Callable[..., Any]:
    """Makes any platform do what `in_chunks` makes a CPU do."""
    return bind(_cut_up, function=function, axes=axes)


def _cut_up(
    x: Array,
    *others: Any,
    function: Callable[..., Any],
    axes: tuple[int, ...] | None,
) -> Any:
    axis = _cut_axis(x, axes)
    if axis is None:
        return function(x, *others)
    stop = axis + 1
    if axes is None:  # a CPU's compiler vectorises the last axis only: of many, make one
        stop = next((i for i in range(stop, x.ndim) if sharding.blocks(x, i) > 1), x.ndim)
    cut = _Cut(x.shape, axis, stop, sharding.blocks(x, axis))

    def of_part(start: Any, length: int) -> Any:
        return function(*(cut.part(a, start, length) for a in (x, *others)))

    def add(result: Any, start: Any, length: int) -> Any:
        join = functools.partial(cut.join, start=start)
        return jax.tree.map(join, result, of_part(start, length))

    function = jax.jit(function)  # which is traced once for chunks of one size
    rows = x.shape[axis] // cut.blocks
    turns = min(CHUNKS, x.size // CHUNK)
    # A few more or less where they leave no rest: half as much to compile.
    near = (*range(turns, turns * 5 // 4 + 1), *range(turns - 1, turns * 3 // 4, -1))
    step = -(-rows // next((count for count in near if rows % count == 0), turns))
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


def is_large(x: Array) -> bool:
    """Whether an array does not fit into a processor's cache."""
    return x.size >= CHUNKED_FROM


def _cut_axis(x: Array, axes: tuple[int, ...] | None) -> int | None:
    """The axis to cut, the first that is long: what a chunk reads then lies together.

    Devices may share a batch: with more than one it is not the first. None: there is none, or the
    array is small.
    """
    if not is_large(x):
        return None
    axes = tuple(range(x.ndim)) if axes is None else axes
    long = (i for i in axes if x.shape[i] >= CHUNKS and not is_split(x, i))
    return next((i for i in long if i != 0 or jax.device_count() == 1), None)
