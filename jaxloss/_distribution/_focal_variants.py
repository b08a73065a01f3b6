"""Variants of the focal loss: a plateau for hard examples, and one focus per side."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics, sigmoid, softmax
from jaxloss._core.labels import competing, independent, resolve
from jaxloss._core.reduction import AxisName, reduce_labelled

__all__ = ["asymmetric", "reduced_focal"]

Array = jax.Array


def reduced_focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: ArrayLike = 2.0,
    threshold: ArrayLike = 0.5,
    activation: str | None = "auto",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the reduced focal loss: hard examples keep their full cross-entropy.

    With `p_y` the probability of the target, softmax where ids compete, and
    `p_t = y p + (1 - y)(1 - p)` where each logit has a target of its own::

        RFL = -w(p_y) log p_y                        ids
        RFL = w(p_t) BCE(p, y)                       same shape
        w(u) = 1                                     where u < threshold
               ((1 - u) / threshold)^gamma           elsewhere

    The focal loss shrinks the cost of hard examples too, if less than that of easy ones; this one
    leaves it as it is. `w` is continuous at `threshold=0.5` only. Soft labels that compete give
    `-sum_c y_c w(p_c) log p_c`. The weight is evaluated in log space, so that value and gradient
    stay finite however confident the logit.

    Args:
      logits: Scores, shape `[..., C]` (`C` at `axis`) or, with `axis=None`, any; floating.
      labels: Integer ids, shape `[...]`, or targets of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its position NaN.
      gamma: Focusing exponent, at least 0; larger values discount easy examples more.
      threshold: The probability of the target from which on an example is easy, in `(0, 1]`.
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
      A confident hit, an easy hit and a miss, which costs its cross-entropy:

      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.array([4.0, 1.0, -4.0]), jnp.array([1.0, 1.0, 1.0])
      >>> print(jaxloss.reduced_focal(logits, labels, reduction="none").round(4))
      [0.     0.0906 4.0182]

    Reference:
      Sergievskiy and Ponamarev. Reduced Focal Loss: 1st Place Solution to xView Object Detection in
      Satellite Imagery. 2019. https://arxiv.org/abs/1903.01347
    """
    name = "reduced_focal"
    activation, compete = resolve(name, activation, logits, labels, axis)
    options: dict[str, Any] = {
        "axis": axis,
        "where": where,
        "weights": weights,
        "ignore_index": ignore_index,
        "class_weights": class_weights,
    }
    probabilities = activation is None

    def of_position(hit: Array, miss: Array, gamma: Array, threshold: Array) -> Array:
        cut = jnp.log(threshold)
        easy = ~(hit > -cut)  # NaN stays NaN
        excess = jnp.where(easy, numerics.finite(miss) + cut, 0)
        return numerics.product(jnp.exp(-gamma * excess), hit)

    def of_element(x: Array, y: Array, gamma: Array, threshold: Array) -> Array:
        if probabilities:
            p, q = x, 1 - x
            focus = numerics.power(y * q + (1 - y) * p, gamma)
        else:
            p, q = sigmoid.probability_pair(x)
            focus = sigmoid.focusing(x, y, gamma)
        focus = numerics.product(focus, jnp.exp(-gamma * jnp.log(threshold)))
        weight = jnp.where(y * p + (1 - y) * q < threshold, 1, focus)
        return numerics.product(weight, sigmoid.entropy(x, y, 1 - y, probabilities))

    def parameters(dtype: Any) -> tuple[Array, Array]:
        return (
            checks.number(name, "gamma", gamma, dtype, "[0, inf)"),
            checks.number(name, "threshold", threshold, dtype, "(0, 1]"),
        )

    if compete:
        data = competing(name, logits, labels, **options)
        loss = softmax.costs(
            of_position, data, *parameters(data.logits.dtype), probabilities=probabilities
        )
        return reduce_labelled(name, loss, reduction, data, axis_name)
    each = independent(name, logits, labels, **options)
    loss = sigmoid.costs(of_element, each, *parameters(each.logits.dtype))
    return reduce_labelled(name, loss, reduction, each, axis_name)


