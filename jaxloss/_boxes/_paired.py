"""What every box loss does before and after its formula."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from jaxloss._core import boxes as pairs
from jaxloss._core import checks, numerics
from jaxloss._core.labels import paired
from jaxloss._core.lean import Costs, lean, varying
from jaxloss._core.reduction import AxisName, reduce

Array = jax.Array
Number = tuple[str, ArrayLike | Sequence[float] | None, str]

BLOCK = 2**14  # pairs that a CPU keeps in its cache

_NAMES = ("boxes", "target_boxes")
_PER_PAIR = 4  # arguments that have a row per pair: both boxes, mask and weights


def reduced(
    function: str,
    cost: Callable[..., Array],
    boxes: ArrayLike,
    target_boxes: ArrayLike,
    *numbers: Number,
    format: str,
    where: ArrayLike | None,
    weights: ArrayLike | None,
    reduction: str,
    axis_name: AxisName | None,
) -> Array:
    """Reads pairs of boxes, computes `cost(x, y, *numbers)` of their spans and reduces it.

    Args:
      function: The public name of the loss.
      cost: Takes the horizontal and the vertical span and the numbers.
      boxes: As the caller has them.
      target_boxes: As the caller has them.
      *numbers: Options, each with its name and the interval it must be in; derivatives reach them.
        None stays None.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.
      where: As the caller has it.
      weights: As the caller has them.
      reduction: `"mean"`, `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean is taken globally.
    """
    first, second, mask, factor = paired(
        function, boxes, target_boxes, names=_NAMES, where=where, weights=weights, inner=1
    )
    pairs.checked(function, "boxes", first)
    checks.option(function, "format", format, pairs.FORMATS)

    parameters = [_number(function, number, first.dtype) for number in numbers]

    def each(first: Array, second: Array, mask: Any, *parameters: Array) -> Array:
        values = cost(*pairs.read(first, second, format), *parameters)[..., None]
        return values if mask is None else jnp.where(mask, values, 0)

    slots = None if mask is None else mask[..., None]
    costs = _Costs(each, (first, second, slots, *parameters), first.ndim - 1)
    return reduce(function, costs, reduction, mask=mask, weights=factor, axis_name=axis_name)


def _number(function: str, number: Number, dtype: Any) -> Array | None:
    name, value, interval = number
    if value is None:
        return None
    value = np.asarray(value, dtype) if isinstance(value, Sequence) else value
    return checks.number(function, name, value, dtype, interval)


class _Costs(Costs):
    """The costs of pairs of boxes."""

    def over(self, denominator: Array, weights: Array | None) -> Array:
        """Returns the weighted sum of the values over `denominator`, 0 where that is 0.

        The derivative of a box loss has many intermediates, which a CPU's compiler writes to
        memory; block by block they stay in its cache. Value and gradient are one loop.
        """

        def shares(
            first: Array, second: Array, mask: Any, weights: Any, denominator: Array, *others: Any
        ) -> Array:
            values = self.cost(first, second, mask, *others)
            values = values if weights is None else values * weights
            return numerics.divide(values, denominator)

        def total(*arguments: Any) -> Array:
            return shares(*arguments).sum()

        def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
            moving = tuple(
                i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero | None)
            )
            steps = tuple(tangents[i] for i in moving)
            if max(moving) > 1:  # not the boxes alone

                def moved(*values: Array) -> Array:
                    arguments = dict(enumerate(primals)) | dict(zip(moving, values, strict=True))
                    return total(*arguments.values())

                return jax.jvp(moved, tuple(primals[i] for i in moving), steps)
            both = jax.value_and_grad(total, moving)
            evaluate = _in_blocks(shares, both, moving, primals[0])
            value, slopes = lean(both, evaluate)(*varying(*primals))
            along = [(slope * step).sum() for slope, step in zip(slopes, steps, strict=True)]
            return value, functools.reduce(jnp.add, along)

        summed = jax.custom_jvp(total)
        summed.defjvp(jvp, symbolic_zeros=True)
        first, second, mask, *others = self.arguments
        weights = None if weights is None else weights[..., None]
        return summed(first, second, mask, weights, denominator, *others)


def _in_blocks(
    shares: Callable[..., Array], both: Callable[..., Any], moving: tuple[int, ...], boxes: Array
) -> Callable[..., Any]:
    """Makes a CPU compute a sum, and its gradients by arrays of boxes, block by block."""
    pairs = boxes.size // 4
    split = any(axis is not None for axis in jax.typeof(boxes).sharding.spec)
    if pairs <= BLOCK or split:
        return both
    count = -(-pairs // BLOCK)
    size = -(-pairs // count)

    def blocks(*arguments: Any) -> Any:
        per_pair, scalars = arguments[:_PER_PAIR], arguments[_PER_PAIR:]
        rows: list[Any] = [None if x is None else _rows(x, boxes.shape[:-1]) for x in per_pair]

        def add(i: Array, result: Any) -> Any:
            start = jnp.minimum(i * size, pairs - size)  # the last one repeats a few pairs
            new = start + jnp.arange(size, dtype=start.dtype) >= i * size
            cut: list[Any] = [
                None if x is None else jax.lax.dynamic_slice_in_dim(x, start, size) for x in rows
            ]

            def of_columns(*columns: tuple[Array, ...]) -> Array:
                whole = [jnp.stack(four, -1) for four in columns]
                data = dict(enumerate(cut)) | dict(zip(moving, whole, strict=True))
                return shares(*data.values(), *scalars)[:, 0]

            # Were it four numbers side by side, each would be computed with all four.
            columns = (tuple(cut[n][:, k] for k in range(4)) for n in moving)
            values, pull = jax.vjp(of_columns, *columns)
            write = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, start, 0)
            slopes = jax.tree.map(write, result[1], pull(jnp.ones_like(values)))
            return result[0] + jnp.where(new, values, 0).sum(), slopes

        zeros = jnp.zeros_like(rows[0][:, 0])
        result = zeros.sum(), ((zeros,) * 4,) * len(moving)
        value, slopes = jax.lax.fori_loop(0, count, add, result)
        return value, tuple(jnp.stack(four, -1).reshape(boxes.shape) for four in slopes)

    return lambda *arguments: jax.lax.platform_dependent(*arguments, cpu=blocks, default=both)


def _rows(x: Array, shape: tuple[int, ...]) -> Array:
    """One row per pair."""
    return jnp.broadcast_to(x, (*shape, x.shape[-1])).reshape(-1, x.shape[-1])
