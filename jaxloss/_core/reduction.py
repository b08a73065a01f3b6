"""The only reduction: masks, weights, `"mean"`, `"sum"`, `"none"`, and sums over a mesh axis."""

import math
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics
from jaxloss._core.cost import Cost
from jaxloss._core.labels import Competing, Independent, Paired

Array = jax.Array
AxisName = Hashable

REDUCTIONS = ("mean", "sum", "none")


def reduce(
    values: Array | Cost, options: Mapping[str, Any], data: Competing | Independent | Paired
) -> Array:
    """Reduces the loss of each position or element, whose values hold the class weights already."""
    return reduce_values(
        values,
        options["reduction"],
        mask=data.mask,
        weights=data.weights,
        normalizer=data.normalizer,
        axis_name=options["axis_name"],
    )


def reduce_values(
    values: Array | Cost,
    reduction: str,
    *,
    mask: Array | None = None,
    weights: Array | None = None,
    normalizer: Array | None = None,
    axis_name: AxisName | None = None,
) -> Array:
    """Reduces a loss: `mean` is `sum(v values) / sum(v normalizer)` with `v = mask * weights`.

    Args:
      values: One value per position, element, box or (image, class). A `Cost` must be 0 already
        where masked.
      reduction: `"mean"`, `"sum"` or `"none"`, which returns `v values`.
      mask: Which values take part; broadcasts to `values`. The others never reach the result.
      weights: Factors of value and denominator; broadcasts to `values`.
      normalizer: What one value counts in the denominator, 1 by default; broadcasts to `values`.
      axis_name: A mesh axis (or several) over which numerator and denominator are summed.

    Returns:
      A scalar, or `values` weighted. Where nothing counts the mean is 0 with zero gradient.
    """
    checks.option("reduction", reduction, REDUCTIONS)
    if isinstance(values, Cost):
        if reduction != "none":
            one = jnp.ones((), values.dtype)
            count = _count(values, mask, weights, normalizer) if reduction == "mean" else one
            count = everywhere(count, axis_name) if reduction == "mean" else one
            return everywhere(values.over(count, weights), axis_name)
        values = values.each()
    values = numerics.weighted(values, mask, weights)
    if reduction == "none":
        return values
    total = everywhere(values.sum(), axis_name)
    if reduction == "sum":
        return total
    return numerics.divide(total, everywhere(_count(values, mask, weights, normalizer), axis_name))


def denominator(values: Array | Cost, reduction: str, data: Competing | Independent) -> Array:
    """Returns what the sum of such a loss is divided by on one device."""
    if reduction == "sum":
        return jnp.ones((), values.dtype)
    return _count(values, data.mask, data.weights, data.normalizer)


def everywhere(x: Array, axis_name: AxisName | None) -> Array:
    """Sums over a mesh axis, if one is named."""
    if axis_name is None:
        return x
    try:
        return jax.lax.psum(x, axis_name)
    except (NameError, AssertionError):  # the latter inside of another axis's `shard_map`
        expected = "a mesh axis of the `shard_map` or `pmap` around the call"
        checks.fail(ValueError, "axis_name", f"{axis_name!r}, which is not bound here", expected)


def _count(
    values: Array | Cost, mask: Array | None, weights: Array | None, normalizer: Array | None
) -> Array:
    """The sum of `mask * weights * normalizer` over the shape of `values`.

    The factors are summed in their own broadcast shape; dimensions that none of them has count
    with their size.
    """
    counted = jnp.ones((1,) * len(values.shape), values.dtype)
    for factor in (weights, normalizer):
        counted = numerics.times(counted, factor)
    counted = numerics.masked(counted, mask)
    repeats = math.prod(values.shape) / max(math.prod(counted.shape), 1)
    return counted.sum() * repeats
