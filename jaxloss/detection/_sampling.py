"""Random points in images, and the values of maps there."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss.detection._assignment import gather, running_sum

Array = jax.Array


def anywhere(
    key: Array, images: int, shapes: Sequence[tuple[int, ...]], dtype: jnp.dtype
) -> list[Array]:
    """Independent points (x, y) in images of size 1, `[B, *shape, 2]` for each of the shapes.

    The points of the last axis go from top to bottom, so that neighbours are gathered from one
    place. They are drawn in this order, without sorting: sums of exponential gaps over their total
    are distributed as sorted uniform numbers. All are drawn and summed at once, which takes long to
    compile: a row begins with the end of the one before.
    """
    across = [math.prod(shape) for shape in shapes]
    down = [math.prod(shape[:-1]) * (shape[-1] + 2) for shape in shapes]
    low = jnp.finfo(dtype).tiny
    uniform = jax.random.uniform(key, (images, sum(across) + sum(down)), dtype, minval=low)
    x, gaps = jnp.split(uniform, [sum(across)], 1)
    below = running_sum(-jnp.log(gaps))
    parts = _parted(x, across), _parted(below, down), shapes

    def points(x: Array, below: Array, shape: tuple[int, ...]) -> Array:
        below = below.reshape(images, *shape[:-1], shape[-1] + 2)
        below = below[..., 1:] - below[..., :1]
        return jnp.stack([x.reshape(images, *shape), below[..., :-1] / below[..., -1:]], -1)

    return [points(*part) for part in zip(*parts, strict=True)]


def _parted(x: Array, sizes: Sequence[int]) -> list[Array]:
    return jnp.split(x, list(itertools.accumulate(sizes))[:-1], 1)


def of_every_map(maps: Array, where: Array) -> Array:
    """Values of all maps `[B, K, h, w]` of an image at the same points `[B, P, 2]`, `[B, K, P]`.

    Bilinear: pixels are squares with the value in their middle; beyond the image all is 0.
    """
    flat = jax.lax.collapse(maps, 2)
    around = _around(where, maps.shape)
    every = jax.vmap(lambda maps, at: maps.at[:, at].get(mode="promise_in_bounds"))

    def take(i: int, j: int) -> tuple[Array, Array]:
        at = around.index + i * maps.shape[3] + j
        weight = around.by_row[i] * around.by_column[j]
        return every(flat, at), weight[:, None]

    return _weighted(take, around)


@jax.custom_jvp
def of_one_map(maps: Array, channel: Array, where: Array, valid: Array) -> Array:
    """As `of_every_map`, of the maps `channel` `[B, M]` at points `[B, M, P, 2]` of each.

    `[B, M, P]`, 0 where `valid` `[B, M]` is not. The points are constants.
    """
    return _if_any(_at_once, maps, channel, where, valid)


@of_one_map.defjvp
def _(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    _, channel, where, valid = primals
    tangent = tangents[0].astype(where.dtype)
    return of_one_map(*primals), _if_any(_by_window, tangent, channel, where, valid)


def _if_any(
    sample: Callable[..., Array], maps: Array, channel: Array, where: Array, valid: Array
) -> Array:
    """Samples where any map is asked for.

    It is a branch that XLA keeps apart, or it would sample anew for each use of the values.
    """
    nothing = lambda maps, channel, where: jnp.zeros_like(where[..., 0])
    values = jax.lax.cond(valid.any(), sample, nothing, maps, channel, where)
    return jnp.where(valid[..., None], values, 0)


def _at_once(maps: Array, channel: Array, where: Array) -> Array:
    flat = jax.lax.collapse(maps, 1)
    around = _around(where, maps.shape)
    first = channel[..., None] * (maps.shape[2] * maps.shape[3]) + around.index

    def take(i: int, j: int) -> tuple[Array, Array]:
        weight = around.by_row[i] * around.by_column[j]
        return gather(flat, first + (i * maps.shape[3] + j)), weight

    return _weighted(take, around)


@functools.partial(jax.checkpoint, prevent_cse=False)
def _by_window(maps: Array, channel: Array, where: Array) -> Array:
    """The four pixels are one window: what comes back to the maps, XLA adds window by window."""
    around = _around(where, maps.shape)
    sizes = len(around.by_row), len(around.by_column)
    numbers = jax.lax.GatherDimensionNumbers(
        offset_dims=(2, 3), collapsed_slice_dims=(0,), start_index_map=(0, 1, 2)
    )

    @jax.vmap
    def windows(maps: Array, channel: Array, row: Array, column: Array) -> Array:
        index = jnp.stack([jnp.zeros_like(row) + channel[:, None], row, column], -1)
        return jax.lax.gather(maps, index, numbers, (1, *sizes), mode="promise_in_bounds")

    window = windows(maps, channel, around.row, around.column)
    take = lambda i, j: (window[..., i, j], around.by_row[i] * around.by_column[j])
    return _weighted(take, around)


class _Around(NamedTuple):
    """The two by two pixels around each point, fewer of maps with one row or column.

    Attributes:
      row: The upper row, int32.
      column: The left column, int32.
      index: The upper left pixel's place in the map, int32.
      by_row: The weight of each row, 0 where the point is not near to it.
      by_column: The weight of each column.
    """

    row: Array
    column: Array
    index: Array
    by_row: tuple[Array, ...]
    by_column: tuple[Array, ...]


def _around(where: Array, shape: tuple[int, ...]) -> _Around:
    """The pixels around points of maps `[..., h, w]`."""
    row, by_row = _pixels(where[..., 1], shape[-2])
    column, by_column = _pixels(where[..., 0], shape[-1])
    return _Around(row, column, row * shape[-1] + column, by_row, by_column)


def _pixels(place: Array, size: int) -> tuple[Array, tuple[Array, ...]]:
    """The first of the two pixels around each place in [0, 1], and the weights of both."""
    middle = place * size - 0.5
    first = jnp.clip(jnp.floor(middle), 0, max(size - 2, 0))
    near = [jnp.maximum(1 - jnp.abs(middle - first - i), 0) for i in range(min(size, 2))]
    return first.astype(jnp.int32), tuple(near)


def _weighted(take: Callable[[int, int], tuple[Array, Array]], around: _Around) -> Array:
    """The weighted sum of the pixels; one without weight reaches nothing, not even as NaN."""
    total: Any = 0
    for i in range(len(around.by_row)):
        for j in range(len(around.by_column)):
            value, weight = take(i, j)
            total = total + weight * jnp.where(weight > 0, value.astype(weight.dtype), 0)
    return total
