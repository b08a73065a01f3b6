"""What compound losses share: Dice beside a distribution loss."""

from collections.abc import Callable
from typing import Any

import jax
from jax.typing import ArrayLike

from jaxloss._core import checks, confusion
from jaxloss._core.confusion import Data
from jaxloss._core.lean import Costs
from jaxloss._core.reduction import AxisName
from jaxloss._region._overlap import dice_of

Array = jax.Array


def dice_and(
    function: str,
    distribution: Callable[[Data], tuple[Costs, Data] | Array],
    shares: Callable[[Any], tuple[Array, ...]],
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    smooth: ArrayLike,
    activation: str | None,
    axis: int | None,
    where: ArrayLike | None,
    weights: ArrayLike | None,
    ignore_index: int | None,
    class_weights: ArrayLike | None,
    per_image: bool,
    include_background: bool,
    absent: str,
    reduction: str,
    axis_name: AxisName | None,
    squared: bool | str = False,
) -> Array:
    """Returns Dice plus a distribution loss of the same data, each times one of the `shares`.

    The distribution loss is told what was read. It gives its values, and the data by which their
    mean is taken, or that mean.
    """
    checks.option(function, "reduction", reduction, ("mean", "sum"))
    pixels = confusion.read(
        function,
        logits,
        labels,
        activation=activation,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
        per_image=per_image,
        axis_name=axis_name,
    )
    assert pixels.source is not None
    other, factors = distribution(pixels.source), shares(pixels.p.dtype)
    beside = confusion.Beside(*other, factors) if isinstance(other, tuple) else None
    dice = dice_of(
        function,
        pixels,
        smooth,
        squared,
        reduction,
        include_background=include_background,
        absent=absent,
        beside=beside,
    )
    return dice if isinstance(other, tuple) else factors[0] * dice + factors[1] * other
