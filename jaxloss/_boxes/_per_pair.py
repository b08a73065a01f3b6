"""What every box loss does before and after its formula."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss._core import checks, pairs, polygons
from jaxloss._core.pairs import Columns
from jaxloss._core.platforms import bind, by_platform
from jaxloss._core.reading import paired
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
    first: Columns,
    second: Columns,
    *parameters: Array | None,
    formula: Callable[..., Array],
    format: str,
) -> Array:
    return formula(*pairs.spans(first, second, format), *parameters)


def _of_rotated(
    first: Columns, second: Columns, *parameters: Array, formula: Callable[..., Array]
) -> Array:
    return formula(polygons.pair(first, second), *parameters)


@functools.cache
def _number_by_number(formula: Callable[..., Array]) -> Callable[..., Array]:
    """Makes of a formula of pairs' columns one of pairs, with derivatives taken forward.

    Each number of a box looks at the whole pair: all derivatives are one loop, without arrays
    between. Backward the formula's many lengths are as many loops and arrays, which take longer to
    compile, and on a CPU several times as long to run.
    """
    of_boxes = bind(_of_boxes, formula=formula)
    function = jax.custom_jvp(jax.jit(of_boxes))  # traced once for a value beside derivatives

    def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        moving = moving_of(tangents)
        directions = tuple(tangents[i] for i in moving)
        if set(moving) <= {0, 1}:
            slopes = (_slopes(formula, primals, i) for i in moving)
            changes = [(s * t).sum(-1) for s, t in zip(slopes, directions, strict=True)]
            return function(*primals), functools.reduce(jnp.add, changes)

        def moved(*values: Array) -> Array:
            return of_boxes(*replaced(primals, moving, values))

        return jax.jvp(moved, tuple(primals[i] for i in moving), directions)

    function.defjvp(jvp, symbolic_zeros=True)
    return function


def _of_boxes(
    first: Array, second: Array, *parameters: Array | None, formula: Callable[..., Array]
) -> Array:
    return formula(pairs.columns(first), pairs.columns(second), *parameters)


def _slopes(formula: Callable[..., Array], primals: tuple[Any, ...], box: int) -> Array:
    """The derivatives of each pair's cost by the numbers of its first or second box."""
    *pair, parameters = *primals[:2], primals[2:]
    views = [by_platform(x, gpu=_views_apart, default=_views) for x in pair]

    def moved(*columns: Array) -> Array:
        return formula(*replaced(views, (box,), (columns,)), *parameters)

    return jax.jvp(moved, tuple(views[box]), tuple(_directions(pair[box])))[1]


def _views(boxes: Array) -> list[Array]:
    """A box's numbers as each of them sees them: columns in the shape of the boxes."""
    return [jnp.broadcast_to(column[..., None], boxes.shape) for column in pairs.columns(boxes)]


def _views_apart(boxes: Array) -> list[Array]:
    """The same, in a form of which a GPU's compiler does not find that all see one box.

    It would compute once what they have in common, and write that to memory.
    """
    known = zip(_views(boxes), _directions(boxes), strict=True)
    return [jnp.where((x == x) | (own > 0), x, jnp.nan) for x, own in known]


def _directions(boxes: Array) -> list[Array]:
    """Of each number the direction in which it moves, as a column of views."""
    rows = tuple(range(boxes.ndim - 1))
    each = np.eye(boxes.shape[-1], dtype=boxes.dtype)
    return [jnp.zeros_like(boxes) + np.expand_dims(direction, rows) for direction in each]
