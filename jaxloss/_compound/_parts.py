"""What compound losses share: Dice beside a distribution loss, and elements."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, confusion, sigmoid, softmax
from jaxloss._core.confusion import Data
from jaxloss._core.labels import Independent
from jaxloss._core.lean import Costs
from jaxloss._core.reduction import AxisName
from jaxloss._region._overlap import dice_of

Array = jax.Array


def dice_and(
    function: str,
    distribution: Callable[[Data], tuple[Costs, Data] | Array],
    shares: Callable[[Any], tuple[Array, Array]],
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


def one_against_rest(data: Data, activation: str | None) -> tuple[Independent, tuple[Array, ...]]:
    """Returns the elements of the data, and the scale of their softmax if there is one."""
    if isinstance(data, Independent):
        return data, ()
    logits = data.unmasked_logits()
    mask, weights = (
        None if x is None else jnp.expand_dims(x, data.axis) for x in (data.mask, data.weights)
    )
    each = Independent(logits, data.dense_labels(), mask, weights, data.class_weights)
    return each, () if activation is None else softmax.scale(logits, data.axis)


def log_pair_of(activation: str | None) -> Callable[..., tuple[Array, Array]]:
    """Returns what gives `-log p` and `-log(1 - p)` of elements and the scale of their softmax."""
    if activation is None:
        return sigmoid.log_pair_of_probability

    def log_pair(z: Array, *scale: Array) -> tuple[Array, Array]:
        return sigmoid.log_pair(softmax.log_odds(z, *scale) if scale else z)

    return log_pair
