"""Gradient harmonizing: examples weigh by how rare the length of their gradient is."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics, sigmoid
from jaxloss._core.labels import Independent, independent
from jaxloss._core.lean import of_sums
from jaxloss._core.reduction import AxisName, everywhere, reduce_labelled

__all__ = ["ghm"]

Array = jax.Array


def ghm(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    bins: int = 10,
    momentum: ArrayLike = 0.0,
    counts: ArrayLike | None = None,
    activation: str | None = "sigmoid",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
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
      logits: Log-odds, any shape `[...]`, floating; probabilities with `activation=None`.
      labels: Targets in `[0, 1]` of the same shape: float, boolean, or integer 0 and 1 (another
        integer gives NaN). Or integer ids without the class axis: one class against the rest.
      bins: The number of bins, at least 1.
      momentum: The share of the previous counts, in `[0, 1)`; the paper uses 0.75.
      counts: The counts that the previous call returned, shape `[bins]`, at least 0.
      activation: `"sigmoid"`, or None where `logits` already are probabilities: their logarithms
        are cut at -100, beyond which the gradient is 0. Prefer logits.
      axis: The class axis of `class_weights` and ids; None if there is none.
      where: Boolean, the rank of `logits` (or of the ids) with each dimension equal or 1. What is
        False reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      ignore_index: The integer label of elements (or ids of positions) to leave out.
      class_weights: One factor of value and denominator per class, shape `[C]`.
      reduction: `"mean"` (weighted, over the valid elements, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the counts and the mean are taken globally inside `shard_map`
        or `pmap`.

    Returns:
      A scalar, or the shape of `logits` with `reduction="none"`; float32 for half-precision input.
      With `counts`, a pair of that and the new counts.

    Raises:
      TypeError: If `logits` is not floating, `where` not boolean or `bins` no integer.
      ValueError: If shapes do not match (they never broadcast), `counts` has another length than
        `bins`, an axis or option does not exist, a number is out of its range, or `ignore_index`
        comes with float labels.

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
    name = "ghm"
    checks.option(name, "activation", activation, ("sigmoid", None))
    if isinstance(bins, bool) or not isinstance(bins, (int, np.integer)):
        checks.fail(TypeError, name, "bins", repr(bins), "an integer")
    if bins < 1:
        checks.fail(ValueError, name, "bins", bins, "at least 1")
    data = independent(
        name,
        logits,
        labels,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
    )
    dtype = data.logits.dtype
    keep = checks.number(name, "momentum", momentum, dtype, "[0, 1)")
    previous = jnp.zeros(bins, dtype)
    if counts is not None:
        previous = checks.number(name, "counts", counts, dtype, "[0, inf)")
        checks.shape(name, "counts", previous, (bins,), "one count per bin")

    probabilities = activation is None
    held = everywhere(_sizes(data, bins, probabilities), axis_name)
    held = held.astype(dtype)
    blend = keep * previous + (1 - keep) * held
    updated = jnp.where(held > 0, blend, jnp.where(keep == 0, 0, previous))
    filled = (held > 0).sum().astype(dtype)
    factors = jax.lax.stop_gradient(numerics.divide(held.sum(), updated * filled))

    def cost(x: Array, y: Array, factors: Array, weights: Array | None) -> Array:
        factor = _of_bin(factors, _bins(x, y, bins, probabilities))
        entropy = sigmoid.entropy(x, y, 1 - y, probabilities)
        return factor * entropy if weights is None else jnp.where(weights == 0, 0, factor * entropy)

    values = sigmoid.costs(cost, data, factors, data.weights)
    loss = reduce_labelled(name, values, reduction, data, axis_name)
    return loss if counts is None else (loss, jax.lax.stop_gradient(updated))


def _sizes(data: Independent, bins: int, probabilities: bool) -> Array:
    """How many valid elements each bin holds; a constant."""

    def counted(x: Array, targets: Array, classes: Any, mask: Any, weights: Any) -> tuple[Array]:
        at = _bins(x, data.read(targets, classes, x.dtype), bins, probabilities)
        for valid in (mask, None if weights is None else weights != 0):
            at = at if valid is None else jnp.where(valid, at, bins)
        return (_histogram(at, bins).reshape((1,) * at.ndim + (bins,)),)

    arguments = (data.logits, data.targets, data.classes, data.mask, data.weights)
    every = tuple(range(data.logits.ndim))
    return of_sums(counted, every, jax.lax.stop_gradient(arguments), lambda sums: sums[0], ())


def _bins(x: Array, y: Array, bins: int, probabilities: bool) -> Array:
    """The bin of each gradient's length, `bins` for NaN."""
    x, y = jax.lax.stop_gradient((x, y))
    p, q = (x, 1 - x) if probabilities else sigmoid.probability_pair(x)
    length = jnp.abs(y * q - (1 - y) * p)
    at = jnp.where(jnp.isnan(length), bins, jnp.minimum(jnp.floor(length * bins), bins - 1))
    return at.astype(jnp.uint8 if bins < 256 else jnp.int32)


@functools.partial(jax.jit, static_argnames="bins")
def _histogram(at: Array, bins: int) -> Array:
    """How many elements each bin holds, in one pass over their bins for each."""
    return jax.lax.map(lambda b: (at == b).sum(dtype=jnp.int32), jnp.arange(bins, dtype=at.dtype))


def _of_bin(values: Array, at: Array) -> Array:
    """The value of each element's bin, NaN for an element without."""
    found = jnp.full_like(at, jnp.nan, values.dtype)
    for b in range(values.shape[0]):  # unrolled, this fuses with what uses it
        found = jnp.where(at == b, values[b], found)
    return found
