"""Focal loss: cross-entropy that is scaled down where the prediction is already right."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics, sigmoid, softmax
from jaxloss._core.labels import (
    Competing,
    Independent,
    competing,
    independent,
    per_class,
    resolve,
)
from jaxloss._core.lean import Costs
from jaxloss._core.reduction import AxisName, reduce_labelled
from jaxloss._distribution._cross_entropy import spread

__all__ = ["focal", "sigmoid_focal", "softmax_focal"]

Array = jax.Array


def focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: ArrayLike = 2.0,
    alpha: ArrayLike | None = None,
    label_smoothing: ArrayLike = 0.0,
    activation: str | None = "auto",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the focal loss: softmax where ids compete, sigmoid where each logit has a target.

    Integer ids without the class axis give :func:`softmax_focal`, labels of the logits' own shape
    :func:`sigmoid_focal`::

        FL = -alpha_y (1 - p_y)^gamma log p_y                             ids
        FL = alpha_t (1 - p_t)^gamma BCE(p, y)                            same shape
        p_t = y p + (1 - y)(1 - p)   alpha_t = y alpha + (1 - y)(1 - alpha)

    so that the many easy examples do not drown the few hard ones. `gamma=0, alpha=None` is the
    cross-entropy. The weight is evaluated in log space: value and gradient stay finite however
    confident the logit, for every `gamma`.

    Args:
      logits: Scores, shape `[..., C]` (`C` at `axis`) or, with `axis=None`, any; floating.
      labels: Integer ids, shape `[...]`, or targets of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its position NaN.
      gamma: Focusing exponent, at least 0; larger values discount easy examples more.
      alpha: Sigmoid: the weight of positives, in `[0, 1]`; negatives weigh `1 - alpha` (the paper
        uses 0.25). Softmax: a scalar or one factor per class `[C]`, at least 0. It never enters
        the mean's denominator. None: 1.
      label_smoothing: The share of each target that is spread evenly, in `[0, 1)`: over all
        classes (softmax) or to 1/2 (sigmoid).
      activation: `"auto"`, `"softmax"`, `"sigmoid"`, or None where `logits` already are
        probabilities, whose logarithms are cut at -100. One-hot labels that are meant to compete
        need `"softmax"`.
      axis: The class axis; None if there is none.
      where: Boolean, the rank of the ids (sigmoid: or of the logits) with each dimension equal or
        1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      ignore_index: The integer label of positions or elements to leave out.
      class_weights: One factor of value and denominator per class, shape `[C]`.
      reduction: `"mean"` (weighted, over what is valid, 0 if nothing is), `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar; with `reduction="none"` the shape of the ids (softmax) or of the logits (sigmoid).
      float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match (they never broadcast), an axis or option does not exist,
        a number is out of its range, or `ignore_index` comes with float labels.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits = jnp.array([[4.0, 0.0], [0.0, 0.0], [0.0, 4.0]])
      >>> print(jaxloss.focal(logits, jnp.array([0, 0, 0]), reduction="none").round(4))
      [0.     0.1733 3.8749]

    Reference:
      Lin, Goyal, Girshick, He and Dollar. Focal Loss for Dense Object Detection. ICCV 2017,
      equation 5. https://arxiv.org/abs/1708.02002
    """
    activation, compete = resolve("focal", activation, logits, labels, axis)
    options: dict[str, Any] = {
        "axis": axis,
        "where": where,
        "weights": weights,
        "ignore_index": ignore_index,
        "class_weights": class_weights,
    }
    parameters = (gamma, alpha, label_smoothing, activation is None)
    if compete:
        positions = competing("focal", logits, labels, **options)
        loss = competing_focal("focal", positions, *parameters)
        return reduce_labelled("focal", loss, reduction, positions, axis_name)
    elements = independent("focal", logits, labels, **options)
    loss = independent_focal("focal", elements, *parameters)
    return reduce_labelled("focal", loss, reduction, elements, axis_name)


