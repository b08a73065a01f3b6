"""What every regression loss does before and after its formula."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks
from jaxloss._core.labels import paired
from jaxloss._core.lean import Costs
from jaxloss._core.reduction import AxisName, reduce

Array = jax.Array
Number = tuple[str, ArrayLike, str]

NAMES = ("predictions", "targets")


def reduced(
    function: str,
    cost: Callable[..., Array],
    predictions: ArrayLike,
    targets: ArrayLike,
    *numbers: Number,
    where: ArrayLike | None,
    weights: ArrayLike | None,
    reduction: str,
    axis_name: AxisName | None,
) -> Array:
    """Reads predictions and targets, and reduces the elementwise `cost(x, y, *numbers)`.

    Args:
      function: The public name of the loss.
      cost: The cost of each prediction.
      predictions: As the caller has them.
      targets: As the caller has them.
      *numbers: Options, each with its name and the interval it must be in; derivatives reach them.
      where: As the caller has it.
      weights: As the caller has them.
      reduction: `"mean"`, `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean is taken globally.
    """
    values, aims, mask, factor = paired(
        function, predictions, targets, names=NAMES, where=where, weights=weights
    )
    parameters = [
        checks.number(function, name, value, values.dtype, interval)
        for name, value, interval in numbers
    ]

    def each(values: Array, aims: Array, mask: Any, *parameters: Array) -> Array:
        loss = cost(values, aims, *parameters)
        return loss if mask is None else jnp.where(mask, loss, 0)

    costs = Costs(each, (values, aims, mask, *parameters))
    return reduce(function, costs, reduction, mask=mask, weights=factor, axis_name=axis_name)
