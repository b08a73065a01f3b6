"""Soft counts of target ids as a CPU computes them: class by class, a plane of the logits each.

What is reduced over the classes grows plane by plane, and what is summed over the pixels is one
plane at a time: nothing of the logits' size is kept. Few classes that lie last are moved first.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import classes, labels, numerics
from jaxloss._core.sharding import blocks

Array = jax.Array


LAST = 6  # classes that lie last; of more, `rows` or reductions are faster than to move them


def pays(logits: Array, axis: int) -> bool:
    """Whether this is the faster way."""
    if axis == logits.ndim - 1 > 0:
        return logits.shape[axis] <= LAST and blocks(logits, axis) == 1
    return classes.are_planes(logits, axis)


def counts(
    z: Array, ids: Array, mask: Array | None, weight: Array | None, *, axis: int
) -> tuple[Array, ...]:
    """Returns the sums as `gpu.counts` does."""
    at, (z, ids, mask, weight) = moved(axis, z, ids, mask, weight)
    share = _share(z, ids, mask, at)
    if weight is not None:
        share = share._replace(unit=share.unit * weight, miss=share.miss * weight)
    pixels = _pixels(z, at)

    def of_class(c: Any, z: Array) -> tuple[Array, ...]:
        p, hit = share.p(z), (ids == c).astype(z.dtype)
        return tuple(x.sum(pixels) for x in (p * hit, p * (1 - hit), share.miss * hit))

    tp, fp, fn = classes.each(of_class, at, z, join=-1)
    return tp, fp, fn, tp


def slope_of_counts(
    z: Array, ids: Array, mask: Array | None, weight: Array | None, *factors: Array, axis: int
) -> tuple[Array]:
    """Returns the derivative as `gpu.slope_of_counts` does."""
    at, (z, ids, mask, weight) = moved(axis, z, ids, mask, weight)
    share = _share(z, ids, mask, at)
    a, b = (jnp.expand_dims(x, _pixels(z, at)) for x in factors[:2])

    def add(sums: tuple[Array, Array], c: Any, *planes: Array) -> tuple[Array, Array]:
        (mean, own), (z, a, b) = sums, planes
        p, hit = share.p(z), ids == c
        return mean + jnp.where(hit, 0, p * b), own + jnp.where(hit, p * a, 0)

    zero = jnp.zeros_like(share.top)
    mean, own = classes.fold(add, (zero, zero), at, z, a, b)
    factor = 1 if weight is None else weight

    def of_class(c: Any, *planes: Array) -> tuple[Array]:
        z, a, b = planes
        inner = jnp.where(ids == c, share.miss * a - mean, b - mean - own)
        return (share.p(z) * inner * factor,)

    (slope,) = classes.each(of_class, at, z, a, b, join=at)
    return (jnp.moveaxis(slope, at, axis),)


class _Share(NamedTuple):
    """The softmax of each position, with a class axis of size 1; 0 where masked.

    Attributes:
      top: The largest logit.
      unit: `p` of a class whose logit is that.
      miss: `1 - p` of the target.
      mask: Which positions are valid.
    """

    top: Array
    unit: Array
    miss: Array
    mask: Array | None

    def p(self, z: Array) -> Array:
        """The probability of a class, of which the logits are given."""
        p = jnp.exp(numerics.cut(z) - self.top) * self.unit
        return p if self.mask is None else jnp.where(self.mask, p, 0)


def _share(z: Array, ids: Array, mask: Array | None, axis: int) -> _Share:
    none = jnp.full_like(ids, -jnp.inf, z.dtype)
    top = classes.fold(lambda top, c, z: jnp.maximum(top, numerics.cut(z)), none, axis, z)

    def add(sums: tuple[Array, Array], c: Any, z: Array) -> tuple[Array, Array]:
        (own, rest), share, hit = sums, jnp.exp(numerics.cut(z) - top), ids == c
        return own + jnp.where(hit, share, 0), rest + jnp.where(hit, 0, share)

    zero = jnp.zeros_like(none)
    own, rest = classes.fold(add, (zero, zero), axis, z)
    unit = labels.poison(ids, mask, z.shape[axis], z.dtype) / (own + rest)
    unit = unit if mask is None else jnp.where(mask, unit, 0)
    miss = rest * unit
    return _Share(top, unit, miss if mask is None else jnp.where(mask, miss, 0), mask)


def moved(axis: int, z: Array, *others: Array | None) -> tuple[int, tuple[Any, ...]]:
    """Moves classes that lie last behind the batch; returns where they are, and the arrays."""
    if axis != z.ndim - 1:
        return axis, (z, *others)
    at = min(1, axis - 1)  # where there are no images, before the positions
    return at, tuple(None if a is None else jnp.moveaxis(a, axis, at) for a in (z, *others))


def _pixels(z: Array, axis: int) -> tuple[int, ...]:
    return tuple(i for i in range(1, z.ndim) if i != axis)
