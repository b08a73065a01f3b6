"""What may not be meant, though every value is sound: hints of `validate` that look at values."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss._core import checks, numerics
from jaxloss._core.platforms import by_platform
from jaxloss._core.reduction import AxisName
from jaxloss._report import Hint, holds

Array = jax.Array

_CORNER = 4  # of each axis, which is looked at first
_FEW = 16  # logits, which may lie in [0, 1] by chance
_TURN = 2 * math.pi * 1.001


def of_probabilities(
    argument: str,
    x: Array,
    mask: Array | None,
    axis: int | None,
    instead: str,
    axis_name: AxisName | None,
) -> Hint:
    """Logits that look like probabilities: of classes that compete along `axis`, or of elements."""
    test = functools.partial(_look_like_probabilities, axis=axis)
    operands = (x,) if mask is None else (x, jnp.broadcast_to(mask, x.shape))
    applies = holds(test, operands, axis_name)
    what = f"all `{argument}` lie in [0, 1]"
    if axis is not None:
        what = f"rows of `{argument}` add up to 1"
    text = f"hint: {what}, as probabilities do, and they are taken for logits: pass {instead}"
    return Hint(applies, text)


def of_numbers(
    function: str, arrays: dict[str, Array], mask: Array | None, axis_name: AxisName | None
) -> Iterator[Hint]:
    """Degrees for radians, probabilities for their logarithms, logarithms for depths."""
    masked = () if mask is None else (mask,)
    if "boxes" in arrays and arrays["boxes"].shape[-1] == 5:
        yield of_angles(arrays["boxes"], mask, axis_name)
    if "log_probs" in arrays:
        text = (
            "hint: some `log_probs` are above 0, as no logarithm of a probability is; logits go to "
            "cross_entropy, probabilities through jnp.log"
        )
        yield Hint(_anywhere(_are_above_0, (arrays["log_probs"], *masked), axis_name), text)
    if function == "scale_invariant_log":
        known = functools.reduce(jnp.logical_and, masked, arrays["targets"] > 0)
        text = (
            "hint: `predictions` that are not above 0 are left out, where depths are known; the "
            "logarithm is taken here"
        )
        applies = _anywhere(_are_not_above_0, (arrays["predictions"], known), axis_name)
        yield Hint(applies, text)
    if function == "keypoint_similarity" and arrays["targets"].shape[-1] == 3:
        text = (
            "hint: the last of three coordinates of `targets` is 0, 1 or 2 everywhere, as COCO's "
            "visibility is: points are targets[..., :2], where=targets[..., 2] > 0"
        )
        yield Hint(holds(_are_visibilities, (arrays["targets"],), axis_name), text)


def of_angles(boxes: Array, mask: Array | None, axis_name: AxisName | None) -> Hint:
    """Degrees for radians: angles of rotated boxes that are beyond a full turn."""
    operands = (boxes,) if mask is None else (boxes, mask)
    text = "hint: angles of `boxes` are beyond a full turn; they are in radians, not degrees"
    return Hint(_anywhere(_have_turns, operands, axis_name), text)


def are_shares(y: Array, mask: Array | None = None, *, axis: int) -> Array:
    """Whether there are rows along an axis, of several classes, and each adds up to 1."""
    return _hold_rows(y, mask, axis) & (y.shape[axis] > 1)


def tolerance(dtype: Any) -> float:
    """How far rounding may take a sum or a norm of 1."""
    return max(1e-3, float(jnp.finfo(dtype).eps))


def _anywhere(
    test: Callable[..., Array], operands: tuple[Array, ...], axis_name: AxisName | None
) -> Array:
    """Whether a test holds of anything, on any shard of a mesh axis."""
    return ~holds(lambda *each: ~test(*each), operands, axis_name)


def _have_turns(boxes: Array, mask: Array | None = None) -> Array:
    angle = jnp.abs(boxes[..., 4:])
    return ((angle > _TURN) & jnp.isfinite(angle) & _read(angle, mask)).any()


def _are_above_0(log_probs: Array, mask: Array | None = None) -> Array:
    read = numerics.masked(log_probs, mask)
    return read.max(initial=0) > tolerance(log_probs.dtype)


def _are_not_above_0(depths: Array, known: Array) -> Array:
    return ((depths <= 0) & known).any()


def _are_visibilities(points: Array) -> Array:
    last = points[..., 2]
    return ((last == 0) | (last == 1) | (last == 2)).all() & (last > 0).any()


def _read(x: Array, mask: Array | None) -> Array:
    return jnp.broadcast_to(True if mask is None else mask, x.shape)


def _hold_rows(y: Array, mask: Array | None, axis: int) -> Array:
    """Whether there are rows that are read, and each adds up to 1."""
    y = y if jnp.issubdtype(y.dtype, jnp.floating) else y.astype(jnp.float32)
    sums = y.sum(axis, dtype=checks.compute_dtype(y))
    rows = (jnp.abs(sums - 1) <= tolerance(y.dtype)) & (y >= 0).all(axis)
    read = _read(y, mask).all(axis)
    return read.any() & (rows | ~read).all()


def _hold_elements(x: Array, mask: Array | None = None) -> Array:
    """Whether each element that is read lies in [0, 1]; the two ends need no memory."""
    read = numerics.masked(x, mask)
    return (read.min(initial=0) >= 0) & (read.max(initial=0) <= 1)


def _hold_fractions(x: Array, mask: Array | None) -> Array:
    """Whether there are elements that are read, not only 0 and 1, and each lies in [0, 1]."""
    between = (x > 0) & (x < 1) & _read(x, mask)
    return _hold_elements(x, mask) & between.any()


def _look_like_probabilities(x: Array, mask: Array | None = None, *, axis: int | None) -> Array:
    """Whether all scores lie in [0, 1] and those of a corner add up to 1 along an axis.

    Without an axis some of the corner are neither 0 nor 1. A CPU looks at the corner first, and
    mostly at no more.
    """
    operands = (x,) if mask is None else (x, mask)
    sides = tuple(slice(None if i == axis else _CORNER) for i in range(x.ndim))
    part, *of_mask = (a[sides] for a in operands)
    masked = of_mask[0] if of_mask else None
    if axis is None:
        likely = _hold_fractions(part, masked) & (x.size >= _FEW)
    else:
        likely = _hold_rows(part, masked, axis) & (x.shape[axis] > 1)

    def screened(*operands: Array) -> Array:
        return lax.cond(likely, _hold_elements, lambda *_: likely, *operands)

    def at_once(*operands: Array) -> Array:
        return likely & _hold_elements(*operands)

    return by_platform(*operands, cpu=screened, default=at_once)
