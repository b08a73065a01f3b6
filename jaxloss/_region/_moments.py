"""Means and variances of masks in weighted windows, an axis at a time.

Along each axis the variance in a window is the mean of the variances plus the variance of the
means. Both are sums of what differs from a pixel inside, so that next to nothing cancels; nothing
of the window's size is stored.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss._core import numerics, sharding
from jaxloss._core.chunks import is_large
from jaxloss._core.platforms import by_platform
from jaxloss._core.sharding import varying

Array = jax.Array


class Moments(NamedTuple):
    """What windows hold of two maps, which stand one behind the other along the first axis.

    Attributes:
      weight: The weight of their pixels, of both maps alike; None: all 1.
      mean: The means.
      variance: The variances.
    """

    weight: Array | None
    mean: Array
    variance: Array


def of_pixels(weight: Array | None, values: Array) -> Moments:
    """The moments of windows of one pixel."""
    return Moments(weight, values, jnp.zeros_like(values))


def in_windows(pixels: Moments, shares: Sequence[Array], axes: Sequence[int]) -> Moments:
    """Returns the moments in all windows that lie inside of the image.

    Where devices share the rows of an image, each needs no more of the others than the rows that
    its last windows reach. Windows that begin too late then have weight 0.

    Args:
      pixels: Arrays of one rank, the weight with the sizes of the image along the axes.
      shares: The weights of a window's pixels along each of the axes.
      axes: Not negative. Of them the first may be split, or one on a mesh of Explicit axes.
    """
    size = pixels.mean.shape
    split = max(axes, key=lambda axis: sharding.shards(pixels.mean, axis))
    window = shares[axes.index(split)].size
    count = _number(pixels.mean, split, window)
    at_home = [a for a in axes if a != split or count == 1]
    found = jax.tree.map(lambda a: sharding.whole(a, at_home), Moments(*varying(*pixels)))
    if count > 1:
        found = jax.tree.map(lambda a: _with_halo(a, split, count, window - 1), found)
    for share, axis in zip(shares, axes, strict=True):
        found = _along(found, share, axis + (count > 1 and axis >= split))
    if count == 1:
        return found
    found = jax.tree.map(lambda a: a.reshape(*a.shape[:split], -1, *a.shape[split + 2 :]), found)
    rows = [n if axis == split else 1 for axis, n in enumerate(found.mean.shape)]
    start = lax.broadcasted_iota(jnp.int32, rows, split)
    inside = (start + window <= size[split]).astype(found.mean.dtype)
    return found._replace(weight=inside if found.weight is None else inside * found.weight)


def _number(x: Array, axis: int, window: int) -> int:
    """Into how many blocks to part the rows, each of which holds what a window reaches beyond."""
    count = sharding.blocks(x, axis)
    return count if count > 1 and window - 1 <= x.shape[axis] // count else 1


def _with_halo(x: Array, axis: int, count: int, width: int) -> Array:
    """Parts an axis into blocks, each with the first rows of the next behind its own, or zeros."""
    rows = x.reshape(*x.shape[:axis], count, x.shape[axis] // count, *x.shape[axis + 1 :])
    first = lax.slice_in_dim(rows, 0, width, axis=axis + 1)
    shift = [(-1, 1, 0) if a == axis else (0, 0, 0) for a in range(rows.ndim)]
    return lax.concatenate([rows, lax.pad(first, jnp.zeros((), x.dtype), shift)], axis + 1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _along(pixels: Moments, shares: Array, axis: int) -> Moments:
    """The moments in windows along an axis, of which each pixel takes its part."""
    point = _shifted(pixels, shares.size // 2, shares.size, axis).mean
    if pixels.weight is not None:  # the pixel in the middle may have none, and be far from all
        weight, mean, _ = _sum(_about(point), pixels, shares, axis)
        point = point + numerics.divide(mean, weight)
    weight, mean, square = _sum(_about(point), pixels, shares, axis)
    if weight is not None:
        mean, square = numerics.divide(mean, weight), numerics.divide(square, weight)
    return Moments(weight, point + mean, square - mean**2)


def _about(point: Array, variance: Array | float = 0) -> Callable[..., Moments]:
    """What a pixel of some share adds to the moments about a point, beyond a variance."""

    def of(pixel: Moments, share: Array) -> Moments:
        weight = share if pixel.weight is None else share * pixel.weight
        away = pixel.mean - point
        spread = pixel.variance - variance + away**2
        return Moments(None if pixel.weight is None else weight, weight * away, weight * spread)

    return of


@_along.defjvp
def _(
    axis: int, primals: tuple[Moments, Array], tangents: tuple[Moments, Array]
) -> tuple[Moments, Moments]:
    found = _along(*primals, axis)
    moved = jax.checkpoint(functools.partial(_moved, axis=axis), prevent_cse=False)
    return found, moved(found, primals, tangents)


def _moved(
    found: Moments,
    primals: tuple[Moments, Array],
    tangents: tuple[Moments, Array],
    axis: int,
) -> Moments:
    """The derivative is that of the sums of what differs from the moments found, which are 0."""
    difference = _about(found.mean, found.variance)
    differences = functools.partial(_sum, difference, axis=axis)
    weight, *moved = jax.jvp(differences, primals, tangents)[1]
    if weight is not None:
        moved = [numerics.divide(x, found.weight) for x in moved]
    return Moments(weight, *moved)


def _sum(term: Callable[..., Any], pixels: Moments, shares: Array, axis: int) -> Any:
    """Returns the sum of `term(pixel, share)` of the pixels in each window.

    A GPU's compiler makes one loop of the sum written out, which is for large images. Others would
    write every term to memory: they take one after the other.
    """
    of = jax.jit(term)  # which is traced once

    def written_out(pixels: Moments, shares: Array) -> Any:
        each = [of(_shifted(pixels, k, shares.size, axis), share) for k, share in enumerate(shares)]
        return jax.tree.map(lambda *values: functools.reduce(jnp.add, values), *each)

    def in_turn(pixels: Moments, shares: Array) -> Any:
        @functools.partial(jax.checkpoint, prevent_cse=False)
        def add(sums: Any, step: tuple[Array, Array]) -> tuple[Any, None]:
            k, share = step
            more = of(_shifted(pixels, k, shares.size, axis), share)
            return jax.tree.map(jnp.add, sums, more), None

        none = jax.tree.map(jnp.zeros_like, of(_shifted(pixels, 0, shares.size, axis), shares[0]))
        steps = jnp.arange(shares.size), shares  # a constant would be copied in another loop
        return lax.scan(add, none, steps)[0]

    if not is_large(pixels.mean):  # written out, it takes as long to trace as all else
        return in_turn(pixels, shares)
    return by_platform(pixels, shares, gpu=written_out, default=in_turn)


def _shifted(pixels: Moments, k: Array | int, window: int, axis: int) -> Moments:
    """The pixels that are the `k`-th in a window along an axis."""
    size = pixels.mean.shape[axis] - window + 1
    if isinstance(k, int):
        return jax.tree.map(lambda a: lax.slice_in_dim(a, k, k + size, axis=axis), pixels)
    return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, k, size, axis), pixels)
