"""Hard-example mining: the cross-entropy of the positions that are predicted worst."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics
from jaxloss._core import labels as labelled
from jaxloss._core import reduction as reductions
from jaxloss._core.labels import Competing, Independent, competing
from jaxloss._core.lean import Costs
from jaxloss._core.reduction import AxisName
from jaxloss._distribution._cross_entropy import competing_entropy, spread

__all__ = ["top_k_cross_entropy"]

Array = jax.Array


def top_k_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    fraction: ArrayLike = 0.1,
    label_smoothing: ArrayLike = 0.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the mean cross-entropy of the hardest positions of the whole batch.

    With `CE_i` the cross-entropy of position `i`, times its weights, and `n` valid positions::

        k    = max(1, floor(fraction n))
        TopK = sum of the k largest CE_i / k

    also known as online hard example mining (OHEM). `n` counts what `where`, `ignore_index` and
    weights other than 0 leave, so `k` follows the mask under `jit`. Ignored positions are never
    candidates, and at least one valid position is always selected; releases that round `k` down to
    0 on small inputs return NaN. A percentage `k` of other libraries is `fraction=k / 100`; a fixed
    number of positions is `fraction=number / n`.

    The selection is exact and sorts nothing: the `k`-th largest value is found bit by bit. It is a
    constant for the derivative. Positions that tie with the `k`-th largest value share equally in
    what is left of `k`, in value and gradient, so the result does not depend on their order. A bad
    id counts as hardest: it is always selected.

    Args:
      logits: Unnormalised log-probabilities, shape `[..., C]` (`C` at `axis`), floating.
      labels: Integer ids, shape `[...]`, or one-hot or soft labels, shape `[..., C]`. An id outside
        `[0, C)` that is not ignored makes its position's loss and gradient NaN.
      fraction: The share of the valid positions that is selected, in `(0, 1]`; 1 takes all.
      label_smoothing: The share of each target that is spread evenly over all classes, in `[0, 1)`.
      axis: The class axis; any axis works (1 for NCHW).
      where: Boolean, the rank of the ids with each dimension equal or 1. What is False reaches
        neither value nor gradient, not even as NaN.
      weights: Factors of the values, before the selection, shaped like `where`. Unlike in other
        losses they never enter the denominator.
      ignore_index: The id of positions to leave out.
      class_weights: One factor of the values per class, before the selection, shape `[C]`. It never
        enters the denominator.
      reduction: `"mean"` (over the `k` positions, 0 if none is valid), `"sum"` or `"none"`.
      axis_name: Mesh axis over which the positions are selected and averaged globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar, or the shape of the ids with `reduction="none"`: 0 where not selected, and the share
      of the value where positions tie. float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, an axis or option does not exist, a number is out of its
        range, or `ignore_index` comes with float labels.

    Example:
      Of four positions the two hardest count:

      >>> import jax.numpy as jnp, jaxloss
      >>> logits = jnp.array([[4.0, 0.0], [0.0, 0.0], [0.0, 4.0], [2.0, 0.0]])
      >>> labels = jnp.array([0, 0, 0, 0])
      >>> hard = jaxloss.top_k_cross_entropy(logits, labels, fraction=0.5, reduction="none")
      >>> print(hard.round(4))
      [0.     0.6931 4.0182 0.    ]

    Reference:
      Shrivastava, Gupta and Girshick. Training Region-based Object Detectors with Online Hard
      Example Mining. CVPR 2016. https://arxiv.org/abs/1604.03540
      Wu, Shen and van den Hengel. Bridging Category-level and Instance-level Semantic Image
      Segmentation. 2016. https://arxiv.org/abs/1605.06885
    """
    name = "top_k_cross_entropy"
    data = competing(
        name,
        logits,
        labels,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
    )
    share = checks.number(name, "fraction", fraction, data.logits.dtype, "(0, 1]")
    smoothing = spread(name, label_smoothing, data.logits.dtype)

    def of_part(part: Competing, smoothing: Array | None) -> Costs:
        return competing_entropy(part, smoothing)

    loss = labelled.costs(of_part, data, smoothing)
    return reduce_hardest(name, loss, share, reduction, data, axis_name)


