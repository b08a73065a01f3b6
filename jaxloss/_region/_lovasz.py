"""Lovasz losses: the Jaccard loss of the set of wrong pixels, extended to errors of any size.

With the errors in falling order `e_1 >= e_2 >= ...`, `J_k` the Jaccard loss when exactly the first
`k` pixels are wrong, and `J_0 = 0`, the Lovasz extension is::

    sum_k e_k (J_k - J_(k-1))

It is piecewise linear: the steps `J_k - J_(k-1)` depend on the order alone, so they are the
derivative, and no derivative passes through the sort.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxloss._core import checks, numerics, scores
from jaxloss._core.families import segmentation_elements
from jaxloss._core.images import Frame, Pixels, difference, read
from jaxloss._core.platforms import bind, by_platform
from jaxloss.options import Absent, Elements, Numbers

__all__ = ["lovasz_hinge", "lovasz_softmax"]

Array = jax.Array
Sort = Callable[[Array, Array], Array]

_LAST = np.uint32(2**31)  # the key behind those of all errors
_MANY = 2**31 - 1  # pixels of a row: more are counted in 64 bits


@segmentation_elements
def lovasz_softmax(
    logits: Numbers,
    labels: Numbers,
    *,
    activation: Literal["softmax"] | None = "softmax",
    per_image: bool = False,
    include_background: bool = True,
    absent: Absent = "skip",
    **options: Unpack[Elements],
) -> Array:
    """Computes the Lovasz-softmax loss: the exact convex surrogate of each class's Jaccard loss.

    With the errors `e = |y - p|` of a class in falling order, `T` its positives, `A_k` and `B_k`
    the positives and negatives among the first `k`::

        J_k    = (A_k + B_k) / (T + B_k)
        Lovasz = sum_k e_k (J_k - J_(k-1))

    For hard predictions it is the Jaccard loss itself. Masked pixels are sorted behind all others
    and counted nowhere, so the shapes stay fixed. With `weights` every count is a sum of weights,
    which makes it the exact extension of the weighted Jaccard loss; soft labels count as the
    fraction `y` of a positive and `1 - y` of a negative. Among equal errors the order, and with it
    the subgradient, follows the position. Labels of an integer or boolean dtype are counted in
    whole numbers and take a faster path than floats.

    Args:
      activation: `"softmax"`, or None where `logits` already are probabilities.
      per_image: Whether each image is sorted by itself (the authors' default); False pools the
        batch.
      absent: `"skip"` leaves out the classes that the target (of an image, with `per_image`) does
        not hold; `"score"` keeps them, and they cost their largest error.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`; it
        needs `per_image=True`, as a sort cannot be pooled over a mesh axis.

    Returns:
      A scalar; with `reduction="none"` shape `[C]` (less the background), `[B, C]` with
      `per_image`, without the `C` for `axis=None`. float32 for half-precision input.

    Raises:
      ValueError: If shapes do not match (they never broadcast), an axis or a choice does not exist,
        the background is left out of a single class, `ignore_index` comes with float labels, or
        `axis_name` comes with pooled errors.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> labels = jnp.array([[[0, 0, 1], [0, 1, 1]]])
      >>> logits = 4.0 * jnp.array([[[1.0, 1.0, -1.0], [1.0, -1.0, 1.0]]])
      >>> logits = jnp.stack([logits, -logits], axis=-1)
      >>> print(jaxloss.lovasz_softmax(logits, labels).round(4))
      0.2918

    Reference:
      Berman, Rannen Triki and Blaschko. The Lovasz-Softmax loss: A tractable surrogate for the
      optimization of the intersection-over-union measure in neural networks. CVPR 2018.
      https://arxiv.org/abs/1705.08790
    """
    checks.option("activation", activation, ("softmax", None))
    own = {"per_image": per_image, "absent": absent, "include_background": include_background}
    pixels = _read(logits, labels, {**options, **own, "activation": activation})
    *_, p, q, y = pixels.form(*pixels.arrays, axis=pixels.axis)
    errors = numerics.absolute(difference(p, q, y))
    return _reduced(errors, y, pixels, labels, {**options, **own})


@segmentation_elements
def lovasz_hinge(
    logits: Numbers,
    labels: Numbers,
    *,
    per_image: bool = False,
    include_background: bool = True,
    absent: Absent = "skip",
    **options: Unpack[Elements],
) -> Array:
    """Computes the Lovasz hinge: the exact convex surrogate of the Jaccard loss of signed scores.

    With the hinge errors `e = max(0, 1 - x (2y - 1))` of a mask in falling order, `T` its
    positives, `A_k` and `B_k` the positives and negatives among the first `k`::

        J_k    = (A_k + B_k) / (T + B_k)
        Lovasz = sum_k e_k (J_k - J_(k-1))

    Scores are margins, neither logits of a sigmoid nor probabilities: beyond 1 on the right side
    they cost nothing. Each class is one against the rest. An empty target is left out by default;
    `absent="score"` charges its largest error, as the authors' code does.

    Masked pixels are sorted behind all others and counted nowhere, so the shapes stay fixed. With
    `weights` every count is a sum of weights, which makes it the exact extension of the weighted
    Jaccard loss; soft labels count as the fraction `y` of a positive and `1 - y` of a negative.
    Labels of an integer or boolean dtype are counted in whole numbers and take a faster path than
    floats.

    Args:
      include_background: Whether class 0 takes part in the mean.
      per_image: Whether each image is sorted by itself (the authors' default); False pools the
        batch.
      absent: `"skip"` leaves out the classes that the target (of an image, with `per_image`) does
        not hold; `"score"` keeps them, and they cost their largest error.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`; it
        needs `per_image=True`, as a sort cannot be pooled over a mesh axis.

    Returns:
      A scalar; with `reduction="none"` shape `[C]` (less the background), `[B, C]` with
      `per_image`, without the `C` for `axis=None`. float32 for half-precision input.

    Raises:
      ValueError: If shapes do not match (they never broadcast), an axis or a choice does not exist,
        the background is left out of a single class, `ignore_index` comes with float labels, or
        `axis_name` comes with pooled errors.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> labels = jnp.array([[True, True, False, False]])
      >>> scores = jnp.array([[2.0, -0.5, 0.5, -3.0]])
      >>> print(jaxloss.lovasz_hinge(scores, labels, axis=None).round(4))
      1.0

    Reference:
      Yu and Blaschko. Learning Submodular Losses with the Lovasz Hinge. ICML 2015.
      Berman, Rannen Triki and Blaschko. The Lovasz-Softmax loss: A tractable surrogate for the
      optimization of the intersection-over-union measure in neural networks. CVPR 2018.
      https://arxiv.org/abs/1705.08790
    """
    own = {"per_image": per_image, "absent": absent, "include_background": include_background}
    pixels = _read(logits, labels, {**options, **own, "activation": "sigmoid"})
    x, y = pixels._replace(form=pixels.form._replace(activation=None)).both()
    margins = 1 - numerics.product(2 * y - 1, x)
    errors = jnp.where(margins <= 0, 0, margins)  # NaN stays NaN
    return _reduced(errors, y, pixels, labels, {**options, **own})


def _read(logits: Numbers, labels: Numbers, options: Mapping[str, Any]) -> Pixels:
    axis_name = options["axis_name"]
    if axis_name is not None and not options["per_image"]:
        expected = "None, or per_image=True: a sort cannot be pooled over a mesh axis"
        checks.fail(ValueError, "axis_name", repr(axis_name), expected)
    return read(logits, labels, options)


def _reduced(
    errors: Array, y: Array, pixels: Pixels, labels: Array, options: Mapping[str, Any]
) -> Array:
    """The mean of the Lovasz extensions of the errors of each image and class."""
    checks.option("absent", options["absent"], scores.ABSENT)
    weight = pixels.weight
    if weight is not None:
        weight = _rows(jnp.broadcast_to(weight, errors.shape), pixels.frame)
    errors, hits = _rows(errors, pixels.frame), _rows(y, pixels.frame)
    if options["weights"] is None and not jnp.issubdtype(labels.dtype, jnp.floating):
        values = _of_hard_labels(errors, hits == 1, weight, options["absent"] == "skip")
    else:
        values = _of_soft_labels(errors, hits, weight)
    return scores.reduce(values, pixels, pixels.total(y), options)


def _rows(x: Array, frame: Frame) -> Array:
    """One row of pixels for each image and class: `[B, C, N]`, pooled `[C, B * N]`."""
    if frame.axis is not None:
        x = jnp.moveaxis(x, frame.axis, 1 if frame.per_image else 0)
    leading = (frame.axis is not None) + frame.per_image
    return x.reshape(*x.shape[:leading], math.prod(x.shape[leading:]))


def _of_hard_labels(errors: Array, hits: Array, mask: Array | None, skip_absent: bool) -> Array:
    """The extension for targets of 0 and 1 and a mask of the same numbers."""
    if not errors.size:
        return errors.sum(-1)
    keys = _keys(errors, mask)
    if mask is not None:
        errors = jnp.where(mask > 0, errors, 0)
        hits = hits & (mask > 0)
    idle = ~hits.any(-1) if skip_absent else jnp.zeros_like(hits[..., 0])
    if keys.dtype == jnp.uint32:
        steps = _steps_of_pixels(keys, hits, idle)
    else:
        steps = _steps_at_once(keys, hits, _sort_pairs)
    return numerics.product(steps, errors).sum(-1)


def _of_soft_labels(errors: Array, y: Array, weights: Array | None) -> Array:
    """The extension for fractional targets and weights, which take derivatives too."""
    if not errors.size:
        return errors.sum(-1)
    keys = _keys(errors, None)
    with _counting(keys) as (unsigned, signed):
        position = jnp.zeros_like(keys, unsigned) + _position(keys, unsigned)
        sort = _sort if keys.dtype == jnp.uint32 else _sort_pairs
        order = sort(keys, position).astype(signed)
        rows = (errors, jnp.where(jnp.isnan(y), 0, y), weights)
        errors, positives, weights = (_arranged(x, order) for x in rows)
    negatives = 1 - positives
    if weights is not None:
        positives, negatives = weights * positives, weights * negatives
    return numerics.product(_steps(positives, negatives), errors).sum(-1)


def _arranged(x: Array | None, order: Array) -> Array | None:
    return x if x is None else jnp.take_along_axis(x, order, -1, mode="promise_in_bounds")


def _steps(positives: Array, negatives: Array) -> Array:
    """The steps `J_k - J_(k-1)` of sorted pixels that hold so much of each, without cancellation.

    Without positives the first negative takes the whole step from 0 to 1.
    """
    left = lax.cumsum(positives, positives.ndim - 1, reverse=True)
    wrong = jnp.cumsum(negatives, -1)
    before = jnp.concatenate([jnp.zeros_like(wrong[..., :1]), wrong[..., :-1]], -1)
    union = left[..., :1] + before
    share = jnp.where(union == 0, 1, numerics.divide(left, union))
    grown = union + negatives
    return numerics.divide(positives, grown) + share * numerics.divide(negatives, grown)


def _counted_steps(hits: Array, dtype: Any = jnp.float32, integer: Any = jnp.int32) -> Array:
    """The same for whole pixels, counted without rounding."""
    seen = jnp.cumsum(hits, -1, dtype=integer)
    total, above = seen[..., -1:], seen - hits.astype(integer)
    union = total + _position(hits, integer) - above
    size = jnp.maximum(union, 1).astype(dtype)
    share = jnp.where(union == 0, 1, (total - above).astype(dtype) / size)
    return jnp.where(hits, 1 / size, share / (union + 1).astype(dtype))


@contextlib.contextmanager
def _counting(rows: Array) -> Iterator[tuple[Any, Any]]:
    """Gives unsigned and signed integers that count a row's pixels, also twice."""
    if rows.shape[-1] < _MANY:
        yield jnp.uint32, jnp.int32
    else:
        with jax.enable_x64(True):
            yield jnp.uint64, jnp.int64


def _position(rows: Array, dtype: Any) -> Array:
    return jnp.arange(rows.shape[-1], dtype=dtype).reshape((1,) * (rows.ndim - 1) + (-1,))


def _keys(errors: Array, mask: Array | None) -> Array:
    """Numbers that rise where errors fall: the bits of a non-negative float order like the float.

    NaN comes first, what is masked last.
    """
    errors = lax.stop_gradient(errors)
    if errors.dtype != jnp.float32:
        return -errors if mask is None else jnp.where(mask > 0, -errors, 1)
    bits = lax.bitcast_convert_type(errors, jnp.uint32) & (_LAST - 1)
    keys = (_LAST - 1) - bits
    return keys if mask is None else jnp.where(mask > 0, keys, _LAST)


@jax.custom_batching.custom_vmap
def _steps_of_pixels(keys: Array, hits: Array, idle: Array) -> Array:
    """The step that each pixel takes in the order of its row's keys; 0 in rows that are idle."""
    ways = {"cpu": _steps_row_by_row, "default": _steps_of_all_rows}
    return by_platform(keys, hits, idle, **ways)


@jax.custom_batching.custom_vmap
def _sort(keys: Array, beside: Array) -> Array:
    """What stands beside the keys, in their order."""
    return by_platform(keys, beside, cpu=_sort_packed, default=_sort_pairs)


def _with_more_rows(function: Any) -> None:
    """Maps over one more axis of rows: what is mapped then never holds 64-bit numbers."""

    @function.def_vmap
    def _(size: int, mapped: tuple[bool, ...], *rows: Array) -> tuple[Array, bool]:
        full = (
            x if is_mapped else jnp.broadcast_to(x, (size, *x.shape))
            for x, is_mapped in zip(rows, mapped, strict=True)
        )
        return function(*full), True


_with_more_rows(_steps_of_pixels)
_with_more_rows(_sort)


def _steps_of_all_rows(keys: Array, hits: Array, idle: Array) -> Array:
    return _steps_at_once(keys, hits, _sort_pairs)


def _steps_row_by_row(keys: Array, hits: Array, idle: Array) -> Array:
    """One class after the other, which stays in the cache; an idle one costs nothing."""
    if keys.ndim == 1:
        return _steps_of_row((keys, hits, idle))
    rows = jnp.moveaxis(keys, -2, 0), jnp.moveaxis(hits, -2, 0), jnp.moveaxis(idle, -1, 0)
    return jnp.moveaxis(lax.map(_steps_of_row, rows), 0, -2)


def _steps_of_row(row: tuple[Array, Array, Array]) -> Array:
    keys, hits, idle = row
    at_once = bind(_steps_at_once, sort=_sort_packed)
    return lax.cond(idle.all(), _no_steps, at_once, keys, hits)


def _no_steps(keys: Array, hits: Array) -> Array:
    return jnp.zeros_like(keys, jnp.float32)


def _steps_at_once(keys: Array, hits: Array, sort: Sort) -> Array:
    with _counting(keys) as (unsigned, signed):
        beside = sort(keys, 2 * _position(keys, unsigned) + hits.astype(unsigned))
        dtype = jnp.float32 if keys.dtype == jnp.uint32 else keys.dtype
        steps = _counted_steps(beside % 2 == 1, dtype, signed)
        scatter = _scatter
        for _ in range(keys.ndim - 1):
            scatter = jax.vmap(scatter)
        return scatter(steps, (beside // 2).astype(signed))


def _scatter(values: Array, at: Array) -> Array:
    slots = jnp.zeros_like(values).at[at]
    return slots.set(values, unique_indices=True, mode="promise_in_bounds")


def _sort_pairs(keys: Array, beside: Array) -> Array:
    return lax.sort((keys, beside), dimension=keys.ndim - 1, num_keys=1)[1]


def _sort_packed(keys: Array, beside: Array) -> Array:
    """Sorts one 64-bit number for each pair: on a CPU a tenth of the time of sorting pairs."""
    if beside.dtype != jnp.uint32:
        return _sort_pairs(keys, beside)
    pairs = jnp.stack([beside, keys], -1)
    with jax.enable_x64(True):
        numbers = lax.bitcast_convert_type(pairs, jnp.uint64)
        numbers = lax.sort(numbers, dimension=keys.ndim - 1)
        pairs = lax.bitcast_convert_type(numbers, jnp.uint32)
    return pairs[..., 0]
