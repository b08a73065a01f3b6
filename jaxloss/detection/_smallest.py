"""The smallest numbers of each row, without sorting them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss.detection._assignment import gather, running_sum

Array = jax.Array

BITS = 32  # of a word


def smallest(values: Array, count: int) -> Array:
    """Where the `count` smallest numbers of each row `[B, N]` are, `[B, count]`, in any order.

    As `jax.lax.top_k` finds them, whose sorting takes a CPU several times as long. No number is
    negative; NaN is as large as infinity. Of equal ones it is always the same that are taken.

    Words have a bit for each number, first for those below the limit, then for those at it: the
    `count` lowest bits that are set are the numbers.
    """
    values = jnp.where(values < jnp.inf, values, jnp.inf)
    bits = _bits(values)  # ordered as the numbers are
    least = jnp.finfo(values.dtype).tiny  # a CPU takes smaller ones for 0
    limit = _limit(bits, _bits(values.max(1, keepdims=True, initial=least)), count, values.dtype)
    blocks = -(-bits.shape[1] // BITS)
    beyond = (0, 0), (0, blocks * BITS - bits.shape[1])
    pack = lambda mask: _pack(jnp.pad(mask, beyond).reshape(len(mask), BITS, blocks))
    words = jnp.concatenate([pack(bits < limit), pack(bits == limit)], 1)
    amount = jax.lax.population_count(words).astype(jnp.int32)
    end = _running_sum(amount)
    block = _running_sum(_counts(end, count))  # of each rank: how many blocks end before it
    rank = jnp.arange(count, dtype=jnp.int32)[None] - gather(end - amount, block)
    return _set_bit(gather(words, block), rank) * blocks + block % blocks


def _bits(values: Array) -> Array:
    return jax.lax.bitcast_convert_type(values, f"int{8 * values.dtype.itemsize}")


def _running_sum(counts: Array) -> Array:
    """Whole numbers are exact in floating point up to 2^24, more than fit in a row."""
    return running_sum(counts.astype(jnp.float32)).astype(counts.dtype)


def _limit(bits: Array, most: Array, count: int, dtype: jnp.dtype) -> Array:
    """A number of each row, `[B, 1]`, up to which there are `count`, or the `count`-th smallest.

    By interpolation between the numbers and bisection of their bits in turn; none is above `most`.
    A product counts, which a CPU sums faster.
    """

    def unsure(state: tuple[Array, ...]) -> Array:
        low, high, *_ = state
        return (high - low > 1).any()

    def narrow(state: tuple[Array, ...]) -> tuple[Array, ...]:
        low, high, fewer, enough, bisect = state
        gap = high - low
        share = (count - fewer) / jnp.maximum(enough - fewer, 1)
        least, most = (
            jax.lax.bitcast_convert_type(end, dtype) for end in (jnp.maximum(low, 0), high)
        )
        guess = jax.lax.bitcast_convert_type(least + (most - least) * share, bits.dtype)
        middle = jnp.where(bisect, low + gap // 2, guess)
        middle = jnp.clip(middle, low + 1, jnp.maximum(high - 1, low + 1))
        number = jnp.matmul((bits <= middle).astype(dtype), ones)
        ends, below, exact = gap <= 1, number < count, number == count
        return (
            jnp.where(ends, low, jnp.where(below, middle, jnp.where(exact, middle - 1, low))),
            jnp.where(ends | below, high, middle),
            jnp.where(below, number, fewer),
            jnp.where(below, enough, number),
            ~bisect,
        )

    ones = np.ones((bits.shape[1], 1), dtype)
    none = jnp.zeros_like(most, dtype)
    start = most * 0 - 1, most, none, none + bits.shape[1], none > 0
    return jax.lax.while_loop(unsure, narrow, start)[1]


@functools.partial(jax.vmap, in_axes=(0, None))
def _counts(index: Array, size: int) -> Array:
    """How often each number below `size` is in a row."""
    return jnp.zeros_like(index, shape=size).at[index].add(1, mode="drop")


def _pack(mask: Array) -> Array:
    """Bits `[B, BITS, N]` as words `[B, N]`."""
    place = jnp.arange(BITS, dtype=jnp.uint32)[None, :, None]
    return (mask.astype(jnp.uint32) << place).sum(1, dtype=jnp.uint32)


def _set_bit(word: Array, rank: Array) -> Array:
    """Which bit of each word is the one with `rank` set ones below it."""
    place = jnp.zeros_like(rank)
    for width in (16, 8, 4, 2, 1):
        half = (word >> place.astype(word.dtype)) & ((1 << width) - 1)
        below = jax.lax.population_count(half).astype(rank.dtype)
        above = rank >= below
        rank = jnp.where(above, rank - below, rank)
        place = jnp.where(above, place + width, place)
    return place
