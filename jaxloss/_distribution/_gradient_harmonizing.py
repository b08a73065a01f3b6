"""Gradient harmonizing: examples weigh by how rare the length of their gradient is."""

from __future__ import annotations

import functools
from typing import Annotated, Literal, Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics, sigmoid
from jaxloss._core.families import one_versus_rest
from jaxloss._core.labels import Independent, of_each
from jaxloss._core.platforms import bind
from jaxloss._core.reading import independent
from jaxloss._core.reduction import everywhere, reduce
from jaxloss._core.sums import of_sums
from jaxloss.options import Interval, Number, Numbers, OneVersusRest, PerClass

__all__ = ["ghm"]

Array = jax.Array


@one_versus_rest
def ghm(
    logits: Numbers,
    labels: Numbers,
    *,
    bins: int = 10,
    momentum: Annotated[Number, Interval("[0, 1)")] = 0.0,
    counts: PerClass | None = None,
    activation: Literal["sigmoid"] | None = "sigmoid",
    **options: Unpack[OneVersusRest],
) -> Array | tuple[Array, Array]:
    """Computes the gradient-harmonizing classification loss (GHM-C) of each logit.

    With `p = sigmoid(logits)` and `n` valid elements in all, each valid element falls into one of
    `M = bins` bins by the length of its gradient, and weighs the inverse of what its bin holds::

        bin  = min(floor(|p - y| M), M - 1)
        A_b  = momentum A_b + (1 - momentum) c_b       c_b > 0 elements in bin b
        w    = n / (A_bin * number of bins with c_b > 0)
        GHM  = w BCE(p, y)
        mean = sum GHM / n

    so that neither the mass of easy examples nor the outliers dominate. With `momentum=0` the
    counts are those of this call alone (`A_b = c_b`). With momentum a bin that is empty keeps its
    count, and the counts must be carried from call to call::

        loss, counts = ghm(logits, labels, momentum=0.75, counts=counts)

    from `jnp.zeros(bins)` on, which is what `counts=None` stands for. All that goes into `w` is
    constant for the derivative. Elements of weight 0 are not counted; other `weights` and
    `class_weights` are factors as everywhere, and change neither `c` nor `n`. The mean's
    denominator holds `weights` and `class_weights`, never `w`.

    Args:
      bins: The number of bins, at least 1.
      momentum: The share of the previous counts, in `[0, 1)`; the paper uses 0.75.
      counts: The counts that the previous call returned, shape `[bins]`, at least 0.
      axis_name: Mesh axis over which the counts and the mean are taken globally inside `shard_map`
        or `pmap`.

    Returns:
      A scalar, or the shape of `logits` with `reduction="none"`; float32 for half-precision input.
      With `counts`, a pair of that and the new counts.

    Example:
      Three easy negatives share the weight of their bin, the hard one has its bin to itself:

      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.array([-4.0, -4.0, -4.0, 2.0]), jnp.zeros(4)
      >>> print(jaxloss.ghm(logits, labels, reduction="none").round(4))
      [0.0121 0.0121 0.0121 4.2539]
      >>> loss, counts = jaxloss.ghm(logits, labels, momentum=0.5, counts=jnp.ones(10))
      >>> print(counts)
      [2. 1. 1. 1. 1. 1. 1. 1. 1. 1.]

    Reference:
      Li, Liu and Wang. Gradient Harmonized Single-stage Detector. AAAI 2019, equations 7 and 8.
      https://arxiv.org/abs/1811.05181
    """
    bins = checks.integer("bins", bins, 1)
    data = independent(logits, labels, options, activation)
    dtype = data.logits.dtype
    previous = jnp.zeros(bins, dtype) if counts is None else counts
    checks.shape("counts", previous, (bins,), "one count per bin")
    held = everywhere(_sizes(data, bins), options["axis_name"]).astype(dtype)
    blend = momentum * previous + (1 - momentum) * held
    updated = jnp.where(held > 0, blend, jnp.where(momentum == 0, 0, previous))
    filled = (held > 0).sum().astype(dtype)
    factors, updated = jax.lax.stop_gradient(
        (numerics.divide(held.sum(), updated * filled), updated)
    )
    formula = bind(_ghm, probabilities=data.are_probabilities)
    loss = reduce(sigmoid.cost(formula, data, factors, data.weights), options, data)
    return loss if counts is None else (loss, updated)


def _ghm(
    x: Array, y: Array, factors: Array, weights: Array | None, *, probabilities: bool
) -> Array:
    factor = _of_bin(factors, _bins(x, y, factors.size, probabilities))
    loss = factor * sigmoid.entropy(x, y, 1 - y, probabilities)
    return loss if weights is None else jnp.where(weights == 0, 0, loss)


def _sizes(data: Independent, bins: int) -> Array:
    """How many valid elements each bin holds; a constant."""
    counted = bind(_counted, bins=bins, probabilities=data.are_probabilities)
    arrays = (data.logits, data.targets, data.classes, data.mask, data.weights)
    every = tuple(range(data.logits.ndim))
    return of_sums(counted, every, jax.lax.stop_gradient(arrays), _only, ())


def _only(sums: tuple[Array]) -> Array:
    return sums[0]


def _counted(
    x: Array,
    targets: Array,
    ids: Array | None,
    mask: Array | None,
    weights: Array | None,
    *,
    bins: int,
    probabilities: bool,
) -> tuple[Array]:
    """How many of some elements each bin holds, along a last axis."""
    at = _bins(x, of_each(targets, ids, x.dtype), bins, probabilities)
    for valid in (mask, None if weights is None else weights != 0):
        at = at if valid is None else jnp.where(valid, at, bins)
    return (_histogram(at, bins).reshape((1,) * at.ndim + (bins,)),)


@functools.partial(jax.jit, static_argnames="bins")
def _histogram(at: Array, bins: int) -> Array:
    """How many elements each bin holds, in one pass over their bins for each."""
    return jax.lax.map(lambda b: (at == b).sum(dtype=jnp.int32), jnp.arange(bins, dtype=at.dtype))


def _bins(x: Array, y: Array, bins: int, probabilities: bool) -> Array:
    """The bin of each gradient's length, `bins` for NaN."""
    x, y = jax.lax.stop_gradient((x, y))
    p, q = (x, 1 - x) if probabilities else sigmoid.probability_pair(x)
    length = jnp.abs(y * q - (1 - y) * p)
    at = jnp.where(jnp.isnan(length), bins, jnp.minimum(jnp.floor(length * bins), bins - 1))
    return at.astype(jnp.uint8 if bins < 256 else jnp.int32)


def _of_bin(values: Array, at: Array) -> Array:
    """The value of each element's bin, NaN for an element without."""
    found = jnp.where(at == values.size, jnp.nan, values[0])
    for b in range(1, values.size):  # unrolled, this fuses with what uses it
        found = jnp.where(at == b, values[b], found)
    return found
