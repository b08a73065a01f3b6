"""Soft counts of target ids of many classes that lie last, as a CPU computes them.

They stand in the soft confusion matrix `M_cd = sum w p_c [y = d]`, a product of two matrices: on
its diagonal what is right, in its rows and columns what is wrong, each a sum of what is positive.
"""

import jax
import jax.numpy as jnp

from jaxloss._core import labels, numerics
from jaxloss._core.sharding import is_split

Array = jax.Array

CHUNKS = 8  # a product of matrices wants large ones


def pays(logits: Array, axis: int, pooled: bool) -> bool:
    """Whether this is the faster way: images that lie on several devices keep their sums."""
    split = any(is_split(logits, i) for i in _pixels(logits.ndim, axis, pooled))
    return axis == logits.ndim - 1 and not split and not is_split(logits, axis)


def counts(
    z: Array, ids: Array, mask: Array | None, weight: Array | None, *, axis: int, pooled: bool
) -> tuple[Array, ...]:
    """Returns the sums of `w p y`, `w p (1 - y)`, `w (1 - p) y` and again `w p y` of each class.

    The last two are constants for the derivative.
    """
    share, hit = _share(z, ids, mask)
    p, y = share / share.sum(-1, keepdims=True), hit.astype(z.dtype)
    y = y if weight is None else y * weight
    pixels = tuple(range(1, axis))
    matrix = jax.lax.dot_general(p, y, ((pixels, pixels), ((0,), (0,))), precision="highest")
    matrix = matrix * _poison(ids, mask, z, pixels)[..., None]
    right = jnp.eye(z.shape[-1], dtype=bool)
    wrong = jnp.where(right, 0, matrix)
    sums = jnp.where(right, matrix, 0).sum(-1), wrong.sum(-1), wrong.sum(-2)
    # Of a batch that several devices share, they exchange these, not their matrices.
    tp, fp, fn = (x.sum(0) for x in sums) if pooled else sums
    return tp, fp, fn, tp


def slope_of_counts(
    z: Array,
    ids: Array,
    mask: Array | None,
    weight: Array | None,
    *factors: Array,
    axis: int,
    pooled: bool,
) -> tuple[Array]:
    """Returns the derivative of the counts times factors, of which the first two are `a` and `b`.

    With `s = sum_{c != y} b_c p_c` it is `w p_y ((1 - p_y) a_y - s)` at the target `y` and
    `w p_c (b_c - s - p_y a_y)` elsewhere.
    """
    share, hit = _share(z, ids, mask)
    bad = _poison(ids, mask, z, _pixels(z.ndim, axis, pooled))
    a, b = (x * bad for x in factors[:2])
    # Two sums over the other classes in one product.
    by, batch = jnp.stack([b, jnp.ones_like(b)], -1), () if pooled else (0,)
    others, contracted = jnp.where(hit, 0, share), ((axis,), (b.ndim - 1,))
    both = jax.lax.dot_general(others, by, (contracted, (batch, batch)), precision="highest")
    mean, rest = both[..., :1], both[..., 1:]
    own = labels.of_ids(share, ids.squeeze(-1), axis)[..., None]
    unit = 1 / (own + rest)
    mean, own, miss = mean * unit, own * unit, rest * unit
    of_target = _of_class if pooled else jax.vmap(_of_class)
    a_own = of_target(a, ids)
    b = jnp.expand_dims(b, range(axis) if pooled else range(1, axis))
    slope = share * unit * jnp.where(hit, miss * a_own - mean, b - mean - own * a_own)
    slope = slope if mask is None else jnp.where(mask, slope, 0)
    return (slope if weight is None else slope * weight,)


def _share(z: Array, ids: Array, mask: Array | None) -> tuple[Array, Array]:
    """Returns `exp(z - top)`, and whether a class is the target."""
    z = numerics.cut(z if mask is None else jnp.where(mask, z, 0))
    hit = labels.is_target(ids.squeeze(-1), z.shape, z.ndim - 1)
    return jnp.exp(z - z.max(-1, keepdims=True)), hit if mask is None else hit & mask


def _poison(ids: Array, mask: Array | None, z: Array, pixels: tuple[int, ...]) -> Array:
    """NaN for an image, or the batch, with a bad id, 1 otherwise; beside the classes.

    Spread over the pixels it would be one more pass over their probabilities.
    """
    return labels.poison(ids, mask, z.shape[-1], z.dtype).sum(pixels) * 0 + 1


def _of_class(values: Array, ids: Array) -> Array:
    return values.at[ids].get(mode="clip")


def _pixels(rank: int, axis: int, pooled: bool) -> tuple[int, ...]:
    return tuple(i for i in range(rank) if i != axis and (pooled or i != 0))
