"""The maps that losses make of distances; all but the weights between instances are constants.

They are compiled once for each shape, also when called eagerly. `sampling` is None, a scalar or one
number for each of `axes`, which are not negative. Masks are boolean. `split` is the mesh axis over
which `shard_map` has split the first of `axes`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss._core import numerics
from jaxloss._core.reduction import AxisName
from jaxloss._core.transform import Distance, transform

Array = jax.Array
Axes = tuple[int, ...]

_compiled = functools.partial(jax.jit, static_argnames=("axes", "split"))


def dtype_of(sampling: Array | None) -> Any:
    """The dtype of distances."""
    return jnp.dtype("float32") if sampling is None else sampling.dtype


@_compiled
def edt(
    mask: Array, sampling: Array | None, empty: Array, *, axes: Axes, split: AxisName | None = None
) -> Array:
    """Distances from True to False, 0 on False."""
    return transform(mask, sampling, axes, split).plain(empty)


@_compiled
def squared_edt(
    mask: Array, sampling: Array | None, empty: Array, *, axes: Axes, split: AxisName | None = None
) -> Array:
    """Their squares."""
    found = transform(mask, sampling, axes, split)
    squared = found.unit * found.unit * found.squared
    return lax.stop_gradient(jnp.where(found.missing, empty, squared))


@_compiled
def signed(
    mask: Array, sampling: Array | None, *, axes: Axes, split: AxisName | None = None
) -> Array:
    """Kervadec's map: positive outside, negative inside, 0 on the inner rim."""
    found = _to_other_side(mask, sampling, axes, split)
    distance = found.plain(jnp.where(mask, found.unit, 0))
    return jnp.where(mask, lax.stop_gradient(found.unit) - distance, distance)


@functools.partial(jax.jit, static_argnames=("axes", "normalize", "split"))
def both_sides(
    mask: Array,
    sampling: Array | None,
    *,
    axes: Axes,
    normalize: bool,
    split: AxisName | None = None,
) -> Array:
    """The distance outside minus that inside, each side scaled by its largest if normalised."""
    distance = _to_other_side(mask, sampling, axes, split).plain(0)
    inside, outside = jnp.where(mask, distance, 0), jnp.where(mask, 0, distance)
    if normalize:
        inside, outside = (
            numerics.divide(side, _largest(side, axes, split)) for side in (inside, outside)
        )
    return outside - inside


@functools.partial(jax.jit, static_argnames=("axes", "values", "split"))
def penalty(
    labels: Array,
    sampling: Array | None,
    *,
    axes: Axes,
    values: int,
    split: AxisName | None = None,
) -> Array:
    """1 next to another label, 0 farthest from it, among the elements of a label and image.

    0 on labels outside `[0, values)`, and in an image of one label.
    """
    labels = jnp.clip(labels, -1, values).astype(jnp.int8 if values < 128 else jnp.int32)
    found = transform(labels, sampling, axes, split)
    distance = found.plain(0)

    def of_label(label: Array, scaled: Array) -> Array:
        inside = labels == label.astype(labels.dtype)
        high = _largest(jnp.where(inside, distance, 0), axes, split)
        low = found.unit  # with one spacing, some element of every label touches another
        if sampling is not None and sampling.ndim > 0:
            low = _smallest(jnp.where(inside, distance, jnp.inf), axes, split)
        spread = jnp.where(high == low, 1, numerics.divide(high - distance, high - low))
        return jnp.where(inside, spread, scaled)

    scaled = jnp.zeros_like(distance)
    if values == 2:  # without a loop both fuse into one pass, which stores no map between them
        scaled = of_label(jnp.int32(1), of_label(jnp.int32(0), scaled))
    else:
        scaled = lax.fori_loop(0, values, of_label, scaled)
    return jnp.where(found.missing, 0, scaled)


@_compiled
def to_boundary(
    mask: Array, sampling: Array | None, *, axes: Axes, split: AxisName | None = None
) -> Array:
    """The distance to the other side; 0 if the mask is empty, to the image's outside if full."""
    found = _to_other_side(mask, sampling, axes, split)
    return found.plain(jnp.where(mask, _to_the_outside(mask, sampling, axes, split), 0))


def _to_other_side(
    mask: Array, sampling: Array | None, axes: Axes, split: AxisName | None
) -> Distance:
    return transform(mask.astype(jnp.int8), sampling, axes, split)


def _largest(x: Array, axes: Axes, split: AxisName | None) -> Array:
    """The largest number of each image, at least 0."""
    largest = jnp.max(x, axis=axes, keepdims=True, initial=0)
    return largest if split is None else lax.pmax(largest, split)


def _smallest(x: Array, axes: Axes, split: AxisName | None) -> Array:
    """The smallest number of each image."""
    most = jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).max
    smallest = jnp.min(x, axis=axes, keepdims=True, initial=most)
    return smallest if split is None else lax.pmin(smallest, split)


def _to_the_outside(
    mask: Array, sampling: Array | None, axes: Axes, split: AxisName | None
) -> Array:
    """The distance of each element to the nearest position outside the array."""
    spacing = jnp.ones(()) if sampling is None else lax.stop_gradient(sampling)
    spacings = jnp.broadcast_to(spacing.astype(dtype_of(sampling)), (len(axes),))
    nearest = jnp.full((1,) * mask.ndim, jnp.inf, spacings.dtype)
    for spacing, axis in zip(spacings, axes, strict=True):
        size = mask.shape[axis]
        row = jnp.arange(size, dtype=jnp.int32)
        if split is not None and axis == axes[0]:
            row = row + lax.axis_index(split) * size
            size = size * lax.axis_size(split)
        steps = jnp.minimum(row + 1, size - row).astype(spacings.dtype)
        steps = jnp.expand_dims(steps, [a for a in range(mask.ndim) if a != axis])
        nearest = jnp.minimum(nearest, spacing * steps)
    return nearest


@_compiled
def between_instances(
    labels: Array,
    w0: Array,
    sigma: Array,
    sampling: Array | None,
    *,
    axes: Axes,
    split: AxisName | None = None,
) -> Array:
    """The U-Net's weights of the background between two positive ids, visited one by one."""
    if sampling is not None:
        sampling = lax.stop_gradient(sampling)
    last = jnp.iinfo(jnp.int32).max

    def following(instance: Array) -> Array:
        """The next larger id of each image."""
        return _smallest(jnp.where(labels > instance, labels, last), axes, split)

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        return jnp.any(state[0] < last)

    def visit(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        instance, nearest, second = state
        distance = transform(labels != instance, sampling, axes, split).plain(jnp.inf)
        second = jnp.minimum(second, jnp.maximum(nearest, distance))
        return following(instance), jnp.minimum(nearest, distance), second

    nowhere = jnp.full_like(labels, jnp.inf, dtype_of(sampling))
    first = following(jnp.zeros_like(labels))
    _, nearest, second = lax.while_loop(unfinished, visit, (first, nowhere, nowhere))
    between = (labels == 0) & (second != jnp.inf)
    width = jnp.where(between, nearest + second, 0) / sigma
    return jnp.where(between, w0 * jnp.exp(-(width**2) / 2), 0)
