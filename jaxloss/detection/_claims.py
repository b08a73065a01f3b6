"""Places that boxes ask for, slot by slot, each box for a few: who gets them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Claims(NamedTuple):
    """What is known of the places after some slots, `[B, N]` each.

    Attributes:
      taker: The last slot that asked for the place, -1 for none.
      contested: Whether several did.
      preferred: The slot of the highest preference so far, whether it asked or not, of equal ones
        the first.
      preference: That preference.
    """

    taker: Array
    contested: Array
    preferred: Array
    preference: Array


def unclaimed(lowest: Array) -> Claims:
    """The claims before the first slot; `lowest` are preferences `[B, N]` below all others."""
    nobody = jnp.full_like(lowest, -1, jnp.int32)
    return Claims(nobody, jnp.zeros_like(lowest, bool), nobody, lowest)


def claim(claims: Claims, slot: Array, takes: Array, preference: Array) -> Claims:
    """Adds what a slot asks for, `[B, N]`, and how much the places prefer it."""
    better = preference > claims.preference
    return Claims(
        taker=jnp.where(takes, slot, claims.taker),
        contested=claims.contested | (takes & (claims.taker >= 0)),
        preferred=jnp.where(better, slot, claims.preferred),
        preference=jnp.where(better, preference, claims.preference),
    )


def settle(claims: Claims) -> tuple[Array, Array]:
    """Gives every place to the slot that asks for it; one that several ask for to the preferred.

    Returns:
      The slots of the places `[B, N]`, 0 where there is none, and whether there is one.
    """
    taken = claims.taker >= 0
    index = jnp.where(claims.contested, claims.preferred, claims.taker)
    return jnp.where(taken, index, 0), taken


def at_least(rank: Array, value: Array, place: Array) -> Array:
    """Whether places `[B, N]` come no later than one of those that `top_k` of their ranks returns.

    Args:
      rank: What is looked at, `[B, N]`.
      value: The rank of that place, `[B, 1]`.
      place: Its index, `[B, 1]`: of equal ranks the first come first.
    """
    index = jnp.arange(rank.shape[1], dtype=place.dtype)[None]
    return (rank > value) | ((rank == value) & (index <= place))
