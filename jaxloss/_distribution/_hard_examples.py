"""Hard-example mining: the cross-entropy of the positions that are predicted worst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics, softmax
from jaxloss._core.cost import Cost
from jaxloss._core.families import classification
from jaxloss._core.labels import Competing, Independent, per_position
from jaxloss._core.reading import competing
from jaxloss._core.reduction import AxisName, everywhere, reduce_values
from jaxloss.options import Classification, Interval, Number, Numbers, Share

__all__ = ["top_k_cross_entropy"]

Array = jax.Array


@classification
def top_k_cross_entropy(
    logits: Numbers,
    labels: Numbers,
    *,
    fraction: Annotated[Number, Interval("(0, 1]")] = 0.1,
    threshold: Annotated[Number, Interval("(0, 1)")] | None = None,
    min_kept: int | None = None,
    label_smoothing: Share = 0.0,
    **options: Unpack[Classification],
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

    With `threshold`, in place of a fraction, the positions count whose label has a probability
    `p_y` (that of the labels as they are, unsmoothed: `exp(-CE)`) below it, and more where those
    are few::

        p_y < max(threshold, the (min_kept + 1)-th smallest p_y)

    as HRNet and mmseg do, whose `min_kept` counts for each image: multiply it by their number. All
    count where `min_kept` reaches their number, and none where all are above.

    The selection is exact and sorts nothing: the `k`-th largest value is found bit by bit. It is a
    constant for the derivative. Positions that tie with the `k`-th largest value share equally in
    what is left of `k`, in value and gradient, so the result does not depend on their order. A bad
    id counts as hardest: it is always selected.

    Args:
      fraction: The share of the valid positions that is selected, in `(0, 1]`; 1 takes all.
      threshold: The probability of the label from which on a position is easy, in `(0, 1)`. None:
        `fraction` selects.
      min_kept: How many positions count at least (but for ties), with `threshold`. None: 0.
      weights: Factors of the values, before a fraction is selected, shaped like `where`. Unlike in
        other losses they never enter the denominator.
      class_weights: One factor of the values per class, before a fraction is selected, shape `[C]`.
        It never enters the denominator.
      reduction: `"mean"` (over the positions that count, 0 if none does), `"sum"` or `"none"`.
      axis_name: Mesh axis over which the positions are selected and averaged globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar, or the shape of the ids with `reduction="none"`: 0 where not selected, and the share
      of the value where positions tie. float32 for half-precision input.

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
    data = competing(logits, labels, options)
    cost = per_position(softmax.cross_entropy, data, label_smoothing)
    if threshold is None:
        if min_kept is not None:
            checks.fail(ValueError, "min_kept", min_kept, "None where `threshold` is None")
        return reduce_hardest(cost, fraction, options, data)
    kept = 0 if min_kept is None else checks.integer("min_kept", min_kept, 0)
    surprise = per_position(softmax.cross_entropy, data._replace(class_weights=None)).each()
    bound = 0 * fraction - jnp.log(threshold)  # NaN is what is out of its range, used or not
    selected = harder(surprise, bound, kept, _candidates(data), options["axis_name"])
    return _reduce(cost, selected, options, data)


def reduce_hardest(
    cost: Cost, fraction: Array, options: Mapping[str, Any], data: Competing | Independent
) -> Array:
    """Reduces the largest of a loss's values, weighted first; what weighs 0 takes no part."""
    each = numerics.times(cost.each(), data.weights)
    selected, _ = hardest(each, fraction, _candidates(data), options["axis_name"])
    return _reduce(cost, selected, options, data)


def _candidates(data: Competing | Independent) -> Array | None:
    """What may be selected; None: everything."""
    if data.weights is None:
        return data.mask
    counts = data.weights != 0
    return counts if data.mask is None else data.mask & counts


def _reduce(
    cost: Cost, selected: Array, options: Mapping[str, Any], data: Competing | Independent
) -> Array:
    """Reduces the values that are selected; their weights never enter the denominator."""
    factors = numerics.times(selected, data.weights)
    return reduce_values(
        cost.times(factors),
        options["reduction"],
        mask=selected != 0,
        normalizer=selected,
        axis_name=options["axis_name"],
    )


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
    values, fraction = jax.lax.stop_gradient((values, fraction))
    keys = _ordered(values, mask)
    valid = keys > _lowest(keys)
    n = _count(valid, axis_name)
    # Up to rounding of the product: 0.29 of 100 is 29, although 0.29 is stored as a bit less.
    exact = fraction * n.astype(values.dtype) * (1 + 2 * jnp.finfo(values.dtype).eps)
    k = jnp.clip(jnp.floor(exact).astype(jnp.int32), 1, n)
    kth = _largest(keys, k, axis_name)
    above, level = keys > kth, (keys == kth) & valid
    rest, tied = (
        x.astype(values.dtype) for x in (k - _count(above, axis_name), _count(level, axis_name))
    )
    weights = jnp.where(above, 1, jnp.where(level, rest / tied, 0))
    return jnp.where(jnp.isnan(fraction) & valid, jnp.nan, weights), k


def harder(
    values: Array, bound: Array, kept: int, mask: Array | None, axis_name: AxisName | None
) -> Array:
    """Selects the values above a bound or, if that is less, above the `kept + 1`-th largest.

    Args:
      values: Any shape; NaN counts as largest.
      bound: A scalar; NaN makes the weights NaN.
      kept: How many are selected at least, but for ties.
      mask: Which values are valid; broadcasts to `values`. None: all.
      axis_name: A mesh axis (or several) over which the values are selected globally.

    Returns:
      Weights of 0 and 1 in the shape of `values`, constants for the derivative.
    """
    values, bound = jax.lax.stop_gradient((values, bound))
    keys = _ordered(values, mask)
    above = keys > jnp.minimum(_ordered(bound), _largest(keys, kept + 1, axis_name))
    weights = above.astype(values.dtype)
    return jnp.where(jnp.isnan(bound) & (keys > _lowest(keys)), jnp.nan, weights)


def _largest(keys: Array, k: Array | int, axis_name: AxisName | None) -> Array:
    """The k-th largest of integers, the smallest of their dtype if they are fewer."""

    def narrow(step: Array, threshold: Array) -> Array:
        # From the sign to the last bit: keep each step up that leaves at least k values.
        bit = jnp.ones_like(threshold) << (bits - 1 - step).astype(keys.dtype)
        higher = threshold + bit  # the sign's step wraps: from the lowest key to 0
        return jnp.where(_count(keys >= higher, axis_name) >= k, higher, threshold)

    bits = jnp.iinfo(keys.dtype).bits
    start = everywhere(jnp.zeros_like(keys).sum(), axis_name).astype(keys.dtype)
    return jax.lax.fori_loop(0, bits, narrow, start + _lowest(keys))


def _count(chosen: Array, axis_name: AxisName | None) -> Array:
    return everywhere(chosen.sum(dtype=jnp.int32), axis_name)


def _lowest(keys: Array) -> int:
    """The key of no value."""
    return jnp.iinfo(keys.dtype).min


def _ordered(values: Array, mask: Array | None = None) -> Array:
    """Integers in the order of the values, NaN above all; none is the lowest but where masked."""
    dtype = jnp.int64 if values.dtype.itemsize == 8 else jnp.int32
    values = jnp.where(jnp.isnan(values), jnp.nan, values)  # one NaN, without a sign
    keys = jax.lax.bitcast_convert_type(values, dtype)
    keys = jnp.where(keys < 0, keys ^ jnp.iinfo(dtype).max, keys)
    return keys if mask is None else jnp.where(mask, keys, _lowest(keys))