def sigmoid_focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: ArrayLike = 2.0,
    alpha: ArrayLike | None = None,
    label_smoothing: ArrayLike = 0.0,
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the focal loss of each logit against a target of its own.

    With `p = sigmoid(logits)`, `t = y (1 - label_smoothing) + label_smoothing / 2`::

        p_t = t p + (1 - t)(1 - p)
        a_t = t alpha + (1 - t)(1 - alpha)
        FL  = a_t (1 - p_t)^gamma BCE(p, t)

    Soft targets are scored by the same formula, whose weight is then 0 only where `p` is certain.
    The mean is over all valid elements; detectors that divide by the number of positives use
    `reduction="sum"`.

    Args:
      logits: Log-odds, any shape `[...]`, floating.
      labels: Targets in `[0, 1]` of the same shape: float, boolean, or integer 0 and 1 (another
        integer gives NaN). Or integer ids without the class axis: one class against the rest.
      gamma: Focusing exponent, at least 0; larger values discount easy examples more.
      alpha: The weight of positives, in `[0, 1]`; negatives weigh `1 - alpha` (the paper uses
        0.25). It never enters the mean's denominator. None: both weigh 1.
      label_smoothing: The share of each target that moves to 1/2, in `[0, 1)`.
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
        a number is out of its range, or `ignore_index` comes with float labels.

    Example:
      A confident hit, an unsure hit and a confident miss:

      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.array([4.0, 0.0, -4.0]), jnp.array([1.0, 1.0, 1.0])
      >>> print(jaxloss.sigmoid_focal(logits, labels, alpha=0.25, reduction="none").round(4))
      [0.     0.0433 0.9687]

    Reference:
      Lin, Goyal, Girshick, He and Dollar. Focal Loss for Dense Object Detection. ICCV 2017,
      equation 5. https://arxiv.org/abs/1708.02002
    """
    data = independent(
        "sigmoid_focal",
        logits,
        labels,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
    )
    loss = independent_focal("sigmoid_focal", data, gamma, alpha, label_smoothing)
    return reduce_labelled("sigmoid_focal", loss, reduction, data, axis_name)


def softmax_focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: ArrayLike = 2.0,
    alpha: ArrayLike | None = None,
    label_smoothing: ArrayLike = 0.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the focal loss of each position, whose classes compete.

    With `p = softmax(logits)`, targets `t = (1 - label_smoothing) y + label_smoothing / C`::

        FL = -sum_c alpha_c t_c (1 - p_c)^gamma log p_c

    which for ids without smoothing is `-alpha_y (1 - p_y)^gamma log p_y`. A logit of -inf is a
    removed class: it costs nothing where the label has no mass, and +inf where it has.

    Args:
      logits: Unnormalised log-probabilities, shape `[..., C]` (`C` at `axis`), floating.
      labels: Integer ids, shape `[...]`, or one-hot or soft labels, shape `[..., C]`. An id outside
        `[0, C)` that is not ignored makes its position's loss and gradient NaN.
      gamma: Focusing exponent, at least 0; larger values discount easy examples more.
      alpha: A scalar, or one factor per class `[C]`, at least 0. Unlike `class_weights` it never
        enters the mean's denominator. None: 1.
      label_smoothing: The share of each target that is spread evenly over all classes, in `[0, 1)`.
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
      ValueError: If shapes do not match, an axis or option does not exist, a number is out of its
        range, or `ignore_index` comes with float labels.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits = jnp.array([[4.0, 0.0], [0.0, 0.0], [0.0, 4.0]])
      >>> print(jaxloss.softmax_focal(logits, jnp.array([0, 0, 0]), reduction="none").round(4))
      [0.     0.1733 3.8749]

    Reference:
      Lin, Goyal, Girshick, He and Dollar. Focal Loss for Dense Object Detection. ICCV 2017,
      equation 5. https://arxiv.org/abs/1708.02002
    """
    data = competing(
        "softmax_focal",
        logits,
        labels,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
    )
    loss = competing_focal("softmax_focal", data, gamma, alpha, label_smoothing)
    return reduce_labelled("softmax_focal", loss, reduction, data, axis_name)


def competing_focal(
    name: str,
    data: Competing,
    gamma: ArrayLike,
    alpha: ArrayLike | None,
    label_smoothing: ArrayLike,
    probabilities: bool = False,
) -> Costs:
    """Returns the focal loss of each position."""
    dtype, factors = data.logits.dtype, None
    gamma = checks.number(name, "gamma", gamma, dtype, "[0, inf)")
    if alpha is not None:
        factors = checks.number(name, "alpha", alpha, dtype, "[0, inf)")
        if factors.ndim > 0:
            factors = per_class(name, "alpha", factors, data.logits, data.axis)
    return softmax.costs(
        lambda hit, miss, gamma: numerics.product(jnp.exp(-gamma * numerics.finite(miss)), hit),
        data,
        gamma,
        smoothing=spread(name, label_smoothing, dtype),
        factors=factors,
        probabilities=probabilities,
    )


def independent_focal(
    name: str,
    data: Independent,
    gamma: ArrayLike,
    alpha: ArrayLike | None,
    label_smoothing: ArrayLike,
    probabilities: bool = False,
) -> Costs:
    """Returns the focal loss of each element."""
    dtype = data.logits.dtype
    gamma = checks.number(name, "gamma", gamma, dtype, "[0, inf)")
    smoothing = checks.number(name, "label_smoothing", label_smoothing, dtype, "[0, 1)")
    positive = negative = jnp.ones((), dtype)
    if alpha is not None:
        positive = checks.number(name, "alpha", alpha, dtype, "[0, 1]")
        negative = 1 - positive

    def cost(x: Array, y: Array, *parameters: Array) -> Array:
        gamma, smoothing, positive, negative = parameters
        t = y * (1 - smoothing) + smoothing / 2
        if probabilities:
            focus = numerics.power(t * (1 - x) + (1 - t) * x, gamma)
        else:
            focus = sigmoid.focusing(x, t, gamma)
        entropy = sigmoid.entropy(x, t, 1 - t, probabilities)
        return numerics.product((t * positive + (1 - t) * negative) * focus, entropy)

    return sigmoid.costs(cost, data, gamma, smoothing, positive, negative)
