"""From soft counts to a loss: a score of each image and class, a cost beside it, their mean."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics, reduction
from jaxloss._core.chunks import is_large
from jaxloss._core.confusion import Confusion, Finish, of_counts
from jaxloss._core.cost import Cost
from jaxloss._core.images import Data, Pixels
from jaxloss._core.platforms import bind, by_platform

Array = jax.Array

FEW = 8  # classes, whose sums and a cost beside them are apart

ABSENT = ("score", "skip")


class Beside(NamedTuple):
    """A distribution loss of the same logits and labels, to be added to a score.

    Attributes:
      cost: Its cost.
      data: What it was read from.
      weights: The factors of the score and of the reduced cost.
    """

    cost: Cost
    data: Data
    weights: tuple[Array, Array]


def score(
    formula: Callable[..., Array],
    pixels: Pixels,
    options: Mapping[str, Any],
    *parameters: Array,
    more: Callable[..., tuple[Array, ...]] | None = None,
    maps: tuple[Array, ...] = (),
    beside: Beside | None = None,
    per_class: bool = True,
) -> Array:
    """Returns the reduced loss of a function `formula(counts, *parameters)` of the soft counts.

    It is one of each image and class, or of the counts of all classes. What stands `beside` it is
    computed in the same pass over the logits where it can be. `more` and `maps` are those of
    `of_counts`; of the options, `include_background`, `absent` and `reduction` are read.
    """
    checks.option("per_class", per_class, (True, False))
    reducing = _reducing(pixels, options)
    if not per_class and reducing.skip_absent:
        expected = '"score": the counts of all classes are one'
        checks.fail(ValueError, "absent", '"skip" with per_class=False', expected)
    scored = _score if per_class or not reducing.has_classes else _score_of_all
    finish = bind(scored, formula=formula, reducing=reducing)
    kind = options["reduction"]
    scalar = kind in ("mean", "sum")
    extra: dict[str, Any] = {"more": more, "maps": maps, "scalar": scalar}
    alone = lambda pixels: of_counts(finish, pixels, *parameters, **extra)
    if beside is None:
        return alone(pixels)
    other = beside.cost
    apart = functools.partial(_apart, beside, {**options, "axis_name": pixels.frame.axis_name})
    joined = functools.partial(_joined, finish, pixels, parameters, beside, kind, extra)
    same = other.arrays[0].shape == pixels.arrays[0].shape
    # With a cost of ids that are smoothed, which is written out, a score shares little.
    same &= not (other.is_written and pixels.form.has_ids)
    if not (scalar and (other.of_target or same) and pixels.frame.axis_name is None):
        return apart(alone(_cut_off(pixels)), other.apart())
    few = pixels.axis is not None and pixels.shape[pixels.axis] <= FEW
    large = is_large(pixels.arrays[0])
    # A CPU is twice as fast with both apart, of many classes of ids with more memory.
    if large and same and (few or not pixels.form.has_ids):
        return by_platform(cpu=lambda: apart(alone(pixels), other), default=joined)
    written = more is None and large
    return apart(alone(pixels), other.apart()) if few and not same and not written else joined()


def _cut_off(pixels: Pixels) -> Pixels:
    """The same pixels; to their slope a GPU's compiler adds others in a loop of its own.

    It would part the one loop that makes a slope of many last classes.
    """
    z, *rest = pixels.arrays
    many = pixels.axis == z.ndim - 1 and z.shape[-1] > FEW and pixels.form.half is None
    return pixels._replace(arrays=(jax.lax.optimization_barrier(z), *rest)) if many else pixels


def _apart(beside: Beside, options: Mapping[str, Any], score: Array, other: Cost) -> Array:
    """The score, and the mean of the cost in a pass of its own."""
    mean = reduction.reduce(other, options, beside.data)
    share, rest = beside.weights
    return share * score + rest * mean


def _joined(
    finish: Finish,
    pixels: Pixels,
    parameters: tuple[Array, ...],
    beside: Beside,
    kind: str,
    extra: Mapping[str, Any],
) -> Array:
    """Both in one pass."""
    count = reduction.denominator(beside.cost, kind, beside.data)
    both = bind(_score_and_cost, finish=finish, parameters=len(parameters))
    others = (*parameters, *beside.weights, count)
    return of_counts(both, pixels, *others, **extra, beside=beside.cost)


def _score(
    counts: Confusion,
    valid: Array,
    class_weights: Array | None,
    *parameters: Array,
    formula: Callable[..., Array],
    reducing: Reducing,
) -> Array:
    return _reduce(formula(counts, *parameters), valid, class_weights, counts.actual, reducing)


def _score_of_all(
    counts: Confusion,
    valid: Array,
    class_weights: Array | None,
    *parameters: Array,
    formula: Callable[..., Array],
    reducing: Reducing,
) -> Array:
    """Adds up the counts of the classes, which their weights multiply."""
    each, structure = jax.tree.flatten((counts, jnp.broadcast_to(valid, counts.tp.shape)))
    if class_weights is not None:
        each = [x * class_weights.reshape((1,) * (x.ndim - 1) + (-1,)) for x in each]
    first = 1 if reducing.skip_background else 0
    counts, valid = jax.tree.unflatten(structure, [x[..., first:].sum(-1) for x in each])
    whole = reducing._replace(has_classes=False, skip_background=False)
    return _score(counts, valid, None, *parameters, formula=formula, reducing=whole)


def _score_and_cost(
    counts: Confusion,
    valid: Array,
    class_weights: Array | None,
    *values: Array,
    finish: Finish,
    parameters: int,
) -> Array:
    share, rest, count = values[parameters:]
    alone = counts._replace(more=counts.more[:-1])
    value = finish(alone, valid, class_weights, *values[:parameters])
    return share * value + rest * numerics.divide(counts.more[-1].sum(), count)


def complement(wrong: Array, right: Array) -> Array:
    """Returns `1 - right / (right + wrong)`; a score of 0/0 is 0, so its loss is 1."""
    return jnp.where(right + wrong == 0, 1, numerics.share(wrong, right))


class Reducing(NamedTuple):
    """How the losses of images and classes become one.

    Attributes:
      reduction: `"mean"`, `"sum"` or `"none"`.
      has_classes: Whether the last axis of the losses holds classes.
      skip_background: Whether class 0 is left out.
      skip_absent: Whether classes are left out that the target of an image does not hold.
      axis_name: A mesh axis over which images are reduced.
    """

    reduction: str
    has_classes: bool
    skip_background: bool
    skip_absent: bool
    axis_name: reduction.AxisName | None


def _reducing(pixels: Pixels, options: Mapping[str, Any]) -> Reducing:
    checks.option("absent", options.get("absent", "score"), ABSENT)
    checks.option("reduction", options["reduction"], reduction.REDUCTIONS)
    scored = pixels
    if not pixels.form.without_background:
        scored = pixels.foreground(options.get("include_background", True))
    return Reducing(
        reduction=options["reduction"],
        has_classes=pixels.axis is not None,
        skip_background=scored is not pixels,
        skip_absent=options.get("absent", "score") == "skip",
        axis_name=pixels.frame.axis_name if pixels.frame.per_image else None,
    )


def reduce(values: Array, pixels: Pixels, actual: Array, options: Mapping[str, Any]) -> Array:
    """Takes the mean over the classes of each image that take part, then over the images.

    Args:
      values: The loss of each image and class, in the shape of `pixels.total`.
      pixels: What the values were computed from.
      actual: How much of each class the target holds, in the same shape.
      options: `include_background`, `absent` and `reduction` are read.

    Returns:
      A scalar, or one value per (image, class). An image without valid pixels takes no part.
    """
    reducing = _reducing(pixels, options)
    return _reduce(values, pixels.valid(), pixels.class_weights, actual, reducing)


def _reduce(
    values: Array, valid: Array, weights: Array | None, actual: Array, reducing: Reducing
) -> Array:
    kind, axis_name = reducing.reduction, reducing.axis_name
    part = jnp.zeros_like(values, bool) | (valid > 0)  # sharded as the values
    if reducing.skip_absent:
        part = part & (actual != 0)
    if reducing.skip_background:
        values, part = values[..., 1:], part[..., 1:]
        weights = None if weights is None else weights[1:]
    if not reducing.has_classes:
        return reduction.reduce_values(values, kind, mask=part, axis_name=axis_name)
    if weights is not None:
        weights = weights.reshape((1,) * (values.ndim - 1) + (-1,))
    if kind != "mean":
        return reduction.reduce_values(
            values, kind, mask=part, weights=weights, axis_name=axis_name
        )
    share = part.astype(values.dtype) * (1 if weights is None else weights)
    total = share.sum(-1)
    images = numerics.divide((share * jnp.where(part, values, 0)).sum(-1), total)
    return reduction.reduce_values(images, "mean", mask=total != 0, axis_name=axis_name)
