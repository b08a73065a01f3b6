"""What may not be meant, though every value is sound: hints, which count as nothing bad."""

import functools
import inspect
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss._core import checks, numerics, reading
from jaxloss._core.platforms import by_platform
from jaxloss._core.reduction import AxisName
from jaxloss._validation._call import FUSED, LOSSES, OF_IMAGES, Call
from jaxloss._validation._data import Kept
from jaxloss._validation._numbers import operands, tolerance
from jaxloss._validation._report import Hint, holds

Array = jax.Array

_CORNER = 4  # of each axis, which is looked at first
_FEW = 16  # logits, which may lie in [0, 1] by chance
_TURN = 2 * math.pi * 1.001


def hints(call: Call, arrays: dict[str, Array], kept: Kept) -> Iterator[Hint]:
    """What may not be meant by a call."""
    yield from _of_shapes(call, arrays, kept)
    yield from _of_values(call, arrays, kept)


def _of_shapes(call: Call, arrays: dict[str, Array], kept: Kept) -> tuple[Hint, ...]:
    """Labels of the logits' shape get a sigmoid along their axis; neither may be meant."""
    x, y = arrays[call.prediction], arrays[call.target]
    hints = []
    always = jnp.ones_like(x, bool, shape=())
    sides = x.shape if call.axis is None else checks.without(x.shape, call.axis % max(x.ndim, 1))
    rows = call.function in OF_IMAGES and len(sides) == 2
    if rows and min(sides) >= 16 and max(sides) <= 4 * min(sides):  # it may well be an image
        text = (
            f"hint: shape {x.shape} is taken for {sides[0]} images of one row; a single image, "
            "such as `vmap` leaves, is x[None]"
        )
        hints.append(Hint(always, text))
    softmax = call.prediction == "logits" and call.activation == "softmax"
    if softmax and call.axis is not None and x.shape[call.axis] == 1:
        text = (
            f"hint: `{call.prediction}` of shape {x.shape} has one class, whose softmax is always "
            "1: nothing is learnt; a binary problem takes a sigmoid, as binary_cross_entropy has"
        )
        hints.append(Hint(always, text))
    if call.activation == "softmax" or call.axis is None or y.shape != x.shape:
        return tuple(hints)
    if call.activation == "auto":
        test = functools.partial(_are_shares, axis=call.axis)
        text = (
            f"hint: every row of `{call.target}` adds up to 1, and labels of this shape are scored "
            'class by class, with a sigmoid; classes that compete need `activation="softmax"`'
        )
        hints.append(Hint(holds(test, operands(y, kept.mask), call.axis_name), text))
    if rows and x.shape[call.axis] >= max(8, sides[1] / 2):  # it may well be no axis of classes
        text = (
            f"hint: axis {call.axis % x.ndim} of shape {x.shape} is taken for {x.shape[call.axis]} "
            "classes; masks of one class, [B, H, W], need `axis=None`"
        )
        hints.append(Hint(always, text))
    return tuple(hints)


def _of_values(call: Call, arrays: dict[str, Array], kept: Kept) -> Iterator[Hint]:
    """Probabilities for logits, and numbers of another unit."""
    yield from _of_units(call.function, arrays, kept.mask, call.axis_name)
    x, y = arrays[call.prediction], arrays[call.target]
    if call.prediction != "logits" or call.function in FUSED:
        return
    axis = None if call.axis is None or x.ndim == 0 else call.axis % x.ndim
    activation, compete = reading.resolve(call.activation, x, y, axis)
    if activation is None:
        return
    instead = "their logarithm, jnp.log(p)"
    if not compete:
        takes_them = "activation" in inspect.signature(LOSSES[call.function]).parameters
        instead = "`activation=None`" if takes_them else "jax.scipy.special.logit(p)"
    scores = {"logits": x} | ({call.target: y} if call.function == "distillation" else {})
    for name, z in scores.items():
        along = axis if compete else None
        yield _of_probabilities(name, z, kept.mask, along, instead, call.axis_name)


def _of_probabilities(
    argument: str,
    x: Array,
    mask: Array | None,
    axis: int | None,
    instead: str,
    axis_name: AxisName | None,
) -> Hint:
    """Logits that look like probabilities: of classes that compete along `axis`, or of elements."""
    test = functools.partial(_look_like_probabilities, axis=axis)
    read = None if mask is None else jnp.broadcast_to(mask, x.shape)
    applies = holds(test, operands(x, read), axis_name)
    what = f"all `{argument}` lie in [0, 1]"
    if axis is not None:
        what = f"rows of `{argument}` add up to 1"
    text = f"hint: {what}, as probabilities do, and they are taken for logits: pass {instead}"
    return Hint(applies, text)


def _of_units(
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
    text = "hint: angles of `boxes` are beyond a full turn; they are in radians, not degrees"
    return Hint(_anywhere(_have_turns, operands(boxes, mask), axis_name), text)


def _anywhere(
    test: Callable[..., Array], read: tuple[Array, ...], axis_name: AxisName | None
) -> Array:
    """Whether a test holds of anything, on any shard of a mesh axis."""
    return ~holds(lambda *each: ~test(*each), read, axis_name)


def _are_shares(y: Array, mask: Array | None = None, *, axis: int) -> Array:
    """Whether there are rows along an axis, of several classes, and each adds up to 1."""
    return _hold_rows(y, mask, axis) & (y.shape[axis] > 1)


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
    read = operands(x, mask)
    sides = tuple(slice(None if i == axis else _CORNER) for i in range(x.ndim))
    part, *of_mask = (a[sides] for a in read)
    masked = of_mask[0] if of_mask else None
    if axis is None:
        likely = _hold_fractions(part, masked) & (x.size >= _FEW)
    else:
        likely = _hold_rows(part, masked, axis) & (x.shape[axis] > 1)

    def screened(*read: Array) -> Array:
        return lax.cond(likely, _hold_elements, lambda *_: likely, *read)

    def at_once(*read: Array) -> Array:
        return likely & _hold_elements(*read)

    return by_platform(*read, cpu=screened, default=at_once)
