"""What every elementwise regression loss does before and after its formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.typing import ArrayLike

from jaxloss._core.labels import per_value
from jaxloss._core.reading import paired
from jaxloss._core.reduction import reduce

Array = jax.Array

NAMES = ("predictions", "targets")


def elementwise(
    formula: Callable[..., Array],
    predictions: ArrayLike,
    targets: ArrayLike,
    options: Mapping[str, Any],
    *parameters: Array,
) -> Array:
    """Reads predictions and targets, and reduces `formula(x, y, *parameters)` of each."""
    data = paired(predictions, targets, options, names=NAMES)
    cost = per_value(formula, (data.prediction, data.target), data.mask, *parameters)
    return reduce(cost, options, data)
