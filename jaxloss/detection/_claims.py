"""Places that boxes ask for, each box for a few: who gets them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxloss.detection._assignment import gather, highest, lowest

Array = jax.Array


class Settled(NamedTuple):
    """Who got the places.

    Attributes:
      index: Their slots, `[B, N]`, 0 where there is none.
      foreground: Whether there is one, `[B, N]`.
      asked: The places that slots asked for, `[B, M K]`.
      stands: Which of these stand for their place, `[B, M K]`: one for each that has a slot.
    """

    index: Array
    foreground: Array
    asked: Array
    stands: Array


def settle(taken: Array, wanted: Array, like: Array, prefer: Callable[[Array], Array]) -> Settled:
    """Gives every place to the slot that asks for it; one that several ask for to the preferred.

    Args:
      taken: The places that slots ask for, `[B, M, K]`; not twice the same one in a slot.
      wanted: Which of them it really asks for, `[B, M, K]`.
      like: Any array of the places, `[B, N]`.
      prefer: Of places `[B, M K]`, the slots that should have them; not only those that asked.
    """
    images, slots, count = taken.shape
    taken, wanted = taken.reshape(images, -1), wanted.reshape(images, -1)
    slot = jax.lax.broadcasted_iota(jnp.int32, (1, slots, count), 1).reshape(1, -1)
    nobody = jnp.full_like(like, slots, jnp.int32)
    claim = jnp.where(wanted, slot, slots)
    first = lowest(nobody, taken, claim)
    last = highest(jnp.full_like(nobody, -1), taken, jnp.where(wanted, slot, -1))
    contested = gather(first < last, taken)
    index = lowest(nobody, taken, jnp.where(wanted & contested, prefer(taken), claim))
    taker = index < slots
    stands = wanted & (gather(first, taken) == slot)
    return Settled(jnp.where(taker, index, 0), taker, taken, stands)
