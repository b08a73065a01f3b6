"""Losses on competing classes that trust a label less than the cross-entropy does."""

from __future__ import annotations

from typing import Annotated, Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import log_softmax, numerics, softmax
from jaxloss._core.families import classification
from jaxloss._core.labels import Competing, per_position
from jaxloss._core.reading import competing
from jaxloss._core.reduction import reduce
from jaxloss._distribution._tempered import log_t
from jaxloss.options import (
    Classification,
    Fraction,
    Interval,
    NonNegative,
    Number,
    Numbers,
    Real,
    Share,
)

__all__ = ["generalized_cross_entropy", "poly1", "symmetric_cross_entropy"]

Array = jax.Array


@classification
def generalized_cross_entropy(
    logits: Numbers,
    labels: Numbers,
    *,
    q: Fraction = 0.7,
    label_smoothing: Share = 0.0,
    **options: Unpack[Classification],
) -> Array:
    """Computes the generalised cross-entropy of each position, which no wrong label can dominate.

    With `p = softmax(logits)` and targets `t = (1 - label_smoothing) y + label_smoothing / C`::

        GCE = (1 - P^q) / q        P = sum_c t_c p_c

    where `P` is `p_y` for ids. `q = 1` is half the absolute error of `p`, `q = 0`, the limit, the
    cross-entropy `-log P`. No sample costs more than `1 / q`, which a target on a removed class
    (a logit of -inf) does. Value and gradient come from the log-odds of `P`: they keep their
    relative accuracy on confident samples, where `1 - P^q` rounds to 0. Class weights multiply a
    position's whole loss by `sum_c w_c y_c`.

    Args:
      q: How far to move from the cross-entropy (0) to the absolute error (1), in `[0, 1]`.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.array([[4.0, 0.0], [0.0, 0.0], [0.0, 40.0]]), jnp.array([0, 0, 0])
      >>> loss = jaxloss.generalized_cross_entropy(logits, labels, reduction="none")
      >>> print(loss.round(4))
      [0.018  0.5492 1.4286]

    Reference:
      Zhang and Sabuncu. Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy
      Labels. NeurIPS 2018. https://arxiv.org/abs/1805.07836
    """
    data = competing(logits, labels, options)
    if data.has_ids and label_smoothing is None:
        cost = softmax.cost(_generalized, data, q)
    else:
        cost = per_position(_generalized_of_shares, data, label_smoothing, q)
    return reduce(cost, options, data)


@classification
def symmetric_cross_entropy(
    logits: Numbers,
    labels: Numbers,
    *,
    alpha: NonNegative = 0.1,
    beta: NonNegative = 1.0,
    log_zero: Annotated[Number, Interval("(-inf, 0]")] = -4.0,
    label_smoothing: Share = 0.0,
    **options: Unpack[Classification],
) -> Array:
    """Computes the cross-entropy of each position plus the reverse one, which is bounded.

    With `p = softmax(logits)`, targets `t = (1 - label_smoothing) y + label_smoothing / C` and
    class weights `w`::

        CE  = -sum_c w_c t_c log p_c
        RCE = -sum_c p_c max(log t_c, log_zero)
        SCE = alpha CE + beta RCE (sum_c w_c y_c)              without weights the last factor is 1

    For ids without smoothing `RCE` is `-log_zero (1 - p_y)`. The paper writes `log 0` as -4 with
    `(alpha, beta)` of `(0.1, 1)` for CIFAR-10 and `(6, 0.1)` for CIFAR-100; its code cuts the
    targets at 1e-4 instead, which is `log_zero=-9.21`.

    Args:
      alpha: Weight of the cross-entropy, at least 0.
      beta: Weight of the reverse cross-entropy, at least 0.
      log_zero: The least logarithm of a target, at most 0 and finite.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.array([[4.0, 0.0], [0.0, 0.0], [0.0, 40.0]]), jnp.array([0, 0, 0])
      >>> loss = jaxloss.symmetric_cross_entropy(logits, labels, reduction="none")
      >>> print(loss.round(4))
      [0.0738 2.0693 8.    ]

    Reference:
      Wang, Ma, Chen, Luo, Yi and Bailey. Symmetric Cross Entropy for Robust Learning with Noisy
      Labels. ICCV 2019. https://arxiv.org/abs/1908.06112
    """
    data = competing(logits, labels, options)
    if data.has_ids and label_smoothing is None:
        cost = softmax.cost(_symmetric, data, alpha, beta, log_zero)
    else:
        parameters = label_smoothing, alpha, beta, log_zero
        cost = per_position(_symmetric_of_shares, data, *parameters)
    return reduce(cost, options, data)


