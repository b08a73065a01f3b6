"""Exact squared Euclidean distances to the nearest element that is not like this one.

With `f` infinite at first, one pass per spatial axis replaces `f` by the lower envelope of
parabolas along that axis::

    f(i) <- min_j (f(j) if j is like i else 0) + (spacing (i - j))^2

and after the last axis `f` is the squared distance. What is alike is up to the elements: of a
boolean mask, the True ones, and the False ones are at distance 0; of integers, those of one label.
So one transform measures all labels of a map at once.

Every pass is exact. On a GPU or TPU it is one fused reduction over `j`, which never stores the
pairs `(i, j)`; on a CPU it visits the neighbours at growing distance and stops when no element can
improve. One spacing for all axes means integers.

The first pass counts steps, in blocks of a line that each know the others by their ends only. So
one spatial axis may lie on several devices: the first, or on a mesh of Explicit axes any.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss._core import blocks, sharding
from jaxloss._core.blocks import far
from jaxloss._core.platforms import by_platform
from jaxloss._core.reduction import AxisName

Array = jax.Array
Spacings = tuple[Array | None, ...]
State = tuple[Array, Array]

_SHIFTS, _COLUMNS = 16, 4  # visited by a CPU in one step of a loop
_CACHED = 2**17  # elements that it keeps in its cache
_SMALL = 32  # the largest side up to which it takes the reduction, which compiles faster


class Distance(NamedTuple):
    """Distances in a unit, the smallest spacing, which keeps their squares inside the dtype.

    Attributes:
      squared: Squared distances over the squared unit.
      missing: True where an image has no other element to measure to; `squared` means nothing.
      unit: A scalar.
    """

    squared: Array
    missing: Array
    unit: Array

    def plain(self, empty: Array | float) -> Array:
        """The distances, `empty` where there are none: constants for the derivative."""
        found = self.unit * jnp.sqrt(self.squared)
        return lax.stop_gradient(jnp.where(self.missing, empty, found))


def unit_of(sampling: Array | None) -> Array:
    """The smallest spacing."""
    return jnp.ones((), jnp.float32) if sampling is None else jnp.min(sampling)


def transform(
    elements: Array,
    sampling: Array | None,
    axes: tuple[int, ...],
    axis_name: AxisName | None = None,
) -> Distance:
    """Measures the distance from each element to the nearest one that is not like it.

    Args:
      elements: Boolean: from True to the nearest False element, 0 on the False ones. Integer: from
        each to the nearest of another label.
      sampling: The spacing, a scalar or one number for each axis; None: 1.
      axes: The spatial axes, non-negative.
      axis_name: The mesh axis over which `shard_map` has split the first of them.
    """
    unit = lax.stop_gradient(unit_of(sampling))
    if elements.size == 0:
        nothing = jnp.zeros_like(elements, unit.dtype)
        return Distance(nothing, nothing == 0, unit)
    ratios = jnp.ones(()) if sampling is None else lax.stop_gradient(sampling) / unit
    diagonal = sum((elements.shape[axis] - 1) ** 2 for axis in axes)
    if axis_name is not None:
        diagonal += (elements.shape[axes[0]] * lax.axis_size(axis_name) - 1) ** 2
    spacings: Spacings = (None,) * len(axes)
    if ratios.ndim == 1 or diagonal >= far(jnp.int32):
        ratios = jnp.broadcast_to(ratios.astype(unit.dtype), (len(axes),))
        spacings = tuple(ratios[n].reshape((1,) * (elements.ndim + 1)) for n in range(len(axes)))
    squared = _first_in_blocks(elements, spacings, axes, axis_name)
    missing = (squared >= far(squared.dtype)) & (unit > 0)  # a unit of NaN must reach the result
    return Distance(squared.astype(unit.dtype), missing, unit)


def _first_in_blocks(
    elements: Array, spacings: Spacings, axes: tuple[int, ...], axis_name: AxisName | None
) -> Array:
    """Puts the axis that is split before the others, in blocks, and all of them last."""
    devices = {axis: sharding.shards(elements, axis) for axis in axes}
    order = sorted(range(len(axes)), key=lambda n: -devices[axes[n]])
    first, *others = (axes[n] for n in order)
    size, last = elements.shape[first], tuple(range(-len(axes), 0))
    small = axis_name is not None or size <= _SMALL
    count = devices[first] if small else sharding.blocks(elements, first)
    moved = jnp.moveaxis(sharding.whole(elements, others), (first, *others), last)
    before, after = moved.shape[: -len(axes)], moved.shape[1 - len(axes) :] if others else ()
    parts = moved.reshape(*before, count, size // count, *after)
    edges = blocks.beyond(parts, len(before), axis_name)
    squared = _passes(parts, edges, tuple(spacings[n] for n in order))
    return sharding.like(
        elements, jnp.moveaxis(squared.reshape(moved.shape), last, (first, *others))
    )


@jax.custom_batching.custom_vmap
def _passes(elements: Array, edges: tuple[Array, Array], spacings: Spacings) -> Array:
    """Squared distances over the last axes, one for each spacing; `None` is the integer 1.

    The axis of the first spacing is in blocks, which are along the axis before it, with steps
    beyond the `edges`. Where an image has no other element the result is at least `far`.
    """
    if max(elements.shape[-len(spacings) :]) <= _SMALL:
        return _passes_by_reduction(elements, edges, spacings)
    return by_platform(
        elements, edges, spacings, cpu=_passes_by_neighbours, default=_passes_by_reduction
    )


@_passes.def_vmap
def _mapped(
    size: int,
    mapped: tuple[Any, ...],
    elements: Array,
    edges: tuple[Array, Array],
    spacings: Spacings,
) -> tuple[Array, bool]:
    """A mapped axis is one more batch axis: the loops below stay loops over scalars."""
    elements_mapped, edges_mapped, spacings_mapped = mapped

    def of_batch(x: Array, is_mapped: bool) -> Array:
        return x if is_mapped else jnp.broadcast_to(x, (size, *x.shape))

    elements = of_batch(elements, elements_mapped)
    edges = (of_batch(edges[0], edges_mapped[0]), of_batch(edges[1], edges_mapped[1]))
    spacings = tuple(
        s if s is None or is_mapped else s[None]
        for s, is_mapped in zip(spacings, spacings_mapped, strict=True)
    )
    return _passes(elements, edges, spacings), True


def _cost(offset: Array, spacing: Array | None) -> Array:
    """The squared distance that an offset of whole elements adds."""
    return offset**2 if spacing is None else (offset.astype(spacing.dtype) * spacing) ** 2


def _cost_of_steps(steps: Array, spacing: Array | None) -> Array:
    """The squared distance of a number of steps, which may be `far`."""
    dtype = jnp.int32 if spacing is None else spacing.dtype
    cost = _cost(steps.astype(jnp.int32), spacing)
    return jnp.where(steps < far(steps.dtype), cost, jnp.asarray(far(dtype), dtype))


def _lesser(a: Array, b: Array) -> Array:
    """The minimum of numbers that are not NaN: on a CPU half the time of `jnp.minimum`."""
    return jnp.where(a < b, a, b)


def _passes_by_reduction(elements: Array, edges: tuple[Array, Array], spacings: Spacings) -> Array:
    rows = elements.ndim - len(spacings)
    f = _first_by_reduction(elements, edges, rows, spacings[0])
    for axis, spacing in enumerate(spacings[1:], rows + 1):
        f = _envelope_by_reduction(f, elements, axis, spacing)
    return f


def _offsets(size: int, axis: int, rank: int) -> Array:
    """I - j for all i along `axis` and j along the next, of an array with so many more axes."""
    position = jnp.arange(size, dtype=jnp.int32)
    offset = position[:, None] - position[None, :]
    return jnp.expand_dims(offset, [a for a in range(rank + 1) if a not in (axis, axis + 1)])


def _first_by_reduction(
    elements: Array, edges: tuple[Array, Array], axis: int, spacing: Array | None
) -> Array:
    """The squared steps to the nearest unlike element: in the block, or beyond a row at its edge.

    All is inside the reduction, after which a GPU would need another kernel.
    """
    size = elements.shape[axis]
    row = jnp.arange(size, dtype=jnp.int32)
    row = jnp.expand_dims(row, [a for a in range(elements.ndim) if a != axis])
    outwards = jnp.full_like(elements, far(jnp.int32), jnp.int32)
    for edge, at in zip(edges, (0, size - 1), strict=True):
        edge = jnp.expand_dims(edge, axis)
        reaches = (row == at) & (edge < far(edge.dtype))
        outwards = jnp.where(reaches, jnp.minimum(outwards, edge.astype(jnp.int32)), outwards)
    alike = jnp.expand_dims(elements, axis) == jnp.expand_dims(elements, axis + 1)
    steps = jnp.where(alike, jnp.expand_dims(outwards, axis), 0)
    steps = steps + jnp.abs(_offsets(size, axis, elements.ndim))
    f = _cost_of_steps(steps, None if spacing is None else jnp.expand_dims(spacing, axis))
    if elements.dtype == bool:
        f = jnp.where(jnp.expand_dims(elements, axis + 1), f, 0)
    return jnp.min(f, axis=axis + 1)


def _envelope_by_reduction(f: Array, elements: Array, axis: int, spacing: Array | None) -> Array:
    """The minimum over all j at once: a compiler fuses it and never stores the pairs (i, j)."""
    offset = _offsets(f.shape[axis], axis, f.ndim)
    spacing = None if spacing is None else jnp.expand_dims(spacing, axis)
    source = jnp.expand_dims(f, axis)
    if elements.dtype != bool:
        alike = jnp.expand_dims(elements, axis) == jnp.expand_dims(elements, axis + 1)
        source = jnp.where(alike, source, 0)
    return jnp.min(source + _cost(offset, spacing), axis=axis + 1)


def _passes_by_neighbours(elements: Array, edges: tuple[Array, Array], spacings: Spacings) -> Array:
    """One pass over all elements, then the others a few rows at a time, which stay in the cache.

    A few rows of each block: a slice across the blocks would take them from their devices.
    """
    rows = elements.ndim - len(spacings)
    size = elements.shape[rows]
    # The other labels on a line are met by counting steps. Then a parabola of another label, which
    # is no shorter, does no harm, and the loop over shifts need not know the labels.
    counted = len(spacings) if elements.dtype != bool else 1
    steps = [_steps(elements, rows, edges)]
    steps += [_steps(elements, rows + axis) for axis in range(1, counted)]

    def along(axis: int, start: Array, length: int) -> Array:
        count = lax.dynamic_slice_in_dim(steps[axis], start, length, rows + 1 if axis else 0)
        return _cost_of_steps(jnp.moveaxis(count, 0, rows + axis), spacings[axis])

    if len(spacings) == 1:
        return along(0, jnp.int32(0), size)
    length = max(1, min(size, _CACHED * size // elements.size))

    def transform(n: Array, out: Array) -> Array:
        start = jnp.minimum(n * length, size - length)
        f = along(0, start, length)
        for axis in range(1, len(spacings)):
            best = _lesser(f, along(axis, start, length)) if axis < counted else f
            f = _envelope_by_neighbours(f, best, rows - 1, rows + axis, spacings[axis])
        return lax.dynamic_update_slice_in_dim(out, f, start, rows)

    dtype = jnp.int32 if spacings[0] is None else spacings[0].dtype
    return lax.fori_loop(0, -(-size // length), transform, jnp.zeros_like(elements, dtype))


def _steps(elements: Array, axis: int, edges: tuple[Array, Array] | None = None) -> Array:
    """Counts the steps to the nearest unlike element along one axis, which becomes the first."""
    rows = jnp.moveaxis(elements, axis, 0)
    if edges is None:
        dtype = blocks.steps_dtype(len(rows))
        edges = (jnp.full_like(rows[0], far(dtype), dtype),) * 2

    def onwards(state: State, row: Array) -> State:
        count, last = state
        if elements.dtype == bool:
            return jnp.where(row, count + 1, 0), row
        return jnp.where(row == last, count + 1, 1), row

    def forth(state: State, row: Array) -> tuple[State, Array]:
        state = onwards(state, row)
        return state, state[0]

    def back(state: State, row_and_above: State) -> tuple[State, Array]:
        row, above = row_and_above
        state = onwards(state, row)
        return state, jnp.minimum(state[0], above)

    # One step before the first row that counts from an edge, its own row.
    above_first, below_last = (edge - 1 for edge in edges)
    _, above = lax.scan(forth, (above_first, rows[0]), rows)
    return lax.scan(back, (below_last, rows[-1]), (rows, above), reverse=True)[1]


def _envelope_by_neighbours(
    f: Array, best: Array, first: int, axis: int, spacing: Array | None
) -> Array:
    """Lowers `best` at growing shifts, or to the columns where few of them hold a distance.

    No shift k can lower a line whose largest value exceeds its smallest by no more than k^2. A line
    far from everything needs all shifts; half as many as there are columns cost what these cost.
    """
    size = f.shape[axis]
    others = tuple(a for a in range(first, f.ndim) if a != axis)
    holds = jnp.any(f < far(f.dtype), axis=others, keepdims=True)
    columns = jnp.max(jnp.sum(holds, axis=axis, dtype=jnp.int32))
    lowest = jnp.min(f, axis=axis, keepdims=True)
    reach = size // 2 + _SHIFTS
    padding = [(reach, reach) if a == axis else (0, 0) for a in range(f.ndim)]
    padded = jnp.pad(f, padding, constant_values=far(f.dtype))

    def improvable(shift: Array, best: Array) -> Array:
        highest = jnp.max(best, axis=axis, keepdims=True)
        return jnp.any(highest - lowest > _cost(shift, spacing))

    def unfinished(state: State) -> Array:
        shift, best = state
        return (shift <= columns // 2) & improvable(shift, best)

    def visit_shifts(state: State) -> State:
        shift, best = state
        for k in range(_SHIFTS):
            left = lax.dynamic_slice_in_dim(padded, reach - shift - k, size, axis)
            right = lax.dynamic_slice_in_dim(padded, reach + shift + k, size, axis)
            best = _lesser(best, _lesser(left, right) + _cost(shift + k, spacing))
        return shift + _SHIFTS, best

    def visit_columns(best: Array) -> Array:
        order = jnp.argsort(~holds, axis=axis).astype(jnp.int32)
        return _visit_columns(f, best, order, -(-columns // _COLUMNS), axis, spacing)

    shift, best = lax.while_loop(unfinished, visit_shifts, (jnp.int32(1), best))
    return lax.cond(improvable(shift, best), visit_columns, lambda best: best, best)


def _visit_columns(
    f: Array, best: Array, order: Array, steps: Array, axis: int, spacing: Array | None
) -> Array:
    """Lowers `best` to the parabolas of the first `steps * _COLUMNS` columns in `order`."""
    shape = [f.shape[axis] if a == axis else 1 for a in range(f.ndim)]
    position = lax.broadcasted_iota(jnp.int32, shape, axis)

    def visit(n: Array, best: Array) -> Array:
        for k in range(_COLUMNS):
            column = lax.dynamic_slice_in_dim(order, n * _COLUMNS + k, 1, axis)
            value = jnp.take_along_axis(f, column, axis)
            best = _lesser(best, value + _cost(position - column, spacing))
        return best

    return lax.fori_loop(0, steps, visit, best)