def reduce_hardest(
    function: str,
    values: Array | Costs,
    fraction: Array,
    reduction: str,
    data: Competing | Independent,
    axis_name: AxisName | None,
) -> Array:
    """Reduces the largest of a loss's values, weighted first; what weighs 0 takes no part."""
    mask, weights = data.mask, data.weights
    each = values.each() if isinstance(values, Costs) else values
    if weights is not None:
        each, kept = each * weights, weights != 0
        mask = kept if mask is None else mask & kept
    selected, _ = hardest(each, fraction, mask, axis_name)
    if isinstance(values, Costs) and reduction != "none":
        values = _scaled(values, selected if weights is None else selected * weights)
    else:
        values = each * selected
    return reductions.reduce(
        function,
        values,
        reduction,
        mask=selected != 0,
        normalizer=selected,
        axis_name=axis_name,
    )


def _scaled(costs: Costs, factors: Array) -> Costs:
    """The costs times factors, of which 0 makes nothing of an infinite cost."""

    def cost(x: Array, factors: Array, *others: Array) -> Array:
        return numerics.product(factors, costs.cost(x, *others))

    x, *others = costs.arguments
    factors = factors if costs.classes is None else jnp.expand_dims(factors, costs.classes)
    return Costs(cost, (x, factors, *others), costs.classes)


def hardest(
    values: Array, fraction: Array, mask: Array | None, axis_name: AxisName | None
) -> tuple[Array, Array]:
    """Selects the `k = max(1, floor(fraction n))` largest of `n` valid values, exactly.

    Args:
      values: Any shape; NaN counts as largest.
      fraction: A scalar in `(0, 1]`, or NaN, which makes the weights NaN.
      mask: Which values are valid; broadcasts to `values`. None: all.
      axis_name: A mesh axis (or several) over which the values are selected globally.

    Returns:
      Weights in the shape of `values`, constants for the derivative: 1 for a value above the k-th
      largest, 0 below it and where masked; those equal to it share the rest of `k`. And their sum
      `k`, 0 if nothing is valid.
    """
    valid = None if mask is None else jnp.broadcast_to(mask, values.shape)
    return _hardest(*jax.lax.stop_gradient((values, fraction)), valid, axis_name)


@functools.partial(jax.jit, static_argnames="axis_name")
def _hardest(
    values: Array, fraction: Array, valid: Array | None, axis_name: AxisName | None
) -> tuple[Array, Array]:
    keys = _ordered(values)
    lowest = jnp.iinfo(keys.dtype).min  # the key of no value
    if valid is not None:
        keys = jnp.where(valid, keys, lowest)

    def count(chosen: Array) -> Array:
        return reductions.everywhere(chosen.sum(dtype=jnp.int32), axis_name)

    n = count(keys > lowest)
    # Up to rounding of the product: 0.29 of 100 is 29, although 0.29 is stored as a bit less.
    exact = fraction * n.astype(values.dtype) * (1 + 2 * jnp.finfo(values.dtype).eps)
    k = jnp.clip(jnp.floor(exact).astype(jnp.int32), 1, n)

    def narrow(step: Array, threshold: Array) -> Array:
        # From the sign to the last bit: keep each step up that leaves at least k values.
        bit = jnp.ones_like(threshold) << (bits - 1 - step).astype(keys.dtype)
        higher = threshold + bit  # the sign's step wraps: from the lowest key to 0
        return jnp.where(count(keys >= higher) >= k, higher, threshold)

    bits = jnp.iinfo(keys.dtype).bits
    start = reductions.everywhere(jnp.zeros_like(keys).sum(), axis_name).astype(keys.dtype)
    threshold = jax.lax.fori_loop(0, bits, narrow, start + lowest)

    above, level = keys > threshold, (keys == threshold) & (keys > lowest)
    rest, tied = (x.astype(values.dtype) for x in (k - count(above), count(level)))
    weights = jnp.where(above, 1, jnp.where(level, rest / tied, 0))
    return jnp.where(jnp.isnan(fraction) & (keys > lowest), jnp.nan, weights), k


def _ordered(values: Array) -> Array:
    """Integers in the order of the values, NaN above all; none is the smallest of its dtype."""
    dtype = jnp.int64 if values.dtype.itemsize == 8 else jnp.int32
    values = jnp.where(jnp.isnan(values), jnp.nan, values)  # one NaN, without a sign
    keys = jax.lax.bitcast_convert_type(values, dtype)
    return jnp.where(keys < 0, keys ^ jnp.iinfo(dtype).max, keys)
