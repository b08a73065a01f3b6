"""Argument checks: every wrong shape, dtype, axis and option ends here, in one clear error.

Checks read shapes, dtypes and Python numbers, never traced values, so they cost nothing under
`jax.jit`. This is the only module that imports chex. A check says what is wrong with an argument;
the public function, which `named` wraps, adds its own name.
"""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxloss._core import other_names

Array = jax.Array
Axes = int | Sequence[int]
Function = TypeVar("Function", bound=Callable[..., Any])
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Refusal(Exception):
    """What is wrong with an argument, on its way to the public function that was called."""

    def __init__(self, error: type[Exception], argument: str, got: object, expected: str) -> None:
        self.error = error
        super().__init__(f"`{argument}` is {got}, expected {expected}")

    def by(self, function: str) -> Exception:
        """Returns the error that a user sees."""
        return self.error(f"jaxloss.{function}: {self}")


def fail(error: type[Exception], argument: str, got: object, expected: str) -> NoReturn:
    """Refuses an argument with the one form of message that all of jaxloss uses."""
    raise Refusal(error, argument, got, expected)


def named(function: Function, name: str | None = None) -> Function:
    """Puts the name of a public function in front of what it, or the call itself, refuses."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        try:
            bound(signature, args, given)
            return function(*args, **given)
        except Refusal as refusal:
            raise refusal.by(name or public(function)) from None

    return call  # type: ignore[return-value]


def public(function: Callable[..., Any]) -> str:
    """The name of a function behind `jaxloss.`, that of its public module in front."""
    modules = function.__module__.split(".")[1:]
    return ".".join([*(m for m in modules if not m.startswith("_")), function.__name__])


def bound(
    signature: inspect.Signature, args: tuple[Any, ...], given: dict[str, Any]
) -> dict[str, Any]:
    """Requires arguments that a function has; returns the value of each, defaults included."""
    parameters = signature.parameters.values()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in given:
        if name not in signature.parameters and not takes_any:
            fail(TypeError, name, "no option", other_names.option_meant(name, signature.parameters))
    data = [p for p in parameters if p.default is p.empty and p.kind not in _VARIABLE]
    expected = ", ".join(f"`{p.name}`" for p in data) + ", and options by their name"
    try:
        found = signature.bind(*args, **given)
    except TypeError:
        by_position = [p.name for p in data if p.kind is not p.KEYWORD_ONLY][: len(args)]
        missing = [p.name for p in data if p.name not in (*given, *by_position)]
        twice = [name for name in by_position if name in given]
        if missing:
            fail(TypeError, missing[0], "missing", expected)
        if twice:
            fail(TypeError, twice[0], "given twice", expected)
        fail(TypeError, "*args", f"{len(args)} arguments", expected)
    found.apply_defaults()
    return found.arguments


def _holds(assertion: Callable[..., None], *arguments: Any) -> bool:
    try:
        assertion(*arguments)
    except AssertionError:  # its text speaks of chex; ours names the argument
        return False
    return True


# Behind each assertion of chex stands a plain comparison: `chex.disable_asserts()` must not switch
# a user's checks off.


def floating(argument: str, value: ArrayLike) -> Array:
    """Converts to an array and requires a floating dtype."""
    array = jnp.asarray(value)
    is_floating = jnp.issubdtype(array.dtype, jnp.floating)
    if not (_holds(chex.assert_type, array, float) and is_floating):
        fail(TypeError, argument, f"of dtype {array.dtype}", "a floating dtype")
    return array


def scores(argument: str, value: ArrayLike, labels: ArrayLike) -> Array:
    """Requires a floating dtype; where the labels have it instead, asks if both were exchanged."""
    array, targets = jnp.asarray(value), jnp.asarray(labels)
    kinds = jnp.issubdtype(array.dtype, jnp.integer), jnp.issubdtype(targets.dtype, jnp.floating)
    if all(kinds):
        expected = f"a floating dtype: were `{argument}` and `labels` exchanged?"
        fail(TypeError, argument, f"of dtype {array.dtype}", expected)
    return floating(argument, array)


def boolean(argument: str, value: ArrayLike) -> Array:
    """Converts to an array and requires booleans."""
    array = jnp.asarray(value)
    if not (_holds(chex.assert_type, array, bool) and array.dtype == bool):
        fail(
            TypeError, argument, f"of dtype {array.dtype}", f"dtype bool: {argument}.astype(bool)?"
        )
    return array


def integer_ids(argument: str, value: ArrayLike) -> Array:
    """Converts to an array and requires integers of any width."""
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        fail(TypeError, argument, f"of dtype {array.dtype}", "integer ids")
    return array


def is_array(value: Any) -> bool:
    """Whether a value is an array already, of JAX or NumPy."""
    return isinstance(value, (jax.Array, np.ndarray))


def real(argument: str, value: ArrayLike, dtype: Any) -> Array:
    """Converts to an array of `dtype`; refuses booleans and complex numbers."""
    array = jnp.asarray(value)
    if array.dtype == bool or jnp.issubdtype(array.dtype, jnp.complexfloating):
        fail(TypeError, argument, f"of dtype {array.dtype}", "real numbers")
    return array.astype(dtype)


def shape(argument: str, array: Array, expected: Sequence[int], meaning: str) -> None:
    """Requires exactly the shape `expected`, which `meaning` explains."""
    expected = tuple(expected)
    if not (_holds(chex.assert_shape, array, expected) and array.shape == expected):
        fail(ValueError, argument, f"of shape {array.shape}", f"{expected}: {meaning}")


def key(argument: str, array: Array) -> None:
    """Requires one key of `jax.random`, of the new style or as two and more raw numbers."""
    typed = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    raw = array.dtype == jnp.uint32
    if not ((typed and array.ndim == 0) or (raw and array.ndim == 1)):
        given = f"{array.dtype} of shape {array.shape}"
        fail(TypeError, argument, given, "one key, such as jax.random.key(0)")


def rank(argument: str, array: Array, expected: int, meaning: str) -> None:
    """Requires exactly as many axes, which `meaning` explains."""
    if array.ndim != expected:
        fail(ValueError, argument, f"of shape {array.shape}", f"{expected} axes: {meaning}")


def minimum_rank(argument: str, array: Array, rank: int, meaning: str) -> None:
    """Requires at least `rank` axes, which `meaning` explains."""
    ranks = {*range(rank, max(rank, array.ndim) + 1)}
    if not (_holds(chex.assert_rank, array, ranks) and array.ndim >= rank):
        expected = f"at least {rank} axes: {meaning}"
        fail(ValueError, argument, f"of shape {array.shape}", expected)


def images(logits: ArrayLike, labels: ArrayLike, classes: int | None) -> tuple[Array, int | None]:
    """Returns the scores of images' pixels, and their axis of classes, not negative, or None."""
    pixels = scores("logits", logits, labels)
    meaning = "images and their pixels" if classes is None else "images, their pixels and classes"
    rank = 2 if classes is None else 3
    alike = labels is not logits and np.shape(labels) == pixels.shape
    masks = classes is not None and pixels.ndim == 2 and alike
    advice = "masks without classes need axis=None" if masks else "a single image is x[None]"
    minimum_rank("logits", pixels, rank, f"{meaning} ({advice})")
    return pixels, None if classes is None else axis(classes, pixels.ndim)


