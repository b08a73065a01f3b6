"""What boundary losses share: the classes that count, spacings, maps and neighbours."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, confusion

Array = jax.Array
Sampling = Sequence[float] | ArrayLike | None


def scored(
    function: str,
    pixels: confusion.Pixels,
    include_background: bool | None,
    distance_map: ArrayLike | None = None,
) -> tuple[confusion.Pixels, Array | None]:
    """Leaves out class 0 where it is not scored, so that no map of it is made."""
    given = None
    if distance_map is not None:
        given = given_map(function, distance_map, pixels.p.shape, pixels.p.dtype)
        if pixels.weight is not None:
            given = jnp.where(pixels.weight == 0, 0, given)
    checks.option(function, "include_background", include_background, (True, False, None))
    if include_background or (include_background is None and not pixels.compete):
        return pixels, given
    axis = pixels.axis
    if axis is None or pixels.p.shape[axis] == 1:
        got = "False with a single class"
        checks.fail(ValueError, function, "include_background", got, "True")

    def foreground(x: Array, axis: int = axis) -> Array:
        size = x.shape[axis]
        return x if size == 1 else jax.lax.slice_in_dim(x, 1, size, axis=axis)

    def of_foreground(*data: Any, axis: int) -> tuple[Array, Array]:
        assert form is not None
        p, y = form(*data, axis=axis)
        return foreground(p, axis), foreground(y, axis)

    form, weight, factors = pixels.form, pixels.weight, pixels.class_weights
    pixels = pixels._replace(
        p=foreground(pixels.p),
        y=foreground(pixels.y),
        form=of_foreground,
        weight=None if weight is None else foreground(weight),
        class_weights=None if factors is None else factors[1:],
    )
    return pixels, None if given is None else foreground(given)


def given_map(function: str, distance_map: ArrayLike, shape: Sequence[int], dtype: Any) -> Array:
    """Reads a map that the caller brings, a constant."""
    given = checks.real(function, "distance_map", distance_map, dtype)
    checks.shape(function, "distance_map", given, shape, "the shape of `logits`")
    return jax.lax.stop_gradient(given)


def spacing_of(function: str, sampling: Sampling, dtype: Any, axes: int) -> Array:
    """Reads the size of a pixel in `dtype`, which then is that of the map."""
    if sampling is None:
        return jnp.ones((), dtype)
    spacing = checks.number(function, "sampling", sampling, dtype, "(0, inf)")
    if spacing.ndim > 0:
        checks.shape(function, "sampling", spacing, (axes,), "one number per spatial axis")
    return spacing


def poison(p: Array, y: Array) -> Array:
    """0 for each pixel, NaN in value and gradient where a label is bad."""
    return jnp.where(jnp.isnan(y), y * p, 0)


def neighbours(x: Array, axes: Sequence[int], edge: bool = False) -> Iterator[Array]:
    """Yields `x` shifted by one, forth and back, along each axis; outside is 0, or the edge."""
    for axis in axes:
        size = x.shape[axis]
        ends = [jax.lax.slice_in_dim(x, n, n + 1, axis=axis) for n in (0, size - 1)]
        first, last = ends if edge else map(jnp.zeros_like, ends)
        yield jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis)
        yield jnp.concatenate([jax.lax.slice_in_dim(x, 1, size, axis=axis), last], axis)
