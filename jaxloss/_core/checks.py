"""Argument checks: every wrong shape, dtype, axis and option ends here, in one clear error.

Checks read shapes, dtypes and Python numbers, never traced values, so they cost nothing under
`jax.jit`. This is the only module that imports chex. Every error names the function, the argument,
what came and what was expected.
"""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

Array = jax.Array
Axes = int | Sequence[int]


def fail(
    error: type[Exception], function: str, argument: str, got: object, expected: str
) -> NoReturn:
    """Raises `error` with the one form of message that all of jaxloss uses."""
    raise error(_message(function, argument, got, expected))


def _message(function: str, argument: str, got: object, expected: str) -> str:
    return f"jaxloss.{function}: `{argument}` is {got}, expected {expected}"


def _require(
    assertion: Callable[..., None],
    holds: bool,
    error: type[Exception],
    function: str,
    argument: str,
    got: object,
    expected: str,
) -> None:
    message = _message(function, argument, got, expected)
    assertion(custom_message=message, exception_type=error)
    if not holds:  # chex.disable_asserts() must not switch a user's checks off
        raise error(message)


def floating(function: str, argument: str, value: ArrayLike) -> Array:
    """Converts to an array and requires a floating dtype."""
    array = jnp.asarray(value)
    _require(
        functools.partial(chex.assert_type, array, float),
        jnp.issubdtype(array.dtype, jnp.floating),
        TypeError,
        function,
        argument,
        f"of dtype {array.dtype}",
        "a floating dtype",
    )
    return array


def boolean(function: str, argument: str, value: ArrayLike) -> Array:
    """Converts to an array and requires booleans."""
    array = jnp.asarray(value)
    _require(
        functools.partial(chex.assert_type, array, bool),
        array.dtype == bool,
        TypeError,
        function,
        argument,
        f"of dtype {array.dtype}",
        "dtype bool",
    )
    return array


def real(function: str, argument: str, value: ArrayLike, dtype: Any) -> Array:
    """Converts to an array of `dtype`; refuses booleans and complex numbers."""
    array = jnp.asarray(value)
    if array.dtype == bool or jnp.issubdtype(array.dtype, jnp.complexfloating):
        fail(TypeError, function, argument, f"of dtype {array.dtype}", "real numbers")
    return array.astype(dtype)


def shape(
    function: str, argument: str, array: Array, expected: Sequence[int], meaning: str
) -> None:
    """Requires exactly the shape `expected`, which `meaning` explains."""
    _require(
        functools.partial(chex.assert_shape, array, tuple(expected)),
        array.shape == tuple(expected),
        ValueError,
        function,
        argument,
        f"of shape {array.shape}",
        f"{tuple(expected)}: {meaning}",
    )


def minimum_rank(function: str, argument: str, array: Array, rank: int, meaning: str) -> None:
    """Requires at least `rank` axes, which `meaning` explains."""
    _require(
        functools.partial(chex.assert_rank, array, {*range(rank, max(rank, array.ndim) + 1)}),
        array.ndim >= rank,
        ValueError,
        function,
        argument,
        f"of shape {array.shape}",
        f"at least {rank} axes: {meaning}",
    )


def images(function: str, logits: ArrayLike, classes: int | None) -> tuple[Array, int | None]:
    """Returns the scores of images' pixels, and their axis of classes, not negative, or None."""
    scores = floating(function, "logits", logits)
    meaning = "images and their pixels" if classes is None else "images, their pixels and classes"
    rank = 2 if classes is None else 3
    minimum_rank(function, "logits", scores, rank, f"{meaning} (a single image is x[None])")
    return scores, None if classes is None else axis(function, classes, scores.ndim)


def broadcastable(
    function: str, argument: str, array: Array, full: Sequence[int], axis: int | None = None
) -> Array:
    """Requires the rank of `full` with each dimension equal or 1, as masks and weights must have.

    With `axis`, the rank without that axis is accepted too, and the axis is inserted.
    """
    expanded = array
    if axis is not None and array.ndim == len(full) - 1:
        expanded = jnp.expand_dims(array, axis)
    fits = expanded.ndim == len(full) and all(
        got in (1, size) for got, size in zip(expanded.shape, full, strict=True)
    )
    if not fits:
        shapes = f"{tuple(full)}"
        if axis is not None:
            shapes += f" or {without(full, axis)}"
        fail(
            ValueError,
            function,
            argument,
            f"of shape {array.shape}",
            f"the rank of {shapes}, each dimension equal to it or 1",
        )
    return expanded


def per_class_or_element(
    function: str, argument: str, array: Array, full: Sequence[int], axis: int | None
) -> Array:
    """Shapes one number per class, `[C]`, or one per element to broadcast against `full`."""
    if axis is not None and array.ndim == 1 and array.shape == (full[axis],):
        at = axis % len(full)
        return array.reshape([-1 if i == at else 1 for i in range(len(full))])
    return broadcastable(function, argument, array, full)


def without(sizes: Sequence[int], axis: int | None) -> tuple[int, ...]:
    """Returns `sizes` with `axis` taken out."""
    return tuple(size for i, size in enumerate(sizes) if i != axis)


def axis(function: str, value: object, rank: int, argument: str = "axis") -> int:
    """Returns a valid axis as a non-negative integer."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        fail(TypeError, function, argument, repr(value), "an integer")
    if not -rank <= value < rank:
        fail(ValueError, function, argument, int(value), f"an axis in [{-rank}, {rank})")
    return int(value) % rank


def axes(function: str, value: Axes, rank: int, argument: str = "axes") -> tuple[int, ...]:
    """Returns valid, distinct axes as non-negative integers."""
    given = tuple(value) if isinstance(value, Sequence) else (value,)
    found = tuple(axis(function, one, rank, argument) for one in given)
    if not found or len(set(found)) != len(found):
        fail(ValueError, function, argument, given, "one or more different axes")
    return found


def option(function: str, argument: str, value: object, choices: Collection[object]) -> None:
    """Requires one of `choices`."""
    if not any(value is choice or value == choice for choice in choices):
        fail(ValueError, function, argument, repr(value), " or ".join(map(repr, choices)))


def number(
    function: str, argument: str, value: ArrayLike | Sequence[float], dtype: Any, interval: str
) -> Array:
    """Casts a hyper-parameter to `dtype` and requires it in `interval`, such as `"[0, 1)"`.

    A concrete number or array outside raises; a traced one becomes NaN there, and with it the loss.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))

    def inside(x: Any) -> Any:
        above = x >= low if interval[0] == "[" else x > low
        below = x <= high if interval[-1] == "]" else x < high
        return above & below

    if isinstance(value, Sequence):
        value = np.asarray(value)
    if isinstance(value, jax.core.Tracer):
        traced = real(function, argument, value, dtype)
        return jnp.where(inside(traced), traced, jnp.nan)
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return real(function, argument, value, dtype)
    if not np.all(inside(np.asarray(value))):
        fail(ValueError, function, argument, value, f"a number in {interval}")
    return real(function, argument, value, dtype)


def is_zero(value: ArrayLike) -> bool:
    """True for a Python zero: an option that is switched off, before anything is traced."""
    return isinstance(value, (int, float)) and value == 0


def compute_dtype(array: Array) -> Any:
    """The dtype in which a loss computes and returns: half precision is widened to float32."""
    return array.dtype if array.dtype.itemsize >= 4 else jnp.dtype(jnp.float32)