def broadcastable(
    argument: str,
    array: Array,
    full: Sequence[int],
    axis: int | None = None,
    classes: int | None = None,
) -> Array:
    """Requires the rank of `full` with each dimension equal or 1, as masks and weights must have.

    With `axis`, the rank without that axis is accepted too, and the axis is inserted. `classes` is
    how many there are, for advice.
    """
    full = tuple(full)
    expanded = array
    if axis is not None and array.ndim == len(full) - 1:
        expanded = jnp.expand_dims(array, axis)
    if not _fits(expanded.shape, full):
        shapes = f"{full}"
        if axis is not None:
            shapes += f" or {without(full, axis)}"
            classes = full[axis]
        expected = f"the rank of {shapes}, each dimension equal to it or 1"
        expected += _advice(argument, array.shape, full, classes)
        fail(ValueError, argument, f"of shape {array.shape}", expected)
    return expanded


def _fits(shape: Sequence[int], full: Sequence[int]) -> bool:
    """Whether a shape has the rank of another and broadcasts to it."""
    same = len(shape) == len(full)
    return same and all(got in (1, size) for got, size in zip(shape, full, strict=True))


def _advice(argument: str, shape: tuple[int, ...], full: tuple[int, ...], classes: Any) -> str:
    """What is likely to be meant by a shape that does not broadcast to another, or nothing."""
    extra = [i for i in range(len(shape)) if _fits(without(shape, i), full)]
    extra.sort(key=lambda i: shape[i] != 1)
    if extra and shape[extra[0]] == 1:
        return f"; its axis of size 1 is one too many: {argument}.squeeze({extra[0]})?"
    if extra:
        return f"; its axis {extra[0]} of size {shape[extra[0]]} is one too many"
    missing = len(full) - len(shape)
    if missing <= 0 or not shape:
        return ""
    starts, ends = _fits(shape, full[:-missing]), _fits(shape, full[missing:])
    if argument == "weights" and shape == (classes,) and not starts:
        return "; one number per class is `class_weights`"
    if starts == ends:
        return ""
    places = ["..."] * starts + ["None"] * missing
    return f"; axes that it lacks have size 1: {argument}[{', '.join(places)}]?"