def asymmetric(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma_positive: ArrayLike = 1.0,
    gamma_negative: ArrayLike = 4.0,
    clip: ArrayLike = 0.05,
    activation: str | None = "sigmoid",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the asymmetric loss of each logit: negatives are focused harder, and shifted.

    With `p = sigmoid(logits)` and `p_m = max(p - clip, 0)`::

        ASL = -y (1 - p)^gamma_positive log p - (1 - y) p_m^gamma_negative log(1 - p_m)

    In multi-label problems most labels are negative and easy: those with `p <= clip` cost nothing
    at all, the others little. The two focal factors are constants for the derivative, which is an
    option of the authors' code (`disable_torch_grad_focal_loss`); where they are differentiated the
    gradient is another. The authors sum over the labels: `reduction="sum"`.

    `gamma_positive = gamma_negative = 0, clip = 0` is :func:`binary_cross_entropy`.

    Args:
      logits: Log-odds, any shape `[...]`, floating; probabilities with `activation=None`.
      labels: Targets in `[0, 1]` of the same shape: float, boolean, or integer 0 and 1 (another
        integer gives NaN). Or integer ids without the class axis: one class against the rest.
      gamma_positive: Focusing exponent of positives, at least 0.
      gamma_negative: Focusing exponent of negatives, at least 0.
      clip: The probability below which a negative costs nothing, in `[0, 1)`.
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
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or the shape of `logits` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match (they never broadcast), an axis or option does not exist,
        a number is out of its range, or `ignore_index` comes with float labels.

    Example:
      An easy, an unsure and a confidently wrong negative:

      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.array([-3.0, 0.0, 4.0]), jnp.array([0.0, 0.0, 0.0])
      >>> print(jaxloss.asymmetric(logits, labels, reduction="none").round(4))
      [0.     0.0245 2.0286]

    Reference:
      Ridnik et al. Asymmetric Loss For Multi-Label Classification. ICCV 2021.
      https://arxiv.org/abs/2009.14119
    """
    name = "asymmetric"
    checks.option(name, "activation", activation, ("sigmoid", None))
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
    parameters = (
        checks.number(name, "gamma_positive", gamma_positive, dtype, "[0, inf)"),
        checks.number(name, "gamma_negative", gamma_negative, dtype, "[0, inf)"),
        checks.number(name, "clip", clip, dtype, "[0, 1)"),
    )

    def cost(x: Array, y: Array, g_positive: Array, g_negative: Array, m: Array) -> Array:
        if activation is None:
            p, q = x, 1 - x
            hit, miss = sigmoid.log_pair_of_probability(x)[0], _log_of_complement(x, m)
        else:
            p, q = sigmoid.probability_pair(x)
            hit, miss = sigmoid.log_pair(x)[0], _shifted_miss(x, m)
        focus = numerics.power(q, g_positive), numerics.power(jnp.maximum(p - m, 0), g_negative)
        positive, negative = jax.lax.stop_gradient(focus)
        return numerics.product(y * positive, hit) + numerics.product((1 - y) * negative, miss)

    loss = sigmoid.costs(cost, data, *parameters)
    return reduce_labelled(name, loss, reduction, data, axis_name)


def _log_of_complement(p: Array, m: Array) -> Array:
    """`-log(1 - max(p - m, 0))` of a probability."""
    shifted = jnp.where(p <= m, 0, p - m)
    return sigmoid.log_pair_of_probability(shifted)[1]


@jax.custom_jvp
def _shifted_miss(x: Array, m: Array) -> Array:
    """`-log(1 - max(p - m, 0))` of a logit: all its digits at `m = 0`, where `1 - p` may be 0."""
    p, q = sigmoid.probability_pair(x)
    shifted, rest = jnp.where(p <= m, 0, p - m), jnp.where(m == 0, 1, q + m)
    value = jnp.where(shifted < 0.5, -jnp.log1p(-jnp.minimum(shifted, 0.5)), -jnp.log(rest))
    return jnp.where(m == 0, sigmoid.log_pair(x)[1], value)


@_shifted_miss.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, m), (t_x, t_m) = primals, tangents
    p, q = sigmoid.probability_pair(x)
    rest = jnp.where(m == 0, 1, q + m)
    ratio = jnp.where(m == 0, 1, q / rest)  # (1 - p) / (1 - p + m), at m = 0 for every p
    by_m = -numerics.divide(jnp.ones_like(q), q + m)
    idle = p <= m
    slope = jnp.where(idle, 0, p * ratio * t_x + by_m * t_m)
    return _shifted_miss(x, m), slope
