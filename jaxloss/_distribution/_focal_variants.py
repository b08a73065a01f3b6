"""Variants of the focal loss: a plateau for hard examples, and one focus per side."""

from __future__ import annotations

from typing import Annotated, Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import numerics, sigmoid, softmax
from jaxloss._core.families import either
from jaxloss._core.labels import Competing, per_position
from jaxloss._core.platforms import bind
from jaxloss._core.reading import read
from jaxloss._core.reduction import reduce
from jaxloss._distribution._cross_entropy import towards_half
from jaxloss.options import Activation, Interval, NonNegative, Number, Numbers, OneVersusRest, Share

__all__ = ["asymmetric", "reduced_focal"]

Array = jax.Array


@either
def reduced_focal(
    logits: Numbers,
    labels: Numbers,
    *,
    gamma: NonNegative = 2.0,
    threshold: Annotated[Number, Interval("(0, 1]")] = 0.5,
    activation: Activation = "auto",
    **options: Unpack[OneVersusRest],
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
      gamma: Focusing exponent, at least 0; larger values discount easy examples more.
      threshold: The probability of the target from which on an example is easy, in `(0, 1]`.

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
    data = read(logits, labels, activation, options)
    if isinstance(data, Competing):
        cost = softmax.cost(_reduced_softmax_focal, data, gamma, threshold)
    else:
        formula = bind(_reduced_sigmoid_focal, probabilities=data.are_probabilities)
        cost = sigmoid.cost(formula, data, gamma, threshold)
    return reduce(cost, options, data)


@either
def asymmetric(
    logits: Numbers,
    labels: Numbers,
    *,
    gamma_positive: NonNegative = 1.0,
    gamma_negative: NonNegative = 4.0,
    clip: Annotated[Number, Interval("[0, 1)")] = 0.05,
    detach_weight: bool = True,
    label_smoothing: Share = 0.0,
    activation: Activation = "auto",
    **options: Unpack[OneVersusRest],
) -> Array:
    """Computes the asymmetric loss: negatives are focused harder than positives, and shifted.

    For labels of the logits' shape, with `p = sigmoid(logits)`, `p_m = max(p - clip, 0)` and
    `t = y (1 - label_smoothing) + label_smoothing / 2`::

        ASL = -t (1 - p)^gamma_positive log p - (1 - t) p_m^gamma_negative log(1 - p_m)

    In multi-label problems most labels are negative and easy: those with `p <= clip` cost nothing
    at all, the others little. The authors sum over the labels: `reduction="sum"`.
    `gamma_positive = gamma_negative = 0, clip = 0` is :func:`binary_cross_entropy`.

    For ids, whose classes compete, it is the authors' single-label form, without `clip`. With
    `p = softmax(logits)` and `t = (1 - label_smoothing) y + label_smoothing / C`::

        w_c = y_c (1 - p_c)^gamma_positive + (1 - y_c) p_c^gamma_negative
        ASL = -sum_c t_c w_c log p_c

    where without smoothing only the target costs anything. Timm smooths by 0.1.

    The focal factors are constants for the derivative, which is an option of the authors' code
    (`disable_torch_grad_focal_loss`); `detach_weight=False` differentiates them, as timm does.

    Args:
      gamma_positive: Focusing exponent of positives, at least 0.
      gamma_negative: Focusing exponent of negatives, at least 0.
      clip: Sigmoid: the probability below which a negative costs nothing, in `[0, 1)`.
      detach_weight: Whether the focal factors are constants for the derivative.

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
    data = read(logits, labels, activation, options)
    fixed = {"detach_weight": detach_weight}
    if not isinstance(data, Competing):
        formula = bind(_asymmetric, **fixed, probabilities=data.are_probabilities)
        parameters = label_smoothing, gamma_positive, gamma_negative, clip
        cost = sigmoid.cost(formula, data, *parameters)
        return reduce(cost, options, data)
    gamma_positive += 0 * (gamma_negative + clip)  # NaN is what is out of its range, used or not
    if data.has_ids and label_smoothing is None:
        cost = softmax.cost(bind(_asymmetric_of_target, **fixed), data, gamma_positive)
    else:
        formula = bind(_asymmetric_of_shares, **fixed)
        cost = per_position(formula, data, label_smoothing, gamma_positive, gamma_negative)
    return reduce(cost, options, data)


def _reduced_softmax_focal(hit: Array, miss: Array, gamma: Array, threshold: Array) -> Array:
    cut = jnp.log(threshold)
    easy = ~(hit > -cut)  # NaN stays NaN
    excess = jnp.where(easy, numerics.finite(miss) + cut, 0)
    return numerics.product(jnp.exp(-gamma * excess), hit)


def _reduced_sigmoid_focal(
    x: Array, y: Array, gamma: Array, threshold: Array, *, probabilities: bool
) -> Array:
    if probabilities:
        p, q = x, 1 - x
        focus = numerics.power(sigmoid.missing(p, q, y), gamma)
    else:
        p, q = sigmoid.probability_pair(x)
        focus = sigmoid.focusing(x, y, gamma)
    focus = numerics.product(focus, jnp.exp(-gamma * jnp.log(threshold)))
    weight = jnp.where(y * p + (1 - y) * q < threshold, 1, focus)
    return numerics.product(weight, sigmoid.entropy(x, y, 1 - y, probabilities))


def _asymmetric(
    x: Array,
    y: Array,
    smoothing: Array | None,
    g_positive: Array,
    g_negative: Array,
    m: Array,
    *,
    detach_weight: bool,
    probabilities: bool,
) -> Array:
    t = towards_half(y, smoothing)
    if probabilities:
        p, q = x, 1 - x
        hit, miss = sigmoid.log_pair_of_probability(x)[0], _log_of_complement(x, m)
    else:
        p, q = sigmoid.probability_pair(x)
        hit, miss = sigmoid.log_pair(x)[0], _shifted_miss(x, m)
    positive = numerics.steep_power(q, g_positive)
    negative = numerics.steep_power(jnp.maximum(p - m, 0), g_negative)
    if detach_weight:
        positive, negative = jax.lax.stop_gradient((positive, negative))
    return numerics.product(t * positive, hit) + numerics.product((1 - t) * negative, miss)


def _asymmetric_of_target(hit: Array, miss: Array, gamma: Array, *, detach_weight: bool) -> Array:
    weight = jnp.exp(-gamma * numerics.finite(miss))
    return numerics.product(jax.lax.stop_gradient(weight) if detach_weight else weight, hit)


def _asymmetric_of_shares(
    part: Competing,
    smoothing: Array | None,
    g_positive: Array,
    g_negative: Array,
    *,
    detach_weight: bool,
) -> Array:
    y, t = part.dense_labels(), softmax.smoothed(part, smoothing)
    hit, miss = softmax.log_pair(part)
    q, p = jnp.exp(-g_positive * numerics.finite(miss)), jnp.exp(-g_negative * numerics.finite(hit))
    weight = y * q + (1 - y) * p
    t = numerics.times(t, part.class_weights)
    weight = jax.lax.stop_gradient(weight) if detach_weight else weight
    return numerics.product(t * weight, hit).sum(part.axis)


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
