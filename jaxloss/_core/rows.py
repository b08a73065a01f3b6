"""Soft counts of target ids of classes that lie last, as a CPU computes them: a row a position.

What the other classes have of a row is written to memory once, for counts and slopes. All sums of
it are products with numbers of the position or the class: nothing that is summed is written.
"""

import jax
import jax.numpy as jnp

from jaxloss._core import labels, softmax
from jaxloss._core.sharding import blocks, is_split

Array = jax.Array


def pays(logits: Array, axis: int) -> bool:
    """Whether this is the faster way: images that lie on several devices keep their sums."""
    split = any(is_split(logits, i) for i in range(1, axis))
    return axis == logits.ndim - 1 and not split and blocks(logits, axis) == 1


def counts(
    z: Array, ids: Array, mask: Array | None, weight: Array | None, *, axis: int
) -> tuple[Array, ...]:
    """Returns the sums as `gpu.counts` does."""
    others, (p, missed, unit) = _row(z, ids, mask)
    if weight is not None:
        p, missed, unit = (x * weight.squeeze(-1) for x in (p, missed, unit))
    fp = _products(unit, others, axis - 1, axis - 1).sum(range(1, axis - 1))
    tp, fn = (_of_each(x, ids, z.shape[-1]) for x in (p, missed))
    tp, fp, fn = (x * _poison(z, ids, mask) for x in (tp, fp, fn))
    return tp, fp, fn, tp


def slope_of_counts(
    z: Array, ids: Array, mask: Array | None, weight: Array | None, *factors: Array, axis: int
) -> tuple[Array]:
    """Returns the derivative as `gpu.slope_of_counts` does."""
    others, (p, missed, unit) = _row(z, ids, mask)
    a, b = (x * _poison(z, ids, mask) for x in factors[:2])
    b = jnp.broadcast_to(jnp.expand_dims(b, range(1, axis - 1)), (*z.shape[:-2], z.shape[-1]))
    mean = _products(others, b, axis, axis - 1) * unit
    by_own = jax.vmap(lambda a, ids: a.at[ids].get(mode="clip"))(a, ids.squeeze(-1))
    at_target, own = p * (missed * by_own - mean), mean + p * by_own
    at_target, own, unit = (x[..., None] for x in (at_target, own, unit))
    elsewhere = others * unit * (b[..., None, :] - own)
    slope = jnp.where(labels.is_target(ids.squeeze(-1), z.shape, axis), at_target, elsewhere)
    return (slope if weight is None else slope * weight,)


def _row(z: Array, ids: Array, mask: Array | None) -> tuple[Array, tuple[Array, ...]]:
    """Returns `exp(z - top)` of all classes but the target, and what `softmax.positions` does."""
    ids, mask = ids.squeeze(-1), None if mask is None else mask.squeeze(-1)
    rows = softmax.statistics(z, ids, mask, z.ndim - 1)
    others = softmax.beside(z, rows[0], ids, mask, z.ndim - 1)
    return others, softmax.positions(rows, ids, mask, z.shape[-1])


def _products(one: Array, other: Array, axis: int, other_axis: int) -> Array:
    """Sums over an axis of each line of positions; sums of images the compiler would reshape for.

    What it reshapes it does not write the slopes over.
    """
    lines = tuple(range(min(one.ndim, other.ndim) - 1))
    over = (((axis,), (other_axis,)), (lines, lines))
    return jax.lax.dot_general(one, other, over, precision="highest")


def _of_each(x: Array, ids: Array, count: int) -> Array:
    """Sums a number of each position to those of its class in each image."""

    def of_image(x: Array, ids: Array) -> Array:
        return jnp.zeros_like(x, shape=(count,)).at[ids].add(x, mode="drop")

    return jax.vmap(of_image)(x, ids.squeeze(-1))


def _poison(z: Array, ids: Array, mask: Array | None) -> Array:
    """NaN for an image with a bad id, 1 for others; beside the classes.

    A sum of each class drops it.
    """
    return labels.poison(ids, mask, z.shape[-1], z.dtype).prod(range(1, z.ndim - 1))
