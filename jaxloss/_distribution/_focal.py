"""Focal loss: cross-entropy that is scaled down where the prediction is already right."""

from __future__ import annotations

from typing import Annotated, Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics, sigmoid, softmax
from jaxloss._core.cost import Cost
from jaxloss._core.families import classification, either, one_versus_rest
from jaxloss._core.labels import Competing, Independent
from jaxloss._core.platforms import bind
from jaxloss._core.reading import competing, independent, per_class, read
from jaxloss._core.reduction import reduce
from jaxloss._distribution._cross_entropy import (
    hits_and_misses,
    towards_half,
    weight_of_positives,
    weighted_entropy,
)
from jaxloss.options import (
    Activation,
    Classification,
    Exponent,
    Interval,
    Numbers,
    OneVersusRest,
    PerClass,
    Share,
)

__all__ = ["focal", "sigmoid_focal", "softmax_focal"]

Array = jax.Array
_Balance = Annotated[Numbers, Interval("[0, 1]", scalar=False)]


@either
def focal(
    logits: Numbers,
    labels: Numbers,
    *,
    gamma: Exponent = 2.0,
    alpha: PerClass | None = None,
    pos_weight: PerClass | None = None,
    label_smoothing: Share = 0.0,
    activation: Activation = "auto",
    **options: Unpack[OneVersusRest],
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
      gamma: Focusing exponent, at least 0; larger values discount easy examples more.
      alpha: A scalar, or one number per class `[C]`. Sigmoid: the weight of positives, in `[0, 1]`
        (beyond it the loss is NaN); negatives weigh `1 - alpha`; the paper uses 0.25. Softmax: a
        factor, at least 0. It never enters the mean's denominator. None: 1.
      pos_weight: Sigmoid: a factor of the positive term of BCE, as in :func:`binary_cross_entropy`.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits = jnp.array([[4.0, 0.0], [0.0, 0.0], [0.0, 4.0]])
      >>> print(jaxloss.focal(logits, jnp.array([0, 0, 0]), reduction="none").round(4))
      [0.     0.1733 3.8749]

    Reference:
      Lin, Goyal, Girshick, He and Dollar. Focal Loss for Dense Object Detection. ICCV 2017,
      equation 5. https://arxiv.org/abs/1708.02002
    """
    data = read(logits, labels, activation, options)
    if pos_weight is not None and isinstance(data, Competing):
        expected = 'None where classes compete, as those of ids do unless `activation="sigmoid"`'
        checks.fail(ValueError, "pos_weight", "given", expected)
    return reduce(focal_of(data, gamma, alpha, label_smoothing, pos_weight), options, data)


@one_versus_rest
def sigmoid_focal(
    logits: Numbers,
    labels: Numbers,
    *,
    gamma: Exponent = 2.0,
    alpha: _Balance | None = None,
    pos_weight: PerClass | None = None,
    label_smoothing: Share = 0.0,
    **options: Unpack[OneVersusRest],
) -> Array:
    """Computes the focal loss of each logit against a target of its own.

    With `p = sigmoid(logits)`, `t = y (1 - label_smoothing) + label_smoothing / 2`::

        p_t = t p + (1 - t)(1 - p)
        a_t = t alpha + (1 - t)(1 - alpha)
        FL  = a_t (1 - p_t)^gamma (-pos_weight t log p - (1 - t) log(1 - p))

    Soft targets are scored by the same formula, whose weight is then 0 only where `p` is certain.
    The mean is over all valid elements; detectors that divide by the number of positives use
    `reduction="sum"`.

    Args:
      logits: Log-odds, any shape `[...]`, floating.
      gamma: Focusing exponent, at least 0; larger values discount easy examples more.
      alpha: The weight of positives, in `[0, 1]`; negatives weigh `1 - alpha` (the paper uses
        0.25). A scalar, or one per class `[C]`. It never enters the mean's denominator. None: both
        weigh 1.
      pos_weight: Factor of the positive term of BCE: a scalar, one per class `[C]`, or the rank of
        `logits` with each dimension equal or 1; at least 0. It never enters the denominator.

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
    data = independent(logits, labels, options)
    return reduce(focal_of(data, gamma, alpha, label_smoothing, pos_weight), options, data)


@classification
def softmax_focal(
    logits: Numbers,
    labels: Numbers,
    *,
    gamma: Exponent = 2.0,
    alpha: PerClass | None = None,
    label_smoothing: Share = 0.0,
    **options: Unpack[Classification],
) -> Array:
    """Computes the focal loss of each position, whose classes compete.

    With `p = softmax(logits)`, targets `t = (1 - label_smoothing) y + label_smoothing / C`::

        FL = -sum_c alpha_c t_c (1 - p_c)^gamma log p_c

    which for ids without smoothing is `-alpha_y (1 - p_y)^gamma log p_y`. A logit of -inf is a
    removed class: it costs nothing where the label has no mass, and +inf where it has.

    Args:
      gamma: Focusing exponent, at least 0; larger values discount easy examples more.
      alpha: A scalar, or one factor per class `[C]`, at least 0. Unlike `class_weights` it never
        enters the mean's denominator. None: 1.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits = jnp.array([[4.0, 0.0], [0.0, 0.0], [0.0, 4.0]])
      >>> print(jaxloss.softmax_focal(logits, jnp.array([0, 0, 0]), reduction="none").round(4))
      [0.     0.1733 3.8749]

    Reference:
      Lin, Goyal, Girshick, He and Dollar. Focal Loss for Dense Object Detection. ICCV 2017,
      equation 5. https://arxiv.org/abs/1708.02002
    """
    data = competing(logits, labels, options)
    return reduce(focal_of(data, gamma, alpha, label_smoothing), options, data)


def focal_of(
    data: Competing | Independent,
    gamma: Array | float,
    alpha: Array | None = None,
    label_smoothing: Array | None = None,
    pos_weight: Array | None = None,
) -> Cost:
    """Returns the focal loss of each position where classes compete, else of each element."""
    if alpha is not None and alpha.ndim > 0:
        alpha = per_class("alpha", alpha, data.logits, data.axis)
    if isinstance(data, Competing):
        gamma = jnp.asarray(gamma, data.logits.dtype)
        return softmax.cost(
            _softmax_focal, data, gamma, label_smoothing=label_smoothing, factors=alpha
        )
    if alpha is not None:
        alpha = checks.number("alpha", alpha, alpha.dtype, "[0, 1]")
    formula = bind(sigmoid_focal_of, probabilities=data.are_probabilities)
    factor = weight_of_positives(pos_weight, data)
    exponent = None if isinstance(gamma, float) else gamma  # a float is the 2 of `Exponent`
    return sigmoid.cost(formula, data, exponent, alpha, factor, label_smoothing)


def _softmax_focal(hit: Array, miss: Array, gamma: Array) -> Array:
    return numerics.product(jnp.exp(-gamma * numerics.finite(miss)), hit)


def sigmoid_focal_of(
    x: Array,
    y: Array,
    gamma: Array | None,
    alpha: Array | None,
    pos_weight: Array | None,
    smoothing: Array | None,
    *,
    probabilities: bool,
) -> Array:
    """The focal loss of an element; without `gamma` of 2, which needs no logarithm."""
    t = towards_half(y, smoothing)
    balance = 1 if alpha is None else t * alpha + (1 - t) * (1 - alpha)
    if gamma is None and not probabilities:
        costs = sigmoid.squared_focal(x, t, *hits_and_misses(t, pos_weight))
        return costs if alpha is None else numerics.product(balance, costs)
    if probabilities:
        missed = sigmoid.missing(x, 1 - x, t)
        focus = missed * missed if gamma is None else numerics.power(missed, gamma)
    else:
        focus = sigmoid.focusing(x, t, gamma)
    entropy = weighted_entropy(x, t, pos_weight, probabilities)
    return numerics.product(balance * focus, entropy)