def per_class_or_element(
    argument: str, array: Array, full: Sequence[int], axis: int | None
) -> Array:
    """Shapes one number, one per class, `[C]`, or one per element to broadcast against `full`.

    An array of one axis and the right length holds one number per class; one without the class
    axis holds one per position.
    """
    if array.ndim == 0:
        return array
    if axis is not None and array.shape == (full[axis],):
        return array.reshape([-1 if i == axis else 1 for i in range(len(full))])
    positions = without(full, axis)  # all, where there is no axis
    fits = _fits(array.shape, full) or _fits(array.shape, positions)
    if not fits and array.size == 1:
        fail(ValueError, argument, f"of shape {array.shape}", f"one number: {argument}.squeeze()?")
    likely = [i for i, n in enumerate(full) if n == array.size == max(array.shape)]
    if not fits and likely and axis is not None:
        expected = f"{(full[axis],)}, one number per class along axis {axis}"
        if axis in likely:
            expected += f": {argument}.reshape(-1)?"
        else:
            expected += f", or per element; did you mean axis={1 if 1 in likely else likely[0]}?"
        fail(ValueError, argument, f"of shape {array.shape}", expected)
    return broadcastable(argument, array, full, axis)


def without(sizes: Sequence[int], axis: int | None) -> tuple[int, ...]:
    """Returns `sizes` with `axis` taken out."""
    return tuple(size for i, size in enumerate(sizes) if i != axis)


def axis(value: object, rank: int, argument: str = "axis") -> int:
    """Returns a valid axis as a non-negative integer."""
    at = integer(argument, value)
    if not -rank <= at < rank:
        fail(ValueError, argument, at, f"an axis in [{-rank}, {rank})")
    return at % rank


def axes(value: Axes, rank: int, argument: str = "axes") -> tuple[int, ...]:
    """Returns valid, distinct axes as non-negative integers."""
    given = tuple(value) if isinstance(value, Sequence) else (value,)
    found = tuple(axis(one, rank, argument) for one in given)
    if not found or len(set(found)) != len(found):
        fail(ValueError, argument, given, "one or more different axes")
    return found


def integer(argument: str, value: object, least: int | None = None) -> int:
    """Requires an integer, at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        fail(TypeError, argument, repr(value), "an integer")
    if least is not None and value < least:
        fail(ValueError, argument, int(value), f"an integer of at least {least}")
    return int(value)


def option(argument: str, value: object, choices: Collection[object]) -> None:
    """Requires one of `choices`; True is not 1."""
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        expected = " or ".join(map(repr, choices))
        name = value.lower() if isinstance(value, str) else ""
        meant = other_names.CHOICES.get(name, name)
        if name == "batchmean" and "mean" in choices:
            expected += "; of rows [N, C] it is 'mean', of images 'sum' over their number"
        elif meant in choices:
            expected += f"; did you mean {meant!r}?"
        fail(ValueError, argument, repr(value), expected)


def inside(bounds: str, x: Any) -> Any:
    """Where numbers lie in an interval such as `"[0, inf)"`."""
    low, high = (float(end) for end in bounds[1:-1].split(","))
    above = x >= low if bounds[0] == "[" else x > low
    below = x <= high if bounds[-1] == "]" else x < high
    return above & below


def is_known(value: object) -> bool:
    """Whether the host can read a number: neither traced nor on devices of other processes."""
    if isinstance(value, jax.core.Tracer):
        return False
    return not isinstance(value, jax.Array) or value.is_fully_addressable


def interval(argument: str, value: Any, bounds: str) -> None:
    """Requires numbers inside an interval, if they are known."""
    if not is_known(value):
        return
    array = np.asarray(value)
    is_real = any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.integer, jnp.floating))
    if not is_real:
        fail(TypeError, argument, repr(value), "a number")
    if not np.all(inside(bounds, array)):
        fail(ValueError, argument, value, f"a number in {bounds}")


def ordered(argument: str, value: Any, other: str, values: Mapping[str, Any]) -> None:
    """Requires a number not above another, if they are known."""
    most = values[other]
    if is_known(value) and is_known(most) and value > most:
        fail(ValueError, argument, value, f"at most `{other}`, {most}")


def some_above_0(argument: str, value: Any) -> None:
    """Requires one number at least above 0, if they are known."""
    if is_known(value) and not np.any(np.asarray(value) > 0):
        fail(ValueError, argument, value, "at least one number above 0")


def scalar(argument: str, value: Any) -> None:
    """Requires one number."""
    if np.ndim(value) != 0:
        fail(ValueError, argument, f"of shape {np.shape(value)}", "one number")


def number(argument: str, value: Any, dtype: Any, bounds: str) -> Array:
    """Casts a number, or one of each class or axis, to `dtype` and requires it in an interval.

    A known one outside raises; another becomes NaN there, and with it the loss.
    """
    value = np.asarray(value) if isinstance(value, Sequence) else value
    interval(argument, value, bounds)
    array = real(argument, value, dtype)
    return array if is_known(value) else jnp.where(inside(bounds, array), array, jnp.nan)


def compute_dtype(array: Array) -> Any:
    """The dtype in which a loss computes and returns: half precision is widened to float32."""
    return array.dtype if array.dtype.itemsize >= 4 else jnp.dtype(jnp.float32)
