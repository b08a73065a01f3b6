"""What every box loss does before and after its formula."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxloss._core import boxes as pairs
from jaxloss._core import checks, polygons
from jaxloss._core.labels import paired
from jaxloss._core.platforms import bind
from jaxloss._core.recompute import moving_of, replaced
from jaxloss._core.reduction import reduce
from jaxloss.options import Numbers

Array = jax.Array

NAMES = ("boxes", "target_boxes")


def per_pair(
    formula: Callable[..., Array],
    boxes: Numbers,
    target_boxes: Numbers,
    options: Mapping[str, Any],
    *parameters: Array | None,
) -> Array:
    """Reads pairs of boxes and reduces `formula(x, y, *parameters)` of their spans."""
    pairs.checked("boxes", boxes)
    checks.option("format", options["format"], pairs.FORMATS)
    of_boxes = bind(_of_spans, formula=formula, format=options["format"])
    return _reduced(of_boxes, boxes, target_boxes, options, *parameters)


def per_rotated_pair(
    formula: Callable[..., Array],
    boxes: Numbers,
    target_boxes: Numbers,
    options: Mapping[str, Any],
    *parameters: Array,
) -> Array:
    """Reads pairs of rotated boxes and reduces `formula(pair, *parameters)` of each."""
    polygons.checked("boxes", boxes)
    of_boxes = bind(_of_rotated, formula=formula)
    return _reduced(of_boxes, boxes, target_boxes, options, *parameters)


def _reduced(
    formula: Callable[..., Array],
    boxes: Numbers,
    target_boxes: Numbers,
    options: Mapping[str, Any],
    *parameters: Array | None,
) -> Array:
    data = paired(boxes, target_boxes, options, names=NAMES, inner=1)
    costs = _number_by_number(formula)(data.prediction, data.target, *parameters)
    return reduce(costs, options, data)


def _of_spans(
    first: Array,
    second: Array,
    *parameters: Array | None,
    formula: Callable[..., Array],
    format: str,
) -> Array:
    return formula(*pairs.read(first, second, format), *parameters)


def _of_rotated(
    first: Array, second: Array, *parameters: Array, formula: Callable[..., Array]
) -> Array:
    return formula(polygons.pair(first, second), *parameters)


@functools.cache
def _number_by_number(formula: Callable[..., Array]) -> Callable[..., Array]:
    """Makes a formula of pairs whose derivatives by their numbers are taken forward.

    Each number looks at the whole pair: all derivatives are one loop, without arrays between.
    Backward the formula's many lengths are as many loops and arrays, which take longer to compile,
    and on a CPU several times as long to run.
    """
    function = jax.custom_jvp(jax.jit(formula))  # traced once for a value beside derivatives

    def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        moving = moving_of(tangents)
        directions = tuple(tangents[i] for i in moving)
        if not set(moving) <= {0, 1}:
            return jax.jvp(*_along(formula, primals, moving), directions)
        slopes = [_slopes(formula, primals, i) * t for i, t in zip(moving, directions, strict=True)]
        return function(*primals), functools.reduce(jnp.add, slopes).sum(-1)

    function.defjvp(jvp, symbolic_zeros=True)
    return function


def _slopes(formula: Callable[..., Array], primals: tuple[Any, ...], box: int) -> Array:
    """The derivatives of each pair's cost by the numbers of its first or second box."""
    pair, parameters = primals[:2], primals[2:]
    *rows, numbers = pair[0].shape
    pair = tuple(jnp.broadcast_to(x[..., None, :], (*rows, numbers, numbers)) for x in pair)
    each = jnp.eye(numbers, dtype=pair[0].dtype)
    directions = jnp.zeros_like(pair[box]) + jnp.expand_dims(each, range(len(rows)))
    return jax.jvp(*_along(formula, (*pair, *parameters), (box,)), (directions,))[1]


def _along(
    formula: Callable[..., Array], primals: tuple[Any, ...], moving: tuple[int, ...]
) -> tuple[Callable[..., Array], tuple[Array, ...]]:
    """A formula as one of the arguments that move, and they."""
    return (
        lambda *values: formula(*replaced(primals, moving, values)),
        tuple(primals[i] for i in moving),
    )
