"""What coefficients share: how they become public, and how boxes are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxloss._core import checks, pairs
from jaxloss._core.declare import Family, family
from jaxloss.options import Coordinates, Numbers

Array = jax.Array

_RAISES = {
    "TypeError": "If `boxes` is not floating.",
    "ValueError": "If a last axis is not 4, shapes do not match or the format does not exist.",
}
coefficient = family(
    Family(
        Coordinates,
        {
            "boxes": "Boxes, shape `[..., 4]`, floating.",
            "target_boxes": "Boxes of the same shape: pairs, never a matrix.",
        },
        "One number per box or pair, shape `[...]`; float32 for half-precision input.",
        _RAISES,
    )
)
matrix = family(
    Family(
        Coordinates,
        {
            "boxes": "Boxes, shape `[..., N, 4]`, floating.",
            "target_boxes": "Boxes, shape `[..., M, 4]`, with the same leading axes.",
        },
        "The matrix of coefficients, shape `[..., N, M]`; float32 for half-precision input.",
        _RAISES,
    )
)


def read(
    argument: str, boxes: Numbers, checked: Callable[[str, Any], Array] = pairs.checked
) -> Array:
    """Boxes in the compute dtype."""
    box = checked(argument, boxes)
    return box.astype(checks.compute_dtype(box))