@classification
def poly1(
    logits: Numbers,
    labels: Numbers,
    *,
    epsilon: Real = 2.0,
    label_smoothing: Share = 0.0,
    **options: Unpack[Classification],
) -> Array:
    """Computes the cross-entropy of each position with another weight of its leading term.

    The cross-entropy is the sum of `(1 - p_y)^j / j`; Poly-1 adds `epsilon` to the first factor.
    With `p = softmax(logits)`, `t = (1 - label_smoothing) y + label_smoothing / C` and class
    weights `w`::

        PL1 = sum_c w_c t_c (-log p_c + epsilon (1 - p_c))

    Args:
      epsilon: What is added to the factor of `1 - p_y`. The paper takes 2 for ImageNet and -1 for
        detection; from -1 on the loss cannot be negative.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.array([[4.0, 0.0], [0.0, 0.0], [0.0, 4.0]]), jnp.array([0, 0, 0])
      >>> print(jaxloss.poly1(logits, labels, reduction="none").round(4))
      [0.0541 1.6931 5.9822]

    Reference:
      Leng, Tan, Liu, Cubuk, Shi, Cheng and Anguelov. PolyLoss: A Polynomial Expansion Perspective
      of Classification Loss Functions. ICLR 2022. https://arxiv.org/abs/2204.12511
    """
    data = competing(logits, labels, options)
    cost = softmax.cost(poly1_of, data, epsilon, label_smoothing=label_smoothing)
    return reduce(cost, options, data)


def _generalized(hit: Array, miss: Array, q: Array) -> Array:
    return -log_t(-hit, q)


def _generalized_of_shares(part: Competing, smoothing: Array | None, q: Array) -> Array:
    t = softmax.smoothed(part, smoothing)
    return part.weighted(-log_t(-_mixture_surprise(part, t), q))


def _symmetric(hit: Array, miss: Array, alpha: Array, beta: Array, log_zero: Array) -> Array:
    return numerics.product(alpha, hit) - beta * log_zero * jnp.exp(-miss)


def _symmetric_of_shares(
    part: Competing, smoothing: Array | None, alpha: Array, beta: Array, log_zero: Array
) -> Array:
    t, (hit, _) = softmax.smoothed(part, smoothing), softmax.log_pair(part)
    forward = numerics.product(numerics.times(t, part.class_weights), hit).sum(part.axis)
    reverse = (_surprise(t, log_zero) * jnp.exp(-hit)).sum(part.axis)
    return numerics.product(alpha, forward) + beta * part.weighted(reverse)


def poly1_of(hit: Array, miss: Array, epsilon: Array) -> Array:
    """The cost of a target, of `-log p` and `-log(1 - p)`."""
    return hit + epsilon * jnp.exp(-miss)


def _surprise(targets: Array, log_zero: Array) -> Array:
    """Returns `-max(log t, log_zero)`; below the cut the gradient by the target is 0."""
    inside = ~(targets <= jnp.exp(log_zero))  # NaN stays NaN
    surprise = jnp.where(inside, -jnp.log(jnp.where(inside, targets, 1)), -log_zero)
    return jnp.where(jnp.isnan(log_zero), jnp.nan, surprise)


def _mixture_surprise(part: Competing, shares: Array) -> Array:
    """Returns `-log sum_c t_c p_c`, by its complement `sum_c (1 - t_c) p_c` where that is small."""
    log_p, p, _ = log_softmax.log_probability(part.unmasked_logits(), part.axis)
    miss = ((1 - shares) * p).sum(part.axis)
    held = jnp.where(shares == 0, -jnp.inf, jax.lax.stop_gradient(log_p))
    top = held.max(part.axis, keepdims=True)
    top = jnp.where(top == -jnp.inf, 0, top)  # all of it on removed classes
    # A class without a share may lie far above: its derivative by the share must stay a number.
    level = jnp.minimum(log_p - top, 0.45 * jnp.log(jnp.finfo(top.dtype).max))
    hit = (shares * jnp.exp(level)).sum(part.axis)
    none = hit == 0
    near = ~none & (miss < 0.5)
    far = jnp.where(none, jnp.inf, -top.squeeze(part.axis) - jnp.log(jnp.where(none, 1, hit)))
    return jnp.where(near, -jnp.log1p(-jnp.where(near, miss, 0)), far)
