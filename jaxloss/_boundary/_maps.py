"""What boundary losses share: the classes that count, spacings, maps and neighbours."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxloss._core import checks
from jaxloss._core.images import Pixels, without_first
from jaxloss.options import Interval, Numbers

Array = jax.Array
Sampling: TypeAlias = Annotated[Numbers, Interval("(0, inf)", scalar=False)] | None


def scored(
    pixels: Pixels, include_background: bool | None, distance_map: Array | None = None
) -> tuple[Pixels, Array | None]:
    """Leaves out class 0 where it is not scored, so that no map of it is made."""
    foreground = pixels.foreground(include_background)
    if distance_map is None:
        return foreground, None
    given = given_map(distance_map, pixels.shape, pixels.dtype)
    if pixels.axis is not None and foreground is not pixels:
        given = without_first(given, pixels.axis)
    if foreground.weight is not None:
        given = jnp.where(foreground.weight == 0, 0, given)
    return foreground, given


def given_map(
    distance_map: Array, shape: Sequence[int], dtype: Any, prediction: str = "logits"
) -> Array:
    """Reads a map that the caller brings, a constant."""
    given = checks.real("distance_map", distance_map, dtype)
    checks.shape("distance_map", given, shape, f"the shape of `{prediction}`")
    return jax.lax.stop_gradient(given)


def spacing_of(sampling: Array | None, dtype: Any, axes: int) -> Array:
    """Reads the size of a pixel in `dtype`, which then is that of the map."""
    if sampling is None:
        return jnp.ones((), dtype)
    if sampling.ndim > 0:
        checks.shape("sampling", sampling, (axes,), "one number per spatial axis")
    return sampling


def poison(p: Array, y: Array) -> Array:
    """0 for each pixel, NaN in value and gradient where a label is bad."""
    return jnp.where(jnp.isnan(y), y * p, 0)


def neighbours(x: Array, axes: Sequence[int], edge: bool = False) -> Iterator[Array]:
    """Yields `x` shifted by one, forth and back, along each axis; outside is 0, or the edge.

    By padding: where an axis lies on several devices, each sends one row to the next. Of slices
    that are concatenated they would send all.
    """
    for axis in axes:
        row = jnp.arange(x.shape[axis], dtype=jnp.int32)
        row = jnp.expand_dims(row, [a for a in range(x.ndim) if a != axis])
        for step, outer in ((1, 0), (-1, x.shape[axis] - 1)):
            padding = [(step, -step, 0) if a == axis else (0, 0, 0) for a in range(x.ndim)]
            shifted = jax.lax.pad(x, jnp.zeros((), x.dtype), padding)
            yield jnp.where(row == outer, x, shifted) if edge else shifted
