"""Means and variances of images in weighted windows, an axis at a time.

Along each axis the variance in a window is the mean of the variances plus the variance of the
means. A window takes one pixel after the other, so that nothing of its size is stored, and centres
what it takes, so that nothing cancels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxloss._core import blocks, checks, numerics
from jaxloss._core.cost import varying

Array = jax.Array


class Moments(NamedTuple):
    """The moments of several images in the same windows, at first of one pixel each.

    Attributes:
      weight: What each window holds.
      means: Of each image.
      variances: Of each image; None: 0.
    """

    weight: Array
    means: tuple[Array, ...]
    variances: tuple[Array, ...] | None = None


def in_windows(pixels: Moments, shares: Sequence[Array], axes: Sequence[int]) -> Moments:
    """Returns the moments in all windows that lie inside of the image.

    Where devices share the rows of an image, each needs no more of the others than the rows that
    its last windows reach. Windows that begin too late then have weight 0.

    Args:
      pixels: Arrays of one rank, the weight with the sizes of the image along the axes.
      shares: The weights of a window's pixels along each of the axes.
      axes: Not negative. Of them the first may be split, or one on a mesh of Explicit axes.
    """
    leaves, structure = jax.tree.flatten(pixels)
    shape = pixels.means[0].shape
    split = max(axes, key=lambda axis: blocks.shards(pixels.means[0], axis))
    others, window = [a for a in axes if a != split], shares[axes.index(split)].size
    count = _number(pixels.means[0], split, window)
    leaves = [blocks.whole(a, others) for a in varying(*leaves)]
    if count > 1:
        leaves = [_with_halo(a, split, count, window - 1) for a in leaves]
    found = jax.tree.unflatten(structure, leaves)
    for share, axis in zip(shares, axes, strict=True):
        if share.size == 1:  # it is 1, or NaN
            found = found._replace(weight=found.weight * share.reshape(()))
        else:
            found = _along(found, share, axis + (count > 1 and axis >= split))
    if found.variances is None:
        found = found._replace(variances=tuple(map(jnp.zeros_like, found.means)))
    if count == 1:
        return found
    leaves, structure = jax.tree.flatten(found)
    rows = [a.reshape(*a.shape[:split], shape[split], *a.shape[split + 2 :]) for a in leaves]
    found = jax.tree.unflatten(structure, rows)
    start = lax.broadcasted_iota(jnp.int32, found.weight.shape, split)
    inside = start + window <= shape[split]
    return found._replace(weight=jnp.where(inside, found.weight, 0))


def _number(x: Array, axis: int, window: int) -> int:
    """Into how many blocks to part the rows, each of which holds what a window reaches beyond."""
    count = blocks.number(x, axis) if window > 1 else 1
    rows = x.shape[axis] // max(count, 1)
    if rows >= window - 1:
        return count
    if blocks.shards(x, axis) > 1:
        expected = f"at most {rows + 1} along an axis of which each device has {rows} rows"
        checks.fail(ValueError, "window", window, expected)
    return 1


def _with_halo(x: Array, axis: int, count: int, width: int) -> Array:
    """Parts an axis into blocks, each with the first rows of the next behind its own, or zeros."""
    rows = x.reshape(*x.shape[:axis], count, x.shape[axis] // count, *x.shape[axis + 1 :])
    first = lax.slice_in_dim(rows, 0, width, axis=axis + 1)
    shift = [(-1, 1, 0) if a == axis else (0, 0, 0) for a in range(rows.ndim)]
    return lax.concatenate([rows, lax.pad(first, jnp.zeros((), x.dtype), shift)], axis + 1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _along(pixels: Moments, shares: Array, axis: int) -> Moments:
    """The moments in windows along an axis."""

    def add(total: Moments, at: tuple[Array, Array]) -> tuple[Moments, None]:
        k, share = at
        return _added(total, _shifted(pixels, k, shares.size, axis), share), None

    weight, means, _ = jax.tree.map(jnp.zeros_like, _shifted(pixels, 0, shares.size, axis))
    empty = Moments(weight, means, tuple(map(jnp.zeros_like, means)))
    found, _ = lax.scan(add, empty, (jnp.arange(shares.size), shares))
    variances = tuple(numerics.divide(total, found.weight) for total in found.variances)
    return found._replace(variances=variances)


def _added(total: Moments, pixel: Moments, share: Array) -> Moments:
    """Takes one more pixel into each window; as `variances` the total has sums of squares."""
    taken = share * pixel.weight
    weight = total.weight + taken
    part = numerics.divide(taken, weight)
    means, sums = [], []
    for mean, variance, centre, sum_ in _each(pixel, total):
        off = mean - centre
        square = off * (1 - part) * off
        means.append(centre + part * off)
        sums.append(sum_ + taken * (square if variance is None else variance + square))
    return Moments(weight, tuple(means), tuple(sums))


def _each(pixels: Moments, windows: Moments) -> Iterator[tuple[Any, ...]]:
    """Mean and variance of each image's pixels and windows."""
    for n, (mean, centre) in enumerate(zip(pixels.means, windows.means, strict=True)):
        yield mean, _variance(pixels, n), centre, _variance(windows, n)


