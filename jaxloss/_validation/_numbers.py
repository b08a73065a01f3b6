"""Tests of one array: numbers in an interval, ids of classes, and scores of classes."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics
from jaxloss._validation._call import Call
from jaxloss._validation._report import Check

Array = jax.Array

FINITE, POSITIVE, AT_LEAST_0 = "(-inf, inf)", "(0, inf)", "[0, inf)"


def numbers(
    argument: str,
    x: Array,
    mask: Array | None,
    interval: str = FINITE,
    expected: str | None = None,
) -> list[Check]:
    """Numbers lie in an interval, such as `"[0, inf)"`, whose ends hold 1 between them."""
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    if x.dtype == bool or (interval == FINITE and not floating):
        return []
    if x.dtype.itemsize < 4 and not floating:
        x = x.astype(jnp.int32)  # whose range holds the ends
    if expected is None:
        expected = "a finite number" if interval == FINITE else f"a number in {interval}"
    low, high = (float(end) if floating else _whole(end) for end in interval[1:-1].split(","))

    def sound(x: Array, mask: Array | None = None) -> Array:
        return _are_finite(numerics.masked(x, mask))

    def bad(x: Array, mask: Array | None = None) -> Array:
        read = x if mask is None else jnp.where(mask, x, 1)
        inside = jnp.ones_like(read, bool)
        if low is not None:
            inside &= read > low if interval[0] == "(" else read >= low
        if high is not None:
            inside &= read < high if interval[-1] == ")" else read <= high
        return ~inside

    quick = sound if interval == FINITE else None
    return [Check(argument, expected, operands(x, mask), bad, quick)]


def ids(call: Call, x: Array, mask: Array | None, classes: int) -> list[Check]:
    """Ids are those of the classes; what is ignored is masked."""
    interval = f"[0, {classes})"
    expected = f"an id in {interval}"
    expected += ", or its number as `ignore_index`" if call.ignore_index is None else ""
    return numbers(call.target, x, mask, interval, expected)


def scores(call: Call, x: Array, y: Array, mask: Array | None, axis: int | None) -> Check:
    """Scores are finite, or -inf where a class is removed, which is not to be the target."""
    end = 1 + tolerance(x.dtype) if call.prediction == "cosines" else None
    expected = "a finite number" if end is None else "a number in [-1, 1]"
    expected += ", or -inf for a class without target mass"

    def within(x: Array) -> Array:
        return jnp.isfinite(x) if end is None else jnp.abs(x) <= end

    def wanted(y: Array) -> Array:
        if y.ndim == x.ndim:
            return y > 0 if y.dtype != bool else y
        assert axis is not None
        classes = jax.lax.broadcasted_iota(jnp.int32, x.shape, axis)
        if jnp.issubdtype(y.dtype, jnp.floating):  # between two bins
            return jnp.abs(classes.astype(y.dtype) - jnp.expand_dims(y, axis)) < 1
        return classes == jnp.expand_dims(y.astype(jnp.int32), axis)

    def sound(x: Array, y: Array, mask: Array | None = None) -> Array:
        return _are_finite(numerics.masked(x, mask))

    def bad(x: Array, y: Array, mask: Array | None = None) -> Array:
        x = numerics.masked(x, mask)
        return ~within(x) & ((x != -jnp.inf) | wanted(y))

    quick = sound if end is None else None
    return Check(call.prediction, expected, (x, *operands(y, mask)), bad, quick)


def operands(x: Array, mask: Array | None) -> tuple[Array, ...]:
    """What a test of an array needs: the array, and where it is read."""
    return (x,) if mask is None else (x, mask)


def tolerance(dtype: Any) -> float:
    """How far rounding may take a sum or a norm of 1."""
    return max(1e-3, float(jnp.finfo(dtype).eps))


def _whole(end: str) -> int | None:
    """The end of an interval of integers; None: there is none."""
    return None if "inf" in end else int(end)


def _are_finite(x: Array) -> Array:
    """True only if all is finite: a sum at the speed of memory, which may overflow."""
    return jnp.isfinite(x.sum(dtype=checks.compute_dtype(x)))
