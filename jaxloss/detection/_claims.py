"""Places that boxes ask for, each box for a few: who gets them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss.detection._assignment import best_slot, gather, lowest

Array = jax.Array


class Settled(NamedTuple):
    """Who got the places.

    Attributes:
      index: Their slots, `[B, N]`, 0 where there is none.
      foreground: Whether there is one, `[B, N]`.
      stands: Which of the places that were asked for stand for theirs, `[B, M K]`: one for each
        that has a slot.
      slot: The slots of those, `[B, M K]`.
      score: How well they suit the slot, `[B, M K]`.
    """

    index: Array
    foreground: Array
    stands: Array
    slot: Array
    score: Array


def settle(
    taken: Array,
    like: Array,
    score: Callable[..., Array],
    slots: tuple[Array, ...],
) -> Settled:
    """Gives every place to the slot that asks for it; one that several ask for to the best of all.

    Args:
      taken: The places that slots ask for, `[B, M, K]`, `N` for none; not twice the same one in a
        slot.
      like: Any array of the places, `[B, N]`.
      score: Of one slot of each image, `[B, ...]` each, how well it suits the places that are
        asked for, `[B, M K]`, whether it asked or not.
      slots: What it takes, `[B, M, ...]` each.
    """
    images, count, each = taken.shape
    place = jax.lax.collapse(taken, 1)
    numbers = np.arange(count, dtype=np.int32)
    asker = jnp.asarray(np.repeat(numbers, each)[None])
    nobody = jnp.full_like(like, count, jnp.int32)
    ends = lowest(
        jnp.stack([nobody, nobody], -1),
        place,
        jnp.stack([asker, -asker], -1) + 0 * place[..., None],
    )
    wanted = place < like.shape[1]
    ends = gather(ends, jnp.where(wanted, place, 0))
    first, last = ends[..., 0], -ends[..., 1]

    def among(number: Array, *slot: Array) -> Array:
        asks = (first < last) | (asker == number[:, None])
        return jnp.where(asks, score(*slot), -jnp.inf)

    each_image = jnp.broadcast_to(numbers, (images, count))
    slot, best, _ = best_slot(among, (each_image, *slots), unroll=1)
    index = lowest(nobody, place, slot)
    taker = index < count
    return Settled(jnp.where(taker, index, 0), taker, wanted & (first == asker), slot, best)