def _variance(moments: Moments, n: int) -> Array | None:
    return None if moments.variances is None else moments.variances[n]


def _shifted(tree: Any, k: Array | int, window: int, axis: int) -> Any:
    """The pixels that are the `k`-th in a window along an axis."""
    leaves, structure = jax.tree.flatten(tree)
    parts = [lax.dynamic_slice_in_dim(a, k, a.shape[axis] - window + 1, axis) for a in leaves]
    return jax.tree.unflatten(structure, parts)


def _jvp(
    axis: int, primals: tuple[Moments, Array], tangents: tuple[Any, Any]
) -> tuple[Moments, Moments]:
    """Its derivatives are sums over the window too: of a mean, `sum h (dm) + dh (m - c)`."""
    pixels, shares = primals
    found = _along(pixels, shares, axis)
    leaves, structure = jax.tree.flatten(tangents, is_leaf=_is_zero)
    moving = [None if _is_zero(t) else t for t in leaves]
    return found, _slopes(axis, pixels, shares, found, jax.tree.unflatten(structure, moving))


_along.defjvp(_jvp, symbolic_zeros=True)


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)


def _slopes(
    axis: int, pixels: Moments, shares: Array, found: Moments, tangents: tuple[Moments, Any]
) -> Moments:
    """The derivatives of the moments along tangents, of which those that do not move are None."""
    d_pixels, d_shares = tangents
    weighs = d_pixels.weight is not None or d_shares is not None
    both = [(d_mean, _variance(d_pixels, n)) for n, d_mean in enumerate(d_pixels.means)]
    moves = [weighs or any(t is not None for t in pair) for pair in both]

    def add(total: Moments, at: tuple[Array, Array, Any]) -> tuple[Moments, None]:
        return _taken(axis, shares.size, total, at, pixels, found, d_pixels), None

    start = Moments(
        jnp.zeros_like(found.weight) if weighs else None,
        *(
            tuple(jnp.zeros_like(x) if yes else None for x, yes in zip(of_each, moves, strict=True))
            for of_each in (found.means, found.variances)
        ),
    )
    sums, _ = lax.scan(add, start, (jnp.arange(shares.size), shares, d_shares))
    return Moments(
        jnp.zeros_like(found.weight) if sums.weight is None else sums.weight,
        *(
            tuple(
                jnp.zeros_like(x) if total is None else numerics.divide(total, found.weight)
                for x, total in zip(of_each, totals, strict=True)
            )
            for of_each, totals in ((found.means, sums.means), (found.variances, sums.variances))
        ),
    )


@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=(0, 1))
def _taken(
    axis: int,
    window: int,
    total: Moments,
    at: tuple[Array, Array, Array | None],
    pixels: Moments,
    found: Moments,
    d_pixels: Moments,
) -> Moments:
    """Takes one more pixel into the sums that are the derivatives of each window."""
    k, share, d_share = at
    pixel, d_pixel = _shifted((pixels, d_pixels), k, window, axis)
    taken = share * pixel.weight
    d_taken = _sum(_times(d_share, pixel.weight), _times(d_pixel.weight, share))
    means, sums = [], []
    for n, (mean, variance, centre, spread) in enumerate(_each(pixel, found)):
        d_mean, d_variance = d_pixel.means[n], _variance(d_pixel, n)
        off = mean - centre
        square = off * off if variance is None else off * off + variance
        d_square = _sum(_times(d_mean, 2 * off), d_variance)
        means.append(_sum(total.means[n], _times(d_mean, taken), _times(d_taken, off)))
        of_weight = _times(d_taken, square - spread)
        sums.append(_sum(total.variances[n], _times(d_square, taken), of_weight))
    return Moments(_sum(total.weight, d_taken), tuple(means), tuple(sums))


def _times(tangent: Array | None, factor: Array) -> Array | None:
    return None if tangent is None else tangent * factor


def _sum(*terms: Array | None) -> Any:
    """The sum of what moves, None if nothing does."""
    moving = [term for term in terms if term is not None]
    return functools.reduce(jnp.add, moving) if moving else None
