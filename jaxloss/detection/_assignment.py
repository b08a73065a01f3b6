"""What assigners return, and what heads do with it: gathering and counting."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core.reduction import AxisName, everywhere

Array = jax.Array


class Assignment(NamedTuple):
    """Which true box each of `N` places (anchors, points, queries) of an image should predict.

    Attributes:
      index: The slot of the box, int32 `[B, N]`, counting the slots that are not valid too; 0 where
        there is no box.
      foreground: Whether the place has a box, bool `[B, N]`.
      weight: What the place counts, floating `[B, N]`: the quality of the match for assigners that
        have one, else 1; 0 where there is no box.
      ignore: Whether the place is neither foreground nor background, bool `[B, N]`.
    """

    index: Array  # type: ignore[assignment]  # a tuple has a method of that name
    foreground: Array
    weight: Array
    ignore: Array


def assignment(
    index: Array, foreground: Array, dtype: Any, *, weight: Any = None, ignore: Any = None
) -> Assignment:
    """Fills in what an assigner does not say, and 0 where there is no box. No gradient passes."""
    weight = jnp.ones((), dtype) if weight is None else weight
    result = Assignment(
        index=jnp.where(foreground, index, 0).astype(jnp.int32),
        foreground=foreground,
        weight=jnp.where(foreground, weight, 0).astype(dtype),
        ignore=jnp.zeros_like(foreground) if ignore is None else ignore & ~foreground,
    )
    return jax.lax.stop_gradient(result)


def gather(slots: Array, index: Array) -> Array:
    """Takes from the slots `[B, M, ...]` of each image those at `index` `[B, ...]`."""
    return jax.vmap(lambda slots, index: slots.at[index].get(mode="promise_in_bounds"))(
        slots, index
    )


def class_targets(labels: Array, assigned: Assignment, classes: int) -> Array:
    """The classes of each place, bool `[B, N, C]`: all False where it has no box.

    Args:
      labels: Classes of the boxes, `[B, M]`.
      assigned: The assignment of the places.
      classes: Their number.
    """
    ids = jnp.where(assigned.foreground, gather(labels, assigned.index), -1)
    return ids[..., None] == jnp.arange(classes, dtype=ids.dtype)


def normalizer(amounts: Array, axis_name: AxisName | None) -> Array:
    """What sums over positives are divided by: the sum of their amounts, at least 1, a constant."""
    total = everywhere(jax.lax.stop_gradient(amounts).sum(), axis_name)
    return jnp.maximum(total, 1)
