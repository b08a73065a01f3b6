"""What assigners return, and what heads do with it: gathering and counting."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss._core.reduction import AxisName, everywhere

Array = jax.Array

UNROLL = 2  # slots in one kernel: of more the kernels take longer to compile


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

    index: Array
    foreground: Array
    weight: Array
    ignore: Array


def assignment(
    index: Array, foreground: Array, dtype: Any, *, weight: Any = None, ignore: Any = None
) -> Assignment:
    """Fills in what an assigner does not say, and 0 where there is no box. No gradient passes."""
    weight = jnp.ones((), dtype) if weight is None else weight
    filled = Assignment(
        index=jnp.where(foreground, index, 0).astype(jnp.int32),
        foreground=foreground,
        weight=jnp.where(foreground, weight, 0).astype(dtype),
        ignore=jnp.zeros_like(foreground) if ignore is None else ignore & ~foreground,
    )
    return jax.lax.stop_gradient(filled)


def gather(slots: Array, index: Array) -> Array:
    """Takes from the slots `[B, M, ...]` of each image those at `index` `[B, ...]`."""
    return jax.vmap(lambda slots, index: slots.at[index].get(mode="promise_in_bounds"))(
        slots, index
    )


def of_each_image(row: Array, like: Array) -> Array:
    """A row `[N]`, the same for all images, as `[B, N]`, divided over devices as `like` is."""
    return row[None] + jnp.zeros_like(like)


def best_slot(
    score: Callable[..., Array], slots: tuple[Array, ...], unroll: int = UNROLL
) -> tuple[Array, Array, Array]:
    """Finds the slot of the highest score for each place, of equal ones the first.

    Slot by slot, so that no matrix of slots and places is made.

    Args:
      score: Of one slot of each image, `[B, ...]` each, the scores of the places, `[B, N]`.
      slots: What it takes, `[B, M, ...]` each.
      unroll: Slots at a time; 1 where a long formula would take long to compile.

    Returns:
      The slots `[B, N]`, their scores `[B, N]`, and the highest score in each slot `[B, M]`.
    """
    first = score(*(x[:, 0] for x in slots))
    start = jnp.full_like(first, -jnp.inf), jnp.zeros_like(first, jnp.int32)
    count = jnp.asarray(np.arange(slots[0].shape[1], dtype=np.int32))

    def step(
        carry: tuple[Array, Array], slot: tuple[Array, tuple[Array, ...]]
    ) -> tuple[tuple[Array, Array], Array]:
        (best, index), (m, data) = carry, slot
        value = score(*data)
        higher = jnp.where(value > best, value, best)
        # Not `value > best`, or XLA would compute the score anew for the index.
        return (higher, jnp.where(higher > best, m, index)), value.max(-1)

    by_slot = tuple(jnp.moveaxis(x, 1, 0) for x in slots)
    (best, index), most = jax.lax.scan(step, start, (count, by_slot), unroll=unroll)
    return index, best, most.T


def running_sum(x: Array) -> Array:
    """The sums of all numbers up to each, along the last axis.

    Of rows of a square and of the rows before: two products, where `jnp.cumsum` is a dozen kernels
    to compile on a CPU.
    """
    count = x.shape[-1]
    side = math.isqrt(max(count - 1, 0)) + 1
    beyond = [(0, 0, 0)] * (x.ndim - 1) + [(0, side**2 - count, 0)]
    square = jax.lax.pad(x, np.zeros((), x.dtype), beyond).reshape(*x.shape[:-1], side, side)
    upper = np.triu(np.ones((side, side), x.dtype))
    row = jnp.matmul(square, upper, precision="highest")
    before = jnp.matmul(row[..., -1], upper - np.eye(side, dtype=x.dtype), precision="highest")
    return jax.lax.collapse(row + before[..., None], x.ndim - 1)[..., :count]


@jax.vmap
def lowest(places: Array, index: Array, values: Array) -> Array:
    """The smaller of what places `[B, N]` have and the values that go to their indices."""
    return places.at[index].min(values)


@jax.vmap
def highest(places: Array, index: Array, values: Array) -> Array:
    """The larger of what places `[B, N]` have and the values that go to their indices."""
    return places.at[index].max(values)


def class_targets(labels: Array, assigned: Assignment, classes: int) -> Array:
    """The classes of each place, bool `[B, N, C]`: all False where it has no box.

    Args:
      labels: Classes of the boxes, `[B, M]`.
      assigned: The assignment of the places.
      classes: Their number.
    """
    ids = jnp.where(assigned.foreground, gather(labels, assigned.index), -1)
    return ids[..., None] == jnp.arange(classes, dtype=ids.dtype).reshape(1, 1, -1)


def at_least_one(amount: Array, axis_name: AxisName | None = None) -> Array:
    """What sums over positives are divided by: their number or amount, at least 1, a constant."""
    return jnp.maximum(everywhere(jax.lax.stop_gradient(amount), axis_name), 1)
