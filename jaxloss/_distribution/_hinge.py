"""Margin losses: nothing to pay once the right side leads by 1."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import numerics, sigmoid
from jaxloss._core.labels import Independent, competing, independent, is_target, poison
from jaxloss._core.lean import Costs, lean
from jaxloss._core.reduction import AxisName, reduce_labelled

__all__ = ["hinge", "multiclass_hinge", "squared_hinge"]

Array = jax.Array


def hinge(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the hinge loss of each score.

    With labels `y` of 0 and 1, not -1 and 1::

        H = max(0, 1 - (2 y - 1) logits)

    The score is used as it is. At the kink, a margin of exactly 1, the derivative is 0.

    Args:
      logits: Scores, any shape `[...]`, floating.
      labels: Targets in `[0, 1]` of the same shape: float, boolean, or integer 0 and 1. Another
        number, such as the -1 of other libraries, gives NaN there. Or integer ids without the class
        axis: one class against the rest.
      axis: The class axis of `class_weights` and ids; None if there is none.
      where: Boolean, the rank of `logits` (or of the ids) with each dimension equal or 1. What is
        False reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      ignore_index: The integer label of elements (or ids of positions) to leave out.
      class_weights: One factor of value and denominator per class, shape `[C]`.
      reduction: `"mean"` (weighted, over the valid elements, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or the shape of `logits` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match (they never broadcast), an axis or option does not exist,
        or `ignore_index` comes with float labels.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.array([2.0, 0.5, -1.0]), jnp.array([1.0, 1.0, 1.0])
      >>> print(jaxloss.hinge(logits, labels, reduction="none"))
      [0.  0.5 2. ]

    Reference:
      Cortes and Vapnik. Support-Vector Networks. Machine Learning 1995.
    """
    options = (axis, where, weights, ignore_index, class_weights)
    data = _read("hinge", logits, labels, *options)
    loss = sigmoid.costs(_shortfall, data)
    return reduce_labelled("hinge", loss, reduction, data, axis_name)


def squared_hinge(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the squared hinge loss of each score.

    With labels `y` of 0 and 1, not -1 and 1::

        H = max(0, 1 - (2 y - 1) logits)^2

    The score is used as it is. Unlike :func:`hinge` it has a gradient without a jump.

    Args:
      logits: Scores, any shape `[...]`, floating.
      labels: Targets in `[0, 1]` of the same shape: float, boolean, or integer 0 and 1. Another
        number, such as the -1 of other libraries, gives NaN there. Or integer ids without the class
        axis: one class against the rest.
      axis: The class axis of `class_weights` and ids; None if there is none.
      where: Boolean, the rank of `logits` (or of the ids) with each dimension equal or 1. What is
        False reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      ignore_index: The integer label of elements (or ids of positions) to leave out.
      class_weights: One factor of value and denominator per class, shape `[C]`.
      reduction: `"mean"` (weighted, over the valid elements, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or the shape of `logits` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match (they never broadcast), an axis or option does not exist,
        or `ignore_index` comes with float labels.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.array([2.0, 0.5, -1.0]), jnp.array([1.0, 1.0, 1.0])
      >>> print(jaxloss.squared_hinge(logits, labels, reduction="none"))
      [0.   0.25 4.  ]

    Reference:
      Lee and Mangasarian. SSVM: A Smooth Support Vector Machine for Classification. Computational
      Optimization and Applications 2001.
    """
    options = (axis, where, weights, ignore_index, class_weights)
    data = _read("squared_hinge", logits, labels, *options)
    loss = sigmoid.costs(lambda x, y: _shortfall(x, y) ** 2, data)
    return reduce_labelled("squared_hinge", loss, reduction, data, axis_name)


def multiclass_hinge(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the multiclass hinge loss of Crammer and Singer for each position.

    With the target's score `x_y`::

        H = max_j (x_j + [j != y]) - x_y                        ids
        H = max_j (x_j + 1 - y_j) - sum_c y_c x_c               labels of the logits' shape

    The target must lead the best other class by 1. It differs from PyTorch's `multi_margin_loss`,
    which adds up all classes that are too close and divides by `C`. An offset common to all logits
    cancels before anything is rounded. A logit of -inf is a class that has been removed: it costs
    nothing where the label has no mass, and +inf with zero gradient where it has.

    Args:
      logits: Scores, shape `[..., C]` (`C` at `axis`), floating.
      labels: Integer ids, shape `[...]`, or one-hot or soft labels, shape `[..., C]`. An id outside
        `[0, C)` that is not ignored makes its position's loss and gradient NaN.
      axis: The class axis; any axis works (1 for NCHW).
      where: Boolean, the rank of the ids with each dimension equal or 1. What is False reaches
        neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      ignore_index: The id of positions to leave out.
      class_weights: One factor of value and denominator per class, shape `[C]`.
      reduction: `"mean"` (weighted, over the valid positions, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or the shape of the ids with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, an axis or option does not exist, or `ignore_index` comes
        with float labels.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits = jnp.array([[2.0, 0.5, 0.0], [2.0, 1.5, 0.0], [2.0, 3.0, 0.0]])
      >>> print(jaxloss.multiclass_hinge(logits, jnp.array([0, 0, 0]), reduction="none"))
      [0.  0.5 2. ]

    Reference:
      Crammer and Singer. On the Algorithmic Implementation of Multiclass Kernel-based Vector
      Machines. JMLR 2001.
    """
    name = "multiclass_hinge"
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

    expanded = functools.partial(jnp.expand_dims, axis=data.axis)

    def cost(x: Array, labels: Array, mask: Array | None, factor: Array | None) -> Array:
        if mask is not None:
            x = jnp.where(mask, x, 0)
        if data.has_ids:
            hit = is_target(labels.squeeze(data.axis), x.shape, data.axis)
            score = jnp.where(hit, x, 0).sum(data.axis, keepdims=True)
        else:
            score = numerics.product(labels, x).sum(data.axis, keepdims=True)
        removed = score == -jnp.inf
        ahead = x - numerics.finite(jnp.where(removed, 0, score))
        if data.has_ids:
            valid = None if mask is None else mask.squeeze(data.axis)
            spoiled = poison(labels.squeeze(data.axis), valid, x.shape[data.axis], x.dtype)
            lead = jnp.where(hit, 0, (ahead + 1) * expanded(spoiled))
        else:
            lead = jnp.where((x == jnp.inf) & (labels == 1), 0, ahead + (1 - labels))
        loss = jnp.where(removed, jnp.inf, lead.max(data.axis, keepdims=True))
        loss = loss if mask is None else jnp.where(mask, loss, 0)
        return loss if factor is None else loss * factor

    labels = expanded(data.labels) if data.has_ids else data.labels
    mask, factor = (None if a is None else expanded(a) for a in (data.mask, data.normalizer))
    loss = Costs(lean(cost), (data.logits, labels, mask, factor), data.axis)
    return reduce_labelled(name, loss, reduction, data, axis_name)


def _read(name: str, logits: ArrayLike, labels: ArrayLike, *options: Any) -> Independent:
    axis, where, weights, ignore_index, class_weights = options
    return independent(
        name,
        logits,
        labels,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
    )


def _shortfall(x: Array, y: Array) -> Array:
    """By how much a score misses the margin of 1 on its label's side, NaN for no label."""
    y = jnp.where((y >= 0) & (y <= 1), y, jnp.nan)
    missing = 1 - numerics.product(2 * y - 1, x)
    return jnp.where(missing <= 0, 0, missing)
