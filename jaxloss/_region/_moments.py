"""Means and variances of masks in weighted windows, an axis at a time.

Along each axis the variance in a window is the mean of the variances plus the variance of the
means. A window takes one pixel after the other, so that nothing of its size is stored, and centres
what it takes, so that nothing cancels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss._core import numerics, sharding
from jaxloss._core.cost import varying

Array = jax.Array


class Moments(NamedTuple):
    """What windows hold of targets `y` and of errors `e = p - y`, at first of one pixel each.

    Attributes:
      weight: The weight of their pixels.
      y: The mean of the targets.
      error: The mean of the errors.
      spread: The variance of `y` and that of `p = y + e`, added up.
      error_spread: The variance of the errors, which would cancel in a difference of the others.
    """

    weight: Array
    y: Array
    error: Array
    spread: Array
    error_spread: Array


def of_pixels(weight: Array, y: Array, error: Array) -> Moments:
    """The moments of windows of one pixel."""
    return Moments(weight, y, error, jnp.zeros_like(error), jnp.zeros_like(error))


def in_windows(pixels: Moments, shares: Sequence[Array], axes: Sequence[int]) -> Moments:
    """Returns the moments in all windows that lie inside of the image.

    Where devices share the rows of an image, each needs no more of the others than the rows that
    its last windows reach. Windows that begin too late then have weight 0.

    Args:
      pixels: Arrays of one rank, the weight with the sizes of the image along the axes.
      shares: The weights of a window's pixels along each of the axes.
      axes: Not negative. Of them the first may be split, or one on a mesh of Explicit axes.
    """
    size = pixels.y.shape
    split = max(axes, key=lambda axis: sharding.shards(pixels.y, axis))
    window = shares[axes.index(split)].size
    count = _number(pixels.y, split, window)
    at_home = [a for a in axes if a != split or count == 1]
    found = Moments(*(sharding.whole(a, at_home) for a in varying(*pixels)))
    if count > 1:
        found = Moments(*(_with_halo(a, split, count, window - 1) for a in found))
    for share, axis in zip(shares, axes, strict=True):
        found = _along(found, share, axis + (count > 1 and axis >= split))
    if count == 1:
        return found
    found = Moments(*(a.reshape(*a.shape[:split], -1, *a.shape[split + 2 :]) for a in found))
    start = lax.broadcasted_iota(jnp.int32, found.weight.shape, split)
    inside = start + window <= size[split]
    return found._replace(weight=jnp.where(inside, found.weight, 0))


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


def _along(pixels: Moments, shares: Array, axis: int) -> Moments:
    """The moments in windows along an axis.

    About any centre `c`, with `A` the mean of `x - c` and `B` that of `(x - c)^2`, the mean is
    `c + A` and the variance `B - A^2`. They do not depend on `c`, which so has no derivative.
    """
    steps = jnp.arange(shares.size), shares
    centre = _centre(*jax.tree.map(lax.stop_gradient, (pixels, steps)), axis)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def add(sums: Moments, step: tuple[Array, Array]) -> tuple[Moments, None]:
        k, share = step
        pixel = _shifted(pixels, k, shares.size, axis)
        y, error = pixel.y - centre[0], pixel.error - centre[1]
        square = pixel.spread + y**2 + (y + error) ** 2
        terms = y, error, square, pixel.error_spread + error**2
        weight = share * pixel.weight
        added = weight, *(weight * term for term in terms)
        return Moments(*map(jnp.add, sums, added)), None

    empty = jax.tree.map(jnp.zeros_like, _shifted(pixels, 0, shares.size, axis))
    weight, *sums = lax.scan(add, empty, steps)[0]
    y, error, square, error_square = (numerics.divide(x, weight) for x in sums)
    return Moments(
        weight=weight,
        y=centre[0] + y,
        error=centre[1] + error,
        spread=square - y**2 - (y + error) ** 2,
        error_spread=error_square - error**2,
    )


def _centre(pixels: Moments, steps: tuple[Array, Array], axis: int) -> tuple[Array, Array]:
    """The means of targets and errors, run up pixel by pixel: exact where a window is flat."""

    def approach(found: tuple[Array, ...], step: tuple[Array, Array]) -> tuple[Any, None]:
        (weight, y, error), (k, share) = found, step
        pixel = _shifted(pixels, k, steps[1].size, axis)
        taken = share * pixel.weight
        weight += taken
        part = numerics.divide(taken, weight)
        return (weight, y + part * (pixel.y - y), error + part * (pixel.error - error)), None

    empty = jax.tree.map(jnp.zeros_like, _shifted(pixels, 0, steps[1].size, axis)[:3])
    return lax.scan(approach, empty, steps)[0][1:]


def _shifted(pixels: Moments, k: Array | int, window: int, axis: int) -> Moments:
    """The pixels that are the `k`-th in a window along an axis."""
    size = pixels.y.shape[axis] - window + 1
    return Moments(*(lax.dynamic_slice_in_dim(a, k, size, axis) for a in pixels))
