"""What every box loss does before and after its formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxloss._core import boxes as pairs
from jaxloss._core import checks, polygons
from jaxloss._core.cost import Cost
from jaxloss._core.labels import Paired, paired, per_value
from jaxloss._core.platforms import bind
from jaxloss._core.reduction import reduce
from jaxloss.options import Numbers

Array = jax.Array

_NAMES = ("boxes", "target_boxes")


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
    data, cost = _read(of_boxes, boxes, target_boxes, options, *parameters)
    return reduce(cost._replace(at_once=True), options, data)


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
    data, cost = _read(of_boxes, boxes, target_boxes, options, *parameters)
    return reduce(cost, options, data)


def _read(
    formula: Callable[..., Array],
    boxes: Numbers,
    target_boxes: Numbers,
    options: Mapping[str, Any],
    *parameters: Array | None,
) -> tuple[Paired, Cost]:
    """Pairs of boxes, and what each costs."""
    data = paired(boxes, target_boxes, options, names=_NAMES, inner=1)
    pair = (data.prediction, data.target)
    cost = per_value(formula, pair, data.mask, *parameters, inner=data.prediction.ndim - 1)
    return data, cost


def _of_spans(
    first: Array,
    second: Array,
    *parameters: Array | None,
    formula: Callable[..., Array],
    format: str,
) -> Array:
    return formula(*pairs.read(first, second, format), *parameters)[..., None]


def _of_rotated(
    first: Array, second: Array, *parameters: Array, formula: Callable[..., Array]
) -> Array:
    return formula(polygons.pair(first, second), *parameters)[..., None]
