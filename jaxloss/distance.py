"""Exact Euclidean distance transforms of boolean masks, and the maps that losses make of them.

With `f` zero on the background and infinite elsewhere, one pass per spatial axis replaces `f` by
the lower envelope of parabolas::

    f(i) <- min_j f(j) + (spacing (i - j))^2

and after the last axis `f` is the squared distance. Every pass is exact. On a GPU or TPU it is one
fused reduction over `j`, which never stores the pairs `(i, j)`; on a CPU it visits the neighbours
at growing distance and stops when no element can improve. One spacing for all axes means integers.

All functions share:

- `axes` are the spatial axes, one or more of any length; all other axes are batch axes. The
  spatial axes must not be sharded; the batch axes may be.
- `sampling` is the positive distance between neighbouring elements: one number, or one for each of
  `axes`; `None` is 1. It may be traced; a traced one that is not positive makes the result NaN.
- The result is float32, or float64 if `sampling` is an array of that dtype. It is a constant: its
  gradient is zero.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss._core import checks

__all__ = ["edt", "signed_distance", "squared_edt"]

Array = jax.Array
Axes = int | Sequence[int]
Sampling = ArrayLike | Sequence[ArrayLike] | None
Spacings = tuple[Array | None, ...]
State = tuple[Array, Array]

_SHIFTS, _COLUMNS = 16, 4  # visited by a CPU in one step of a loop
_BLOCK = 2**17  # elements that it keeps in its cache


def edt(
    mask: ArrayLike, *, axes: Axes = (-2, -1), sampling: Sampling = None, empty: ArrayLike = jnp.inf
) -> Array:
    """Computes the exact distance of each True element to the nearest False element.

    With `s = sampling` and `j` running over the False elements of the same image::

        edt(i) = min_j sqrt(sum_axis (s (i - j))^2)

    It is 0 on False elements. An image without a False element has no distances: it is `empty`.
    (SciPy measures that image to an element at -1; all others have SciPy's values.)

    Args:
      mask: Boolean, shape `[...]`; distances are taken inside the True regions.
      axes: The spatial axes.
      sampling: Spacing of the elements, a scalar or one number for each axis.
      empty: The value of an image without a False element, a scalar.

    Returns:
      Distances in the units of `sampling`, shape `[...]`.

    Raises:
      TypeError: If `mask` is not boolean or an axis is not an integer.
      ValueError: If `axes` repeat or are out of range, if `sampling` has another length or is not
        positive, or if `empty` is not a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import distance
      >>> mask = jnp.array([[False, True], [True, True]])
      >>> print(distance.edt(mask).round(3))
      [[0.    1.   ]
       [1.    1.414]]
      >>> print(distance.edt(mask, sampling=(4, 3)))
      [[0. 3.]
       [4. 5.]]

    Reference:
      Felzenszwalb and Huttenlocher. Distance Transforms of Sampled Functions. Theory of Computing
      8, 2012. https://doi.org/10.4086/toc.2012.v008a019
    """
    mask, axes, sampling = _checked("edt", mask, axes, sampling)
    return _edt(mask, sampling, _scalar("edt", empty, sampling), axes=axes)


def squared_edt(
    mask: ArrayLike, *, axes: Axes = (-2, -1), sampling: Sampling = None, empty: ArrayLike = jnp.inf
) -> Array:
    """Computes the square of :func:`edt`, without the rounding of a square root.

    With `s = sampling` and `j` running over the False elements of the same image::

        squared_edt(i) = min_j sum_axis (s (i - j))^2

    It is 0 on False elements. Without `sampling` the values are exact up to 2^24 and correctly
    rounded beyond (to a few units in the last place if the diagonal exceeds 2^15 elements).

    Args:
      mask: Boolean, shape `[...]`; distances are taken inside the True regions.
      axes: The spatial axes.
      sampling: Spacing of the elements, a scalar or one number for each axis.
      empty: The value of an image without a False element, a scalar; it is not squared.

    Returns:
      Squared distances, shape `[...]`.

    Raises:
      TypeError: If `mask` is not boolean or an axis is not an integer.
      ValueError: If `axes` repeat or are out of range, if `sampling` has another length or is not
        positive, or if `empty` is not a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import distance
      >>> print(distance.squared_edt(jnp.array([[False, True], [True, True]])))
      [[0. 1.]
       [1. 2.]]

    Reference:
      Felzenszwalb and Huttenlocher. Distance Transforms of Sampled Functions. Theory of Computing
      8, 2012. https://doi.org/10.4086/toc.2012.v008a019
    """
    mask, axes, sampling = _checked("squared_edt", mask, axes, sampling)
    return _squared_edt(mask, sampling, _scalar("squared_edt", empty, sampling), axes=axes)


def signed_distance(mask: ArrayLike, *, axes: Axes = (-2, -1), sampling: Sampling = None) -> Array:
    """Computes the signed distance map of the boundary loss: negative inside, 0 on the rim.

    With `d(i)` the distance to the nearest element of the other side and `s = sampling`::

        signed_distance(i) = d(i)                 outside (mask is False)
                             -(d(i) - min(s))     inside  (mask is True)

    so the inner rim is 0 (with unequal `sampling`, where it touches the outside along the finest
    axis). An image without a boundary, all False or all True, is 0 everywhere.

    Args:
      mask: Boolean, shape `[...]`; True is the inside.
      axes: The spatial axes.
      sampling: Spacing of the elements, a scalar or one number for each axis.

    Returns:
      Signed distances in the units of `sampling`, shape `[...]`.

    Raises:
      TypeError: If `mask` is not boolean or an axis is not an integer.
      ValueError: If `axes` repeat or are out of range, or if `sampling` has another length or is
        not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import distance
      >>> print(distance.signed_distance(jnp.array([[False, False, True, True, True]])))
      [[ 2.  1.  0. -1. -2.]]

    Reference:
      Kervadec, Bouchtiba, Desrosiers, Granger, Dolz and Ben Ayed. Boundary loss for highly
      unbalanced segmentation. MIDL 2019. https://arxiv.org/abs/1812.07032
    """
    mask, axes, sampling = _checked("signed_distance", mask, axes, sampling)
    return _signed_distance(mask, sampling, axes=axes)


def _checked(
    function: str, mask: ArrayLike, axes: Axes, sampling: Sampling
) -> tuple[Array, tuple[int, ...], Array | None]:
    """Returns the mask, its spatial axes, and the spacing: a scalar or one number for each axis."""
    mask = checks.boolean(function, "mask", mask)
    axes = checks.axes(function, axes, mask.ndim)
    if sampling is None:
        return mask, axes, None
    listed = isinstance(sampling, (list, tuple))
    values: Sequence[Any] = sampling if listed else (sampling,)  # type: ignore[assignment]
    dtypes = [jnp.asarray(value).dtype for value in values if hasattr(value, "dtype")]
    dtype = jnp.float64 if jnp.float64 in dtypes else jnp.float32
    numbers = [checks.number(function, "sampling", v, dtype, "(0, inf)") for v in values]
    spacing = jnp.asarray(numbers, dtype) if listed else numbers[0]
    if spacing.shape not in ((), (len(axes),)):
        expected = f"a scalar or one number for each of the {len(axes)} axes"
        checks.fail(ValueError, function, "sampling", f"of shape {spacing.shape}", expected)
    return mask, axes, spacing


def _scalar(function: str, empty: ArrayLike, sampling: Array | None) -> Array:
    dtype = jnp.float32 if sampling is None else sampling.dtype
    empty = checks.real(function, "empty", empty, dtype)
    checks.shape(function, "empty", empty, (), "one value for the images without a False element")
    return empty


@functools.partial(jax.jit, static_argnames="axes")
def _edt(mask: Array, sampling: Array | None, empty: Array, *, axes: tuple[int, ...]) -> Array:
    squared, missing, unit = _squared_distance(mask, sampling, axes)
    return lax.stop_gradient(jnp.where(missing, empty, unit * jnp.sqrt(squared)))


@functools.partial(jax.jit, static_argnames="axes")
def _squared_edt(
    mask: Array, sampling: Array | None, empty: Array, *, axes: tuple[int, ...]
) -> Array:
    squared, missing, unit = _squared_distance(mask, sampling, axes)
    return lax.stop_gradient(jnp.where(missing, empty, unit * unit * squared))


@functools.partial(jax.jit, static_argnames="axes")
def _signed_distance(mask: Array, sampling: Array | None, *, axes: tuple[int, ...]) -> Array:
    rim = lax.stop_gradient(_unit(sampling))
    outside = _edt(~mask, sampling, jnp.zeros_like(rim), axes=axes)
    inside = _edt(mask, sampling, rim, axes=axes)
    return jnp.where(mask, rim - inside, outside)


def _unit(sampling: Array | None) -> Array:
    return jnp.ones((), jnp.float32) if sampling is None else jnp.min(sampling)


def _squared_distance(
    mask: Array, sampling: Array | None, axes: tuple[int, ...]
) -> tuple[Array, Array, Array]:
    """Returns squared distances, where there are none, and the smallest spacing, their unit.

    The unit keeps the squares of tiny and huge spacings inside the dtype.
    """
    unit = lax.stop_gradient(_unit(sampling))
    if mask.size == 0:
        return mask.astype(unit.dtype), mask, unit
    ratios = jnp.ones(()) if sampling is None else lax.stop_gradient(sampling) / unit
    diagonal = sum((mask.shape[axis] - 1) ** 2 for axis in axes)
    spacings: Spacings = (None,) * len(axes)
    if ratios.ndim == 1 or diagonal >= _far(jnp.int32):
        ratios = jnp.broadcast_to(ratios.astype(unit.dtype), (len(axes),))
        spacings = tuple(ratios[n].reshape((1,) * mask.ndim) for n in range(len(axes)))
    last = tuple(range(-len(axes), 0))
    squared = jnp.moveaxis(_parabolic_passes(jnp.moveaxis(mask, axes, last), spacings), last, axes)
    missing = (squared >= _far(squared.dtype)) & (unit > 0)  # a unit of NaN must reach the result
    return squared.astype(unit.dtype), missing, unit


@jax.custom_batching.custom_vmap
def _parabolic_passes(mask: Array, spacings: Spacings) -> Array:
    """Squared distances over the last `len(spacings)` axes; a `None` spacing is the integer 1.

    Where an image has no False element the result is at least `_far`.
    """
    return lax.platform_dependent(
        mask, spacings, cpu=_passes_by_neighbours, default=_passes_by_reduction
    )


@_parabolic_passes.def_vmap
def _mapped(
    size: int, mapped: tuple[Any, Any], mask: Array, spacings: Spacings
) -> tuple[Array, bool]:
    """A mapped axis is one more batch axis: the loops below stay loops over scalars."""
    mask_mapped, spacings_mapped = mapped
    if not mask_mapped:
        mask = jnp.broadcast_to(mask, (size, *mask.shape))
    spacings = tuple(
        s if s is None or is_mapped else s[None]
        for s, is_mapped in zip(spacings, spacings_mapped, strict=True)
    )
    return _parabolic_passes(mask, spacings), True


def _far(dtype: Any) -> int | float:
    """Stands for infinity; a squared distance can be added to it without overflow."""
    return 2**30 if dtype == jnp.int32 else float(jnp.finfo(dtype).max) / 4


def _cost(offset: Array, spacing: Array | None) -> Array:
    """The squared distance that an offset of whole elements adds."""
    return offset**2 if spacing is None else (offset.astype(spacing.dtype) * spacing) ** 2


def _lesser(a: Array, b: Array) -> Array:
    """The minimum of numbers that are not NaN: on a CPU half the time of `jnp.minimum`."""
    return jnp.where(a < b, a, b)


def _passes_by_reduction(mask: Array, spacings: Spacings) -> Array:
    dtype = jnp.int32 if spacings[0] is None else spacings[0].dtype
    f = jnp.where(mask, jnp.asarray(_far(dtype), dtype), jnp.zeros((), dtype))
    for axis, spacing in zip(range(-len(spacings), 0), spacings, strict=True):
        f = _envelope_by_reduction(f, f.ndim + axis, spacing)
    return f


def _envelope_by_reduction(f: Array, axis: int, spacing: Array | None) -> Array:
    """The minimum over all j at once: a compiler fuses it and never stores the pairs (i, j)."""
    position = jnp.arange(f.shape[axis], dtype=jnp.int32)
    offset = position[:, None] - position[None, :]
    offset = jnp.expand_dims(offset, [a for a in range(f.ndim + 1) if a not in (axis, axis + 1)])
    spacing = None if spacing is None else jnp.expand_dims(spacing, axis)
    return jnp.min(jnp.expand_dims(f, axis) + _cost(offset, spacing), axis=axis + 1)


def _passes_by_neighbours(mask: Array, spacings: Spacings) -> Array:
    """One pass over the whole mask, then the others block by block, which stay in the cache."""
    first = mask.ndim - len(spacings)
    size, steps = mask.shape[first], _steps_to_false(mask, first)
    dtype = jnp.int32 if spacings[0] is None else spacings[0].dtype
    far = jnp.asarray(_far(dtype), dtype)

    def squared(steps: Array) -> Array:
        return jnp.where(steps < size, _cost(steps.astype(jnp.int32), spacings[0]), far)

    if len(spacings) == 1:
        return squared(steps)
    block = max(1, min(size, _BLOCK * size // mask.size))

    def transform(n: Array, out: Array) -> Array:
        start = jnp.minimum(n * block, size - block)
        f = squared(lax.dynamic_slice_in_dim(steps, start, block, first))
        for axis in range(1, len(spacings)):
            f = _envelope_by_neighbours(f, first, first + axis, spacings[axis])
        return lax.dynamic_update_slice_in_dim(out, f, start, first)

    return lax.fori_loop(0, -(-size // block), transform, jnp.zeros_like(steps, dtype))


def _steps_to_false(mask: Array, axis: int) -> Array:
    """Counts the steps to the nearest False element along one axis, forth and back."""
    size = mask.shape[axis]
    rows = jnp.moveaxis(mask, axis, 0)
    start = jnp.full_like(rows[0], size, dtype=jnp.int16 if size < 2**14 else jnp.int32)

    def forth(count: Array, row: Array) -> State:
        count = jnp.where(row, count + 1, 0)
        return count, count

    def back(count: Array, row_and_above: State) -> State:
        row, above = row_and_above
        count = jnp.where(row, count + 1, 0)
        return count, jnp.minimum(count, above)

    _, above = lax.scan(forth, start, rows)
    _, steps = lax.scan(back, start, (rows, above), reverse=True)
    return jnp.moveaxis(steps, 0, axis)


def _envelope_by_neighbours(f: Array, first: int, axis: int, spacing: Array | None) -> Array:
    """The minimum over growing shifts, or over columns where few of them hold a distance.

    No shift k can lower a line whose largest value exceeds its smallest by no more than k^2. A line
    far from everything needs all shifts; half as many as there are columns cost what these cost.
    """
    size = f.shape[axis]
    others = tuple(a for a in range(first, f.ndim) if a != axis)
    holds = jnp.any(f < _far(f.dtype), axis=others, keepdims=True)
    columns = jnp.max(jnp.sum(holds, axis=axis, dtype=jnp.int32))
    lowest = jnp.min(f, axis=axis, keepdims=True)
    reach = size // 2 + _SHIFTS
    padding = [(reach, reach) if a == axis else (0, 0) for a in range(f.ndim)]
    padded = jnp.pad(f, padding, constant_values=_far(f.dtype))

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

    shift, best = lax.while_loop(unfinished, visit_shifts, (jnp.int32(1), f))
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
