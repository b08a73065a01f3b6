"""Soft counts of target ids of many classes that lie last, as a CPU computes them.

They stand in the soft confusion matrix `M_cd = sum w p_c [y = d]`, a product of two matrices: on
its diagonal what is right, in its rows and columns what is wrong, each a sum of what is positive.
"""

import jax
import jax.numpy as jnp

from jaxloss._core import labels, numerics
from jaxloss._core.sharding import blocks, is_split

Array = jax.Array

CHUNKS = 8  # a product of matrices wants large ones


def pays(logits: Array, axis: int) -> bool:
    """Whether this is the faster way: images that lie on several devices keep their sums."""
    split = any(is_split(logits, i) for i in range(1, axis))
    return axis == logits.ndim - 1 and not split and blocks(logits, axis) == 1


def counts(
    z: Array, ids: Array, mask: Array | None, weight: Array | None, *, axis: int
) -> tuple[Array, ...]:
    """Returns the sums as `gpu.counts` does."""
    share, hit = _share(z, ids, mask)
    p, y = share / share.sum(-1, keepdims=True), hit.astype(z.dtype)
    y = y if weight is None else y * weight
    pixels = tuple(range(1, axis))
    matrix = jax.lax.dot_general(p, y, ((pixels, pixels), ((0,), (0,))), precision="highest")
    matrix = matrix * _poison(z, ids, mask)[..., None]
    right = jnp.eye(z.shape[-1], dtype=bool)
    wrong = jnp.where(right, 0, matrix)
    tp = jnp.where(right, matrix, 0).sum(-1)
    return tp, wrong.sum(-1), wrong.sum(-2), tp


def slope_of_counts(
    z: Array, ids: Array, mask: Array | None, weight: Array | None, *factors: Array, axis: int
) -> tuple[Array]:
    """Returns the derivative as `gpu.slope_of_counts` does."""
    share, hit = _share(z, ids, mask)
    a, b = (x * _poison(z, ids, mask) for x in factors[:2])
    # Two sums over the other classes in one product.
    by, others = jnp.stack([b, jnp.ones_like(b)], -1), jnp.where(hit, 0, share)
    both = jax.lax.dot_general(others, by, (((axis,), (1,)), ((0,), (0,))), precision="highest")
    mean, rest = both[..., :1], both[..., 1:]
    own = labels.of_ids(share, ids.squeeze(-1), axis)[..., None]
    unit = 1 / (own + rest)
    mean, own, miss = mean * unit, own * unit, rest * unit
    by_own = jax.vmap(lambda a, ids: a.at[ids].get(mode="clip"))(a, ids)
    by_other = jnp.expand_dims(b, range(1, axis))
    slope = share * unit * jnp.where(hit, miss * by_own - mean, by_other - mean - own * by_own)
    slope = slope if mask is None else jnp.where(mask, slope, 0)
    return (slope if weight is None else slope * weight,)


def _share(z: Array, ids: Array, mask: Array | None) -> tuple[Array, Array]:
    """Returns `exp(z - top)`, and whether a class is the target."""
    z = numerics.cut(z if mask is None else jnp.where(mask, z, 0))
    hit = labels.is_target(ids.squeeze(-1), z.shape, z.ndim - 1)
    return jnp.exp(z - z.max(-1, keepdims=True)), hit if mask is None else hit & mask


def _poison(z: Array, ids: Array, mask: Array | None) -> Array:
    """NaN for an image with a bad id, 1 for others; beside the classes.

    Spread over the pixels it would be one more pass over their probabilities.
    """
    return labels.poison(ids, mask, z.shape[-1], z.dtype).prod(range(1, z.ndim - 1))
