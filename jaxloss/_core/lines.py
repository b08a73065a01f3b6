"""Positions on one axis, before or behind the classes.

A GPU's compiler tries out tiles of every size along every axis, and has the fewer to try where one
axis lies between images and classes: counts of many classes it compiles far sooner.
What it makes of counts and costs of ids is the same. A CPU's vectorises the last axis only, which
few classes do not fill.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxloss._core import classes
from jaxloss._core.platforms import bind
from jaxloss._core.sharding import blocks

Array = jax.Array

CLASSES = 2  # the axis of the classes in lines
PLANES = 1  # in planes
FEW = 6  # of which a CPU makes planes where they lie last
TILE = 16  # positions, of half precision; of others 8


def pays(x: Array, axis: int) -> bool:
    """Whether the positions of an array have several axes that may be one, on the same devices."""
    between = range(1, axis)
    return axis == x.ndim - 1 and len(between) > 1 and all(blocks(x, i) == 1 for i in between)


def are_tiles(x: Array) -> bool:
    """Whether a TPU, too, has them on one axis without copying: it keeps up to 16 in a tile."""
    return x.shape[-2] % TILE == 0


def planes_pay(x: Array, axis: int) -> bool:
    """Whether a CPU is faster with classes before positions: it moves few that are last."""
    if axis == x.ndim - 1:
        return axis > 0 and x.shape[axis] <= FEW and blocks(x, axis) == 1
    return axis == PLANES and classes.are_planes(x, axis)


def in_lines(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function of arrays `[B, N, C]` one of `[B, ..., C]`, by merging the axes between.

    So it does in all arguments that have the positions of the first, with its classes or without. A
    result in the shape of the first gets that shape back; the rest are sums.
    """
    return bind(_in_lines, function=function)


def _in_lines(x: Array, *others: Any, function: Callable[..., Any]) -> Any:
    results = function(*(_merged(a, x.shape, x.ndim - 1) for a in (x, *others)))
    return jax.tree.map(lambda r: r.reshape(x.shape) if r.ndim > CLASSES else r, results)


def in_planes(function: Callable[..., Any], axis: int) -> Callable[..., Any]:
    """Makes a function of arrays `[B, C, ...]` one of arrays whose classes lie at `axis`.

    Classes that are there stay. Else the positions are merged as by `in_lines`, since a CPU moves
    one axis as fast as it copies and several half as fast, unless devices may have parts of them.
    """
    return bind(_in_planes, function=function, axis=axis)


def _in_planes(x: Array, *others: Any, function: Callable[..., Any], axis: int) -> Any:
    if axis == PLANES and x.ndim > 2:
        return function(x, *others)
    shape = (1, *x.shape) if x.ndim == 2 else x.shape
    at = axis + len(shape) - x.ndim
    pixels = classes.positions(len(shape), at)
    merge = all(blocks(x, i - len(shape)) == 1 for i in pixels)

    def moved(a: Any) -> Any:
        if a is None or jnp.ndim(a) != x.ndim:
            return a
        a = a.reshape(1, *a.shape) if x.ndim == 2 else a
        return jnp.moveaxis(_merged(a, shape, at) if merge else a, -1, PLANES)

    def restored(r: Array) -> Array:
        if r.ndim < 3:
            return r
        # Before the barrier a compiler writes it over another array of the shape it has there.
        return jnp.moveaxis(jax.lax.optimization_barrier(r), PLANES, -1).reshape(x.shape)

    return jax.tree.map(restored, function(*map(moved, (x, *others))))


def _merged(a: Any, shape: tuple[int, ...], axis: int) -> Any:
    """Merges the axes of positions of an array in the rank of that shape or of its positions."""
    if a is None or jnp.ndim(a) < len(shape) - 1:
        return a
    pixels = classes.positions(a.ndim, axis if a.ndim == len(shape) else None)
    before, behind = a.shape[: pixels[0]], a.shape[pixels[-1] + 1 :]
    if math.prod(a.shape[i] for i in pixels) > 1:
        sizes = (shape[i] for i in classes.positions(len(shape), axis))
        a = jnp.broadcast_to(a, (*before, *sizes, *behind))
    return a.reshape(*before, -1, *behind)
